//! The I/O thread: one WebSocket at a time, two lanes out, events in, and a new connection when one breaks.
//!
//! Its own thread with a current-thread runtime; it never takes Python's GIL. Neighbours: [`crate::transport`] makes
//! the socket, [`crate::shared`] is what it reads from and writes to.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream as _};
use ipengine_protocol::event::EventEnvelope;
use ipengine_protocol::frame::{Frame, MAX_PAYLOAD_LEN, frames};
use ipengine_protocol::handshake::HandshakeError;
use ipengine_protocol::{Assembler, Event, Incoming, Message, PythonVersion, Request, Welcome};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

use crate::Error;
use crate::access::Access;
use crate::error::{Attempt, AttemptError};
use crate::pending::Changed;
use crate::pulse::{Due, Pulse};
use crate::reconnect::reconnect;
use crate::shared::{Life, Shared};
use crate::transport::{self, Socket};

/// Messages taken from the socket before those who wait hear of them.
const BATCH: usize = 256;

/// Instructions taken from the session's queue at once, so that its lock is not taken for each.
const REFILL: usize = 64;

/// Delay of an ack that the window does not ask for: the gateway frees what it keeps for us.
const ACK_DELAY: Duration = Duration::from_millis(500);

/// Instructions not yet accepted when the session is closed have this time to leave.
pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Time for the last ack and the WebSocket's close message.
pub(crate) const GOODBYE: Duration = Duration::from_millis(500);

/// The Welcome must follow `Open` within this time.
const WELCOME_LIMIT: Duration = Duration::from_secs(5);

/// Who we say that we are.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// `ada@laptop`.
    pub user: String,
    /// `ipsteer 0.1.0 (Python 3.11.7)`.
    pub software: String,
    /// The interpreter, if there is one.
    pub python: Option<PythonVersion>,
}

/// How a connection ended.
enum End {
    /// As asked, everything is sent.
    Closed,
    /// It broke.
    Broken(AttemptError),
}

/// Connects and opens the session: after this, everything can be sent.
pub(crate) async fn establish(
    access: &Access,
    identity: &Identity,
    shared: &Arc<Shared>,
) -> Result<Link, Error> {
    let (mut socket, address) = transport::open(access).await?;
    let mut assembler = Assembler::new(MAX_PAYLOAD_LEN);
    let (client, events_seen) = {
        let state = shared.lock();
        (state.client, state.events_seen)
    };
    let open = Request::Open {
        client,
        user: identity.user.clone(),
        software: identity.software.clone(),
        python: identity.python,
        events_seen,
    };
    let welcome = tokio::time::timeout(WELCOME_LIMIT, introduce(&mut socket, &mut assembler, &open));
    let welcome = welcome
        .await
        .unwrap_or(Err(AttemptError::Timeout))
        .map_err(|error| Error::Unreachable {
            cluster: access.cluster.clone(),
            attempts: vec![Attempt {
                address: address.to_string(),
                error,
            }],
        })?;
    shared.lock().on_welcome(welcome, address.to_string());
    Ok(Link::new(shared.clone(), socket, assembler))
}

async fn introduce(
    socket: &mut Socket,
    assembler: &mut Assembler,
    open: &Request,
) -> Result<Welcome, AttemptError> {
    for frame in frames(&Message::bare(open), 1) {
        socket
            .send(WsMessage::Binary(frame.into_bytes()))
            .await
            .map_err(broken)?;
    }
    loop {
        let Some(bytes) = std::future::poll_fn(|cx| poll_binary(socket, cx)).await? else {
            continue;
        };
        let Incoming::Message(message) = assembler.take(bytes)? else {
            continue;
        };
        if let Event::Welcome(welcome) = message.decode::<EventEnvelope>()?.event {
            return Ok(*welcome);
        }
    }
}

/// Moves messages until the session is closed or lost for good.
pub(crate) async fn run(mut link: Link, mut access: Access, identity: Identity) {
    let shared = link.shared.clone();
    loop {
        let End::Broken(error) = link.drive().await else {
            break;
        };
        drop(link);
        if error.is_final() {
            shared.lock().lose(&error.to_string());
            break;
        }
        match reconnect(&mut access, &identity, &shared, error).await {
            Ok(again) => link = again,
            Err(reason) => {
                shared.lock().lose(&reason);
                break;
            }
        }
    }
    shared.lock().gone = true;
    shared.announce_all();
}

/// One connection while it lasts.
pub(crate) struct Link {
    shared: Arc<Shared>,
    socket: Socket,
    assembler: Assembler,
    /// Frames of the control lane: go out before any frame of `work`.
    control: VecDeque<Frame>,
    /// Frames of the work lane.
    work: VecDeque<Frame>,
    /// The session's queue holds more that may be sent.
    more: bool,
    /// Something is written that is not flushed.
    dirty: bool,
    /// Number of the latest transfer.
    transfer: u32,
    window: u64,
    /// Bytes of events since the last ack.
    unacked: u64,
    ack_due: Option<Instant>,
    pulse: Pulse,
    closing: bool,
    /// Set while closing: what cannot be sent by then is left.
    leave_by: Option<Instant>,
    /// The socket failed after the messages that were handed out last.
    failure: Option<AttemptError>,
}

impl Link {
    fn new(shared: Arc<Shared>, socket: Socket, assembler: Assembler) -> Self {
        let window = shared.lock().facts.window;
        Self {
            shared,
            socket,
            assembler,
            control: VecDeque::new(),
            work: VecDeque::new(),
            more: false,
            dirty: false,
            transfer: 0,
            window,
            unacked: 0,
            ack_due: None,
            pulse: Pulse::new(Instant::now()),
            closing: false,
            leave_by: None,
            failure: None,
        }
    }

    async fn drive(&mut self) -> End {
        let shared = self.shared.clone();
        loop {
            self.refill();
            if self.closing && (self.idle() || self.must_leave()) {
                // Nobody is left to tell about a goodbye that fails.
                let _ = tokio::time::timeout(GOODBYE, self.leave()).await;
                return End::Closed;
            }
            let timer = self.next_timer();
            let step = tokio::select! {
                biased;
                batch = std::future::poll_fn(|cx| self.poll(cx)) => batch.and_then(|batch| self.apply(batch)),
                () = shared.wake.notified() => Ok(()),
                () = tokio::time::sleep_until(timer) => self.on_timer(),
            };
            if let Err(error) = step {
                return End::Broken(error);
            }
        }
    }

    /// Takes from the session what may go out.
    fn refill(&mut self) {
        let mut state = self.shared.lock();
        self.closing = state.life == Life::Closed;
        while let Some(message) = state.control.pop_front() {
            self.transfer = next_transfer(self.transfer);
            self.control.extend(frames(&message, self.transfer));
        }
        self.more = false;
        if !self.work.is_empty() {
            return;
        }
        for _ in 0..REFILL {
            let Some(message) = state.next_submit() else {
                return;
            };
            self.transfer = next_transfer(self.transfer);
            self.work.extend(frames(&message, self.transfer));
        }
        self.more = true;
    }

    fn idle(&self) -> bool {
        let nothing = self.control.is_empty() && self.work.is_empty() && !self.more && !self.dirty;
        nothing && self.shared.lock().sent_all()
    }

    /// Says goodbye. What the gateway still keeps for us up to the ack is freed.
    async fn leave(&mut self) -> Result<(), WsError> {
        self.ack();
        while let Some(frame) = self.control.pop_front() {
            self.socket.feed(WsMessage::Binary(frame.into_bytes())).await?;
        }
        self.socket.close(None).await
    }

    fn must_leave(&mut self) -> bool {
        let now = Instant::now();
        *self.leave_by.get_or_insert(now + CLOSE_LIMIT) <= now
    }

    /// Writes what there is to write and reads what there is to read. Ready with messages, or when `refill` is due.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Message>, AttemptError>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Err(error));
        }
        if let Err(error) = self.poll_write(cx) {
            return Poll::Ready(Err(self.last_words(cx).unwrap_or(error)));
        }
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            match self.poll_read(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(message))) => batch.push(message),
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(error)) if batch.is_empty() => return Poll::Ready(Err(error)),
                Poll::Ready(Err(error)) => {
                    // What came before counts: a gateway that ends says its last words and hangs up.
                    self.failure = Some(error);
                    break;
                }
            }
        }
        let due = self.more && self.work.is_empty();
        if batch.is_empty() && !due && !(self.closing && self.idle()) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(batch))
    }

    /// Why the gateway hung up, if it said so before writing to it failed. Events that are skipped come again.
    fn last_words(&mut self, cx: &mut Context<'_>) -> Option<AttemptError> {
        loop {
            match poll_binary(&mut self.socket, cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) if error.is_final() => return Some(error),
                Poll::Ready(Err(_)) | Poll::Pending => return None,
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, AttemptError>> {
        let Poll::Ready(result) = poll_binary(&mut self.socket, cx) else {
            return Poll::Pending;
        };
        self.pulse.heard(Instant::now());
        let Some(bytes) = result? else {
            return Poll::Ready(Ok(None));
        };
        Poll::Ready(Ok(match self.assembler.take(bytes)? {
            Incoming::Message(message) => Some(message),
            Incoming::Chunk { .. } => None,
        }))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), AttemptError> {
        while !(self.control.is_empty() && self.work.is_empty()) {
            let mut socket = Pin::new(&mut self.socket);
            if socket.as_mut().poll_ready(cx).map_err(broken)?.is_pending() {
                return Ok(());
            }
            let frame = self
                .control
                .pop_front()
                .or_else(|| self.work.pop_front())
                .expect("one lane holds a frame");
            socket
                .start_send(WsMessage::Binary(frame.into_bytes()))
                .map_err(broken)?;
            self.dirty = true;
            self.pulse.spoke(Instant::now());
        }
        if self.dirty
            && Pin::new(&mut self.socket)
                .poll_flush(cx)
                .map_err(broken)?
                .is_ready()
        {
            self.dirty = false;
        }
        Ok(())
    }

    /// Decodes without the lock, then hands everything over under one.
    fn apply(&mut self, batch: Vec<Message>) -> Result<(), AttemptError> {
        let mut events = Vec::with_capacity(batch.len());
        for message in batch {
            let envelope: EventEnvelope = message.decode()?;
            if envelope.number != 0 {
                self.unacked += message.len();
            }
            events.push((envelope, message.blobs));
        }
        let mut changed = Changed::default();
        let curious = {
            let mut state = self.shared.lock();
            for (envelope, blobs) in events {
                let one = state.on_event(envelope, blobs);
                changed = Changed {
                    any: changed.any | one.any,
                    watched: changed.watched | one.watched,
                };
            }
            state.curious()
        };
        self.shared.announce(changed, curious);
        if self.unacked > self.window / 2 {
            self.ack();
        } else if self.unacked > 0 && self.ack_due.is_none() {
            self.ack_due = Some(Instant::now() + ACK_DELAY);
        }
        Ok(())
    }

    fn ack(&mut self) {
        self.ack_due = None;
        if std::mem::take(&mut self.unacked) > 0 {
            let events = self.shared.lock().events_seen;
            self.control
                .extend(frames(&Message::bare(&Request::Ack { events }), 0));
        }
    }

    fn next_timer(&self) -> Instant {
        [self.ack_due, self.leave_by]
            .into_iter()
            .flatten()
            .fold(self.pulse.next(), Instant::min)
    }

    fn ping(&mut self) -> Result<(), AttemptError> {
        self.dirty = true;
        // Tungstenite keeps the ping while the socket is full, so being ready does not matter.
        Pin::new(&mut self.socket)
            .start_send(WsMessage::Ping(Bytes::new()))
            .map_err(broken)
    }

    fn on_timer(&mut self) -> Result<(), AttemptError> {
        let now = Instant::now();
        if self.ack_due.is_some_and(|due| due <= now) {
            self.ack();
        }
        match self.pulse.due(now) {
            Due::Nothing => Ok(()),
            Due::Dead => Err(AttemptError::Timeout),
            Due::Ping => self.ping(),
        }
    }
}

/// Numbers of transfers; 0 means none.
fn next_transfer(transfer: u32) -> u32 {
    transfer.checked_add(1).unwrap_or(1)
}

/// The next binary message; `None` for the WebSocket's own, which tungstenite answers when it is polled.
fn poll_binary(socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, AttemptError>> {
    let Poll::Ready(next) = Pin::new(socket).poll_next(cx) else {
        return Poll::Pending;
    };
    Poll::Ready(match next {
        Some(Ok(WsMessage::Binary(bytes))) => Ok(Some(bytes)),
        Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => Ok(None),
        Some(Ok(WsMessage::Close(frame))) => Err(AttemptError::closed(frame)),
        None => Err(AttemptError::Closed),
        Some(Ok(WsMessage::Text(_) | WsMessage::Frame(_))) => Err(HandshakeError::NotOurs.into()),
        Some(Err(error)) => Err(broken(error)),
    })
}

fn broken(error: WsError) -> AttemptError {
    match error {
        WsError::Io(error) => AttemptError::Io(error),
        WsError::ConnectionClosed | WsError::AlreadyClosed => AttemptError::Closed,
        other => AttemptError::WebSocket(Box::new(other)),
    }
}
