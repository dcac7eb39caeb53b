//! Whether the targets of an instruction may enter MPI together: only when every one has asked for its communicator.
//! If one ends without asking, the others get a refusal instead of a hang.
//!
//! This is so for a communicator that exists, too: a target that fails before it comes to use it would leave the others in a
//! collective. All use the one they have if it is the same; otherwise (some have none, or replaced theirs) they make one.
//!
//! An instruction may replace its communicator, so there are rounds: a round ends when all targets have asked in it, and
//! what is asked afterwards belongs to the next. A refusal holds for the rest of the instruction.
//!
//! Every question and every withdrawal is answered, also one about an instruction that is not known here: an engine that
//! hears nothing waits for ever. For a round that has ended the answer is always the one that all got.

use ipengine_protocol::{CommAnswer, CommBirth, EngineId, Order, Outcome, ToEngine};

use super::Router;
use crate::{Lane, Outbox};

/// Who of an instruction's targets waits for the communicator.
#[derive(Debug, Default)]
pub(super) struct Rendezvous {
    /// How the rounds before the present one ended.
    past: Vec<CommAnswer>,
    asked: Vec<(EngineId, Option<CommBirth>)>,
    missing: Option<Missing>,
}

/// This one will never come.
#[derive(Debug)]
struct Missing {
    engine: EngineId,
    withdrew: bool,
}

impl Rendezvous {
    fn round(&self) -> u32 {
        u32::try_from(self.past.len()).unwrap_or(u32::MAX)
    }

    fn waits(&self, engine: EngineId) -> bool {
        self.asked.iter().any(|(asked, _)| *asked == engine)
    }

    fn waiting(&self) -> Vec<EngineId> {
        self.asked.iter().map(|(asked, _)| *asked).collect()
    }

    /// What everybody is told once all have asked.
    fn agreement(&self) -> CommAnswer {
        let mut births = self.asked.iter().map(|(_, have)| *have);
        let first = births.next().flatten();
        if first.is_some() && births.all(|have| have == first) {
            CommAnswer::Use
        } else {
            CommAnswer::Create
        }
    }

    fn refusal(&self) -> Option<CommAnswer> {
        let Missing { engine, withdrew } = self.missing.as_ref()?;
        let what = match (withdrew, self.round()) {
            (true, _) => "stopped waiting for ipengine.comm",
            (false, 0) => "ended this instruction without using ipengine.comm",
            (false, _) => "ended this instruction without asking for ipengine.comm again",
        };
        Some(CommAnswer::Refused {
            reason: format!("rank {engine} {what}"),
        })
    }

    fn miss(&mut self, engine: EngineId) -> Vec<EngineId> {
        let withdrew = self.waits(engine);
        self.asked.retain(|(asked, _)| *asked != engine);
        self.missing = Some(Missing { engine, withdrew });
        self.waiting()
    }
}

impl<O: Outbox> Router<O> {
    pub(super) fn on_comm_wanted(
        &mut self,
        order: Order,
        engine: EngineId,
        round: u32,
        have: Option<CommBirth>,
    ) {
        let found = self.instructions.get_mut(&order);
        let Some(instruction) = found.filter(|instruction| instruction.is_sent_to(engine)) else {
            return self.answer_comm(order, &[engine], round, &unknown());
        };
        let rendezvous = &mut instruction.rendezvous;
        if let Some(answer) = rendezvous.past.get(round as usize).cloned() {
            return self.answer_comm(order, &[engine], round, &answer);
        }
        if let Some(refusal) = rendezvous.refusal() {
            return self.answer_comm(order, &[engine], round, &refusal);
        }
        if !rendezvous.waits(engine) {
            rendezvous.asked.push((engine, have));
        }
        if rendezvous.asked.len() == instruction.targets.len() {
            let answer = rendezvous.agreement();
            let all = rendezvous.waiting();
            rendezvous.asked.clear();
            rendezvous.past.push(answer.clone());
            if answer == CommAnswer::Create {
                self.comms.insert(instruction.targets.clone(), None);
            }
            self.answer_comm(order, &all, round, &answer);
        }
    }

    pub(super) fn on_comm_withdrawn(&mut self, order: Order, engine: EngineId, round: u32) {
        let withdrawn = CommAnswer::Refused {
            reason: "withdrawn".to_owned(),
        };
        let found = self.instructions.get_mut(&order);
        let Some(instruction) = found.filter(|instruction| instruction.is_sent_to(engine)) else {
            return self.answer_comm(order, &[engine], round, &withdrawn);
        };
        let rendezvous = &mut instruction.rendezvous;
        if let Some(answer) = rendezvous.past.get(round as usize).cloned() {
            // It was answered before this came, and the others act on that answer.
            return self.answer_comm(order, &[engine], round, &answer);
        }
        let waiting = rendezvous.miss(engine);
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
        let rendezvous = &instruction.rendezvous;
        let (round, last) = (rendezvous.round(), rendezvous.past.last().cloned());
        let waits = rendezvous.waits(engine);
        if let Some(answer) = last {
            self.answer_comm(order, &[engine], round - 1, &answer);
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
        let Some((round, refusal)) = rendezvous.and_then(|r| Some((r.round(), r.refusal()?))) else {
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

fn unknown() -> CommAnswer {
    CommAnswer::Refused {
        reason: "the gateway does not know this instruction any more".to_owned(),
    }
}
