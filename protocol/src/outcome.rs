//! How an instruction ended on one engine, and what is told on the way.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{RemoteException, ValueHead};

/// The one final result of an instruction on one engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It ended; the value's blobs are the message's.
    Done(ValueHead),
    /// It raised.
    Raised(Box<RemoteException>),
    /// It was interrupted; the exception is the `KeyboardInterrupt` with the user's own traceback.
    Interrupted(Box<RemoteException>),
    /// It was removed before any target had started it.
    Aborted {
        /// Why, and by whom.
        reason: String,
    },
    /// The engine is gone.
    Lost(LossCause),
}

impl Outcome {
    /// Whether it ended as asked.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// Why an engine is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossCause {
    /// The engine whose death this is about: in a world that dies as one, often another than the one lost.
    pub engine: u32,
    /// Its host.
    pub host: String,
    /// What happened to it.
    pub kind: LossKind,
    /// Instruction and source line it was in, last output, the launcher's own words: for people.
    pub detail: String,
}

/// What happened to a lost engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LossKind {
    /// A fatal signal.
    Signal(i32),
    /// The process ended by itself with this code: `os._exit`, C `exit`, Fortran `STOP`.
    Exit(i32),
    /// `MPI_Abort` with this code.
    Abort(i32),
    /// Its link closed and nothing more is known yet.
    LinkClosed,
    /// The world was stopped in good order.
    Stopped,
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine {} on {} ", self.engine, self.host)?;
        match self.kind {
            LossKind::Signal(number) => write!(f, "was killed by signal {number} ({})", signal_name(number))?,
            LossKind::Exit(code) => write!(f, "ended its process with exit code {code}")?,
            LossKind::Abort(code) => write!(f, "called MPI_Abort with code {code}")?,
            LossKind::LinkClosed => write!(
                f,
                "closed its link without a word (killed by SIGKILL or out of memory?)"
            )?,
            LossKind::Stopped => write!(f, "was stopped")?,
        }
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.detail)
        }
    }
}

/// The name of a signal by its Linux number; `signal N` where this table has none.
#[must_use]
pub fn signal_name(number: i32) -> &'static str {
    match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        31 => "SIGSYS",
        _ => "unnamed signal",
    }
}

/// When an instruction ran on an engine: nanoseconds since the Unix epoch by that engine's clock, 0 if it never did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Start on the main thread.
    pub started: u64,
    /// End on the main thread.
    pub completed: u64,
}

/// Which of an engine's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OutputName {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl OutputName {
    /// Jupyter's name of the stream.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What became of an interrupt on one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptState {
    /// The instruction ended with `KeyboardInterrupt`.
    Interrupted,
    /// The request was delivered and the instruction still runs: it is in code that has not returned to Python.
    Pending,
    /// The instruction had ended before the request came.
    Done,
    /// It had not started: it will raise as soon as its turn comes.
    Queued,
    /// Nothing was running.
    Idle,
    /// The engine is gone.
    Lost,
}
