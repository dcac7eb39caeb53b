//! All decisions: who gets what, in which order, and what every client hears. Synchronous; does no I/O and reads no
//! clock; talks through an [`Outbox`]. Runs on the gateway's one thread.
//!
//! The state is split by what it is about: [`clients`] (a client outlives its connections), [`registry`] (one row per
//! engine), [`instruction`] and [`pool`] (what is to be done), [`world`] (its life and end). The steps are methods of
//! [`Router`], in a file per concern.
//!
//! Invariant: an accepted instruction ends in exactly one outcome per target, whatever engine or client dies.

mod clients;
mod dispatch;
mod engine;
mod event_log;
mod instruction;
mod interrupt;
mod launcher;
mod loss;
mod outcome;
mod pool;
mod recall;
mod registry;
mod rendezvous;
mod request;
mod shutdown;
mod status;
mod submit;
mod timers;
mod world;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use ipengine_protocol::{ClientId, EngineId, Event, Order, ToEngine};

use crate::{Lane, Limits, Outbox};
use clients::Clients;
use instruction::Instruction;
use interrupt::Interrupts;
use pool::Pool;
use registry::Engine;
use status::Questions;
use timers::{Timer, Timers};
use world::World;

pub use clients::Opening;
pub use world::{End, Phase, StopOrigin};

/// The present, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub at: Instant,
    /// For people: nanoseconds since the Unix epoch.
    pub unix: u64,
}

/// What the router knows about its cluster from the start.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Name of the cluster.
    pub name: String,
    /// `ipengine-mpi 0.1.0`.
    pub software: String,
    /// Number of engines.
    pub size: u32,
    /// Whether somebody reports what the launcher says.
    pub launcher: bool,
    /// Whether there was a gateway before this one.
    pub restarted: bool,
    /// How long to stay for clients after the end.
    pub linger: std::time::Duration,
}

/// The sequencer.
#[derive(Debug)]
pub struct Router<O> {
    out: O,
    cluster: Cluster,
    limits: Limits,
    clients: Clients,
    engines: Vec<Engine>,
    instructions: HashMap<Order, Instruction>,
    pool: Pool,
    last_order: u64,
    last_question: u64,
    /// Target tuples that have a communicator, and the latest instruction that failed on one of them since.
    comms: HashMap<Vec<EngineId>, Option<Order>>,
    interrupts: Interrupts,
    questions: Questions,
    timers: Timers,
    world: World,
    attention: bool,
    flush_set: bool,
}

impl<O: Outbox> Router<O> {
    /// A router for engines that have yet to connect.
    pub fn new(cluster: Cluster, limits: Limits, out: O, now: Now) -> Self {
        let mut router = Self {
            out,
            engines: (0..cluster.size)
                .map(|rank| Engine::new(EngineId(rank), now))
                .collect(),
            world: World::new(cluster.launcher),
            cluster,
            clients: Clients::default(),
            instructions: HashMap::new(),
            pool: Pool::default(),
            last_order: 0,
            last_question: 0,
            comms: HashMap::new(),
            interrupts: Interrupts::default(),
            questions: Questions::default(),
            timers: Timers::default(),
            attention: true,
            flush_set: false,
            limits,
        };
        router.start_limit(now.at + router.limits.first_engine);
        router
    }

    /// Where messages go.
    pub fn outbox(&mut self) -> &mut O {
        &mut self.out
    }

    /// Whether the next deadline or the phase changed since the last call.
    pub fn take_attention(&mut self) -> bool {
        std::mem::take(&mut self.attention)
    }

    /// When [`Router::on_time`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Now) {
        while let Some(timer) = self.timers.take_due(now.at) {
            self.on_timer(timer, now);
        }
    }

    fn on_timer(&mut self, timer: Timer, now: Now) {
        match timer {
            Timer::Flush => self.flush(),
            Timer::Start => self.on_start_limit(now),
            Timer::Interrupt(question) => self.on_interrupt_limit(question),
            Timer::Question(question) => self.on_question_limit(question, now),
            Timer::Silent(engine) => self.on_silence_limit(engine, now),
            Timer::Settle => self.settle(now),
            Timer::Survivors => self.stop_survivors(now),
            Timer::Stop => self.on_stop_limit(now),
            Timer::Forget(client) => self.forget_client(client, now),
            Timer::Linger => self.attention = true,
        }
    }

    fn start_limit(&mut self, at: Instant) {
        self.world.start_by = Some(at);
        self.set_timer(at, Timer::Start);
    }

    fn set_timer(&mut self, at: Instant, timer: Timer) {
        if self.timers.set(at, timer) {
            self.attention = true;
        }
    }

    /// Acks wait a moment for company.
    fn flush_soon(&mut self, now: Now) {
        if !std::mem::replace(&mut self.flush_set, true) {
            self.set_timer(now.at + self.limits.flush, Timer::Flush);
        }
    }

    fn flush(&mut self) {
        self.flush_set = false;
        for client in self.clients.take_unconfirmed() {
            self.confirm(client);
        }
        for index in 0..self.engines.len() {
            self.acknowledge(EngineId(index as u32));
        }
    }

    fn next_question(&mut self) -> u64 {
        self.last_question += 1;
        self.last_question
    }

    fn tell_engine(&mut self, engine: EngineId, message: &ToEngine, lane: Lane) {
        self.out
            .to_engine(engine, ipengine_protocol::Message::bare(message), lane);
    }

    /// Records a numbered event for a client and sends it when its window allows.
    fn tell_client(&mut self, client: ClientId, event: Event, blobs: Vec<Bytes>) {
        self.confirm(client);
        let Some(state) = self.clients.get_mut(client) else {
            return;
        };
        if let Some(message) = state.record(event, blobs, &self.limits) {
            self.out.to_client(client, message, Lane::Work);
        }
    }

    /// Sends what is not numbered: answers and credit.
    fn answer_client(&mut self, client: ClientId, event: Event, blobs: Vec<Bytes>) {
        let envelope = ipengine_protocol::EventEnvelope { number: 0, event };
        self.out.to_client(
            client,
            ipengine_protocol::Message::new(&envelope, blobs),
            Lane::Control,
        );
    }

    /// Tells all clients that are there or that wait for something.
    fn tell_all(&mut self, event: &Event) {
        for client in self.clients.concerned() {
            self.tell_client(client, event.clone(), Vec::new());
        }
    }
}
