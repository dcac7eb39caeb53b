//! New instructions: checked, numbered, entered into all target queues at once.

use std::collections::HashSet;

use bytes::Bytes;
use ipengine_protocol::{ClientId, EngineId, Event, InstructionId, Order, Submit, Targets};

use super::clients::Place;
use super::instruction::Instruction;
use super::pool::Task;
use super::registry::Life;
use super::{Now, Router};
use crate::{Fault, Outbox};

impl<O: Outbox> Router<O> {
    pub(super) fn on_submit(
        &mut self,
        client: ClientId,
        submit: Submit,
        blobs: Vec<Bytes>,
        bytes: u64,
        now: Now,
    ) -> Result<(), Fault> {
        let Some(state) = self.clients.get_mut(client) else {
            return Err(Fault::NotOpened);
        };
        if submit.counter <= state.accepted {
            // Sent again after a reconnection; the confirmation was lost with the old connection.
            let up_to = state.accepted;
            self.tell_client(client, Event::Accepted { up_to }, Vec::new());
            return Ok(());
        }
        state.accept(submit.counter, bytes)?;
        self.confirm_soon(client, now);
        let id = InstructionId {
            client,
            counter: submit.counter,
        };
        match self.why_not(&submit, blobs.len()) {
            Some(reason) => {
                self.tell_client(
                    client,
                    Event::Rejected {
                        counter: submit.counter,
                        reason,
                    },
                    Vec::new(),
                );
                self.close_instruction(id, bytes);
            }
            None if self.end_foretold(id, &submit.targets, bytes) => {}
            None => self.enter(id, submit, blobs, bytes, now),
        }
        Ok(())
    }

    fn enter(&mut self, id: InstructionId, submit: Submit, blobs: Vec<Bytes>, bytes: u64, now: Now) {
        match submit.targets {
            Targets::All(targets) => {
                let order = self.next_order();
                let suspect = self.comm_suspect(&targets);
                let mut instruction =
                    Instruction::new(order, id, targets, submit.work, blobs, bytes, suspect);
                if let Some(counts) = submit.each {
                    instruction.share(&counts);
                }
                self.enqueue(order, instruction, now);
            }
            Targets::OneOf(mut candidates) => {
                candidates.retain(|engine| !self.engines[engine.index()].is_gone());
                let candidates = self.pool.intern(&candidates);
                self.offer(
                    Task {
                        id,
                        bytes,
                        candidates,
                        work: submit.work,
                        blobs,
                    },
                    now,
                );
            }
        }
    }

    pub(super) fn next_order(&mut self) -> Order {
        self.last_order += 1;
        Order(self.last_order)
    }

    /// Enters an instruction into the queues of all its targets. They are served only afterwards.
    pub(super) fn enqueue(&mut self, order: Order, instruction: Instruction, now: Now) {
        if let Some(state) = self.clients.get_mut(instruction.id.client) {
            state.open.insert(instruction.id.counter, Place::Ordered(order));
        }
        let targets = instruction.targets.clone();
        self.instructions.insert(order, instruction);
        for target in &targets {
            let engine = &mut self.engines[target.index()];
            engine.queue.push_back(order);
            engine.queued += 1;
        }
        for target in targets {
            self.pump(target, now);
        }
    }

    fn why_not(&self, submit: &Submit, blobs: usize) -> Option<String> {
        if let Some(end) = &self.world.end {
            return Some(format!("the cluster has ended: {}", end.reason));
        }
        if self.world.stop.is_some() {
            return Some("the cluster is stopping".to_owned());
        }
        let engines = submit.targets.engines();
        if engines.is_empty() {
            return Some("the target set is empty".to_owned());
        }
        if self.engines.is_empty() {
            return Some("no engine has connected yet".to_owned());
        }
        if let Some(unknown) = engines.iter().find(|engine| engine.index() >= self.engines.len()) {
            return Some(format!(
                "there is no engine {unknown}: this cluster has engines 0 to {}",
                self.engines.len() - 1
            ));
        }
        let mut seen = HashSet::with_capacity(engines.len());
        if let Some(twice) = engines.iter().find(|engine| !seen.insert(**engine)) {
            return Some(format!("engine {twice} is named twice in the target set"));
        }
        wrong_shares(submit, blobs).or_else(|| self.why_lost(&submit.targets))
    }

    fn why_lost(&self, targets: &Targets) -> Option<String> {
        let cause = |engine: &EngineId| match &self.engines[engine.index()].life {
            Life::Gone(cause) => Some(format!("engine {engine} is lost: {cause}")),
            Life::Awaited | Life::Alive => None,
        };
        match targets {
            Targets::All(engines) => engines.iter().find_map(cause),
            Targets::OneOf(engines) if engines.iter().all(|engine| cause(engine).is_some()) => {
                engines.first().and_then(cause)
            }
            Targets::OneOf(_) => None,
        }
    }
}

fn wrong_shares(submit: &Submit, blobs: usize) -> Option<String> {
    let counts = submit.each.as_ref()?;
    if let Targets::OneOf(_) = submit.targets {
        return Some("a task for one of several engines has no parts of its own for each".to_owned());
    }
    let engines = submit.targets.engines().len();
    if counts.len() != engines {
        return Some(format!(
            "parts for {} engines were sent to {engines}",
            counts.len()
        ));
    }
    let sum: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    (sum != blobs as u64).then(|| format!("the engines' parts make {sum} blobs, the message has {blobs}"))
}
