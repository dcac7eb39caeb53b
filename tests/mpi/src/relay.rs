//! A Unix socket in front of the gateway's that can be cut: a network that fails while both ends live.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::waiting::until;

/// The relay. It listens for the life of the test's process; its connections end with it.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Mutex<Vec<UnixStream>>,
    accepted: AtomicUsize,
}

impl Relay {
    /// Listens at `path` and connects everybody to `upstream`.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(path: &Path, upstream: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("the relay's socket");
        let (state, upstream) = (Arc::new(State::default()), upstream.to_owned());
        let theirs = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // An upstream that is gone means that the job has ended.
                let Ok(gateway) = UnixStream::connect(&upstream) else {
                    return;
                };
                if theirs.join(&client, &gateway).is_err() {
                    return;
                }
            }
        });
        Self {
            path: path.to_owned(),
            state,
        }
    }

    /// For a client's `url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Cuts every present connection. Who connects again is served.
    pub fn cut(&self) {
        let mut open = self.state.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until so many connections have come in total.
    pub fn wait_connections(&self, count: usize) {
        until("another connection", || {
            (self.state.accepted.load(Ordering::SeqCst) >= count).then_some(())
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

impl State {
    fn join(&self, client: &UnixStream, gateway: &UnixStream) -> io::Result<()> {
        for (from, to) in [(client, gateway), (gateway, client)] {
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            thread::spawn(move || {
                // Either side may hang up; the other is told.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend([client.try_clone()?, gateway.try_clone()?]);
        self.accepted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
