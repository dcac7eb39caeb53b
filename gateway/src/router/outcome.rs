//! The one final outcome of an instruction on a target.

use bytes::Bytes;
use ipengine_protocol::{EngineId, Event, LossCause, Order, Outcome, RemoteException, Timing};

use super::instruction::Stage;
use super::pool::Task;
use super::{Now, Router};
use crate::Outbox;

impl<O: Outbox> Router<O> {
    /// Ends an instruction on one target. Does nothing if it had ended there: there is one outcome only.
    pub(super) fn end_target(
        &mut self,
        order: Order,
        engine: EngineId,
        outcome: Outcome,
        blobs: Vec<Bytes>,
        timing: Timing,
        now: Now,
    ) {
        let Some(instruction) = self.instructions.get_mut(&order) else {
            return;
        };
        let Some(position) = instruction.position(engine) else {
            return;
        };
        let row = &mut self.engines[engine.index()];
        match instruction.set_stage(position, Stage::Ended) {
            Stage::Ended => return,
            Stage::Queued => row.queued -= 1,
            Stage::Sent => {
                row.in_flight -= 1;
                row.completed += 1;
                if row.in_flight == 0 {
                    row.since = now.unix;
                }
            }
        }
        if row.running == Some(order) {
            row.running = None;
        }
        instruction.unfinished -= 1;
        let (id, unfinished) = (instruction.id, instruction.unfinished);
        row.last_run = Some((order, id));
        if instruction.candidates.is_some() && timing.completed > timing.started {
            row.learn_pace(timing.completed - timing.started);
        }
        self.on_target_ended(order, engine, &outcome);
        self.tell_client(
            id.client,
            Event::Finished {
                counter: id.counter,
                engine,
                outcome,
                timing,
            },
            blobs,
        );
        if unfinished == 0 {
            self.retire(order, now);
        }
    }

    /// Forgets an instruction that has ended everywhere. Its engines are told when they are written to anyway.
    fn retire(&mut self, order: Order, now: Now) {
        let Some(instruction) = self.instructions.remove(&order) else {
            return;
        };
        self.close_instruction(instruction.id, instruction.bytes);
        self.flush_soon(now);
    }

    /// Ends an instruction that no target was sent, on all of them.
    pub(super) fn end_unsent(&mut self, order: Order, outcome: impl Fn(EngineId) -> Outcome, now: Now) {
        let targets = self
            .instructions
            .get(&order)
            .map(|instruction| instruction.targets_in(Stage::Queued));
        for engine in targets.unwrap_or_default() {
            self.end_target(order, engine, outcome(engine), Vec::new(), Timing::default(), now);
        }
    }

    /// Ends a pool task that no engine was sent: in the name of its first candidate, since it has one outcome.
    pub(super) fn end_task(&mut self, task: &Task, outcome: Outcome) {
        let Some(engine) = task.candidates.first().copied() else {
            return;
        };
        let event = Event::Finished {
            counter: task.id.counter,
            engine,
            outcome,
            timing: Timing::default(),
        };
        self.tell_client(task.id.client, event, Vec::new());
        self.close_instruction(task.id, task.bytes);
    }

    /// The outcome of what was interrupted before any target had it.
    pub(super) fn never_started(&self, engine: EngineId) -> Outcome {
        let host = self.engines[engine.index()].host();
        let text = "interrupted before it started";
        let mut exception = RemoteException::of_runtime("KeyboardInterrupt", text, engine.0, host);
        "builtins".clone_into(&mut exception.module);
        Outcome::Interrupted(Box::new(exception))
    }

    /// Ends everything that a lost engine had.
    pub(super) fn end_all_on(&mut self, engine: EngineId, cause: &LossCause, now: Now) {
        let row = &mut self.engines[engine.index()];
        let orders: Vec<Order> = row.held.drain(..).chain(row.queue.drain(..)).collect();
        for order in orders {
            self.end_target(
                order,
                engine,
                Outcome::Lost(cause.clone()),
                Vec::new(),
                Timing::default(),
                now,
            );
        }
        let engines = &self.engines;
        let stranded = self
            .pool
            .drain(|task| task.candidates.iter().all(|each| engines[each.index()].is_gone()));
        for task in stranded {
            self.end_task(&task, Outcome::Lost(cause.clone()));
        }
    }
}
