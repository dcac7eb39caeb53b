//! One client connection, after TLS: upgrade, greeting, then a reader that calls the router and a writer that empties
//! the mailbox. Both are halves of one task; the first to end ends the connection. The client's state lives on in the
//! router.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use ipengine_protocol::handshake::Role;
use ipengine_protocol::{Assembler, ClientId, Incoming, Message, Request, frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{self, CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message as WebMessage, Utf8Bytes};

use crate::Fault;
use crate::engine_link::serve_both;
use crate::greeting::{Web, greet, unproved_limits};
use crate::listener::{Reception, Stranger};
use crate::outbox::{Batch, Mailbox};
use crate::router::Opening;
use crate::switchboard::Switchboard;

/// A connection that has no time to say goodbye is cut.
const GOODBYE: Duration = Duration::from_secs(1);

/// Tells a client that its session is not known here and that to try again is of no use.
const UNKNOWN_SESSION: u16 = 4001;

/// What a proved client is read with.
struct Conversation<S> {
    web: WebSocketStream<S>,
    assembler: Assembler,
    opening: Opening,
}

/// Serves one client connection until it ends.
pub(crate) async fn run<S>(reception: &Reception, stranger: Stranger<S>) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Stranger {
        stream,
        binding,
        deadline,
        permit,
        ..
    } = stranger;
    let greeting = timeout_at(deadline, receive(reception, stream, &binding)).await;
    drop(permit);
    let conversation = greeting.map_err(|_| Fault::Slow)??;
    converse(reception, conversation).await
}

async fn receive<S>(reception: &Reception, stream: S, binding: &[u8]) -> Result<Conversation<S>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = tokio_tungstenite::accept_async_with_config(stream, Some(unproved_limits())).await;
    let mut strange = accepted.map_err(Box::new)?;
    if let Err(fault) = greet(
        &mut Web(&mut strange),
        Role::Client,
        &reception.client_secret,
        binding,
    )
    .await
    {
        say_goodbye(&mut strange, close_code(&fault), &fault.to_string()).await;
        return Err(fault);
    }
    // The limits of a WebSocket are fixed when it is made. Nothing is lost here: a client is silent until the verdict.
    // The read buffer is zeroed before each read: a large one costs small messages more than it saves large ones.
    let limits = WebSocketConfig::default()
        .read_buffer_size(32 * 1024)
        .max_message_size(Some(frame::MAX_FRAME_LEN))
        .max_frame_size(Some(frame::MAX_FRAME_LEN));
    let mut web =
        WebSocketStream::from_raw_socket(strange.into_inner(), protocol::Role::Server, Some(limits)).await;
    let mut assembler = Assembler::new(frame::MAX_PAYLOAD_LEN);
    match first_request(&mut web, &mut assembler).await {
        Ok(opening) => Ok(Conversation {
            web,
            assembler,
            opening,
        }),
        Err(fault) => {
            say_goodbye(&mut web, close_code(&fault), &fault.to_string()).await;
            Err(fault)
        }
    }
}

async fn first_request<S>(web: &mut WebSocketStream<S>, assembler: &mut Assembler) -> Result<Opening, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = web.next().await.ok_or(Fault::NotOpened)?.map_err(Box::new)?;
        let Some(message) = binary(message, assembler)? else {
            continue;
        };
        let Request::Open {
            client,
            user,
            software,
            python: _,
            events_seen,
        } = message.decode()?
        else {
            return Err(Fault::NotOpened);
        };
        return Ok(Opening {
            client,
            user,
            software,
            events_seen,
        });
    }
}

async fn converse<S>(reception: &Reception, conversation: Conversation<S>) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Conversation {
        web,
        mut assembler,
        opening,
    } = conversation;
    let client = opening.client;
    let board = &*reception.board;
    let mailbox = Rc::new(Mailbox::default());
    let opened = board.call(|router, now| {
        router.outbox().attach_client(client, &mailbox);
        router.on_client_open(opening, now)
    });
    let heard = Cell::new(true);
    let (mut sink, mut stream) = web.split();
    let end = match opened {
        Err(fault) => Err(fault),
        Ok(()) => {
            let reading = pin!(read(board, client, &mut stream, &mut assembler, &heard));
            tokio::select! {
                end = serve_both(reading, write(&mut sink, &mailbox)) => end,
                fault = watch(reception.limits.heartbeat, &mailbox, &heard) => Err(fault),
            }
        }
    };
    board.call(|router, now| {
        if router.outbox().detach_client(client, &mailbox) {
            router.on_client_closed(client, now);
        }
    });
    if let Err(fault) = &end {
        say_goodbye(&mut sink, close_code(fault), &fault.to_string()).await;
    }
    end
}

async fn read<S>(
    board: &Switchboard,
    client: ClientId,
    stream: &mut SplitStream<WebSocketStream<S>>,
    assembler: &mut Assembler,
    heard: &Cell<bool>,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = stream.next().await {
        heard.set(true);
        let message = message.map_err(Box::new)?;
        if let WebMessage::Close(_) = message {
            return Ok(());
        }
        let Some(message) = binary(message, assembler)? else {
            continue;
        };
        let request: Request = message.decode()?;
        let bytes = message.len();
        board.call(|router, now| router.on_request(client, request, message.blobs, bytes, now))?;
    }
    Ok(())
}

/// What a WebSocket message means in the conversation.
fn binary(message: WebMessage, assembler: &mut Assembler) -> Result<Option<Message>, Fault> {
    match message {
        WebMessage::Binary(bytes) => match assembler.take(bytes)? {
            Incoming::Message(message) => Ok(Some(message)),
            Incoming::Chunk { .. } => Ok(None),
        },
        WebMessage::Text(_) => Err(Fault::Text),
        // The library queues the pong and sends it with the next read; a pong is only a sign of life.
        WebMessage::Ping(_) | WebMessage::Pong(_) => Ok(None),
        WebMessage::Close(_) => Err(Fault::NotOpened),
        WebMessage::Frame(_) => Ok(None),
    }
}

async fn write<S>(
    sink: &mut SplitSink<WebSocketStream<S>, WebMessage>,
    mailbox: &Mailbox,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match mailbox.next().await {
            Batch::Frames(frames, ping) => {
                for frame in frames {
                    sink.feed(WebMessage::Binary(frame.into_bytes()))
                        .await
                        .map_err(Box::new)?;
                }
                if ping {
                    sink.feed(WebMessage::Ping(bytes::Bytes::new()))
                        .await
                        .map_err(Box::new)?;
                }
                sink.flush().await.map_err(Box::new)?;
            }
            Batch::Close(reason) => {
                say_goodbye(sink, CloseCode::Policy, &reason).await;
                return Ok(());
            }
        }
    }
}

/// Asks a silent client for a sign of life and gives it up when none comes: a laptop that was closed sends no farewell.
/// Counts beats and not time, so that a job that was suspended does not find all its clients silent.
async fn watch(heartbeat: Duration, mailbox: &Mailbox, heard: &Cell<bool>) -> Fault {
    let mut missed = 0;
    while missed < 3 {
        tokio::time::sleep(heartbeat).await;
        missed = if heard.take() { 0 } else { missed + 1 };
        if missed > 0 {
            mailbox.ping();
        }
    }
    Fault::Silent
}

fn close_code(fault: &Fault) -> CloseCode {
    match fault {
        Fault::UnknownSession => CloseCode::from(UNKNOWN_SESSION),
        _ => CloseCode::Policy,
    }
}

/// Closes with a reason, as far as the peer still listens.
async fn say_goodbye<W>(sink: &mut W, code: CloseCode, reason: &str)
where
    W: futures_util::Sink<WebMessage> + Unpin,
{
    // A close frame's reason has at most 123 bytes.
    let cut = (0..=reason.len().min(123))
        .rev()
        .find(|at| reason.is_char_boundary(*at))
        .unwrap_or(0);
    let close = CloseFrame {
        code,
        reason: Utf8Bytes::from(&reason[..cut]),
    };
    if timeout(GOODBYE, sink.send(WebMessage::Close(Some(close))))
        .await
        .is_err()
    {
        tracing::debug!("peer did not take the close frame");
    }
}
