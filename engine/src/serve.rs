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
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
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
/// Exit code when the launcher cannot be run, as shells give it.
const NOT_RUN: u8 = 127;

/// Runs gateway and launcher to their end; returns the exit code for this process.
///
/// # Errors
/// Whatever keeps the gateway from starting.
pub fn run(args: &ServeArgs) -> Result<u8, Error> {
    let place = Place::create(args.place.cluster.as_deref())?;
    let plan = Plan::new(&place, &args.place, true, 0)?;
    let gateway = Supervisor::start(&plan)?;
    let reports = gateway.pipe();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the launcher's runtime"))?;
    runtime.block_on(async {
        let pid = gateway.gateway_pid();
        // From now on, so that a gateway that dies while the world runs is started again.
        let watched = tokio::task::spawn_blocking(move || gateway.watch());
        let code = run_launcher(&place, &args.launcher, reports).await?;
        outlast(watched, &pid).await?;
        Ok(code)
    })
}

/// Keeps the allocation while the gateway lingers for clients that still fetch. INT or TERM ends that.
async fn outlast(mut ended: JoinHandle<Result<ExitStatus, Error>>, pid: &AtomicU32) -> Result<(), Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::io("watch for signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("watch for signals"))?;
    loop {
        tokio::select! {
            status = &mut ended => {
                let status = status.map_err(|error| Error::io("wait for the gateway")(error.into()))??;
                tracing::info!(%status, "gateway ended");
                return Ok(());
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if let Ok(pid) = i32::try_from(pid.load(Ordering::SeqCst)).map(Pid::from_raw) {
            // It may have ended this moment; the wait will tell.
            let _ = kill(pid, Signal::SIGTERM);
        }
    }
}

async fn run_launcher(place: &Place, command: &[String], reports: ReportPipe) -> Result<u8, Error> {
    let (program, arguments) = command.split_first().expect("clap requires one");
    let mut launcher = Command::new(program);
    launcher
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    forwarded::give(launcher.as_std_mut(), &place.cluster);
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
            let status = watch(&mut child, &reports).await?;
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
    tee(stderr, std::io::stderr(), |line| {
        reports.send(LauncherReport::Output(line.to_owned()));
    })
    .await;
}

/// Standard output is the ranks', but MPICH's mpiexec tells of a death there, behind a row of `=`.
async fn tee_stdout(stdout: impl AsyncRead + Unpin, reports: ReportPipe) {
    let mut launcher_speaks = false;
    tee(stdout, std::io::stdout(), |line| {
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

async fn tee(from: impl AsyncRead + Unpin, mut to: impl Write, mut hear: impl FnMut(&str)) {
    let mut lines = BufReader::new(from).split(b'\n');
    while let Ok(Some(mut line)) = lines.next_segment().await {
        line.push(b'\n');
        // Whoever started `serve` may have gone (an ssh that was cut): the launcher is read all the same.
        let _ = to.write_all(&line);
        line.pop();
        hear(&String::from_utf8_lossy(&line));
    }
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
async fn watch(child: &mut Child, reports: &ReportPipe) -> Result<ExitStatus, Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::io("watch for signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("watch for signals"))?;
    let mut deadlines = Deadlines::default();
    loop {
        let next = deadlines.next();
        tokio::select! {
            status = child.wait() => return status.map_err(Error::io("wait for the launcher")),
            _ = interrupt.recv() => deadlines.on_signal(child, reports, "SIGINT"),
            _ = terminate.recv() => deadlines.on_signal(child, reports, "SIGTERM"),
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
        let before = self.signalled.replace(now);
        if before.is_none_or(|before| now >= before + SAME_WISH) {
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
