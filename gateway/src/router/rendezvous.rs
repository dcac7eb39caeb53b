//! Whether the targets of an instruction may enter MPI together: only when every one has asked for its communicator.
//! If one ends without asking, the others get a refusal instead of a hang.

use ipengine_protocol::{CommAnswer, EngineId, Order, ToEngine};

use super::Router;
use super::instruction::{Instruction, Stage};
use crate::{Lane, Outbox};

/// Who of an instruction's targets waits for the communicator.
#[derive(Debug, Default)]
pub(super) struct Rendezvous {
    asked: Vec<EngineId>,
    verdict: Option<Verdict>,
}

#[derive(Debug)]
enum Verdict {
    Create,
    /// This one will never come.
    Missing {
        engine: EngineId,
        withdrew: bool,
    },
}

impl Verdict {
    fn answer(&self) -> CommAnswer {
        match self {
            Self::Create => CommAnswer::Create,
            Self::Missing { engine, withdrew } => {
                let what = if *withdrew {
                    "stopped waiting for ipengine.comm"
                } else {
                    "ended this instruction without using ipengine.comm"
                };
                CommAnswer::Refused {
                    reason: format!("rank {engine} {what}"),
                }
            }
        }
    }
}

impl Instruction {
    fn comm_answer(&self) -> Option<CommAnswer> {
        self.rendezvous.verdict.as_ref().map(Verdict::answer)
    }

    fn wants_comm(&mut self, engine: EngineId) {
        if !self.rendezvous.asked.contains(&engine) {
            self.rendezvous.asked.push(engine);
        }
        if self.rendezvous.verdict.is_none() && self.rendezvous.asked.len() == self.targets.len() {
            self.rendezvous.verdict = Some(Verdict::Create);
        }
    }
}

impl<O: Outbox> Router<O> {
    pub(super) fn on_comm_wanted(&mut self, order: Order, engine: EngineId) {
        let Some(instruction) = self.instructions.get_mut(&order) else {
            return;
        };
        if instruction
            .position(engine)
            .is_none_or(|at| instruction.stage(at) != Stage::Sent)
        {
            return;
        }
        let decided = instruction.rendezvous.verdict.is_some();
        instruction.wants_comm(engine);
        let Some(answer) = instruction.comm_answer() else {
            return;
        };
        // A later asker is told what the others were; the last one to ask releases them all.
        let told = if decided {
            vec![engine]
        } else {
            instruction.rendezvous.asked.clone()
        };
        self.answer_comm(order, &told, &answer);
    }

    pub(super) fn on_comm_withdrawn(&mut self, order: Order, engine: EngineId) {
        let Some(instruction) = self.instructions.get_mut(&order) else {
            return;
        };
        let rendezvous = &mut instruction.rendezvous;
        if rendezvous.verdict.is_some() || !rendezvous.asked.contains(&engine) {
            // It was answered before this came.
            return;
        }
        rendezvous.asked.retain(|asked| *asked != engine);
        rendezvous.verdict = Some(Verdict::Missing {
            engine,
            withdrew: true,
        });
        let waiting = rendezvous.asked.clone();
        self.answer_comm(
            order,
            &[engine],
            &CommAnswer::Refused {
                reason: "withdrawn".to_owned(),
            },
        );
        self.refuse_comm(order, &waiting);
    }

    /// A target has its outcome: if it never asked, it never will.
    pub(super) fn on_target_ended(&mut self, order: Order, engine: EngineId) {
        let Some(instruction) = self.instructions.get_mut(&order) else {
            return;
        };
        if instruction.targets.len() == 1 || instruction.rendezvous.verdict.is_some() {
            return;
        }
        let rendezvous = &mut instruction.rendezvous;
        let withdrew = rendezvous.asked.contains(&engine);
        rendezvous.asked.retain(|asked| *asked != engine);
        rendezvous.verdict = Some(Verdict::Missing { engine, withdrew });
        let waiting = rendezvous.asked.clone();
        self.refuse_comm(order, &waiting);
    }

    /// After a reconnection: the answer may have been lost with the old link.
    pub(super) fn repeat_comm(&mut self, order: Order, engine: EngineId) {
        let Some(instruction) = self.instructions.get(&order) else {
            return;
        };
        if !instruction.rendezvous.asked.contains(&engine) {
            return;
        }
        if let Some(answer) = instruction.comm_answer() {
            self.answer_comm(order, &[engine], &answer);
        }
    }

    fn refuse_comm(&mut self, order: Order, engines: &[EngineId]) {
        let Some(answer) = self.instructions.get(&order).and_then(Instruction::comm_answer) else {
            return;
        };
        self.answer_comm(order, engines, &answer);
    }

    fn answer_comm(&mut self, order: Order, engines: &[EngineId], answer: &CommAnswer) {
        for engine in engines {
            self.tell_engine(
                *engine,
                &ToEngine::Comm {
                    order,
                    answer: answer.clone(),
                },
                Lane::Control,
            );
        }
    }
}
