//! What the gateway says to a client.

use serde::{Deserialize, Serialize};

use crate::{EngineId, InstructionId, InterruptState, LossCause, Outcome, OutputName, PythonVersion, Timing};

/// An event and its number. Numbered events are kept until acked and sent again to a client that comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventEnvelope {
    /// 1, 2, 3, … per client; 0 for what is not kept: `Welcome`, `Credit`, answers.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// Gateway to client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Answer to `Open`.
    Welcome(Box<Welcome>),
    /// All instructions of this client up to this counter are accepted: it may forget their requests.
    Accepted {
        /// Cumulative.
        up_to: u64,
    },
    /// This instruction can never run (it names an engine that does not exist, …) and has no outcomes.
    Rejected {
        /// The instruction.
        counter: u64,
        /// Why, and what to do.
        reason: String,
    },
    /// More may be sent.
    Credit(Credit),
    /// An engine began it.
    Started {
        /// The instruction.
        counter: u64,
        /// Who began.
        engine: EngineId,
    },
    /// Output, before the outcome that it precedes. One blob: the bytes (not necessarily whole UTF-8 characters).
    Stream {
        /// The instruction; `None` for output between instructions.
        id: Option<InstructionId>,
        /// Whose.
        engine: EngineId,
        /// Which stream.
        name: OutputName,
        /// Bytes left out before this piece because the output was over its bound.
        omitted: u64,
    },
    /// A Jupyter message. One blob: the JSON of its content.
    Display {
        /// The instruction.
        id: InstructionId,
        /// Whose.
        engine: EngineId,
        /// `display_data`, `execute_result`, …
        msg_type: String,
    },
    /// The outcome on one engine. Blobs: the value's.
    Finished {
        /// The instruction.
        counter: u64,
        /// Whose outcome.
        engine: EngineId,
        /// How it ended.
        outcome: Outcome,
        /// When it ran.
        timing: Timing,
    },
    /// An engine is gone; outcomes of what it had follow or preceded.
    EngineLost {
        /// Which.
        engine: EngineId,
        /// Why.
        cause: LossCause,
    },
    /// The world has ended; nothing will run any more. Results stay available while the gateway lingers.
    Ended {
        /// Why, in a sentence.
        reason: String,
    },
    /// Answer to a request that carries a number.
    Answer {
        /// The number.
        request: u64,
        /// The answer.
        answer: Answer,
    },
}

/// Answer to `Open`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Name of the cluster.
    pub cluster: String,
    /// `ipengine-mpi 0.1.0`.
    pub software: String,
    /// One entry per engine, in rank order.
    pub engines: Vec<EngineInfo>,
    /// Highest counter of this client that the gateway has accepted: later ones must be sent (again).
    pub accepted: u64,
    /// What may be sent before the next `Credit`.
    pub credit: Credit,
    /// The gateway sends at most so many bytes of unacked events; clients ack well before.
    pub event_window: u64,
    /// Set when the world has ended.
    pub ended: Option<String>,
}

/// What a client may have sent in total since its first connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// Instructions, cumulative: counters up to this one may be sent.
    pub instructions: u64,
    /// Bytes of submits (head and blobs), cumulative. One submit may overdraw it if nothing else of the client waits.
    pub bytes: u64,
}

/// Lasting facts about an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// MPI rank.
    pub id: EngineId,
    /// Host name.
    pub host: String,
    /// Process id on that host.
    pub pid: u32,
    /// Its interpreter.
    pub python: PythonVersion,
    /// The MPI library's own version line, shortened.
    pub mpi: String,
    /// Set when it is gone.
    pub lost: Option<LossCause>,
}

/// Answers to numbered requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Interrupt` and `Abort`: one entry per engine concerned.
    Interrupt(Vec<InterruptReport>),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Logs`. Two blobs: the ends of the stdout and stderr files.
    Logs {
        /// Path of the stdout file on the engine's host.
        stdout: String,
        /// Path of the stderr file on the engine's host.
        stderr: String,
    },
    /// The request cannot be carried out.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// What became of an interrupt on one engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptReport {
    /// Which engine.
    pub engine: EngineId,
    /// What became of it.
    pub state: InterruptState,
    /// The instruction hit, and what it is stuck in, for people.
    pub detail: String,
}

/// The state of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the cluster.
    pub cluster: String,
    /// Nanoseconds since the Unix epoch by the gateway's clock.
    pub now: u64,
    /// One entry per engine, in rank order.
    pub engines: Vec<EngineStatus>,
    /// Connected clients: user, software.
    pub clients: Vec<(String, String)>,
    /// Set when the world has ended.
    pub ended: Option<String>,
}

/// What one engine is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// MPI rank.
    pub id: EngineId,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// `idle`, `busy` or `lost`.
    pub state: String,
    /// Nanoseconds since the Unix epoch at which that state began, by the gateway's clock.
    pub since: u64,
    /// The running instruction: id, summary and its client's user.
    pub instruction: Option<(InstructionId, String, String)>,
    /// Instructions waiting for this engine, in the gateway and in the engine.
    pub queued: u64,
    /// Instructions ended on this engine.
    pub completed: u64,
    /// Resident memory in bytes, 0 if the engine did not answer in time.
    pub rss: u64,
    /// CPU time used in nanoseconds, 0 if the engine did not answer in time.
    pub cpu: u64,
    /// Why it is lost, or that it did not answer.
    pub detail: Option<String>,
}
