//! `ipengine-mpi`: an engine per MPI rank; also the gateway, its supervisor and `serve`, each a process of this program.
//!
//! ```text
//!  main thread      engine.rs: start-up list -> executor.rs: receive, run, report -> finish list
//!  control thread   control_thread.rs: link, timers, signals -> control.rs: what each message does
//!  between them     inbox.rs: one mutex, one channel
//!  gateway          supervisor.rs -> gateway_process.rs -> ipengine_gateway::serve
//! ```

mod banner;
mod cli;
mod control;
mod control_thread;
mod detach;
mod engine;
mod error;
mod executor;
mod fatal_errors;
mod forwarded;
mod gateway_process;
mod greeting;
mod inbox;
mod interfaces;
mod interpreter;
mod interpreter_choice;
mod interrupt;
mod last_words;
mod launcher;
mod link;
mod listen;
mod log;
mod native;
mod outbound;
mod output;
mod place;
mod record;
mod report_pipe;
mod requests;
mod serve;
mod supervisor;
mod values;
mod world;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::{Error, chain};

fn main() -> ExitCode {
    forwarded::take();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(Error::Refused { .. }) => ExitCode::FAILURE, // rank 0 says why
        Err(error) => {
            eprintln!("ipengine-mpi: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<u8, Error> {
    match &cli.command {
        None if cli.engine.check => engine::check(cli.engine.python.as_deref()).map(|()| 0),
        None => engine::run(&cli.engine),
        Some(Command::Serve(args)) => {
            log::start_on_stderr("warn");
            serve::run(args)
        }
        Some(Command::Detach) => detach::run().map(|()| 0),
        Some(Command::Supervise) => {
            name_process();
            log::start_on_stderr("info");
            supervisor::run().map(|()| 0)
        }
        Some(Command::Gateway) => {
            name_process();
            log::start_on_stderr("info");
            gateway_process::run().map(|()| 0)
        }
    }
}

/// Started as `/proc/self/exe`, these processes would show up in `top` as `exe`.
fn name_process() {
    if let Err(error) = nix::sys::prctl::set_name(c"ipengine-mpi") {
        tracing::debug!(%error, "cannot name this process");
    }
}
