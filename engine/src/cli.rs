//! The command line of `ipengine-mpi`. Parsing only.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// One engine per MPI rank, steered from a laptop.
///
/// Run it under the MPI's own launcher: `mpiexec -n 4 ipengine-mpi`. Rank 0 starts the gateway; the connection file and
/// the lines to paste on the laptop are printed once all engines are there.
#[derive(Debug, Parser)]
#[command(version, about, long_about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What else than being an engine.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to be an engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Other things the same program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Own the gateway and run the launcher as a child: `ipengine-mpi serve -- mpiexec -n 4 ipengine-mpi`.
    ///
    /// Reads the launcher's messages and returns its exit code. Job scripts, `ipsteer start` and `Cluster` use this.
    Serve(ServeArgs),
    /// The process that detaches itself from the launcher (internal).
    #[command(name = "internal-detach", hide = true)]
    Detach,
    /// The process that holds the gateway's sockets and secrets (internal).
    #[command(name = "internal-supervise", hide = true)]
    Supervise,
    /// The gateway process (internal).
    #[command(name = "internal-gateway", hide = true)]
    Gateway,
}

/// Options of an engine.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// Where and under which name.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Thread level to ask MPI for. MPI may grant less; the banner says so.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = ThreadLevel::Multiple)]
    pub thread_level: ThreadLevel,
    /// The Python to run as [default: the one beside this program, VIRTUAL_ENV, CONDA_PREFIX, then python3 on PATH].
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Seconds after which a start that does not complete ends with the reason.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub start_timeout: u64,
    /// Print which MPI, Python and libraries this program has loaded, and end.
    #[arg(long)]
    pub check: bool,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where and under which name.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The launcher's command line.
    #[arg(last = true, required = true, value_name = "LAUNCHER")]
    pub launcher: Vec<String>,
}

/// Options of whoever starts the gateway.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Name of the cluster [default: slurm-<id>, pbs-<id> or local-<host>-<pid>].
    #[arg(long, value_name = "NAME", env = "IPENGINE_CLUSTER")]
    pub cluster: Option<String>,
    /// Address and port for clients and engines of other hosts, or LOW-HIGH for the first free port of a range
    /// [default: all interfaces, any port].
    #[arg(long, value_name = "ADDR:PORT[-PORT]")]
    pub listen: Option<String>,
    /// Tell others only this interface's addresses.
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Seconds that results stay available after the world has ended.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub linger: u64,
}

/// MPI's thread levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ThreadLevel {
    /// Only one thread exists.
    Single,
    /// Only the main thread calls MPI.
    Funneled,
    /// One thread at a time calls MPI.
    Serialized,
    /// Any thread calls MPI.
    Multiple,
}
