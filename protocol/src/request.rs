//! What a client says to the gateway.

use serde::{Deserialize, Serialize};

use crate::{ClientId, EngineId, PythonVersion, Work};

/// Client to gateway, after the [`crate::handshake`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First and once per connection; answered by [`crate::Event::Welcome`].
    Open {
        /// The same over all connections of this client program.
        client: ClientId,
        /// Who is asking, for other users and the log: `ada@laptop`. Not a credential.
        user: String,
        /// `ipsteer 0.1.0 (Python 3.11.7)`.
        software: String,
        /// The client's interpreter; `None` for the Rust client.
        python: Option<PythonVersion>,
        /// Highest event number seen, 0 for none: the gateway sends later ones again.
        events_seen: u64,
    },
    /// An instruction. Answered by `Accepted`, then one `Finished` per target; by `Rejected` if it can never run.
    Submit(Submit),
    /// Ask for running or queued instructions to be interrupted. Control lane. Answered by [`crate::Answer::Interrupt`].
    Interrupt {
        /// Echoed in the answer.
        request: u64,
        /// What to interrupt.
        target: InterruptTarget,
    },
    /// Remove instructions of this client that no target has started; interrupt those that were. Control lane.
    Abort {
        /// Echoed in the answer.
        request: u64,
        /// Counters of this client's instructions.
        counters: Vec<u64>,
    },
    /// What is everybody doing? Control lane. Answered by [`crate::Answer::Status`].
    Status {
        /// Echoed in the answer.
        request: u64,
    },
    /// The end of an engine's output files. Control lane. Answered by [`crate::Answer::Logs`].
    Logs {
        /// Echoed in the answer.
        request: u64,
        /// Whose.
        engine: EngineId,
        /// At most so many bytes from the end of each file; cut to 1 MiB by the engine.
        tail: u64,
    },
    /// Stop the world. Answered by [`crate::Event::Ended`] to every client.
    Shutdown {
        /// For the post-mortem.
        reason: String,
    },
    /// All events up to this number have been taken over: the gateway forgets them. Control lane.
    Ack {
        /// Highest event number taken over; cumulative.
        events: u64,
    },
}

/// An instruction and its addressees. Its blobs are those that [`Work`] documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// 1, 2, 3, … per client.
    pub counter: u64,
    /// For whom.
    pub targets: Targets,
    /// What to do.
    pub work: Work,
    /// `None`: every target gets all blobs. Otherwise one entry per target: so many consecutive blobs are its own.
    pub each: Option<Vec<u32>>,
    /// The user's name for it.
    pub label: Option<String>,
}

/// The addressees of an instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Targets {
    /// All of them, as one unit. Their order is the rank order of `ipengine.comm`. No engine twice, never empty.
    All(Vec<EngineId>),
    /// One of them, chosen by the gateway: the one with the least to do.
    OneOf(Vec<EngineId>),
}

impl Targets {
    /// The engines named.
    #[must_use]
    pub fn engines(&self) -> &[EngineId] {
        match self {
            Self::All(engines) | Self::OneOf(engines) => engines,
        }
    }
}

/// What an interrupt is meant for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptTarget {
    /// These instructions of this client, wherever they are; never another instruction.
    Counters(Vec<u64>),
    /// Whatever these engines run when the request reaches them.
    Engines(Vec<EngineId>),
}
