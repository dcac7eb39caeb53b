//! A Unix socket whose writer is not woken each time that the peer reads.
//!
//! Linux reports room to write on a Unix socket whenever the peer takes something (TCP does so only after the buffer was
//! full). tokio's own `UnixStream` always listens for it, so that every message that is read wakes its sender once more, for
//! nothing. Here reading alone is registered, and writing only while the socket is full.

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// What one read asks for at least, and at most.
const LEAST: usize = 4 << 10;
const MOST: usize = 1 << 20;

/// A connected Unix socket.
#[derive(Debug)]
pub struct LocalStream {
    socket: AsyncFd<UnixStream>,
    /// What the next read asks for. Memory is zeroed before it is read into: all of a reader's buffer for a message of some
    /// hundred bytes would cost more than the read.
    ask: usize,
    /// While the socket is full: the same socket, registered for room to write.
    room: Option<AsyncFd<UnixStream>>,
}

impl LocalStream {
    /// Takes a socket over from tokio; must be called within a runtime.
    ///
    /// # Errors
    /// Those of registering it.
    pub fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        // Stays nonblocking.
        let socket = register(stream.into_std()?, Interest::READABLE)?;
        Ok(Self {
            socket,
            ask: LEAST,
            room: None,
        })
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match send(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                done => {
                    self.room = None;
                    return Poll::Ready(done);
                }
            }
            if self.room.is_none() {
                let same = self.socket.get_ref().try_clone()?;
                self.room = Some(register(same, Interest::WRITABLE)?);
            }
            let room = self.room.as_ref().expect("made above");
            ready!(room.poll_write_ready(cx))?.clear_ready();
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that may change their descriptor; a `UnixStream` does not"
)]
fn register(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

impl AsyncRead for LocalStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, ask, .. } = self.get_mut();
        loop {
            let mut ready = ready!(socket.poll_read_ready(cx))?;
            let room = buf.remaining().min(*ask);
            let free = buf.initialize_unfilled_to(room);
            match ready.try_io(|socket| socket.get_ref().read(free)) {
                Ok(Ok(read)) => {
                    if 0 < read && read < room {
                        // Everything is read; the next arrival is reported anew.
                        ready.clear_ready();
                    }
                    buf.advance(read);
                    *ask = (2 * read).clamp(LEAST, MOST);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |mut socket| socket.write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |mut socket| socket.write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.get_ref().shutdown(std::net::Shutdown::Write) {
            // The peer has closed already.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Plain;
    use std::thread;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    /// More than any socket's buffer.
    const MUCH: usize = 8 << 20;

    /// Runs `talk` on a stream whose other end is `peer`'s, on a thread of its own.
    fn against<T, F>(peer: impl FnOnce(Plain) + Send + 'static, talk: impl FnOnce(LocalStream) -> F) -> T
    where
        F: Future<Output = T>,
    {
        let (ours, theirs) = Plain::pair().unwrap();
        let peer = thread::spawn(move || peer(theirs));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let result = runtime.block_on(async {
            ours.set_nonblocking(true).unwrap();
            let stream = LocalStream::new(tokio::net::UnixStream::from_std(ours).unwrap()).unwrap();
            timeout(LIMIT, talk(stream))
                .await
                .expect("an end within the limit")
        });
        peer.join().unwrap();
        result
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn a_full_socket_takes_the_rest_when_there_is_room() {
        let peer = |mut theirs: Plain| {
            let mut got = vec![0; MUCH];
            theirs.read_exact(&mut got).unwrap();
            assert!(got == pattern(MUCH), "bytes were lost or swapped");
            theirs.write_all(b"!").unwrap();
        };
        against(peer, |mut stream| async move {
            stream.write_all(&pattern(MUCH)).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
        });
    }

    #[test]
    fn reads_while_the_writer_waits_for_room() {
        let peer = |mut theirs: Plain| {
            // Nothing is read before everything is sent: each side fills its direction.
            theirs.write_all(&pattern(MUCH)).unwrap();
            let mut got = vec![0; MUCH];
            theirs.read_exact(&mut got).unwrap();
            assert!(got == pattern(MUCH));
        };
        against(peer, |stream| async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut got = vec![0; MUCH];
            let all = pattern(MUCH);
            let (read, written) = tokio::join!(reader.read_exact(&mut got), writer.write_all(&all));
            read.unwrap();
            written.unwrap();
            assert!(got == all);
        });
    }

    #[test]
    fn several_pieces_leave_as_one_and_the_end_is_seen() {
        let peer = |mut theirs: Plain| {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"abcdef");
        };
        against(peer, |mut stream| async move {
            let pieces = [IoSlice::new(b"abc"), IoSlice::new(b"def")];
            assert_eq!(stream.write_vectored(&pieces).await.unwrap(), 6);
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        });
    }

    #[test]
    fn a_peer_that_is_gone_is_an_error() {
        against(drop, |mut stream| async move {
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
            let error = stream.write_all(b"to nobody").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        });
    }

    /// What this type exists for: a round trip puts the thread to sleep once, not once more for each message that the
    /// peer has taken.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_message_that_was_read_wakes_nobody() {
        use nix::sys::resource::{UsageWho, getrusage};
        const TRIPS: i64 = 400;
        let peer = |mut theirs: Plain| {
            let mut message = [0; 64];
            for _ in 0..TRIPS {
                theirs.read_exact(&mut message).unwrap();
                // The reader of a socket tells its writer before it returns; a moment later the answer is no part of that.
                thread::sleep(Duration::from_micros(200));
                theirs.write_all(&message).unwrap();
            }
        };
        let sleeps = || {
            getrusage(UsageWho::RUSAGE_THREAD)
                .unwrap()
                .voluntary_context_switches()
        };
        let slept = against(peer, |mut stream| async move {
            let mut message = [7; 64];
            let before = sleeps();
            for _ in 0..TRIPS {
                stream.write_all(&message).await.unwrap();
                stream.read_exact(&mut message).await.unwrap();
            }
            sleeps() - before
        });
        assert!(slept < TRIPS * 3 / 2, "{slept} sleeps for {TRIPS} round trips");
    }
}
