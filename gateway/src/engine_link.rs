//! One control link: frames with a length prefix over a Unix socket or TLS. Reader, writer and, on the same host, a
//! look at the engine's process when its link is gone.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ipengine_protocol::handshake::Role;
use ipengine_protocol::{
    Assembler, DecodeError, EngineFacts, EngineId, Frame, FromEngine, FromEngineEnvelope, Incoming, Message,
    ToEngine, frame,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{timeout, timeout_at};

use crate::Fault;
use crate::greeting::{Raw, greet};
use crate::listener::{Reception, Stranger};
use crate::outbox::{Batch, Mailbox};
use crate::switchboard::Switchboard;

/// Frames below this are copied: into one write going out, and out of the read buffer coming in, so that a small
/// outcome that is kept for long does not keep the whole buffer.
const SMALL: usize = 16 << 10;

/// Room for one read.
const READ: usize = 64 << 10;

/// Between looks at the process of an engine whose link is gone. A process closes its files before it can be seen to
/// have ended, so the first look often comes too early.
const LOOK: Duration = Duration::from_millis(10);

/// For what a peer said before its connection broke.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves one link until it ends.
pub(crate) async fn run<S>(reception: &Reception, stranger: Stranger<S>) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Stranger {
        mut stream,
        binding,
        deadline,
        pid,
        permit,
    } = stranger;
    let mut inbox = Inbox::new();
    let greeting = timeout_at(deadline, async {
        greet(
            &mut Raw(&mut stream),
            Role::Engine,
            &reception.engine_secret,
            &binding,
        )
        .await?;
        first_message(&mut stream, &mut inbox).await
    });
    let facts = greeting.await;
    drop(permit);
    let facts = facts.map_err(|_| Fault::Slow)??;
    let engine = facts.id;
    let board = &*reception.board;
    let mailbox = Rc::new(Mailbox::default());
    let admitted = board.call(|router, now| {
        router.admit(&facts)?;
        router.outbox().attach_engine(engine, &mailbox);
        router.on_engine_hello(facts, now);
        Ok::<_, Fault>(())
    });
    if let Err(fault) = admitted {
        refuse(&mut stream, &fault).await;
        return Err(fault);
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let end = {
        let reading = pin!(read(board, engine, &mut reader, &mut inbox));
        serve_both(reading, write(&mut writer, &mailbox)).await
    };
    after(board, engine, &mailbox, pid).await;
    end
}

/// Tells an engine that it has no place here, so that it ends instead of asking again: one whose cable was cut for long
/// enough to count as lost, above all.
async fn refuse<S>(stream: &mut S, fault: &Fault)
where
    S: AsyncWrite + Unpin,
{
    let stop = ToEngine::Stop {
        reason: fault.to_string(),
    };
    let frames: Vec<Frame> = frame::frames(&Message::bare(&stop), 1).collect();
    let written = timeout(LAST_WORDS, async {
        stream.write_all_buf(&mut Pieces::of(&frames)).await?;
        stream.shutdown().await
    });
    // It may be gone again already.
    let _ = written.await;
}

/// Reads and writes until one of both ends. When only writing fails, the peer is gone, but its last words may be there.
pub(crate) async fn serve_both<R, W>(mut reading: Pin<&mut R>, writing: W) -> Result<(), Fault>
where
    R: Future<Output = Result<(), Fault>>,
    W: Future<Output = Result<(), Fault>>,
{
    let broken = tokio::select! {
        end = &mut reading => return end,
        end = writing => end,
    };
    if broken.is_err() && timeout(LAST_WORDS, reading).await.is_err() {
        tracing::debug!("the peer takes nothing and says nothing");
    }
    broken
}

async fn first_message<S>(stream: &mut S, inbox: &mut Inbox) -> Result<EngineFacts, Fault>
where
    S: AsyncRead + Unpin,
{
    let message = inbox.next(stream).await?.ok_or(Fault::NotOpened)?;
    match message.decode::<FromEngineEnvelope>()?.message {
        FromEngine::Hello(facts) => Ok(*facts),
        _ => Err(Fault::NotOpened),
    }
}

async fn read<R>(
    board: &Switchboard,
    engine: EngineId,
    reader: &mut R,
    inbox: &mut Inbox,
) -> Result<(), Fault>
where
    R: AsyncRead + Unpin,
{
    while let Some(message) = inbox.next(reader).await? {
        let envelope: FromEngineEnvelope = message.decode()?;
        board.call(|router, now| router.on_engine_message(engine, envelope, message.blobs, now))?;
    }
    Ok(())
}

async fn write<W>(writer: &mut W, mailbox: &Mailbox) -> Result<(), Fault>
where
    W: AsyncWrite + Unpin,
{
    loop {
        match mailbox.next().await {
            Batch::Frames(frames, _) => {
                writer.write_all_buf(&mut Pieces::of(&frames)).await?;
                writer.flush().await?;
            }
            Batch::Close(_) => {
                writer.shutdown().await?;
                return Ok(());
            }
        }
    }
}

/// Tells the router, at once if the process is known to be gone, and watches it while the router waits for it.
async fn after(board: &Switchboard, engine: EngineId, mailbox: &Rc<Mailbox>, pid: Option<i32>) {
    let current = board.call(|router, now| {
        let current = router.outbox().detach_engine(engine, mailbox);
        if current {
            router.on_engine_closed(engine, pid.is_some_and(is_gone), now);
        }
        current
    });
    let Some(pid) = pid.filter(|_| current) else {
        return;
    };
    while board.call(|router, _| router.is_missing(engine)) {
        if is_gone(pid) {
            return board.call(|router, now| router.on_process_gone(engine, now));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether this process of this host has ended. Without `/proc` nothing is known, and time decides.
fn is_gone(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses and may hold anything.
        Ok(stat) => stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['Z', 'X'])),
        Err(_) => std::path::Path::new("/proc/self/stat").exists(),
    }
}

/// Cuts the byte stream into frames and puts messages together.
struct Inbox {
    buffer: BytesMut,
    assembler: Assembler,
}

impl Inbox {
    fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            assembler: Assembler::new(frame::MAX_PAYLOAD_LEN),
        }
    }

    /// The next message; `None` when the stream ends between two.
    async fn next<R: AsyncRead + Unpin>(&mut self, reader: &mut R) -> Result<Option<Message>, Fault> {
        loop {
            while let Some(frame) = self.frame()? {
                if let Incoming::Message(message) = self.assembler.take(frame)? {
                    return Ok(Some(message));
                }
            }
            self.buffer.reserve(READ);
            if reader.read_buf(&mut self.buffer).await? == 0 {
                return self.at_end();
            }
        }
    }

    fn frame(&mut self) -> Result<Option<Bytes>, Fault> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = frame::check_prefix(u32::from_le_bytes(*prefix))?;
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        if length < SMALL {
            let frame = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return Ok(Some(frame));
        }
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn at_end(&self) -> Result<Option<Message>, Fault> {
        let present = self.buffer.len() as u64;
        if present == 0 {
            return Ok(None);
        }
        let prefix = self
            .buffer
            .first_chunk::<4>()
            .map_or(0, |prefix| u32::from_le_bytes(*prefix));
        Err(DecodeError::Truncated {
            needed: 4 + u64::from(prefix),
            present,
        }
        .into())
    }
}

/// Frames with their prefixes, as few pieces as possible, for a vectored write.
struct Pieces(VecDeque<Bytes>);

impl Pieces {
    fn of(frames: &[Frame]) -> Self {
        let mut pieces = VecDeque::new();
        let mut small = BytesMut::new();
        for frame in frames {
            if frame.len() < SMALL {
                frame.append_prefixed(&mut small);
                continue;
            }
            small.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            pieces.push_back(small.split().freeze());
            pieces.extend(frame.pieces().iter().cloned());
        }
        if !small.is_empty() {
            pieces.push_back(small.freeze());
        }
        Self(pieces)
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.0.front_mut() else { return };
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.0.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let filled = into.iter_mut().zip(&self.0);
        filled.map(|(slot, piece)| *slot = IoSlice::new(piece)).count()
    }
}
