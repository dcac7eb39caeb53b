//! One client program over all its connections: what it sent, what it was told, what it may send.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use bytes::Bytes;
use ipengine_protocol::{
    ClientId, Credit, EngineInfo, Event, EventEnvelope, InstructionId, Message, Order, PythonVersion, Welcome,
};

use super::event_log::EventLog;
use super::interrupt::Withdrawal;
use super::registry::Life;
use super::{Now, Router, Timer};
use crate::{Fault, Lane, Limits, Outbox};

/// What a client says when it opens its conversation.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Who.
    pub client: ClientId,
    /// For other users and the log.
    pub user: String,
    /// For other users and the log.
    pub software: String,
    /// Highest event number seen.
    pub events_seen: u64,
}

/// Where an unfinished instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It has its place in the total order.
    Ordered(Order),
    /// It waits for one of several engines to have room.
    Pooled(u64),
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) user: String,
    pub(super) software: String,
    pub(super) connected: bool,
    last_seen: Instant,
    /// Its timer runs: one is enough, however often it comes and goes.
    forget_set: bool,
    /// Highest counter accepted, and how far the client was told so.
    pub(super) accepted: u64,
    confirmed: u64,
    granted: Credit,
    /// What ended, and the bytes of what was accepted: both cumulative.
    ended: Credit,
    used_bytes: u64,
    pub(super) open: BTreeMap<u64, Place>,
    /// Instructions to come that it has taken back.
    pub(super) foretold: BTreeMap<u64, Withdrawal>,
    log: EventLog,
}

impl Client {
    fn new(limits: &Limits, now: Now) -> Self {
        Self {
            user: String::new(),
            software: String::new(),
            connected: false,
            last_seen: now.at,
            forget_set: false,
            accepted: 0,
            confirmed: 0,
            granted: Credit {
                instructions: limits.credit_instructions,
                bytes: limits.credit_bytes,
            },
            ended: Credit::default(),
            used_bytes: 0,
            open: BTreeMap::new(),
            foretold: BTreeMap::new(),
            log: EventLog::default(),
        }
    }

    pub(super) fn record(&mut self, event: Event, blobs: Vec<Bytes>, limits: &Limits) -> Option<Message> {
        let window = if self.connected { limits.event_window } else { 0 };
        self.log.record(event, blobs, window, limits.stream_bytes)
    }

    /// Takes the next instruction's number and size.
    pub(super) fn accept(&mut self, counter: u64, bytes: u64) -> Result<(), Fault> {
        let expected = self.accepted + 1;
        if counter > expected && self.accepted == 0 {
            return Err(Fault::UnknownSession);
        }
        if counter != expected {
            return Err(Fault::Gap {
                expected,
                found: counter,
            });
        }
        // One message may overdraw: the largest must not wait for all before it to end.
        let over = self.used_bytes >= self.granted.bytes && !self.open.is_empty();
        if counter > self.granted.instructions || over {
            return Err(Fault::Overdrawn);
        }
        self.accepted = counter;
        self.used_bytes += bytes;
        Ok(())
    }

    /// Gives credit back; returns the new grant when enough has come together to be worth a message.
    fn give_back(&mut self, bytes: u64, limits: &Limits) -> Option<Credit> {
        self.ended.instructions += 1;
        self.ended.bytes += bytes;
        let due = Credit {
            instructions: self.ended.instructions + limits.credit_instructions,
            bytes: self.ended.bytes + limits.credit_bytes,
        };
        let worth = due.instructions - self.granted.instructions >= limits.credit_instructions.div_ceil(4)
            || due.bytes - self.granted.bytes >= limits.credit_bytes.div_ceil(4);
        worth.then(|| {
            self.granted = due;
            due
        })
    }

    fn is_idle(&self) -> bool {
        !self.connected && self.open.is_empty() && self.log.is_empty()
    }

    /// Whether it may be forgotten without anybody missing an outcome.
    fn is_dispensable(&self) -> bool {
        !self.connected && self.open.is_empty() && !self.log.holds_precious()
    }

    /// Whether the end of the gateway would take something from it.
    pub(super) fn holds_gateway(&self) -> bool {
        if self.connected {
            !self.log.is_empty()
        } else {
            self.log.holds_precious()
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Clients {
    table: HashMap<ClientId, Client>,
    /// Clients with accepted instructions that they have not been told of.
    unconfirmed: Vec<ClientId>,
    /// When a client last said anything.
    pub(super) last_activity: Option<Instant>,
}

impl Clients {
    pub(super) fn get_mut(&mut self, client: ClientId) -> Option<&mut Client> {
        self.table.get_mut(&client)
    }

    pub(super) fn get(&self, client: ClientId) -> Option<&Client> {
        self.table.get(&client)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Client> {
        self.table.values()
    }

    pub(super) fn take_unconfirmed(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.unconfirmed)
    }

    pub(super) fn connected(&self) -> Vec<ClientId> {
        self.table
            .iter()
            .filter(|(_, client)| client.connected)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Connected, or with something outstanding: the others learn the state of the world when they come back.
    pub(super) fn concerned(&self) -> Vec<ClientId> {
        self.table
            .iter()
            .filter(|(_, client)| !client.is_idle())
            .map(|(id, _)| *id)
            .collect()
    }

    /// The client that was away longest of those that can be spared.
    fn longest_away(&self) -> Option<ClientId> {
        let idle = self.table.iter().filter(|(_, client)| client.is_dispensable());
        idle.min_by_key(|(_, client)| client.last_seen).map(|(id, _)| *id)
    }
}

impl<O: Outbox> Router<O> {
    /// A client has opened its conversation; its connection is attached to the outbox already.
    ///
    /// # Errors
    /// A [`Fault`] for which the connection is closed.
    pub fn on_client_open(&mut self, opening: Opening, now: Now) -> Result<(), Fault> {
        let id = opening.client;
        let sent = self.clients.table.get(&id).map(|state| state.log.last());
        if opening.events_seen > sent.unwrap_or(0) {
            return Err(Fault::UnknownSession);
        }
        if sent.is_none() {
            self.make_room()?;
        }
        let state = self
            .clients
            .table
            .entry(id)
            .or_insert_with(|| Client::new(&self.limits, now));
        state.log.ack(opening.events_seen)?;
        (state.user, state.software, state.connected) = (opening.user, opening.software, true);
        state.last_seen = now.at;
        state.confirmed = state.accepted;
        self.clients.last_activity = Some(now.at);
        self.welcome(id);
        self.attention |= self.world.end.is_some();
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), Fault> {
        if self.clients.table.len() < self.limits.clients {
            return Ok(());
        }
        let oldest = self.clients.longest_away().ok_or(Fault::TooManyClients)?;
        self.clients.table.remove(&oldest);
        Ok(())
    }

    fn welcome(&mut self, client: ClientId) {
        let engines = self.engines.iter().map(super::registry::Engine::info).collect();
        let Some(state) = self.clients.table.get_mut(&client) else {
            return;
        };
        let welcome = Welcome {
            cluster: self.cluster.name.clone(),
            software: self.cluster.software.clone(),
            engines,
            accepted: state.accepted,
            credit: state.granted,
            event_window: self.limits.event_window,
            ended: self.world.end.as_ref().map(|end| end.reason.clone()),
        };
        let envelope = EventEnvelope {
            number: 0,
            event: Event::Welcome(Box::new(welcome)),
        };
        // In the control lane, so that nothing goes before it.
        self.out
            .to_client(client, Message::bare(&envelope), Lane::Control);
        for message in state.log.unacked() {
            self.out.to_client(client, message.clone(), Lane::Work);
        }
        self.release(client);
    }

    /// Sends what waited for the client's window.
    fn release(&mut self, client: ClientId) {
        let Some(state) = self
            .clients
            .table
            .get_mut(&client)
            .filter(|state| state.connected)
        else {
            return;
        };
        while let Some(message) = state.log.release(self.limits.event_window) {
            self.out.to_client(client, message, Lane::Work);
        }
    }

    /// The client's connection is gone. What it sent goes on.
    pub fn on_client_closed(&mut self, client: ClientId, now: Now) {
        let Some(state) = self.clients.table.get_mut(&client) else {
            return;
        };
        state.connected = false;
        state.last_seen = now.at;
        self.clients.last_activity = Some(now.at);
        if !std::mem::replace(&mut state.forget_set, true) {
            self.set_timer(now.at + self.limits.remember, Timer::Forget(client));
        }
        self.attention |= self.world.end.is_some();
    }

    pub(super) fn forget_client(&mut self, client: ClientId, now: Now) {
        let Some(state) = self.clients.table.get_mut(&client) else {
            return;
        };
        if state.connected {
            state.forget_set = false;
            return;
        }
        let due = state.last_seen + self.limits.remember;
        if now.at < due {
            self.set_timer(due, Timer::Forget(client));
        } else if state.is_dispensable() {
            self.clients.table.remove(&client);
        } else {
            self.set_timer(now.at + self.limits.remember, Timer::Forget(client));
        }
    }

    pub(super) fn on_ack(&mut self, client: ClientId, seen: u64) -> Result<(), Fault> {
        let Some(state) = self.clients.table.get_mut(&client) else {
            return Ok(());
        };
        state.log.ack(seen)?;
        self.release(client);
        self.attention |= self.world.end.is_some();
        Ok(())
    }

    /// Marks that the client has to be told how far its instructions are accepted.
    pub(super) fn confirm_soon(&mut self, client: ClientId, now: Now) {
        self.clients.unconfirmed.push(client);
        self.flush_soon(now);
    }

    /// Tells the client how far its instructions are accepted, if it does not know.
    pub(super) fn confirm(&mut self, client: ClientId) {
        let Some(state) = self.clients.table.get_mut(&client) else {
            return;
        };
        if state.confirmed == state.accepted {
            return;
        }
        state.confirmed = state.accepted;
        let accepted = Event::Accepted {
            up_to: state.accepted,
        };
        if let Some(message) = state.record(accepted, Vec::new(), &self.limits) {
            self.out.to_client(client, message, Lane::Work);
        }
    }

    /// An instruction of a client has ended on all its targets.
    pub(super) fn close_instruction(&mut self, id: InstructionId, bytes: u64) {
        let Some(state) = self.clients.table.get_mut(&id.client) else {
            return;
        };
        state.open.remove(&id.counter);
        if let Some(credit) = state.give_back(bytes, &self.limits) {
            self.answer_client(id.client, Event::Credit(credit), Vec::new());
        }
    }
}

impl super::registry::Engine {
    fn info(&self) -> EngineInfo {
        let facts = self.facts.as_ref();
        EngineInfo {
            id: self.id,
            host: facts.map_or_else(String::new, |facts| facts.host.clone()),
            pid: facts.map_or(0, |facts| facts.pid),
            python: facts.map_or(PythonVersion(0, 0, 0), |facts| facts.python),
            mpi: facts.map_or_else(String::new, |facts| facts.mpi.clone()),
            lost: match &self.life {
                Life::Gone(cause) => Some(cause.clone()),
                Life::Awaited | Life::Alive => None,
            },
        }
    }
}
