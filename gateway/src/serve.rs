//! The gateway's life: open the doors, look after the router's timers, write the connection file, stay for those who
//! still fetch, leave.

use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until, timeout};

use crate::access_file::AccessFile;
use crate::hub::Hub;
use crate::listener::{Reception, accept_clients, accept_engines, accept_tcp};
use crate::router::{Cluster, Phase, Router};
use crate::switchboard::{self, Switchboard};
use crate::{Config, Error, LauncherReport, Limits, Listeners};

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// In a sentence.
    pub reason: String,
    /// Whether it was stopped and every engine left in good order.
    pub orderly: bool,
}

/// Runs the gateway until the world has ended and nobody fetches any more. `ready` is told when clients and engines can
/// connect. Dropping the launcher's sender means that nobody hears the launcher. Must run on a tokio `LocalRuntime`.
///
/// # Errors
/// [`Error`] when it cannot start, or cannot write the connection file.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    launcher: mpsc::Receiver<LauncherReport>,
    ready: oneshot::Sender<()>,
) -> Result<Ended, Error> {
    serve_within(Limits::default(), config, listeners, launcher, ready).await
}

/// [`serve`] with other limits: for tests.
///
/// # Errors
/// As [`serve`].
pub async fn serve_within(
    limits: Limits,
    config: Config,
    listeners: Listeners,
    launcher: mpsc::Receiver<LauncherReport>,
    ready: oneshot::Sender<()>,
) -> Result<Ended, Error> {
    let cluster = Cluster {
        name: config.cluster.clone(),
        software: config.software.clone(),
        size: config.size,
        launcher: config.launcher && !launcher.is_closed(),
        restarted: config.restarted,
        linger: Duration::from_secs(config.linger),
    };
    let router = Router::new(cluster, limits.clone(), Hub::default(), switchboard::now());
    let board = Rc::new(Switchboard::new(router));
    let reception = Rc::new(Reception::new(&config, limits.clone(), board.clone())?);
    open_doors(&reception, listeners)?;
    // Whoever waits for it may have gone; that is no reason to stop.
    let _ = ready.send(());
    let mut access = AccessFile::new(&config);
    let ended = live(&board, &mut access, launcher).await?;
    farewell(&board, limits.farewell).await;
    Ok(ended)
}

fn open_doors(reception: &Rc<Reception>, listeners: Listeners) -> Result<(), Error> {
    let Listeners {
        tcp,
        clients,
        engines,
    } = listeners;
    clients.set_nonblocking(true).map_err(Error::Listener)?;
    engines.set_nonblocking(true).map_err(Error::Listener)?;
    if let Some(tcp) = tcp {
        tcp.set_nonblocking(true).map_err(Error::Listener)?;
        let tcp = TcpListener::from_std(tcp).map_err(Error::Listener)?;
        spawn_local(accept_tcp(reception.clone(), tcp));
    }
    let clients = UnixListener::from_std(clients).map_err(Error::Listener)?;
    spawn_local(accept_clients(reception.clone(), clients));
    let engines = UnixListener::from_std(engines).map_err(Error::Listener)?;
    spawn_local(accept_engines(reception.clone(), engines));
    Ok(())
}

/// Until nobody needs the gateway any more.
async fn live(
    board: &Switchboard,
    access: &mut AccessFile,
    mut launcher: mpsc::Receiver<LauncherReport>,
) -> Result<Ended, Error> {
    let mut listening = true;
    let mut buried = false;
    loop {
        match board.call(|router, _| router.phase()) {
            Phase::Starting => {}
            Phase::Running => board.call(|router, _| access.announce(router.facts()))?,
            Phase::Ended(end) => {
                if !std::mem::replace(&mut buried, true) {
                    bury(access, &end.reason);
                }
                if board.call(|router, now| router.may_leave(now)) {
                    return Ok(Ended {
                        reason: end.reason,
                        orderly: end.orderly,
                    });
                }
            }
        }
        let deadline = board.call(|router, _| router.next_deadline());
        tokio::select! {
            () = board.attention() => {}
            () = until(deadline) => board.call(|router, now| router.on_time(now)),
            report = launcher.recv(), if listening => match report {
                Some(report) => board.call(|router, now| router.on_launcher(&report, now)),
                None => {
                    listening = false;
                    board.call(|router, now| router.on_launcher_silent(now));
                }
            },
        }
    }
}

/// The post-mortem is worth a try, and its failure no reason to keep results from those who fetch.
fn bury(access: &mut AccessFile, reason: &str) {
    if let Err(error) = access.end(reason) {
        tracing::error!(%error, "post-mortem cannot be written");
    }
}

async fn until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Lets the last bytes leave.
async fn farewell(board: &Switchboard, limit: Duration) {
    board.call(|router, _| router.outbox().close_all());
    let gone = async {
        while !board.call(|router, _| router.outbox().is_empty()) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    if timeout(limit, gone).await.is_err() {
        tracing::warn!("some connections did not take their last bytes");
    }
}
