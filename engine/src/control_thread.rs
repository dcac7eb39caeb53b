//! The control thread: a thread of its own with a tokio runtime, that owns the link, the timers and the signals.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipengine_protocol::{Assembler, FromEngine, FromEngineEnvelope, Incoming, Message, ToEngine, frame};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::control::{Control, Then};
use crate::detach::use_all_cpus;
use crate::error::{Error, chain};
use crate::inbox::FromMain;
use crate::last_words::{self, LastWords};
use crate::link::{self, Connection, GatewayAddress, Reader, Writer};

/// Live output is looked for so often while an instruction runs. Twice this is what a reader notices.
const BUSY_TICK: Duration = Duration::from_millis(20);
/// Background threads of the user may print between instructions.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// A gateway that does not come back in this time leaves the engine without anybody to work for.
const LINK_GRACE: Duration = Duration::from_secs(30);
/// An outage is told to the launcher after this time and not at once: bytes on their way to a launcher that was cut off, too,
/// would keep its daemon on this host from noticing (the kernel asks a silent peer only when nothing is under way to it).
const COMPLAIN_AFTER: Duration = Duration::from_secs(12);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(200);
/// From the order to stop until the process ends whatever it does.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The gateway's answer to a signal is an order to stop; without it the engine stops by itself.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(2);
/// For last words to leave.
const FLUSH_PATIENCE: Duration = Duration::from_millis(1500);
/// Exit code of an engine that had to be ended by its watchdog.
const FORCED: i32 = 70;

/// What the thread is given.
pub struct ControlThread {
    /// Where the gateway is.
    pub address: GatewayAddress,
    /// Its state.
    pub control: Control,
    /// From the main thread.
    pub reports: UnboundedReceiver<FromMain>,
    /// From a dying process.
    pub last_words: LastWords,
    /// Told once the first link is up, or why it is not.
    pub linked: std::sync::mpsc::Sender<Result<(), Error>>,
}

/// Shared by the tasks of the thread; never borrowed across an await.
#[derive(Clone)]
struct Desk {
    control: Rc<RefCell<Control>>,
    /// Something waits to be written.
    outgoing: Rc<Notify>,
    /// An instruction came.
    work: Rc<Notify>,
    /// Frames were taken from the queue and not yet written.
    writing: Rc<RefCell<bool>>,
    reports: Rc<RefCell<UnboundedReceiver<FromMain>>>,
}

impl ControlThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn spawn(self) -> Result<JoinHandle<()>, Error> {
        let start = move || {
            use_all_cpus(Pid::from_raw(0));
            LastWords::this_is_the_control_thread();
            if let Err(error) = self.run() {
                // Without its control thread a rank would be deaf: the job ends.
                tracing::error!("control thread: {}", chain(&error));
                last_words::end_now(1);
            }
        };
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(start)
            .map_err(Error::io("start the control thread"))
    }

    fn run(self) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(Error::io("start the control thread's runtime"))?;
        runtime.block_on(async move {
            let desk = Desk {
                control: Rc::new(RefCell::new(self.control)),
                outgoing: Rc::default(),
                work: Rc::default(),
                writing: Rc::default(),
                reports: Rc::new(RefCell::new(self.reports)),
            };
            let wake_fd = self.last_words.wake_fd()?;
            // SAFETY: the descriptor is owned by the AsyncFd from here on and closed only when that is dropped.
            let woken = unsafe { AsyncFd::register(wake_fd) }
                .map_err(|error| Error::io("watch for last words")(error.into()))?;
            tokio::task::spawn_local(desk.clone().hear_main_thread());
            tokio::task::spawn_local(desk.clone().tick());
            tokio::task::spawn_local(desk.clone().hear_signals()?);
            tokio::task::spawn_local(desk.clone().speak_last_words(woken, self.last_words));
            desk.keep_link(Arc::new(self.address), self.linked).await;
            Ok(())
        })
    }
}

impl Desk {
    /// Takes every report that is there; returns when the main thread has told to leave and everything is written.
    fn take_reports(&self) {
        loop {
            let Ok(report) = self.reports.borrow_mut().try_recv() else {
                return;
            };
            self.take(report);
        }
    }

    fn take(&self, report: FromMain) {
        let leaving = self.control.borrow_mut().on_main(report);
        self.outgoing.notify_one();
        if let Some(flushed) = leaving {
            let desk = self.clone();
            tokio::task::spawn_local(async move {
                desk.flushed().await;
                // The main thread waits with a limit of its own.
                let _ = flushed.send(());
            });
        }
    }

    async fn hear_main_thread(self) {
        loop {
            let next = std::future::poll_fn(|context| self.reports.borrow_mut().poll_recv(context)).await;
            match next {
                Some(report) => self.take(report),
                None => return,
            }
        }
    }

    async fn tick(self) {
        loop {
            // The order matters: see `Control::on_tick`.
            self.take_reports();
            let busy = self.control.borrow_mut().on_tick(Instant::now());
            if !self.control.borrow().outbound.is_drained() {
                self.outgoing.notify_one();
            }
            if !busy {
                let _ = tokio::time::timeout(IDLE_TICK, self.work.notified()).await;
            }
            tokio::time::sleep(BUSY_TICK).await;
        }
    }

    fn hear_signals(self) -> Result<impl Future<Output = ()>, Error> {
        let watch = |kind| signal(kind).map_err(Error::io("watch for signals"));
        let (mut interrupt, mut terminate) =
            (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
        Ok(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => libc::SIGINT,
                    _ = terminate.recv() => libc::SIGTERM,
                };
                self.control.borrow_mut().on_signal(number);
                self.outgoing.notify_one();
                let desk = self.clone();
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(SIGNAL_PATIENCE).await;
                    desk.stop("the gateway did not answer a signal");
                });
            }
        })
    }

    async fn speak_last_words(self, woken: AsyncFd<std::os::fd::OwnedFd>, last_words: LastWords) {
        if woken.readable().await.is_err() {
            return;
        }
        self.take_reports();
        let cause = self.control.borrow_mut().on_dying(last_words.cause());
        self.outgoing.notify_one();
        self.flushed().await;
        // After the gateway was told: the launcher may not read.
        tracing::error!("{cause}");
        last_words.told();
    }

    /// Waits until everything queued is written, or there is no hope that it will be.
    async fn flushed(&self) {
        let written = async {
            while !self.control.borrow().outbound.is_drained() || *self.writing.borrow() {
                // Polled, because it happens once in a process's life.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(FLUSH_PATIENCE, written).await;
    }

    /// Begins to stop this engine and sets the watchdog.
    fn stop(&self, reason: &str) {
        if !self.control.borrow_mut().begin_stop() {
            return;
        }
        tracing::info!(reason, "stopping");
        tokio::task::spawn_local(async {
            tokio::time::sleep(STOP_DEADLINE).await;
            tracing::error!("did not stop within {} s: forced", STOP_DEADLINE.as_secs());
            last_words::end_now(FORCED);
        });
    }

    /// Connects, serves the link, connects again. Ends only with the process.
    async fn keep_link(
        self,
        address: Arc<GatewayAddress>,
        linked: std::sync::mpsc::Sender<Result<(), Error>>,
    ) {
        let mut lost_at = Instant::now();
        let mut reason = None;
        // One complaint per outage: many ranks write to one launcher.
        let mut complained = false;
        loop {
            let host = self.control.borrow().facts.host.clone();
            let ended = match address.connect(&host).await {
                Ok(connection) => self.serve(connection, &linked).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(why) => {
                    lost_at = Instant::now();
                    complained = false;
                    reason = Some(why);
                }
                Err(error) if lost_at.elapsed() > LINK_GRACE => {
                    self.give_up(&error);
                    let _ = linked.send(Err(error));
                }
                Err(error) if !complained && self.may_complain(lost_at, reason.is_some()) => {
                    complained = true;
                    let lost = reason
                        .take()
                        .map_or_else(String::new, |why| format!("link lost: {why}; "));
                    tracing::warn!("{lost}{}", chain(&error));
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// A first connection that fails is told at once: the start waits for it.
    fn may_complain(&self, lost_at: Instant, was_linked: bool) -> bool {
        !self.control.borrow().is_stopping() && (!was_linked || lost_at.elapsed() > COMPLAIN_AFTER)
    }

    /// Stops this engine: nobody is left to work for. The launcher may be cut off, too, hence the rank's own file.
    fn give_up(&self, error: &Error) {
        if !self.control.borrow().is_stopping() {
            let why = format!(
                "no link to the gateway for {} s, this engine ends: {}",
                LINK_GRACE.as_secs(),
                chain(error)
            );
            // First the watchdog: whoever reads the launcher's pipe or serves the file may hold us up.
            self.stop("the gateway is gone");
            let _ = writeln!(std::io::stderr(), "ipengine-mpi: {why}");
            tracing::error!("{why}");
        }
    }

    /// Serves one connection to its end: `Ok` with the reason if the gateway had welcomed this engine.
    async fn serve(
        &self,
        connection: Connection,
        linked: &std::sync::mpsc::Sender<Result<(), Error>>,
    ) -> Result<String, Error> {
        let served = self.talk(connection, linked).await;
        link::forget_socket();
        self.control.borrow_mut().outbound.disconnected();
        *self.writing.borrow_mut() = false;
        let ended = served?;
        Ok(ended.map_or_else(|error| chain(&error), |()| "closed".to_owned()))
    }

    /// The outer error: the gateway did not welcome this engine. The inner one: what ended the link.
    async fn talk(
        &self,
        connection: Connection,
        linked: &std::sync::mpsc::Sender<Result<(), Error>>,
    ) -> Result<Result<(), Error>, Error> {
        let Connection {
            mut reader,
            mut writer,
        } = connection;
        let hello = FromEngine::Hello(Box::new(self.control.borrow().facts.clone()));
        let hello = Message::bare(&FromEngineEnvelope {
            number: 0,
            message: hello,
        });
        frame::frames(&hello, 1).for_each(|frame| writer.add(&frame));
        writer.flush().await?;
        let mut assembler = Assembler::new(frame::MAX_PAYLOAD_LEN);
        let received = match next_message(&mut reader, &mut assembler).await? {
            Some((ToEngine::Welcome { received }, _)) => received,
            Some((ToEngine::Stop { reason }, _)) => {
                self.stop(&reason);
                return Err(Error::Link { reason });
            }
            _ => {
                return Err(Error::Link {
                    reason: "the gateway did not welcome this engine".to_owned(),
                });
            }
        };
        self.control.borrow_mut().on_link(received);
        // Nobody listens after the first connection.
        let _ = linked.send(Ok(()));
        Ok(tokio::select! {
            ended = self.read(&mut reader, &mut assembler) => ended,
            ended = self.write(&mut writer) => ended,
        })
    }

    async fn read(&self, reader: &mut Reader, assembler: &mut Assembler) -> Result<(), Error> {
        while let Some((message, blobs)) = next_message(reader, assembler).await? {
            let is_work = matches!(message, ToEngine::Run { .. });
            let then = self.control.borrow_mut().on_gateway(message, blobs);
            if is_work {
                self.work.notify_one();
            } else {
                self.outgoing.notify_one();
            }
            if let Then::Stop(reason) = then {
                self.stop(&reason);
            }
        }
        Ok(())
    }

    async fn write(&self, writer: &mut Writer) -> Result<(), Error> {
        loop {
            if !self.gather(writer) {
                self.outgoing.notified().await;
                continue;
            }
            writer.flush().await?;
            *self.writing.borrow_mut() = false;
        }
    }

    /// Moves queued frames to the writer; false if there are none.
    fn gather(&self, writer: &mut Writer) -> bool {
        let mut control = self.control.borrow_mut();
        let mut any = false;
        while !writer.is_full() {
            let Some(frame) = control.outbound.next_frame() else {
                break;
            };
            writer.add(&frame);
            any = true;
        }
        *self.writing.borrow_mut() = any;
        any
    }
}

async fn next_message(
    reader: &mut Reader,
    assembler: &mut Assembler,
) -> Result<Option<(ToEngine, Vec<bytes::Bytes>)>, Error> {
    while let Some(frame) = reader.next().await? {
        if let Incoming::Message(message) = assembler.take(frame)? {
            return Ok(Some((message.decode()?, message.blobs)));
        }
    }
    Ok(None)
}
