//! The `ipsteer` command: one file per subcommand, each with its `Args` and a `run`. Only this module prints.

#![expect(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments of arguments are the help text, which shows slices"
)]

mod assignment;
mod completeness;
mod console;
mod errors;
mod exec;
mod failure;
mod interrupt;
mod list;
mod live;
mod logs;
mod pull;
mod push;
mod repl;
mod run;
mod signals;
mod start;
mod status;
mod stop;

pub use assignment::{Assignment, AssignmentError, Source};
pub use completeness::is_complete;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::{Client, Options};
use crate::discovery::Which;
use crate::error::{EXIT_CODES, Exit};
use console::Console;
use failure::Failure;

/// Steer a running world of MPI ranks.
///
/// Start one with `ipsteer start -n 4` or, in a batch job, with `mpiexec -n 4 ipengine-mpi`. Commands go to the newest
/// cluster that answers; name one with --cluster when several are alive.
#[derive(Debug, Parser)]
#[command(name = "ipsteer", version, about, long_about, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which cluster, and how to answer")]
struct Global {
    /// The cluster of this name.
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// The cluster of this connection file.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "cluster")]
    connect: Option<PathBuf>,
    /// This address instead of the connection file's, for a tunnel: wss://host:port/ or unix:/path.
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// Print JSON: one document, or one object per line where things arrive one after the other.
    #[arg(long, global = true)]
    json: bool,
    /// Give up waiting after so many seconds. What was submitted goes on running.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    Start(start::Args),
    Stop(stop::Args),
    List(list::Args),
    Status(status::Args),
    Exec(exec::Args),
    Run(run::Args),
    Push(push::Args),
    Pull(pull::Args),
    Interrupt(interrupt::Args),
    Logs(logs::Args),
    Repl(repl::Args),
}

/// For whom.
#[derive(Debug, Args)]
struct TargetArgs {
    /// Engines: all, 0,2, -1 (the last), 1:3 (as in Python), ::2.
    #[arg(
        short,
        long,
        value_name = "TARGETS",
        default_value = "all",
        allow_hyphen_values = true
    )]
    targets: String,
}

impl Global {
    fn connect(&self) -> Result<Client, Failure> {
        let which = Which {
            file: self.connect.clone(),
            cluster: self.cluster.clone(),
            url: self.url.clone(),
        };
        let mut options = Options {
            which,
            ..Options::default()
        };
        options.timeout = self
            .timeout
            .map_or(options.timeout, |limit| limit.min(options.timeout));
        Ok(Client::connect(options)?)
    }
}

/// Runs the command; returns the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that closed the pipe has seen enough of the help.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage as i32
            } else {
                Exit::Ok as i32
            };
        }
    };
    let mut console = Console::new(cli.global.json);
    let exit = match dispatch(&cli, &mut console) {
        Ok(exit) => exit,
        Err(failure) => {
            console.failure(&failure);
            failure.exit()
        }
    };
    exit as i32
}

fn dispatch(cli: &Cli, console: &mut Console) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Start(args) => start::run(args, global, console),
        Command::Stop(args) => stop::run(args, global, console),
        Command::List(args) => list::run(args, console),
        Command::Status(args) => status::run(args, global, console),
        Command::Exec(args) => exec::run(args, global, console),
        Command::Run(args) => run::run(args, global, console),
        Command::Push(args) => push::run(args, global, console),
        Command::Pull(args) => pull::run(args, global, console),
        Command::Interrupt(args) => interrupt::run(args, global, console),
        Command::Logs(args) => logs::run(args, global, console),
        Command::Repl(args) => repl::run(args, global, console),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
