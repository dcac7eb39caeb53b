//! Everything that can keep an engine from starting or end it, in words that say what to do.

use std::io;
use std::path::PathBuf;

use ipengine_protocol::handshake::HandshakeError;
use ipengine_protocol::{DecodeError, PythonVersion};
use thiserror::Error;

/// Why this process ends.
#[derive(Debug, Error)]
pub enum Error {
    /// The cluster's name cannot be a file name.
    #[error(
        "cluster name {name:?} is not usable: letters, digits and -_.[] only, at most 64, not starting with a dot"
    )]
    ClusterName {
        /// As given.
        name: String,
    },
    /// None of the directories for connection files can be written.
    #[error(
        "no directory for connection files and logs can be written: {}; set IPSTEER_DIR to one that can",
        list(tried)
    )]
    Directory {
        /// Each with its reason.
        tried: Vec<(PathBuf, io::Error)>,
    },
    /// The directory for Unix sockets.
    #[error("the socket directory {} cannot be used: {source}; set TMPDIR to a directory of your own", dir.display())]
    SocketDirectory {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or socket operation at start.
    #[error("cannot {action}")]
    Io {
        /// `bind 0.0.0.0:7000`, …
        action: String,
        /// Why.
        source: io::Error,
    },
    /// `--listen` is no address.
    #[error(
        "--listen {given}: not an address and port such as 0.0.0.0:7000, or a range such as 0.0.0.0:7000-7099"
    )]
    Listen {
        /// As given.
        given: String,
    },
    /// `--interface` names nothing.
    #[error("--interface {given}: no such interface with an address; there are: {there}")]
    Interface {
        /// As given.
        given: String,
        /// Names that exist.
        there: String,
    },
    /// A cluster of this name is alive.
    #[error(
        "cluster {cluster} is already running (process {pid} on {host}); choose another name with --cluster"
    )]
    AlreadyRunning {
        /// Its name.
        cluster: String,
        /// Its gateway.
        pid: u32,
        /// The gateway's host.
        host: String,
    },
    /// The gateway process did not come up.
    #[error("the gateway did not start: {reason} (its log: {})", log.display())]
    Gateway {
        /// What it said.
        reason: String,
        /// Where to read more.
        log: PathBuf,
    },
    /// The world that MPI delivered is not the launcher's.
    #[error(
        "the launcher ({launcher}) started {launched} processes, but {library} sees a world of {world}: mpiexec and the \
         MPI of this program do not belong together; use the mpiexec of {library} (`ipengine-mpi --check` tells which)"
    )]
    ForeignLauncher {
        /// The launcher.
        launcher: &'static str,
        /// What it announced.
        launched: u32,
        /// What MPI delivered.
        world: u32,
        /// The MPI library.
        library: String,
    },
    /// Some rank is another program, or another version of this one.
    #[error("{}: every process of the job must be this ipengine-mpi", detail)]
    NotAnEngine {
        /// Which ranks, and what is known of them.
        detail: String,
    },
    /// Rank 0 refused the start; it says why itself.
    #[error("rank 0 refused the start: {detail}")]
    Refused {
        /// Its words.
        detail: String,
    },
    /// `MPI_Init` did not come back.
    #[error("MPI could not be initialised a second time in this process")]
    MpiInit,
    /// An MPI call of the runtime failed.
    #[error("{call} failed with MPI error class {class}")]
    Mpi {
        /// The call.
        call: &'static str,
        /// The error class.
        class: i32,
    },
    /// This process made as many communicators as it may.
    #[error(
        "this engine has created {limit} communicators for ipengine.comm, the most it may: use fewer different target sets"
    )]
    TooManyCommunicators {
        /// The bound.
        limit: usize,
    },
    /// No Python was found or it does not run.
    #[error("no usable Python: {reason}; give one with --python PATH")]
    NoPython {
        /// What was tried.
        reason: String,
    },
    /// The Python found is of another minor version.
    #[error(
        "this ipengine-mpi is built for Python {built} and {} is Python {found}: give a Python {}.{} with --python, or \
         build ipengine-mpi for {found}", path.display(), built.0, built.1
    )]
    PythonMinor {
        /// The linked libpython.
        built: PythonVersion,
        /// The interpreter's.
        found: PythonVersion,
        /// The interpreter.
        path: PathBuf,
    },
    /// CPython did not start.
    #[error("CPython did not start as {}: {reason}", path.display())]
    PythonStart {
        /// The interpreter.
        path: PathBuf,
        /// CPython's words.
        reason: String,
    },
    /// What rank 0 sent at start cannot be read.
    #[error("rank 0 sent an unreadable greeting")]
    Greeting(#[source] serde_json::Error),
    /// The gateway cannot be reached over any address.
    #[error("no control link to the gateway: {reason}")]
    Link {
        /// Each address with its reason.
        reason: String,
    },
    /// The handshake failed.
    #[error("handshake with the gateway")]
    Handshake(#[from] HandshakeError),
    /// The gateway sent what is no message.
    #[error("unreadable message on the control link")]
    Decode(#[from] DecodeError),
    /// The gateway crate's own.
    #[error("gateway")]
    Serve(#[from] ipengine_gateway::Error),
}

impl Error {
    /// An [`Error::Io`] with its action.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

fn list(tried: &[(PathBuf, io::Error)]) -> String {
    tried
        .iter()
        .map(|(dir, error)| format!("{} ({error})", dir.display()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
