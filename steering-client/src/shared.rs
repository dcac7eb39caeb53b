//! What the I/O thread and the user's threads share: one state under one lock, a condition for those who wait for
//! something to arrive, a wake-up for the I/O thread when there is something to send.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipengine_protocol::event::EventEnvelope;
use ipengine_protocol::outcome::LossKind;
use ipengine_protocol::{
    Answer, ClientId, EngineInfo, Event, InstructionId, LossCause, Message, Outcome, Request, Submit, Welcome,
};
use tokio::sync::Notify;

use crate::Error;
use crate::outgoing::Outgoing;
use crate::pending::{Changed, Output, OutputKind, Pending, now};
use crate::text::Utf8Pieces;

/// Output that belongs to no instruction of this session and that nobody has read is kept up to so many pieces.
const MOST_STRAYS: usize = 1000;

/// The two sides of a session.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The I/O thread sleeps on this and its socket.
    pub wake: Notify,
    /// The process that connected: a fork has no I/O thread, and maybe a lock held by nobody.
    owner: u32,
}

/// Everything that is known.
#[derive(Debug)]
pub(crate) struct State {
    /// This program.
    pub client: ClientId,
    /// Instructions and their outcomes.
    pub pending: Pending,
    /// Instructions on their way out.
    pub outgoing: Outgoing,
    /// Control lane out.
    pub control: VecDeque<Message>,
    /// Requests that await an answer.
    pub asked: HashMap<u64, Asked>,
    next_request: u64,
    /// A shutdown that was asked for: it has no answer but the end, so it goes out on every connection until then.
    shutdown: Option<Message>,
    /// What the gateway said of the cluster.
    pub facts: Facts,
    /// Output that belongs to no instruction of this session.
    pub strays: VecDeque<Output>,
    /// Highest event number taken over.
    pub events_seen: u64,
    /// Whether and why this session is over.
    pub life: Life,
    /// The I/O thread has ended.
    pub gone: bool,
    /// Threads that wait for anything else than one finish.
    curious: usize,
}

/// A request, sent again after a reconnection until it is answered.
#[derive(Debug)]
pub(crate) struct Asked {
    message: Message,
    answer: Option<(Answer, Vec<Bytes>)>,
}

/// Facts of the Welcome, kept up to date.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Name of the cluster.
    pub cluster: String,
    /// Address in use.
    pub address: String,
    /// Version of the gateway.
    pub software: String,
    /// In rank order.
    pub engines: Vec<EngineInfo>,
    /// Bytes of events that the gateway sends without an ack.
    pub window: u64,
    /// Why the world ended.
    pub ended: Option<String>,
}

/// Whether the session lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Connected, or connecting again.
    Open,
    /// Its own program closed it.
    Closed,
    /// No connection will come any more.
    Lost(String),
}

impl Shared {
    pub(crate) fn new(client: ClientId) -> Self {
        let state = State {
            client,
            pending: Pending::default(),
            outgoing: Outgoing::default(),
            control: VecDeque::new(),
            asked: HashMap::new(),
            next_request: 0,
            shutdown: None,
            facts: Facts::default(),
            strays: VecDeque::new(),
            events_seen: 0,
            life: Life::Open,
            gone: false,
            curious: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake: Notify::new(),
            owner: std::process::id(),
        }
    }

    /// Whether this process is the one that connected.
    pub(crate) fn check_owner(&self) -> Result<(), Error> {
        if std::process::id() == self.owner {
            Ok(())
        } else {
            Err(Error::Forked { owner: self.owner })
        }
    }

    /// Locks. A panic of another thread leaves no half-done state: every change is one call.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who wait for what `changed` says.
    pub(crate) fn announce(&self, changed: Changed, curious: usize) {
        if changed.watched || (changed.any && curious > 0) {
            self.changed.notify_all();
        }
    }

    /// Wakes everybody who waits.
    pub(crate) fn announce_all(&self) {
        self.changed.notify_all();
    }

    /// Sleeps until the I/O thread has ended; `false` when it takes longer.
    pub(crate) fn wait_gone(&self, limit: Duration) -> bool {
        let waiting = self
            .changed
            .wait_timeout_while(self.lock(), limit, |state| !state.gone);
        waiting.unwrap_or_else(PoisonError::into_inner).0.gone
    }

    /// Sleeps until `ready` gives something, or `None` at the deadline. `ready` runs under the lock at every wake-up.
    /// `any`: wake at every change; otherwise only when an entry marked as watched finishes or one marked as guarded fails.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        any: bool,
        mut ready: impl FnMut(&mut State) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        self.check_owner()?;
        let mut state = self.lock();
        state.curious += usize::from(any);
        let result = loop {
            match ready(&mut state) {
                Ok(None) => {}
                done => break done,
            }
            if let Some(error) = state.closed() {
                break Err(error);
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break Ok(None),
                Some(rest) => {
                    state = self
                        .changed
                        .wait_timeout(state, rest)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        state.curious -= usize::from(any);
        result
    }
}

impl State {
    /// Threads that wait for more than a finish.
    pub(crate) fn curious(&self) -> usize {
        self.curious
    }

    fn closed(&self) -> Option<Error> {
        (self.life == Life::Closed).then_some(Error::Closed)
    }

    /// An error unless new requests can be sent.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match &self.life {
            Life::Open => Ok(()),
            Life::Closed => Err(Error::Closed),
            Life::Lost(reason) => Err(Error::Lost {
                cluster: self.facts.cluster.clone(),
                reason: reason.clone(),
            }),
        }
    }

    /// Registers and queues an instruction.
    pub(crate) fn submit(&mut self, mut submit: Submit, one_of: bool, blobs: Vec<Bytes>) -> u64 {
        let counter = self.outgoing.next_counter();
        submit.counter = counter;
        self.pending
            .register(counter, submit.targets.engines().to_vec(), one_of);
        self.outgoing.push(Message::new(&Request::Submit(submit), blobs));
        counter
    }

    /// The next instruction that may go out now.
    pub(crate) fn next_submit(&mut self) -> Option<Message> {
        self.outgoing.take(self.pending.open())
    }

    /// Queues a request; its number fetches the answer.
    pub(crate) fn ask(&mut self, request: impl FnOnce(u64) -> Request) -> u64 {
        self.next_request += 1;
        let message = Message::bare(&request(self.next_request));
        self.control.push_back(message.clone());
        self.asked.insert(
            self.next_request,
            Asked {
                message,
                answer: None,
            },
        );
        self.next_request
    }

    /// Takes the answer, if it is there.
    pub(crate) fn take_answer(&mut self, number: u64) -> Option<(Answer, Vec<Bytes>)> {
        self.asked.get_mut(&number).and_then(|asked| asked.answer.take())
    }

    /// A connection begins. Queued control messages are those of the old one: what is unanswered goes out again.
    pub(crate) fn on_welcome(&mut self, welcome: Welcome, address: String) {
        self.outgoing.reopened(welcome.accepted, welcome.credit);
        let mut open: Vec<_> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.answer.is_none())
            .collect();
        open.sort_by_key(|(number, _)| **number);
        self.control = open.into_iter().map(|(_, asked)| asked.message.clone()).collect();
        if welcome.ended.is_none() {
            self.control.extend(self.shutdown.clone());
        }
        self.facts = Facts {
            cluster: welcome.cluster,
            address,
            software: welcome.software,
            engines: welcome.engines,
            window: welcome.event_window,
            ended: welcome.ended,
        };
    }

    /// Takes an event over; one that came before is dropped.
    pub(crate) fn on_event(&mut self, envelope: EventEnvelope, blobs: Vec<Bytes>) -> Changed {
        if envelope.number != 0 {
            if envelope.number <= self.events_seen {
                return Changed::default();
            }
            self.events_seen = envelope.number;
        }
        match envelope.event {
            Event::Started { counter, engine } => self.pending.on_started(counter, engine),
            Event::Finished {
                counter,
                engine,
                outcome,
                timing,
            } => self.pending.on_outcome(counter, engine, outcome, timing, &blobs),
            Event::Stream {
                id,
                engine,
                name,
                omitted,
                ..
            } => {
                let bytes = blobs.first().map_or(&[][..], |blob| blob);
                match self.own(id) {
                    Some(counter) => self.pending.on_stream(counter, engine, name, omitted, bytes),
                    None => self.on_stray(Output {
                        engine,
                        kind: OutputKind::Stream(name),
                        text: Utf8Pieces::default().take(bytes),
                        time: now(),
                    }),
                }
            }
            Event::Display { id, engine, msg_type } => {
                let json = blobs.first().map_or(&[][..], |blob| blob);
                match self.own(Some(id)) {
                    Some(counter) => self.pending.on_display(counter, engine, msg_type, json),
                    None => Changed::default(),
                }
            }
            other => self.on_news(other, blobs),
        }
    }

    fn on_news(&mut self, event: Event, blobs: Vec<Bytes>) -> Changed {
        let news = Changed {
            any: true,
            watched: true,
        };
        match event {
            Event::Accepted { up_to } => {
                self.outgoing.accepted(up_to);
                Changed::default()
            }
            Event::Credit(credit) => {
                self.outgoing.grant(credit);
                Changed::default()
            }
            Event::Rejected { counter, reason } => {
                self.outgoing.accepted(counter);
                self.pending.end(counter, |_| Outcome::Aborted {
                    reason: reason.clone(),
                })
            }
            Event::Answer { request, answer } => {
                if let Some(asked) = self.asked.get_mut(&request) {
                    asked.answer = Some((answer, blobs));
                }
                news
            }
            Event::EngineLost { engine, cause } => {
                if let Some(info) = self.facts.engines.get_mut(engine.index()) {
                    info.lost = Some(cause);
                }
                news
            }
            Event::Ended { reason } => {
                self.facts.ended = Some(reason);
                news
            }
            // The others were handled by the caller, or before it.
            _ => Changed::default(),
        }
    }

    fn on_stray(&mut self, output: Output) -> Changed {
        if self.strays.len() == MOST_STRAYS {
            self.strays.pop_front();
        }
        self.strays.push_back(output);
        Changed {
            any: true,
            watched: false,
        }
    }

    fn own(&self, id: Option<InstructionId>) -> Option<u64> {
        id.filter(|id| id.client == self.client).map(|id| id.counter)
    }

    /// The session is over: what has no outcome gets one, so that nobody waits for ever.
    pub(crate) fn lose(&mut self, reason: &str) {
        if self.life != Life::Open {
            return;
        }
        self.life = Life::Lost(reason.to_owned());
        for counter in self.pending.unfinished() {
            let engines = &self.facts.engines;
            self.pending.end(counter, |engine| {
                let info = engines.get(engine.index());
                let known = info.and_then(|info| info.lost.clone());
                Outcome::Lost(known.unwrap_or_else(|| LossCause {
                    engine: engine.0,
                    host: info.map(|info| info.host.clone()).unwrap_or_default(),
                    kind: LossKind::Stopped,
                    detail: reason.to_owned(),
                }))
            });
        }
    }

    /// Drops a request that nobody waits for any more.
    pub(crate) fn unask(&mut self, number: u64) {
        self.asked.remove(&number);
    }

    /// Queues the request to stop the world.
    pub(crate) fn shut_down(&mut self, reason: &str) {
        let message = Message::bare(&Request::Shutdown {
            reason: reason.to_owned(),
        });
        self.control.push_back(message.clone());
        self.shutdown = Some(message);
    }

    /// Whether nothing waits to go out.
    pub(crate) fn sent_all(&self) -> bool {
        self.control.is_empty() && self.outgoing.is_empty()
    }
}

/// The end of a wait; `None`: there is none, or it is beyond what the clock can say.
pub(crate) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}
