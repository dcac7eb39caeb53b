//! Resident mode: `ipengine-mpi serve -- mpiexec …`. Owns the gateway, runs the launcher, reads its messages, returns
//! its exit code, and keeps the allocation while clients still fetch results.

use std::io::Write;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipengine_gateway::LauncherReport;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Signalled, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::cli::ServeArgs;
use crate::error::Error;
use crate::forwarded;
use crate::place::Place;
use crate::report_pipe::ReportPipe;
use crate::supervisor::{Plan, Supervisor};

/// Time for an orderly stop of the world before the launcher is sent TERM: ranks have 10 s to finalise.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// Time between TERM and KILL for the launcher. Open MPI's mpiexec takes 2 s to end its ranks.
const KILL_GRACE: Duration = Duration::from_secs(8);
/// The launcher gets this when `serve` is killed: a world that nobody watches must not stay behind.
const END_WITH_US: Signal = Signal::SIGTERM;
/// A batch system may signal every process of a job, some twice, and a job script passes on what it gets itself: what
/// comes so soon is the same wish. Open MPI's mpiexec would take a second TERM as an order to leave its ranks behind.
const SAME_WISH: Duration = Duration::from_secs(1);
/// Open MPI's daemons give up a silent host after 4 + 3 times 1 s; by themselves after eight minutes.
const KEEPALIVE: [(&str, &str); 3] = [
    ("OMPI_MCA_oob_tcp_keepalive_time", "4"),
    ("OMPI_MCA_oob_tcp_keepalive_intvl", "1"),
    ("OMPI_MCA_oob_tcp_keepalive_probes", "3"),
];
/// No gateway stays longer after the end of its world: 300 s at most, and what its own deadlines take.
const LONGEST_LINGER: Duration = Duration::from_secs(330);
/// Exit code when the launcher cannot be run, as shells give it.
const NOT_RUN: u8 = 127;

/// Runs gateway and launcher to their end; returns the exit code for this process.
///
/// # Errors
/// Whatever keeps the gateway from starting.
pub fn run(args: &ServeArgs) -> Result<u8, Error> {
    let place = Place::create(args.place.cluster.as_deref())?;
    let plan = Plan::new(&place, &args.place, true, 0)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the launcher's runtime"))?;
    // Before there is a gateway, which a signal's default would leave alone.
    let mut signals = runtime.block_on(async { Signals::watch() })?;
    let gateway = Supervisor::start(&plan)?;
    let reports = gateway.pipe();
    let code = runtime.block_on(async {
        let pid = gateway.gateway_pid();
        // From now on, so that a gateway that dies while the world runs is started again.
        let watched = tokio::task::spawn_blocking(move || gateway.watch());
        let code = run_launcher(&place, &args.launcher, reports.clone(), &mut signals).await?;
        outlast(watched, &pid, &reports, &mut signals).await?;
        Ok(code)
    });
    // What shows the launcher's words may be held up by a terminal that stands still.
    runtime.shutdown_background();
    code
}

/// INT and TERM.
struct Signals {
    interrupt: Signalled,
    terminate: Signalled,
}

impl Signals {
    /// Must be called within the runtime.
    fn watch() -> Result<Self, Error> {
        let watch = |kind| signal(kind).map_err(Error::io("watch for signals"));
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
        })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Keeps the allocation while the gateway lingers for clients that still fetch. INT or TERM ends that; one more ends a
/// gateway that does not answer, and so does the time that no gateway lingers for.
async fn outlast(
    mut ended: JoinHandle<Result<ExitStatus, Error>>,
    pid: &AtomicU32,
    reports: &ReportPipe,
    signals: &mut Signals,
) -> Result<(), Error> {
    let mut limit = tokio::time::Instant::now() + LONGEST_LINGER;
    let mut told: Option<tokio::time::Instant> = None;
    loop {
        let name = tokio::select! {
            status = &mut ended => {
                let status = status.map_err(|error| Error::io("wait for the gateway")(error.into()))??;
                tracing::info!(%status, "gateway ended");
                return Ok(());
            }
            name = signals.next() => name,
            () = tokio::time::sleep_until(limit) => "the deadline",
        };
        let now = tokio::time::Instant::now();
        if told.is_some_and(|before| now < before + SAME_WISH) {
            continue;
        }
        if told.replace(now).is_some() || now >= limit {
            // Another one takes its place, hears of the end, and has nothing to linger for.
            end_gateway(pid);
        }
        limit = now + STOP_GRACE;
        reports.send(LauncherReport::Stop {
            reason: format!("ipengine-mpi serve received {name}"),
        });
    }
}

fn end_gateway(pid: &AtomicU32) {
    if let Ok(pid) = i32::try_from(pid.load(Ordering::SeqCst)).map(Pid::from_raw) {
        // It may have ended this moment; the wait will tell.
        let _ = kill(pid, Signal::SIGKILL);
    }
}

async fn run_launcher(
    place: &Place,
    command: &[String],
    reports: ReportPipe,
    signals: &mut Signals,
) -> Result<u8, Error> {
    let (program, arguments) = command.split_first().expect("clap requires one");
    let mut launcher = Command::new(program);
    launcher
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    forwarded::give(launcher.as_std_mut(), place);
    watch_over_hosts(&mut launcher);
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe { launcher.pre_exec(|| Ok(set_pdeathsig(END_WITH_US)?)) };
    let spawned = launcher.spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "ipengine-mpi serve: cannot run {program}: {error}"
            );
            reports.send(LauncherReport::Output(format!("cannot run {program}: {error}")));
            reports.send(LauncherReport::Exited {
                code: Some(i32::from(NOT_RUN)),
                signal: None,
            });
            return Ok(NOT_RUN);
        }
    };
    let stdout = child.stdout.take().expect("piped above");
    let stderr = child.stderr.take().expect("piped above");
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            let tees = [
                tokio::task::spawn_local(tee_stdout(stdout, reports.clone())),
                tokio::task::spawn_local(tee_stderr(stderr, reports.clone())),
            ];
            let status = watch(&mut child, &reports, signals).await?;
            finish_tees(tees).await;
            reports.send(exited(status));
            Ok(exit_code(status))
        })
        .await
}

/// Open MPI's own connections between hosts notice a cut only after minutes, and its ranks spin until then. What the user
/// has set wins; other launchers ignore it.
fn watch_over_hosts(launcher: &mut Command) {
    for (name, value) in KEEPALIVE {
        if std::env::var_os(name).is_none() {
            launcher.env(name, value);
        }
    }
}

/// Shows the launcher's messages as they come and passes them on.
async fn tee_stderr(stderr: impl AsyncRead + Unpin, reports: ReportPipe) {
    tee(stderr, tokio::io::stderr(), |line| {
        reports.send(LauncherReport::Output(line.to_owned()));
    })
    .await;
}

/// Standard output is the ranks', but MPICH's mpiexec tells of a death there, behind a row of `=`.
async fn tee_stdout(stdout: impl AsyncRead + Unpin, reports: ReportPipe) {
    let mut launcher_speaks = false;
    tee(stdout, tokio::io::stdout(), |line| {
        launcher_speaks = launcher_speaks || is_rule(line);
        if launcher_speaks {
            reports.send(LauncherReport::Output(line.to_owned()));
        }
    })
    .await;
}

fn is_rule(line: &str) -> bool {
    line.len() >= 40 && line.bytes().all(|byte| byte == b'=')
}

async fn tee(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut hear: impl FnMut(&str)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        hear(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        // Whoever started `serve` may have gone (an ssh that was cut): the launcher is read all the same.
        let _ = to.write_all(&line).await;
        if from.buffer().is_empty() {
            let _ = to.flush().await;
        }
        line.clear();
    }
    let _ = to.flush().await;
}

/// What the launcher wrote last must reach the gateway before its exit does; a grandchild that keeps a pipe open
/// must not hold this up.
async fn finish_tees(tees: [JoinHandle<()>; 2]) {
    let all = async {
        for tee in tees {
            // A tee that panicked has been reported by the panic.
            let _ = tee.await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
}

/// Waits for the launcher; INT or TERM begins an orderly stop, the second one ends it at once.
async fn watch(child: &mut Child, reports: &ReportPipe, signals: &mut Signals) -> Result<ExitStatus, Error> {
    let mut deadlines = Deadlines::default();
    loop {
        let next = deadlines.next();
        tokio::select! {
            status = child.wait() => return status.map_err(Error::io("wait for the launcher")),
            name = signals.next() => deadlines.on_signal(child, reports, name),
            () = next => deadlines.advance(child, reports, "the deadline"),
        }
    }
}

/// The stages of an end: orderly, TERM, KILL.
#[derive(Default)]
struct Deadlines {
    stage: u8,
    at: Option<tokio::time::Instant>,
    signalled: Option<tokio::time::Instant>,
}

impl Deadlines {
    fn next(&self) -> impl Future<Output = ()> + use<> {
        let at = self.at;
        async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }

    fn on_signal(&mut self, child: &Child, reports: &ReportPipe, name: &str) {
        let now = tokio::time::Instant::now();
        if self.signalled.is_none_or(|before| now >= before + SAME_WISH) {
            self.signalled = Some(now);
            self.advance(child, reports, name);
        }
    }

    fn advance(&mut self, child: &Child, reports: &ReportPipe, cause: &str) {
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .map(Pid::from_raw);
        let send = |signal| {
            if let Some(pid) = pid {
                // It may have ended this moment; the wait will tell.
                let _ = kill(pid, signal);
            }
        };
        let grace = match self.stage {
            0 => {
                reports.send(LauncherReport::Stop {
                    reason: format!("ipengine-mpi serve received {cause}"),
                });
                STOP_GRACE
            }
            1 => {
                send(Signal::SIGTERM);
                KILL_GRACE
            }
            _ => {
                send(Signal::SIGKILL);
                KILL_GRACE
            }
        };
        self.stage = self.stage.saturating_add(1);
        self.at = Some(tokio::time::Instant::now() + grace);
    }
}

fn exited(status: ExitStatus) -> LauncherReport {
    use std::os::unix::process::ExitStatusExt;
    LauncherReport::Exited {
        code: status.code(),
        signal: status.signal(),
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
