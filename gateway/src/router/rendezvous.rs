//! Whether the targets of an instruction may enter MPI together: only when every one has asked for its communicator.
//! If one ends without asking, the others get a refusal instead of a hang.
//!
//! An instruction may replace its communicator, so there are rounds: a round ends when all targets have asked in it, and
//! what is asked afterwards belongs to the next. A refusal holds for the rest of the instruction.

use ipengine_protocol::{CommAnswer, EngineId, Order, Outcome, ToEngine};

use super::Router;
use super::instruction::Stage;
use crate::{Lane, Outbox};

/// Who of an instruction's targets waits for the communicator.
#[derive(Debug, Default)]
pub(super) struct Rendezvous {
    /// The present round. All before it ended with `Create`.
    round: u32,
    asked: Vec<EngineId>,
    missing: Option<Missing>,
}

/// This one will never come.
#[derive(Debug)]
struct Missing {
    engine: EngineId,
    withdrew: bool,
}

impl Rendezvous {
    fn refusal(&self) -> Option<CommAnswer> {
        let Missing { engine, withdrew } = self.missing.as_ref()?;
        let what = match (withdrew, self.round) {
            (true, _) => "stopped waiting for ipengine.comm",
            (false, 0) => "ended this instruction without using ipengine.comm",
            (false, _) => "ended this instruction without asking for ipengine.comm again",
        };
        Some(CommAnswer::Refused {
            reason: format!("rank {engine} {what}"),
        })
    }

    fn miss(&mut self, engine: EngineId) -> Vec<EngineId> {
        let withdrew = self.asked.contains(&engine);
        self.asked.retain(|asked| *asked != engine);
        self.missing = Some(Missing { engine, withdrew });
        self.asked.clone()
    }
}

impl<O: Outbox> Router<O> {
    pub(super) fn on_comm_wanted(&mut self, order: Order, engine: EngineId, round: u32) {
        let Some(instruction) = self.instructions.get_mut(&order) else {
            return;
        };
        let position = instruction.position(engine);
        if position.is_none_or(|at| instruction.stage(at) != Stage::Sent) {
            return;
        }
        let rendezvous = &mut instruction.rendezvous;
        if round < rendezvous.round {
            return self.answer_comm(order, &[engine], round, &CommAnswer::Create);
        }
        if let Some(refusal) = rendezvous.refusal() {
            return self.answer_comm(order, &[engine], round, &refusal);
        }
        if !rendezvous.asked.contains(&engine) {
            rendezvous.asked.push(engine);
        }
        if rendezvous.asked.len() == instruction.targets.len() {
            rendezvous.round += 1;
            let all = std::mem::take(&mut rendezvous.asked);
            self.comms.insert(instruction.targets.clone(), None);
            self.answer_comm(order, &all, round, &CommAnswer::Create);
        }
    }

    pub(super) fn on_comm_withdrawn(&mut self, order: Order, engine: EngineId, round: u32) {
        let Some(instruction) = self.instructions.get_mut(&order) else {
            return;
        };
        let rendezvous = &mut instruction.rendezvous;
        if round < rendezvous.round || !rendezvous.asked.contains(&engine) {
            // It was answered before this came.
            return;
        }
        let waiting = rendezvous.miss(engine);
        let withdrawn = CommAnswer::Refused {
            reason: "withdrawn".to_owned(),
        };
        self.answer_comm(order, &[engine], round, &withdrawn);
        self.refuse_comm(order, &waiting);
    }

    /// A target has its outcome: if it has not asked, it never will.
    pub(super) fn on_target_ended(&mut self, order: Order, engine: EngineId, outcome: &Outcome) {
        let Some(instruction) = self.instructions.get_mut(&order) else {
            return;
        };
        let failed = matches!(outcome, Outcome::Raised(_) | Outcome::Interrupted(_));
        if failed && let Some(suspect) = self.comms.get_mut(&instruction.targets) {
            *suspect = Some(order);
        }
        if instruction.targets.len() == 1 || instruction.rendezvous.missing.is_some() {
            return;
        }
        let waiting = instruction.rendezvous.miss(engine);
        self.refuse_comm(order, &waiting);
    }

    /// The instruction after which the communicator of these targets is not to be trusted.
    pub(super) fn comm_suspect(&self, targets: &[EngineId]) -> Option<Order> {
        self.comms.get(targets).copied().flatten()
    }

    /// After a reconnection: the answer may have been lost with the old link. An engine that has it ignores it.
    pub(super) fn repeat_comm(&mut self, order: Order, engine: EngineId) {
        let Some(instruction) = self.instructions.get(&order) else {
            return;
        };
        let Rendezvous { round, asked, .. } = &instruction.rendezvous;
        let (round, waits) = (*round, asked.contains(&engine));
        if round > 0 {
            self.answer_comm(order, &[engine], round - 1, &CommAnswer::Create);
        }
        if waits {
            self.refuse_comm(order, &[engine]);
        }
    }

    /// Tells those who wait in the present round, if it is refused.
    fn refuse_comm(&mut self, order: Order, engines: &[EngineId]) {
        let rendezvous = self
            .instructions
            .get(&order)
            .map(|instruction| &instruction.rendezvous);
        let Some((round, refusal)) = rendezvous.and_then(|r| Some((r.round, r.refusal()?))) else {
            return;
        };
        self.answer_comm(order, engines, round, &refusal);
    }

    fn answer_comm(&mut self, order: Order, engines: &[EngineId], round: u32, answer: &CommAnswer) {
        for engine in engines {
            let message = ToEngine::Comm {
                order,
                round,
                answer: answer.clone(),
            };
            self.tell_engine(*engine, &message, Lane::Control);
        }
    }
}
