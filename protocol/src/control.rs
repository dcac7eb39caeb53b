//! What gateway and engine say to each other over a control link.

use serde::{Deserialize, Serialize};

use crate::event::InterruptReport;
use crate::{EngineId, InstructionId, LossCause, Order, Outcome, OutputName, PythonVersion, Timing, Work};

/// Gateway to engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToEngine {
    /// Answer to `Hello`.
    Welcome {
        /// The gateway has all of the engine's messages up to this number.
        received: u64,
    },
    /// Run this after everything sent before. The same bytes go to every target; blobs differ only with `each`.
    Run {
        /// Place in the total order. An engine drops an order that is not above all it has had.
        order: Order,
        /// The instruction.
        id: InstructionId,
        /// All targets: rank i of `ipengine.comm` is the i-th.
        targets: Vec<EngineId>,
        /// What to do.
        work: Work,
        /// The latest instruction of the same targets that failed on one of them since their communicator was made:
        /// messages of it may still be under way there.
        comm_suspect: Option<Order>,
    },
    /// Interrupt this instruction, or, without one, whatever runs now. Control lane: overtakes `Run`s.
    Interrupt {
        /// Echoed in [`FromEngine::Interrupted`].
        request: u64,
        /// The instruction meant.
        order: Option<Order>,
    },
    /// Answer to [`FromEngine::CommWanted`]. Control lane.
    Comm {
        /// The instruction that asked.
        order: Order,
        /// The round that is answered.
        round: u32,
        /// Whether every target is there.
        answer: CommAnswer,
    },
    /// All messages of the engine up to this number have been taken over. Control lane.
    Ack {
        /// Cumulative.
        received: u64,
    },
    /// These instructions ended on all their targets. Control lane. An engine that keeps instructions for a restarted
    /// gateway may forget them; today's keeps only outcomes, and those until their [`Self::Ack`].
    Stable {
        /// All orders up to this one that the engine had.
        up_to: Order,
    },
    /// Give back those of these instructions that have not begun: another engine can run them sooner. Work lane, behind
    /// the `Run`s meant. Answered by [`FromEngine::Recalled`].
    Recall {
        /// Instructions for one of several engines.
        orders: Vec<Order>,
    },
    /// What are you doing? Control lane.
    Status {
        /// Echoed.
        request: u64,
    },
    /// Send the end of your output files. Control lane.
    Logs {
        /// Echoed.
        request: u64,
        /// At most so many bytes of each.
        tail: u64,
    },
    /// End the process in good order: interrupt, `MPI_Finalize` within the deadline. Control lane.
    Stop {
        /// For the log.
        reason: String,
    },
}

/// When a communicator was made: instruction and round in it. The same on all its ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommBirth {
    /// The instruction.
    pub order: Order,
    /// The round.
    pub round: u32,
}

/// Whether the ranks may enter MPI to create a communicator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommAnswer {
    /// Every target has asked, and all have the same one: use it.
    Use,
    /// Every target has asked, and some have none or another: create it now.
    Create,
    /// Some target will never come.
    Refused {
        /// Which, and why.
        reason: String,
    },
}

/// A message of an engine and its number; kept until acked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FromEngineEnvelope {
    /// 1, 2, 3, …; 0 for what is not kept: `Hello` and answers.
    pub number: u64,
    /// What happened.
    pub message: FromEngine,
}

/// Engine to gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromEngine {
    /// First on every connection.
    Hello(Box<EngineFacts>),
    /// The main thread began it.
    Started {
        /// The instruction.
        order: Order,
    },
    /// Output. One blob: the bytes.
    Stream {
        /// The instruction during which it was written; `None` before the first.
        order: Option<Order>,
        /// Which stream.
        name: OutputName,
        /// Bytes left out before this piece because the output was over its bound.
        omitted: u64,
    },
    /// A Jupyter message. One blob: the JSON of its content.
    Display {
        /// The instruction.
        order: Order,
        /// `display_data`, `execute_result`, …
        msg_type: String,
    },
    /// The instruction has come to its first use of `ipengine.comm` (or the first after a reset) and waits for
    /// [`ToEngine::Comm`], also when the engine has one: another target may fail before it comes here.
    CommWanted {
        /// The instruction.
        order: Order,
        /// 0 for the first time in this instruction, one more after each communicator that it replaced.
        round: u32,
        /// The birth of the one that this engine has for these targets.
        have: Option<CommBirth>,
    },
    /// The instruction was interrupted while it waited; answered by [`ToEngine::Comm`] all the same, since the ranks
    /// may already have been sent in.
    CommWithdrawn {
        /// The instruction.
        order: Order,
        /// The round it waited for.
        round: u32,
    },
    /// The outcome. Blobs: the value's.
    Finished {
        /// The instruction.
        order: Order,
        /// How it ended.
        outcome: Outcome,
        /// When it ran.
        timing: Timing,
    },
    /// These instructions were recalled before they began and will have no outcome here.
    Recalled {
        /// In the order of the total order.
        orders: Vec<Order>,
    },
    /// Answer to `Interrupt`.
    Interrupted {
        /// The request's number.
        request: u64,
        /// What became of it.
        report: InterruptReport,
    },
    /// Answer to `Status`.
    Status {
        /// The request's number.
        request: u64,
        /// What it is doing.
        state: EngineState,
    },
    /// Answer to `Logs`. Two blobs: the ends of the stdout and stderr files.
    Logs {
        /// The request's number.
        request: u64,
        /// Path of the stdout file.
        stdout: String,
        /// Path of the stderr file.
        stderr: String,
    },
    /// INT or TERM came from outside: the gateway stops the world.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// Last words: the process is about to end.
    Dying {
        /// Why; `engine` is the sender.
        cause: LossCause,
        /// The instruction that was running.
        order: Option<Order>,
    },
    /// `MPI_Finalize` is next: the link closes in good order.
    Leaving,
}

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// Its MPI rank.
    pub id: EngineId,
    /// Size of the world.
    pub size: u32,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Its interpreter.
    pub python: PythonVersion,
    /// The MPI library's version line, shortened.
    pub mpi: String,
    /// Highest order it has received, 0 for none: later ones must be sent (again).
    pub orders_seen: Order,
}

/// What an engine is doing, as its control thread sees it without the GIL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineState {
    /// The running instruction.
    pub running: Option<Order>,
    /// Instructions received and not begun.
    pub waiting: u64,
    /// Resident memory in bytes.
    pub rss: u64,
    /// CPU time of the process in nanoseconds.
    pub cpu: u64,
}
