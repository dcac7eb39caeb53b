//! Being an engine: the list of start-up steps, the loop, and the list reversed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ipengine_protocol::{EngineFacts, EngineId, Order};

use crate::banner;
use crate::cli::EngineArgs;
use crate::control::Control;
use crate::control_thread::ControlThread;
use crate::detach::Pipes;
use crate::error::{Error, chain};
use crate::greeting::{self, Briefing};
use crate::inbox::{FromMain, Inbox};
use crate::interpreter_choice::{self, linked_version};
use crate::last_words::{self, LastWords};
use crate::launcher::Launched;
use crate::link::GatewayAddress;
use crate::native::Runtime;
use crate::output::OutputFiles;
use crate::place::{self, Place, host_name};
use crate::record::GatewayRecord;
use crate::supervisor::{self, Plan};
use crate::world::{self, World};
use crate::{detach, executor, interpreter, log};

/// For the last messages to leave before MPI is finalised.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Exit code after a panic, as Rust programs give it.
const PANICKED: i32 = 101;

/// What rank 0 prepares before `MPI_Init`, because nothing may fork after it.
struct Prepared {
    place: Place,
    python: PathBuf,
    /// The pipes to the supervisor, if this process started the gateway. Closing them without a word takes it down.
    starting: Option<Pipes>,
}

/// Runs an engine from start to end; returns its exit code.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn run(args: &EngineArgs) -> Result<u8, Error> {
    let launched = Launched::from_env();
    let is_first = launched.is_none_or(|launched| launched.rank == 0);
    let prepared = is_first.then(|| prepare(args, launched)).transpose();
    let prepared = prepared.map_err(|error| take_others_along(args, launched, error))?;
    start(args, launched, prepared)
}

/// Rank 0 cannot start, and the others are on their way into `MPI_Init`, where they would wait for it: not every
/// launcher ends them because this process does. A world of one just ends.
fn take_others_along(args: &EngineArgs, launched: Option<Launched>, error: Error) -> Error {
    if launched.is_none_or(|launched| launched.size == Some(1)) {
        return error;
    }
    // Said first: `MPI_Init` may itself not come back.
    eprintln!("ipengine-mpi: {}", chain(&error));
    match init_world(args, Duration::from_secs(args.start_timeout)) {
        Ok(_) => world::abort_job(1),
        Err(again) => again,
    }
}

fn prepare(args: &EngineArgs, launched: Option<Launched>) -> Result<Prepared, Error> {
    let python = interpreter_choice::choose(args.python.as_deref())?;
    let place = Place::create(args.place.cluster.as_deref())?;
    let starting = match GatewayRecord::read_living(&place.gateway_record()) {
        Some(record) if record.resident => None,
        Some(record) => {
            return Err(Error::AlreadyRunning {
                cluster: record.cluster,
                pid: record.pid,
                host: record.host,
            });
        }
        None => {
            let size = launched.and_then(|launched| launched.size).unwrap_or(0);
            let plan = Plan::new(&place, &args.place, false, size)?;
            let text = serde_json::to_vec(&plan).expect("plain data");
            Some(detach::spawn(&text, &place.gateway_log())?)
        }
    };
    Ok(Prepared {
        place,
        python,
        starting,
    })
}

impl Prepared {
    /// Waits for the gateway and collects what every rank has to know.
    fn brief(&mut self) -> Result<Briefing, Error> {
        if let Some(Pipes { from, .. }) = &mut self.starting {
            supervisor::read_answer(from, &self.place.gateway_log())?;
        }
        let record =
            GatewayRecord::read_living(&self.place.gateway_record()).ok_or_else(|| Error::Gateway {
                reason: "it ended after its start".to_owned(),
                log: self.place.gateway_log(),
            })?;
        Ok(Briefing {
            gateway: GatewayAddress {
                host: record.host,
                socket: (!tls_everywhere()).then_some(record.engine_socket),
                addresses: record.addresses,
                fingerprint: record.fingerprint,
                secret: record.engine_secret,
            },
            python: self.python.clone(),
            cluster: self.place.cluster.clone(),
            run_dir: self.place.run_dir.clone(),
            python_path: std::env::var("PYTHONPATH").ok(),
        })
    }

    /// The world is up: the gateway stays whatever becomes of this process.
    fn release(self) {
        if let Some(Pipes { mut to, .. }) = self.starting
            && let Err(error) = writeln!(to, "{}", supervisor::STARTED)
        {
            tracing::warn!(%error, "the gateway's supervisor is gone");
        }
    }
}

/// `IPENGINE_LINK=tls`: engines of the gateway's own host use TLS too, as those of other hosts do. For tests and
/// for hosts whose temporary directory has no sockets.
fn tls_everywhere() -> bool {
    std::env::var("IPENGINE_LINK").is_ok_and(|way| way == "tls")
}

fn start(args: &EngineArgs, launched: Option<Launched>, mut prepared: Option<Prepared>) -> Result<u8, Error> {
    let patience = Duration::from_secs(args.start_timeout);
    let begun = Instant::now();
    let world = init_world(args, patience)?;
    check_launcher(&world, launched)?;
    let greeted = match &mut prepared {
        Some(prepared) => greeting::lead(&world, patience, || prepared.brief()),
        None => greeting::follow(&world, patience),
    };
    let briefing = greeted.unwrap_or_else(|error| {
        report_start_failure(&world, &error);
        // A rank that is no engine waits somewhere in MPI: only an abort ends the job.
        last_words::end_is_orderly();
        world::abort_job(1)
    });
    let rank = world.rank();
    be_engine(world, &briefing, begun, patience, prepared).inspect_err(|error| {
        let words = format!("rank {rank} cannot go on: {}", chain(error));
        tracing::error!("{words}");
        // Before the redirection this is the launcher's stream, afterwards the rank's own file.
        eprintln!("ipengine-mpi: {words}");
        // The others would wait for this rank, at the latest in MPI_Finalize.
        world::abort_job(1);
    })
}

/// From the first rank-wide step to the end of MPI.
fn be_engine(
    mut world: World,
    briefing: &Briefing,
    begun: Instant,
    patience: Duration,
    prepared: Option<Prepared>,
) -> Result<u8, Error> {
    world.make_private()?;
    let logs = Logs::open(briefing, world.rank())?;
    let files = Arc::new(logs.files);
    let (launcher_out, launcher_err) = files.redirect()?;
    log::start(&logs.dir, world.rank(), launcher_err);
    for reason in &logs.refused {
        tracing::warn!(
            "the output of rank {} on {} goes to {}: {reason}",
            world.rank(),
            host_name(),
            logs.dir.display()
        );
    }
    if world.rank() == 0 {
        let facts = banner::Facts::new(briefing, &world, begun);
        banner::print_when_ready(
            facts,
            prepared.as_ref().map(|p| p.place.access_file.clone()),
            launcher_out,
        );
    }
    serve(world, briefing, &files, patience, prepared)
}

/// Where this rank's output goes, and why to no better place.
struct Logs {
    files: OutputFiles,
    dir: PathBuf,
    refused: Vec<String>,
}

impl Logs {
    fn open(briefing: &Briefing, rank: u32) -> Result<Self, Error> {
        let mut tried = Vec::new();
        for dir in place::log_dirs(&briefing.run_dir, &briefing.cluster) {
            let opened = dir
                .ready()
                .and_then(|dir| OutputFiles::open(dir, rank).map(|files| (files, dir.to_owned())));
            match opened {
                Ok((files, dir)) => {
                    let refused = tried
                        .iter()
                        .map(|(path, source): &(PathBuf, _)| format!("{}: {source}", path.display()));
                    return Ok(Self {
                        refused: refused.collect(),
                        files,
                        dir,
                    });
                }
                Err(source) => tried.push((dir.path().to_owned(), source)),
            }
        }
        Err(Error::Directory { tried })
    }
}

/// `MPI_Init` under a watchdog: it hangs when a rank of the job never calls it.
fn init_world(args: &EngineArgs, patience: Duration) -> Result<World, Error> {
    let (done, watched) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if watched.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!(
                "ipengine-mpi: MPI_Init did not return within {} s. Is every process of the job ipengine-mpi? \
                 (--start-timeout changes this limit)",
                patience.as_secs()
            );
            // Exit handlers of the MPI could wait for what just failed.
            last_words::end_now(1);
        }
    });
    let world = World::init(args.thread_level)?;
    // The watchdog has ended only if the process has.
    let _ = done.send(());
    Ok(world)
}

fn check_launcher(world: &World, launched: Option<Launched>) -> Result<(), Error> {
    let Some(Launched {
        by,
        rank,
        size: Some(size),
    }) = launched
    else {
        return Ok(());
    };
    if size == world.size() {
        return Ok(());
    }
    if rank != 0 {
        std::process::exit(1); // rank 0 says it for all
    }
    let library = world.library().to_owned();
    Err(Error::ForeignLauncher {
        launcher: by,
        launched: size,
        world: world.size(),
        library,
    })
}

fn report_start_failure(world: &World, error: &Error) {
    // What rank 0 found out it says itself, once.
    if !matches!(error, Error::Refused { .. }) {
        eprintln!("ipengine-mpi: rank {}: {}", world.rank(), chain(error));
    }
}

/// From the first link to the end.
fn serve(
    world: World,
    briefing: &Briefing,
    files: &Arc<OutputFiles>,
    patience: Duration,
    prepared: Option<Prepared>,
) -> Result<u8, Error> {
    prepare_environment(briefing);
    end_job_on_panic();
    let last_words = LastWords::install()?;
    let (reports, from_main) = tokio::sync::mpsc::unbounded_channel();
    let inbox = Arc::new(Inbox::new(reports));
    let facts = facts(&world);
    let runtime = Runtime::install(
        Arc::clone(&inbox),
        Arc::clone(files),
        world,
        briefing.cluster.clone(),
        host_name(),
    );
    // Before the link: an engine counts as there once it has said hello.
    interpreter::start(&briefing.python)?;
    let (linked, is_linked) = mpsc::channel();
    let control = Control::new(facts, Arc::clone(&inbox), Arc::clone(files));
    let address = briefing.gateway.clone();
    let control_thread = ControlThread {
        address,
        control,
        reports: from_main,
        last_words,
        linked,
    }
    .spawn()?;
    is_linked.recv_timeout(patience).unwrap_or_else(|_| {
        Err(Error::Link {
            reason: format!("none within {} s", patience.as_secs()),
        })
    })?;
    if let Some(prepared) = prepared {
        prepared.release();
    }
    if let Err(error) = executor::run(&runtime) {
        return Err(Error::PythonStart {
            path: briefing.python.clone(),
            reason: error.to_string(),
        });
    }
    finish(runtime, &inbox);
    drop(control_thread);
    Ok(0)
}

fn facts(world: &World) -> EngineFacts {
    EngineFacts {
        id: EngineId(world.rank()),
        size: world.size(),
        host: host_name(),
        pid: std::process::id(),
        python: linked_version(),
        mpi: world.library().to_owned(),
        orders_seen: Order(0),
    }
}

/// A panic of ours ends the job: a rank without its main or control thread would be deaf, and the others wait for it.
fn end_job_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("ipengine-mpi has a fault, please report it: {panic}");
        report(panic);
        // SAFETY: ends the process, after last words where the control thread is alive.
        unsafe { last_words::_exit(PANICKED) };
    }));
}

/// What C and Fortran run-times read at their own start.
fn prepare_environment(briefing: &Briefing) {
    // SAFETY: neither the control thread nor any thread of the user exists yet; the banner's reads no variables.
    unsafe {
        std::env::set_var("GFORTRAN_UNBUFFERED_PRECONNECTED", "y");
        std::env::set_var("FORT_BUFFERED", "n");
        if let Some(path) = &briefing.python_path {
            std::env::set_var("PYTHONPATH", path);
        }
    }
    line_buffer_c_stdout();
}

unsafe extern "C" {
    static mut stdout: *mut libc::FILE;
}

/// C's stdout is a file now, which it would buffer in blocks: live output needs lines.
fn line_buffer_c_stdout() {
    // SAFETY: `stdout` is C's own stream, open for the life of the process, and nothing was written to it yet.
    unsafe { libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOLBF, 0) };
}

/// The end in good order, under the control thread's watchdog: last messages, Python, MPI.
fn finish(runtime: Rc<Runtime>, inbox: &Inbox) {
    let (flushed, is_flushed) = mpsc::channel();
    inbox.report(FromMain::Leaving(flushed));
    // Without a link nothing can be flushed, and that must not keep MPI from being finalised.
    let _ = is_flushed.recv_timeout(FLUSH_PATIENCE);
    last_words::end_is_orderly();
    interpreter::finish();
    Runtime::uninstall();
    match Rc::try_unwrap(runtime) {
        Ok(runtime) => runtime.world.into_inner().finalize(),
        // Every user of the runtime is on this thread and has returned.
        Err(_) => tracing::error!("MPI is not finalised: the runtime is still in use"),
    }
}

/// The launcher of the MPI that this program was built for, where the build found it and it still is.
fn launcher() -> Option<&'static str> {
    Some(env!("IPENGINE_MPIEXEC")).filter(|path| Path::new(path).is_file())
}

/// `--check`: what this program is made of.
///
/// # Errors
/// As [`interpreter_choice::choose`].
pub fn check(python: Option<&Path>) -> Result<(), Error> {
    let chosen = interpreter_choice::choose(python);
    let row = |name: &str, value: &str| {
        // A closed pipe (`| head`) ends the listing.
        let _ = writeln!(std::io::stdout(), "{name:14} {value}");
    };
    let loaded = |part| crate::native::loaded_library(part).unwrap_or_else(|| "not loaded".to_owned());
    row("ipengine-mpi", env!("CARGO_PKG_VERSION"));
    row("MPI", &crate::world::library_version());
    row("MPI library", &loaded("/libmpi"));
    row("mpiexec", launcher().unwrap_or("not known"));
    row("Python", &linked_version().to_string());
    row("libpython", &loaded("/libpython"));
    match &chosen {
        Ok(path) => row("runs as", &path.display().to_string()),
        Err(error) => row("runs as", &chain(error)),
    }
    chosen.map(|_| ())
}
