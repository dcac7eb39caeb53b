//! Taking pool tasks back from an engine that turned out to be busy for long, so that another can run them.
//!
//! Tiny tasks are sent ahead to hide the round trip. When one of them is not tiny after all, or somebody else's long
//! instruction came in between, the others must not wait behind it while engines are idle. An engine announces that it
//! runs something only when that has taken a while, and its control thread can give back what has not begun.

use ipengine_protocol::{EngineId, Order, ToEngine};

use super::clients::Place;
use super::instruction::Stage;
use super::pool::Task;
use super::{Now, Router};
use crate::{Lane, Outbox};

impl<O: Outbox> Router<O> {
    /// Asks for the pool tasks that this engine has behind a long instruction.
    pub(super) fn recall_behind(&mut self, engine: EngineId, running: Order) {
        let held = self.engines[engine.index()].held.iter().copied();
        let orders: Vec<Order> = held
            .filter(|order| *order > running && self.is_recallable(*order, engine))
            .collect();
        if !orders.is_empty() {
            // Behind the instructions meant, which may still wait to be written.
            self.tell_engine(engine, &ToEngine::Recall { orders }, Lane::Work);
        }
    }

    fn is_recallable(&self, order: Order, engine: EngineId) -> bool {
        self.instructions.get(&order).is_some_and(|instruction| {
            let elsewhere = instruction
                .candidates
                .as_ref()
                .is_some_and(|candidates| candidates.len() > 1);
            let sent = instruction
                .position(engine)
                .is_some_and(|at| instruction.stage(at) == Stage::Sent);
            elsewhere && sent
        })
    }

    /// The engine gave these back.
    pub(super) fn on_recalled(&mut self, engine: EngineId, orders: &[Order], now: Now) {
        // From the youngest, so that the oldest ends up in front.
        for order in orders
            .iter()
            .rev()
            .filter(|order| self.is_recallable(**order, engine))
            .copied()
            .collect::<Vec<_>>()
        {
            self.give_back(order, engine, now);
        }
        for candidate in (0..self.engines.len())
            .map(|at| self.engines[at].id)
            .collect::<Vec<_>>()
        {
            self.feed(candidate, now);
        }
    }

    fn give_back(&mut self, order: Order, engine: EngineId, now: Now) {
        if self
            .instructions
            .get(&order)
            .is_some_and(|instruction| instruction.interrupted)
        {
            let outcome = self.never_started(engine);
            return self.end_target(order, engine, outcome, Vec::new(), Default::default(), now);
        }
        let Some(mut instruction) = self.instructions.remove(&order) else {
            return;
        };
        let Some(candidates) = instruction.candidates.take() else {
            return;
        };
        let row = &mut self.engines[engine.index()];
        row.in_flight -= 1;
        row.held.retain(|held| *held != order);
        let (id, bytes, work) = (instruction.id, instruction.bytes, instruction.work.clone());
        let task = Task {
            id,
            bytes,
            candidates,
            work,
            blobs: instruction.into_blobs(),
        };
        let age = self.pool.push_front(task);
        if let Some(state) = self.clients.get_mut(id.client) {
            state.open.insert(id.counter, Place::Pooled(age));
        }
    }
}
