//! What can go wrong on the client's side, and the exit code that the shell command gives for it.
//!
//! An exception of user code on an engine is no error here: it is an outcome.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ipengine_protocol::handshake::HandshakeError;
use ipengine_protocol::{DecodeError, EngineId};
use thiserror::Error;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Why a call of the client failed.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no connection file at all.
    #[error("no cluster: there is no connection file in {}; start one with `ipsteer start -n 4`", .dir.display())]
    NoCluster {
        /// The directory searched.
        dir: PathBuf,
    },
    /// No connection file of that name.
    #[error("no cluster named '{name}': there is no {}{}", .path.display(), known(.others))]
    UnknownCluster {
        /// The name asked for.
        name: String,
        /// The file it would have.
        path: PathBuf,
        /// Names that exist.
        others: Vec<String>,
    },
    /// More than one cluster is alive and none was named.
    #[error("several clusters are alive, name one (--cluster NAME, cluster=\"NAME\"): {}", .0.join(", "))]
    Several(Vec<String>),
    /// The cluster of the file has ended.
    #[error("cluster '{cluster}' has ended: {reason}")]
    Ended {
        /// Its name.
        cluster: String,
        /// Why, as its post-mortem says.
        reason: String,
    },
    /// Others may read the file: the token in it is no secret.
    #[error(
        "connection file {} is open to others (mode {mode:04o}); whoever read it can run code as you: \
         run `chmod 600` on it if you trust this machine's users, else restart the cluster", .path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The connection file cannot be read.
    #[error("connection file {} cannot be read", .path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection file is not one.
    #[error("{} is not a connection file", .path.display())]
    ParseFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The connection file lacks what is needed to connect.
    #[error("connection file {} has no usable {field}", .path.display())]
    IncompleteFile {
        /// The file.
        path: PathBuf,
        /// What is missing.
        field: &'static str,
    },
    /// An address that is not `wss://host:port/` or `unix:/path`.
    #[error("'{0}' is no address: expected wss://host:port/ or unix:/path")]
    Address(String),
    /// No address of the cluster led to its gateway.
    #[error("cluster '{cluster}' does not answer: {}", join(.attempts))]
    Unreachable {
        /// Its name.
        cluster: String,
        /// Each address and what happened there.
        attempts: Vec<Attempt>,
    },
    /// No connection file leads to a cluster that answers.
    #[error("no cluster answers: {}; `ipsteer list` shows what ended and why", join(.0))]
    NoneAnswers(Vec<Error>),
    /// Connecting took longer than allowed.
    #[error("no connection within {seconds} s{}", known(.tried))]
    ConnectTimeout {
        /// The limit.
        seconds: f64,
        /// What was tried.
        tried: Vec<String>,
    },
    /// The thread that does the I/O cannot be started.
    #[error("the I/O thread cannot start")]
    Thread(#[source] io::Error),
    /// The session was closed by its own program.
    #[error("the session is closed")]
    Closed,
    /// This process is a fork of the one that connected.
    #[error("the session belongs to the process that connected (pid {owner}); connect again after a fork")]
    Forked {
        /// The process that connected.
        owner: u32,
    },
    /// The connection is lost for good.
    #[error("the connection to cluster '{cluster}' is lost: {reason}")]
    Lost {
        /// Its name.
        cluster: String,
        /// Why.
        reason: String,
    },
    /// Nobody to send to.
    #[error("no target engines given")]
    NoTargets,
    /// An engine that does not exist.
    #[error("there is no engine {engine}; the cluster has {size}: 0 to {}", .size.saturating_sub(1))]
    UnknownEngine {
        /// The one asked for.
        engine: i64,
        /// How many there are.
        size: u32,
    },
    /// An engine is named twice.
    #[error("engine {0} is named twice in one target set")]
    RepeatedEngine(EngineId),
    /// Text that is no target set.
    #[error("'{0}' is no target set: write all, 0,2, ::2, 1:3 or -1")]
    TargetSyntax(String),
    /// Per-target parts do not fit targets and parts.
    #[error("{blobs} parts cannot be shared out as {announced} over {targets} targets")]
    Parts {
        /// Parts given.
        blobs: usize,
        /// Parts that `each` announces.
        announced: u64,
        /// Number of targets.
        targets: usize,
    },
    /// No instruction with this number is known here.
    #[error("instruction {0} is unknown or was forgotten")]
    UnknownInstruction(u64),
    /// Results were to be dropped that are still awaited.
    #[error("instruction {0} has not finished")]
    Unfinished(u64),
    /// The gateway cannot carry a request out.
    #[error("the gateway refused: {0}")]
    Refused(String),
    /// No answer in time.
    #[error("no answer within {seconds} s")]
    Timeout {
        /// The limit.
        seconds: f64,
    },
}

/// One address that was tried.
#[derive(Debug, Error)]
#[error("{address}: {error}")]
pub struct Attempt {
    /// The address.
    pub address: String,
    /// What happened.
    #[source]
    pub error: AttemptError,
}

/// Why one address did not lead to the gateway.
#[derive(Debug, Error)]
pub enum AttemptError {
    /// The network or the file system says no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer")]
    Timeout,
    /// Somebody else's certificate.
    #[error(
        "another certificate than the connection file's: a stale file, or another program took the address"
    )]
    Fingerprint,
    /// What answers does not speak TLS as a gateway does.
    #[error("no TLS: {0}")]
    Tls(#[source] rustls::Error),
    /// What answers does not speak WebSocket.
    #[error("no WebSocket: {0}")]
    WebSocket(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// It closed the connection during the introduction.
    #[error("closed before it introduced itself")]
    Closed,
    /// It closed the connection and said why.
    #[error("closed with code {code}{}", told(.reason))]
    ClosedFor {
        /// The WebSocket's close code.
        code: u16,
        /// The text that came with it.
        reason: String,
    },
    /// It does not know this session, and no reconnection can change that.
    #[error("{}; connect again with a new Client", or_unknown(.reason))]
    UnknownSession {
        /// What the gateway said.
        reason: String,
    },
    /// Versions or proofs do not meet.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// It sent what is no message.
    #[error("{0}")]
    Decode(#[from] DecodeError),
}

/// Close code of a gateway that does not know our session: it was forgotten, or the gateway is a new one.
const UNKNOWN_SESSION: u16 = 4001;

impl AttemptError {
    /// What the other side meant by its close message.
    pub(crate) fn closed(frame: Option<CloseFrame>) -> Self {
        let Some(CloseFrame { code, reason }) = frame else {
            return Self::Closed;
        };
        let (code, reason) = (u16::from(code), reason.to_string());
        if code == UNKNOWN_SESSION {
            Self::UnknownSession { reason }
        } else {
            Self::ClosedFor { code, reason }
        }
    }

    /// Whether somebody else answers at that address, so that trying again is of no use.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        matches!(
            self,
            Self::Fingerprint | Self::Tls(_) | Self::WebSocket(_) | Self::Handshake(_) | Self::Decode(_)
        )
    }

    /// Whether the gateway is there and refuses this session for good.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::UnknownSession { .. })
    }

    /// Whether nobody listens there.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Io(error)
            if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound))
    }
}

fn join<T: fmt::Display>(errors: &[T]) -> String {
    errors.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

fn or_unknown(reason: &str) -> &str {
    if reason.is_empty() {
        "the gateway does not know this session"
    } else {
        reason
    }
}

fn told(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

fn known(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!(" ({})", names.join(", "))
    }
}

/// Exit codes of `ipsteer`, part of its interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Everything ended as asked.
    Ok = 0,
    /// User code raised on at least one engine.
    Remote = 1,
    /// The command line is wrong, or a local file cannot be read or written.
    Usage = 2,
    /// No cluster, or none that answers.
    NoCluster = 3,
    /// The cluster or an engine was lost on the way.
    Lost = 4,
    /// Not finished within `--timeout`.
    Timeout = 5,
    /// Ctrl-C.
    Interrupted = 130,
}

/// The table of exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 ok, 1 an engine raised an error, 2 wrong usage or local file, \
3 no cluster answers, 4 an engine or the cluster was lost, 5 --timeout passed, 130 interrupted by Ctrl-C.";

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error {
            Error::NoCluster { .. }
            | Error::UnknownCluster { .. }
            | Error::Several(_)
            | Error::Ended { .. }
            | Error::Permissions { .. }
            | Error::ReadFile { .. }
            | Error::ParseFile { .. }
            | Error::IncompleteFile { .. }
            | Error::Unreachable { .. }
            | Error::NoneAnswers(_)
            | Error::ConnectTimeout { .. } => Self::NoCluster,
            Error::Closed | Error::Forked { .. } | Error::Lost { .. } | Error::Thread(_) => Self::Lost,
            Error::Timeout { .. } => Self::Timeout,
            Error::Refused(_) => Self::Remote,
            Error::Address(_)
            | Error::NoTargets
            | Error::UnknownEngine { .. }
            | Error::RepeatedEngine(_)
            | Error::TargetSyntax(_)
            | Error::Parts { .. }
            | Error::UnknownInstruction(_)
            | Error::Unfinished(_) => Self::Usage,
        }
    }
}
