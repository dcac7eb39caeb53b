//! Sending: each engine's queue strictly in order, within its window; pool tasks to the engine with the least to do.

use ipengine_protocol::{EngineId, Order, ToEngine};

use super::clients::Place;
use super::instruction::{Instruction, Stage};
use super::pool::Task;
use super::{Now, Router};
use crate::{Lane, Outbox};

impl<O: Outbox> Router<O> {
    /// Sends from the engine's queue what its window allows.
    pub(super) fn pump(&mut self, engine: EngineId, now: Now) {
        while let Some(order) = self.next_in_queue(engine) {
            let row = &mut self.engines[engine.index()];
            let window = match self.instructions.get(&order) {
                Some(instruction) if instruction.candidates.is_some() => self.limits.pool_window,
                _ => self.limits.window,
            };
            if !row.linked || row.is_gone() || row.in_flight >= window {
                return;
            }
            row.queue.pop_front();
            row.queued -= 1;
            self.dispatch(engine, order, now);
        }
    }

    /// The front of the queue, behind what was removed from it meanwhile.
    fn next_in_queue(&mut self, engine: EngineId) -> Option<Order> {
        let queue = &mut self.engines[engine.index()].queue;
        loop {
            let order = *queue.front()?;
            if self.instructions.contains_key(&order) {
                return Some(order);
            }
            queue.pop_front();
        }
    }

    fn dispatch(&mut self, engine: EngineId, order: Order, now: Now) {
        self.acknowledge(engine);
        let Some(instruction) = self.instructions.get_mut(&order) else {
            return;
        };
        let Some(position) = instruction.position(engine) else {
            return;
        };
        instruction.set_stage(position, Stage::Sent);
        let message = instruction.message_for(position);
        let interrupted = instruction.interrupted;
        let row = &mut self.engines[engine.index()];
        row.held.push_back(order);
        if row.in_flight == 0 {
            row.since = now.unix;
        }
        row.in_flight += 1;
        self.out.to_engine(engine, message, Lane::Work);
        if interrupted {
            // Behind the instruction, so that the engine knows what is meant.
            self.tell_engine(
                engine,
                &ToEngine::Interrupt {
                    request: 0,
                    order: Some(order),
                },
                Lane::Work,
            );
        }
    }

    /// Gives a new pool task to the candidate with the least to do, or lets it wait behind older ones.
    pub(super) fn offer(&mut self, task: Task, now: Now) {
        let best = if !self.pool.is_empty() && self.pool.has_older(&task.candidates) {
            None
        } else {
            self.least_busy(&task.candidates)
        };
        match best {
            Some(engine) => self.assign(task, engine, now),
            None => {
                let id = task.id;
                let age = self.pool.push(task);
                if let Some(state) = self.clients.get_mut(id.client) {
                    state.open.insert(id.counter, Place::Pooled(age));
                }
            }
        }
    }

    fn least_busy(&self, candidates: &[EngineId]) -> Option<EngineId> {
        let rows = candidates.iter().map(|engine| &self.engines[engine.index()]);
        let open = rows.filter(|row| row.has_pool_room(&self.limits));
        open.min_by_key(|row| row.unfinished()).map(|row| row.id)
    }

    fn assign(&mut self, task: Task, engine: EngineId, now: Now) {
        let order = self.next_order();
        let mut instruction = Instruction::new(
            order,
            task.id,
            vec![engine],
            task.work,
            task.blobs,
            task.bytes,
            None,
        );
        instruction.candidates = Some(task.candidates);
        self.enqueue(order, instruction, now);
    }

    /// Gives the engine waiting pool tasks while it has room.
    pub(super) fn feed(&mut self, engine: EngineId, now: Now) {
        while !self.pool.is_empty() && self.engines[engine.index()].has_pool_room(&self.limits) {
            let Some(task) = self.pool.take_for(engine) else {
                return;
            };
            self.assign(task, engine, now);
        }
    }
}
