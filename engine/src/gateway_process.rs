//! The gateway process: takes its inheritance from the supervisor and runs [`ipengine_gateway::serve`].

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use ipengine_gateway::{LauncherReport, Listeners};
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::supervisor::Inheritance;

/// Reports waiting to be taken: the launcher's own messages are a few lines.
const REPORTS: usize = 256;

/// Runs until the world has ended and nobody fetches any more.
///
/// # Errors
/// Whatever keeps it from serving.
pub fn run() -> Result<(), Error> {
    let mut stdin = BufReader::new(io::stdin());
    let mut line = String::new();
    stdin
        .read_line(&mut line)
        .map_err(Error::io("read the inheritance"))?;
    let inheritance: Inheritance = serde_json::from_str(&line).map_err(Error::Greeting)?;
    let listeners = listeners(&inheritance);
    let (reports, launcher) = mpsc::channel(REPORTS);
    let signalled = reports.clone();
    if inheritance.config.launcher {
        std::thread::spawn(move || forward_reports(stdin, &reports));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Error::io("start the gateway's runtime"))?;
    let ended = runtime.block_on(async {
        let (ready, is_ready) = oneshot::channel();
        tokio::task::spawn_local(stop_on_signals(signalled)?);
        tokio::task::spawn_local(async move {
            if is_ready.await.is_ok() {
                tell_supervisor("ready");
            }
        });
        ipengine_gateway::serve(inheritance.config, listeners, launcher, ready)
            .await
            .map_err(Error::from)
    });
    match ended {
        Ok(ended) => {
            tracing::info!(?ended, "world ended");
            Ok(())
        }
        Err(error) => {
            tell_supervisor(&crate::error::chain(&error));
            Err(error)
        }
    }
}

/// INT or TERM, as a batch system sends to every process of a job: the world stops in good order; once it has ended,
/// the next one ends the lingering.
fn stop_on_signals(reports: mpsc::Sender<LauncherReport>) -> Result<impl Future<Output = ()>, Error> {
    let watch = |kind| signal(kind).map_err(Error::io("watch for signals"));
    let (mut interrupt, mut terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    Ok(async move {
        loop {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            let reason = format!("the gateway received {name}");
            if reports.send(LauncherReport::Stop { reason }).await.is_err() {
                return;
            }
        }
    })
}

fn tell_supervisor(words: &str) {
    // Without a supervisor there is nobody to tell; the log has it.
    let _ = writeln!(io::stdout(), "{words}");
}

fn listeners(inheritance: &Inheritance) -> Listeners {
    Listeners {
        tcp: Some(TcpListener::from(inherited(inheritance.tcp))),
        clients: UnixListener::from(inherited(inheritance.clients)),
        engines: UnixListener::from(inherited(inheritance.engines)),
    }
}

fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: the supervisor opened this descriptor, made it inheritable for this process alone and named it in the
    // inheritance; nothing else in this process uses it, so it is owned here from now on.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Passes the launcher's reports on; runs on a thread of its own because the pipe is read with blocking calls.
fn forward_reports(stdin: impl BufRead, reports: &mpsc::Sender<LauncherReport>) {
    for line in stdin.lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(report) => {
                if reports.blocking_send(report).is_err() {
                    return; // the gateway has ended
                }
            }
            Err(error) => tracing::warn!(%error, "unreadable report of the supervisor"),
        }
    }
}
