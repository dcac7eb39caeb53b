//! Why a subcommand failed, and its exit code.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::assignment::AssignmentError;
use crate::{Error, Exit};

/// What ends a subcommand.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The client library's reason.
    #[error(transparent)]
    Client(#[from] Error),
    /// Our own output cannot be written; a closed pipe is no failure.
    #[error("output cannot be written")]
    Output(#[from] io::Error),
    /// A file of the user.
    #[error("{} cannot be {what}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Standard input.
    #[error("standard input cannot be read")]
    Input(#[source] io::Error),
    /// An argument of `push`.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// A pulled value does not fit the file asked for.
    #[error("{}: {reason}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A file holds one value.
    #[error("-o saves one value: give one name, or pull the names one by one")]
    OneName,
    /// The engine program is nowhere.
    #[error(
        "ipengine-mpi is neither beside this program nor on PATH; give --ipengine PATH or set IPENGINE_MPI"
    )]
    NoEngine,
    /// A program cannot be started.
    #[error("{} cannot be started", .program.display())]
    Launch {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cluster of that name is alive.
    #[error("cluster '{0}' is alive already; stop it or choose another --cluster name")]
    Alive(String),
    /// The cluster ended before it was ready.
    #[error("the cluster did not start ({status}); the end of {}:\n{tail}", .log.display())]
    Start {
        /// How the program ended, or that it did not in time.
        status: String,
        /// The log.
        log: PathBuf,
        /// Its end.
        tail: String,
    },
    /// Ctrl-C before the cluster was ready.
    #[error("the start was stopped")]
    StartStopped,
    /// The line editor.
    #[error("the terminal cannot be used")]
    Terminal(#[source] rustyline::error::ReadlineError),
}

impl Failure {
    /// The exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.into(),
            Self::Output(_) if self.is_quiet() => Exit::Ok,
            Self::Start { .. } => Exit::NoCluster,
            Self::StartStopped => Exit::Interrupted,
            Self::Output(_)
            | Self::File { .. }
            | Self::Input(_)
            | Self::Assignment(_)
            | Self::Format { .. }
            | Self::OneName
            | Self::NoEngine
            | Self::Launch { .. }
            | Self::Alive(_)
            | Self::Terminal(_) => Exit::Usage,
        }
    }

    /// Whether nothing is to be said: the reader of our output has seen enough.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
