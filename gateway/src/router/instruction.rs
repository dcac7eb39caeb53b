//! An accepted instruction that has its place in the total order, until it has ended on all its targets.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use ipengine_protocol::{EngineId, InstructionId, Message, Order, ToEngine, Work};

use super::rendezvous::Rendezvous;

/// Where an instruction is on one target. Only ever goes downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In the gateway's queue.
    Queued,
    /// Sent to the engine.
    Sent,
    /// It has its outcome.
    Ended,
}

#[derive(Debug)]
pub(super) struct Instruction {
    pub(super) id: InstructionId,
    /// What it counts against the client's credit.
    pub(super) bytes: u64,
    pub(super) targets: Vec<EngineId>,
    stages: Vec<Stage>,
    pub(super) unfinished: usize,
    pub(super) work: Work,
    /// `ToEngine::Run`, encoded once; with `shares` each target gets only its range of the blobs.
    message: Message,
    shares: Option<Vec<Range<usize>>>,
    /// The engines of which one was to run it, if it came from the pool.
    pub(super) candidates: Option<Rc<[EngineId]>>,
    /// Targets that get it only now are interrupted at once, as those were that had it.
    pub(super) interrupted: bool,
    pub(super) rendezvous: Rendezvous,
}

impl Instruction {
    pub(super) fn new(
        order: Order,
        id: InstructionId,
        targets: Vec<EngineId>,
        work: Work,
        blobs: Vec<Bytes>,
        bytes: u64,
        comm_suspect: Option<Order>,
    ) -> Self {
        let run = ToEngine::Run {
            order,
            id,
            targets,
            work,
            comm_suspect,
        };
        let message = Message::new(&run, blobs);
        let ToEngine::Run { targets, work, .. } = run else {
            unreachable!("built three lines above")
        };
        Self {
            id,
            bytes,
            stages: vec![Stage::Queued; targets.len()],
            unfinished: targets.len(),
            rendezvous: Rendezvous::default(),
            targets,
            work,
            message,
            shares: None,
            candidates: None,
            interrupted: false,
        }
    }

    /// Gives each target so many consecutive blobs.
    pub(super) fn share(&mut self, counts: &[u32]) {
        let mut end = 0;
        let ranges = counts.iter().map(|count| {
            let begin = end;
            end += *count as usize;
            begin..end
        });
        self.shares = Some(ranges.collect());
    }

    pub(super) fn position(&self, engine: EngineId) -> Option<usize> {
        // Most target sets are all engines in rank order.
        if self.targets.get(engine.index()) == Some(&engine) {
            return Some(engine.index());
        }
        self.targets.iter().position(|target| *target == engine)
    }

    pub(super) fn stage(&self, position: usize) -> Stage {
        self.stages[position]
    }

    /// Whether the engine has it and it has not ended there.
    pub(super) fn is_sent_to(&self, engine: EngineId) -> bool {
        self.position(engine)
            .is_some_and(|at| self.stages[at] == Stage::Sent)
    }

    pub(super) fn set_stage(&mut self, position: usize, stage: Stage) -> Stage {
        std::mem::replace(&mut self.stages[position], stage)
    }

    /// Whether some target has been sent it.
    pub(super) fn has_left(&self) -> bool {
        self.stages.iter().any(|stage| *stage != Stage::Queued)
    }

    pub(super) fn targets_in(&self, stage: Stage) -> Vec<EngineId> {
        let pairs = self.targets.iter().zip(&self.stages);
        pairs
            .filter(|(_, found)| **found == stage)
            .map(|(target, _)| *target)
            .collect()
    }

    /// The blobs of all targets.
    pub(super) fn into_blobs(self) -> Vec<Bytes> {
        self.message.blobs
    }

    /// The message for one target. Shares all memory.
    pub(super) fn message_for(&self, position: usize) -> Message {
        match &self.shares {
            None => self.message.clone(),
            Some(shares) => Message {
                head: self.message.head.clone(),
                blobs: self.message.blobs[shares[position].clone()].to_vec(),
            },
        }
    }
}
