//! `ipsteer start`: a cluster on this machine, in the background.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipengine_protocol::AccessRecord;
use serde_json::json;

use super::Global;
use super::console::Console;
use super::failure::Failure;
use super::list::shorten;
use super::signals::CtrlC;
use crate::{Exit, access};

/// Time until all engines are there, unless --timeout says otherwise: the engines' own limit, and some.
const LIMIT: Duration = Duration::from_secs(75);

/// How often the connection file is looked for. It may come from another host over a network file system, where no
/// notification exists.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes of the log that are shown when the start fails.
const TAIL: u64 = 4096;

/// Start engines on this machine, in the background, and wait until they answer.
///
/// Runs `ipengine-mpi serve -- mpiexec -n N ipengine-mpi` with a log beside the connection file. In a batch job, use
/// the launcher directly instead: `mpiexec ipengine-mpi`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of engines.
    #[arg(short = 'n', long = "engines", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    engines: u32,
    /// The engine program [default: beside this program, then on PATH].
    #[arg(long, value_name = "PATH", env = "IPENGINE_MPI")]
    ipengine: Option<PathBuf>,
    /// The MPI's launcher [default: the one that the engine program was built with, else mpiexec on PATH].
    #[arg(long, value_name = "PATH", env = "MPIEXEC")]
    mpiexec: Option<PathBuf>,
    /// Further arguments of mpiexec.
    #[arg(last = true, value_name = "MPIEXEC_ARGS")]
    extra: Vec<String>,
}

pub(super) fn run(args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let engine = find_engine(args.ipengine.as_deref()).ok_or(Failure::NoEngine)?;
    let cluster = global.cluster.clone().unwrap_or_else(default_name);
    let file = access::path_of(&cluster);
    if is_alive(&file) {
        return Err(Failure::Alive(cluster));
    }
    let (log_path, log) = open_log(&cluster)?;
    let command = command(args, &engine, &cluster, &log)?;
    let limit = global.timeout.unwrap_or(LIMIT);
    let start = Start {
        file: &file,
        log_path: &log_path,
        limit,
        old: fs::read(&file).ok(),
    };
    let ctrl_c = CtrlC::watch();
    let began = Instant::now();
    let child = launch(command, &engine)?;
    console.progress(&format!(
        "starting {} engines; log: {}",
        args.engines,
        log_path.display()
    ));
    let record = start.wait(child, began, &ctrl_c)?;
    if console.json {
        console.document(&json!({
            "cluster": record.cluster, "size": record.size, "file": file, "log": log_path,
            "seconds": began.elapsed().as_secs_f64(),
        }))?;
    } else {
        console.line(&format!(
            "cluster {} is up with {} engines ({})",
            record.cluster, record.size, record.mpi
        ))?;
        console.line(&format!("connection file: {}", file.display()))?;
    }
    Ok(Exit::Ok)
}

fn default_name() -> String {
    let host = nix::unistd::gethostname().map(|host| host.to_string_lossy().into_owned());
    let host = host.unwrap_or_else(|_| "host".to_owned());
    format!(
        "local-{}-{}",
        host.split('.').next().unwrap_or_default(),
        std::process::id()
    )
}

/// Given, else beside this program, else on PATH.
fn find_engine(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = given {
        return Some(path.to_owned());
    }
    let name = "ipengine-mpi";
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)));
    candidates.find(|candidate| candidate.is_file())
}

/// Whether a cluster of this connection file answers. One that left its file behind does not.
fn is_alive(file: &Path) -> bool {
    let which = crate::Which {
        file: Some(file.to_owned()),
        ..crate::Which::default()
    };
    let options = crate::Options {
        which,
        timeout: Duration::from_secs(3),
        ..crate::Options::default()
    };
    file.exists() && crate::Client::connect(options).is_ok()
}

fn open_log(cluster: &str) -> Result<(PathBuf, File), Failure> {
    let dir = access::directory();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::File {
            path,
            what: "written",
            source,
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(failed(&dir))?;
    let path = dir.join(format!("{cluster}.log"));
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed(&path))?;
    Ok((path, log))
}

fn command(args: &Args, engine: &Path, cluster: &str, log: &File) -> Result<Command, Failure> {
    let duplicate = || log.try_clone().map_err(Failure::Output);
    let mpiexec = args.mpiexec.clone().unwrap_or_else(|| launcher_of(engine));
    let mut command = Command::new(engine);
    command.args(["serve", "--cluster", cluster, "--"]).arg(&mpiexec);
    command.envs(root_consent());
    if args.engines as usize > cores() && is_open_mpi(&mpiexec) {
        command.arg("--oversubscribe");
    }
    command
        .args(&args.extra)
        .arg("-n")
        .arg(args.engines.to_string())
        .arg(engine);
    // A process group of its own: the terminal's Ctrl-C is not meant for it.
    command
        .stdin(Stdio::null())
        .stdout(duplicate()?)
        .stderr(duplicate()?)
        .process_group(0);
    Ok(command)
}

/// A machine may have several MPIs, and the launcher has to be that of the engine's.
fn launcher_of(engine: &Path) -> PathBuf {
    let output = Command::new(engine)
        .arg("--check")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let told = text.ok().and_then(|text| {
        let row = text.lines().find_map(|line| line.strip_prefix("mpiexec "))?;
        Some(PathBuf::from(row.trim())).filter(|path| path.is_absolute())
    });
    told.unwrap_or_else(|| PathBuf::from("mpiexec"))
}

/// Open MPI refuses root without these, even to tell its version; other MPIs do not know them.
fn root_consent() -> impl Iterator<Item = (&'static str, &'static str)> {
    let names = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"];
    names
        .into_iter()
        .filter(|_| nix::unistd::geteuid().is_root())
        .map(|name| (name, "1"))
}

fn is_open_mpi(mpiexec: &Path) -> bool {
    let output = Command::new(mpiexec)
        .arg("--version")
        .envs(root_consent())
        .stdin(Stdio::null())
        .output();
    // 4.1 calls itself OpenRTE, 5.0 Open MPI (its launcher PRRTE).
    let names = ["OpenRTE", "Open MPI", "PRRTE"];
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        names.iter().any(|name| text.contains(name))
    })
}

/// Open MPI counts a core's hardware threads once.
fn cores() -> usize {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let active = fs::read_to_string("/sys/devices/system/cpu/smt/active");
    if active.is_ok_and(|active| active.trim() == "1") {
        threads.div_ceil(2)
    } else {
        threads
    }
}

fn launch(mut command: Command, engine: &Path) -> Result<Child, Failure> {
    command.spawn().map_err(|source| Failure::Launch {
        program: engine.to_owned(),
        source,
    })
}

/// What is waited for.
struct Start<'a> {
    file: &'a Path,
    log_path: &'a Path,
    limit: Duration,
    /// Contents of the connection file of an earlier cluster of the same name.
    old: Option<Vec<u8>>,
}

impl Start<'_> {
    /// Waits for the connection file of this start; an older one may lie there.
    fn wait(&self, mut child: Child, began: Instant, ctrl_c: &CtrlC) -> Result<AccessRecord, Failure> {
        loop {
            if ctrl_c.take() > 0 {
                terminate(&child);
                return Err(Failure::StartStopped);
            }
            if fs::read(self.file).ok() != self.old
                && let Ok(record) = access::read(self.file)
            {
                return match record.ended {
                    None => Ok(record),
                    Some(ended) => Err(self.failed(ended.reason)),
                };
            }
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(self.failed(status.to_string())),
                Err(error) => return Err(self.failed(error.to_string())),
            }
            if began.elapsed() > self.limit {
                terminate(&child);
                return Err(self.failed(format!("not ready after {} s; stopped", self.limit.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn failed(&self, status: String) -> Failure {
        let status = shorten(&status);
        Failure::Start {
            status,
            log: self.log_path.to_owned(),
            tail: tail(self.log_path).unwrap_or_default(),
        }
    }
}

/// `serve` ends its launcher in order, with the engines that did come up.
fn terminate(child: &Child) {
    let group = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // It may have ended by itself.
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGTERM);
}

fn tail(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
