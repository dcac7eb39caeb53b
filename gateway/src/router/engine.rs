//! What an engine says: its numbered messages exactly once, its answers as they come.

use bytes::Bytes;
use ipengine_protocol::{
    EngineFacts, EngineId, Event, FromEngine, FromEngineEnvelope, Order, Outcome, OutputName, ToEngine,
};

use super::instruction::Stage;
use super::registry::{Engine, Life};
use super::{Now, Router};
use crate::{Fault, Lane, Outbox};

/// Far beyond the worlds this is made for; bounds what one engine's word makes the gateway set up.
const LARGEST_WORLD: u32 = 1 << 16;

/// Messages of an engine after which it gets its ack even if nothing else is to be sent to it.
const ACK_AFTER: u64 = 64;

impl<O: Outbox> Router<O> {
    /// Whether an engine with these facts may link up.
    ///
    /// # Errors
    /// A [`Fault`] for which the link is closed.
    pub fn admit(&self, facts: &EngineFacts) -> Result<(), Fault> {
        let size = if self.cluster.size == 0 {
            facts.size
        } else {
            self.cluster.size
        };
        if facts.size != size || size > LARGEST_WORLD || facts.id.index() >= size as usize {
            return Err(Fault::Stranger {
                rank: facts.id.0,
                size: facts.size,
            });
        }
        if self.engines.get(facts.id.index()).is_some_and(Engine::is_gone) {
            return Err(Fault::DeclaredLost);
        }
        Ok(())
    }

    /// The first engine tells how many there are, where nobody knew before.
    fn learn_size(&mut self, size: u32, now: Now) {
        if self.cluster.size == 0 {
            self.cluster.size = size;
            self.engines = (0..size).map(|rank| Engine::new(EngineId(rank), now)).collect();
        }
    }

    /// Facts that engines have in common, from the first of them.
    #[must_use]
    pub fn facts(&self) -> Option<&EngineFacts> {
        self.engines.first().and_then(|row| row.facts.as_ref())
    }

    /// An engine has linked up, for the first time or again; its link is attached to the outbox already.
    pub fn on_engine_hello(&mut self, facts: EngineFacts, now: Now) {
        let (id, seen) = (facts.id, facts.orders_seen);
        self.learn_size(facts.size, now);
        let row = &mut self.engines[id.index()];
        row.linked = true;
        row.missing_since = None;
        row.facts = Some(facts);
        row.acked = row.received;
        // It is there: what was about to be decided about its end is void.
        self.world.death.unexplained.retain(|missing| *missing != id);
        let first = matches!(row.life, Life::Awaited);
        if first {
            row.life = Life::Alive;
            row.since = now.unix;
            // A gateway that was restarted goes on where the one before ended: engines drop lower orders.
            self.last_order = self.last_order.max(seen.0);
        }
        let welcome = ToEngine::Welcome {
            received: row.received,
        };
        self.tell_engine(id, &welcome, Lane::Control);
        let stable = self.engines[id.index()].stable;
        if stable > Order(0) {
            self.tell_engine(id, &ToEngine::Stable { up_to: stable }, Lane::Control);
        }
        self.send_again(id, seen);
        if let Some(stop) = &self.world.stop {
            let message = ToEngine::Stop {
                reason: stop.reason.clone(),
            };
            self.tell_engine(id, &message, Lane::Control);
        }
        if first {
            self.on_first_link(now);
        }
        self.pump(id, now);
        self.feed(id, now);
        if let Some(running) = self.engines[id.index()].running {
            // What was asked before may have been lost with the old link, and more has been sent since.
            self.recall_behind(id, running);
        }
    }

    fn on_first_link(&mut self, now: Now) {
        if !std::mem::replace(&mut self.world.first_seen, true) {
            self.start_limit(now.at + self.limits.start);
        }
        if self.engines.iter().all(|row| !matches!(row.life, Life::Awaited)) {
            self.world.complete = true;
            self.attention = true;
        }
    }

    /// What the old link may have lost: instructions, answers about communicators, interrupts.
    fn send_again(&mut self, engine: EngineId, seen: Order) {
        for order in self.engines[engine.index()].held.clone() {
            let Some(instruction) = self.instructions.get(&order) else {
                continue;
            };
            let Some(position) = instruction.position(engine) else {
                continue;
            };
            if instruction.stage(position) != Stage::Sent {
                continue;
            }
            let interrupted = instruction.interrupted;
            if order > seen {
                let message = instruction.message_for(position);
                self.out.to_engine(engine, message, Lane::Work);
            }
            self.repeat_comm(order, engine);
            if interrupted {
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
    }

    /// Takes one message of an engine.
    ///
    /// # Errors
    /// A [`Fault`] for which the link is closed.
    pub fn on_engine_message(
        &mut self,
        engine: EngineId,
        envelope: FromEngineEnvelope,
        blobs: Vec<Bytes>,
        now: Now,
    ) -> Result<(), Fault> {
        let FromEngineEnvelope { number, message } = envelope;
        let row = &mut self.engines[engine.index()];
        if number > 0 && !std::mem::replace(&mut row.heard, true) {
            // The first may be a later one: the gateway before this one took over those before it.
            row.received = number - 1;
            row.acked = row.received;
        }
        let expected = row.received + 1;
        match number {
            0 => return self.on_answer(engine, message, blobs),
            old if old < expected => {}
            new if new > expected => return Err(Fault::Gap { expected, found: new }),
            _ => {
                row.received = number;
                let due = number - row.acked >= ACK_AFTER;
                self.on_news(engine, message, blobs, now);
                if due {
                    self.acknowledge(engine);
                }
            }
        }
        self.flush_soon(now);
        Ok(())
    }

    fn on_answer(&mut self, engine: EngineId, message: FromEngine, blobs: Vec<Bytes>) -> Result<(), Fault> {
        match message {
            FromEngine::Interrupted { request, report } => self.on_interrupted(engine, request, report),
            FromEngine::Status { request, state } => self.on_engine_status(engine, request, state),
            FromEngine::Logs {
                request,
                stdout,
                stderr,
            } => self.on_engine_logs(request, stdout, stderr, blobs),
            FromEngine::Hello(_) => return Err(Fault::OpenedTwice),
            // What must not be lost carries a number.
            _ => {
                return Err(Fault::Gap {
                    expected: self.engines[engine.index()].received + 1,
                    found: 0,
                });
            }
        }
        Ok(())
    }

    fn on_news(&mut self, engine: EngineId, message: FromEngine, blobs: Vec<Bytes>, now: Now) {
        match message {
            FromEngine::Started { order } => self.on_started(engine, order),
            FromEngine::Stream { order, name, omitted } => {
                self.on_stream(engine, order, name, omitted, blobs)
            }
            FromEngine::Display { order, msg_type } => self.on_display(engine, order, msg_type, blobs),
            FromEngine::CommWanted { order, round, have } => self.on_comm_wanted(order, engine, round, have),
            FromEngine::CommWithdrawn { order, round } => self.on_comm_withdrawn(order, engine, round),
            FromEngine::Finished {
                order,
                outcome,
                timing,
            } => {
                if self.death_is_pending() && matches!(outcome, Outcome::Interrupted(_)) {
                    return; // the death interrupted it
                }
                self.end_target(order, engine, outcome, blobs, timing, now);
                self.pump(engine, now);
                self.feed(engine, now);
            }
            FromEngine::Recalled { orders } => self.on_recalled(engine, &orders, now),
            FromEngine::Signalled { signal } => self.on_signalled(engine, signal, now),
            FromEngine::Dying { cause, .. } => self.on_dying(engine, cause, now),
            FromEngine::Leaving => self.on_leaving(engine, now),
            FromEngine::Interrupted { .. }
            | FromEngine::Status { .. }
            | FromEngine::Logs { .. }
            | FromEngine::Hello(_) => {
                tracing::warn!(%engine, "answer with a number is ignored");
            }
        }
    }

    fn on_started(&mut self, engine: EngineId, order: Order) {
        let Some(instruction) = self.instructions.get(&order) else {
            return;
        };
        let running = instruction
            .position(engine)
            .is_some_and(|at| instruction.stage(at) == Stage::Sent);
        if !running {
            return;
        }
        let id = instruction.id;
        self.engines[engine.index()].running = Some(order);
        self.recall_behind(engine, order);
        self.tell_client(
            id.client,
            Event::Started {
                counter: id.counter,
                engine,
            },
            Vec::new(),
        );
    }

    fn on_stream(
        &mut self,
        engine: EngineId,
        order: Option<Order>,
        name: OutputName,
        omitted: u64,
        blobs: Vec<Bytes>,
    ) {
        let id = order.and_then(|order| {
            let last = self.engines[engine.index()]
                .last_run
                .filter(|(run, _)| *run == order);
            self.instructions
                .get(&order)
                .map(|found| found.id)
                .or(last.map(|(_, id)| id))
        });
        let event = Event::Stream {
            id,
            engine,
            name,
            omitted,
        };
        match id {
            Some(id) => self.tell_client(id.client, event, blobs),
            None => {
                for client in self.clients.connected() {
                    self.tell_client(client, event.clone(), blobs.clone());
                }
            }
        }
    }

    fn on_display(&mut self, engine: EngineId, order: Order, msg_type: String, blobs: Vec<Bytes>) {
        let last = self.engines[engine.index()]
            .last_run
            .filter(|(run, _)| *run == order);
        let id = self
            .instructions
            .get(&order)
            .map(|found| found.id)
            .or(last.map(|(_, id)| id));
        if let Some(id) = id {
            self.tell_client(id.client, Event::Display { id, engine, msg_type }, blobs);
        }
    }

    /// Tells an engine what was taken over and what it may forget, if there is news.
    pub(super) fn acknowledge(&mut self, engine: EngineId) {
        let row = &mut self.engines[engine.index()];
        if !row.linked {
            return;
        }
        let mut stable = None;
        while let Some(order) = row
            .held
            .front()
            .copied()
            .filter(|order| !self.instructions.contains_key(order))
        {
            row.held.pop_front();
            stable = Some(order);
        }
        if row.acked < row.received {
            row.acked = row.received;
            let received = row.received;
            self.tell_engine(engine, &ToEngine::Ack { received }, Lane::Control);
        }
        if let Some(up_to) = stable {
            self.engines[engine.index()].stable = up_to;
            self.tell_engine(engine, &ToEngine::Stable { up_to }, Lane::Control);
        }
    }
}
