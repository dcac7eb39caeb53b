//! The supervisor: holds the gateway's listening sockets, certificate and secrets, runs the gateway as its child and
//! tells it what the launcher says. In plain mode it is a process of its own, in resident mode it is `serve`.
//!
//! It is kept tiny because it must outlive what it watches. The gateway's configuration, secrets included, goes through a
//! pipe on the gateway's standard input; the launcher's reports follow on the same pipe, a JSON value per line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipengine_gateway::{Config, certificate};
use ipengine_protocol::handshake::Secret;
use serde::{Deserialize, Serialize};

use crate::cli::PlaceArgs;
use crate::detach::{self, NAME, THIS_PROGRAM, set_inheritable};
use crate::error::Error;
use crate::interfaces;
use crate::listen::Listen;
use crate::place::{Place, batch_job, host_name};
use crate::record::GatewayRecord;
use crate::report_pipe::ReportPipe;

/// Between two attempts to start a gateway: what keeps it from starting (memory, say) may pass.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A gateway that dies again and again has a fault that another start does not mend.
const MAX_RESTARTS: u32 = 5;

/// Rank 0's word that the world is up: from then on the gateway outlives it.
pub const STARTED: &str = "started";

/// What a supervisor is asked to set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    cluster: String,
    job: Option<String>,
    access_file: PathBuf,
    run_dir: PathBuf,
    socket_dir: PathBuf,
    listen: Option<String>,
    interface: Option<String>,
    linger: u64,
    resident: bool,
    /// Engines to wait for; 0 to learn it from the first.
    size: u32,
}

impl Plan {
    /// A plan for a cluster at `place`.
    ///
    /// # Errors
    /// [`Error::SocketDirectory`].
    pub fn new(place: &Place, args: &PlaceArgs, resident: bool, size: u32) -> Result<Self, Error> {
        Ok(Self {
            cluster: place.cluster.clone(),
            job: batch_job(),
            access_file: place.access_file.clone(),
            run_dir: place.run_dir.clone(),
            socket_dir: place.socket_dir()?,
            listen: args.listen.clone(),
            interface: args.interface.clone(),
            linger: args.linger,
            resident,
            size,
        })
    }

    fn record_path(&self) -> PathBuf {
        self.run_dir.join("gateway.json")
    }
}

/// What the gateway child reads first from its standard input.
#[derive(Serialize, Deserialize)]
pub struct Inheritance {
    /// Its configuration.
    pub config: Config,
    /// The TLS listener's descriptor.
    pub tcp: RawFd,
    /// The clients' Unix listener's descriptor.
    pub clients: RawFd,
    /// The engines' Unix listener's descriptor.
    pub engines: RawFd,
}

/// The sockets that stay open over a restart of the gateway.
struct Sockets {
    tcp: TcpListener,
    clients: UnixListener,
    engines: UnixListener,
    dir: PathBuf,
}

impl Sockets {
    fn bind(plan: &Plan) -> Result<Self, Error> {
        let tcp = Listen::parse(plan.listen.as_deref())?.bind()?;
        let clients = bind_unix(&plan.socket_dir.join("client.sock"))?;
        let engines = bind_unix(&plan.socket_dir.join("engine.sock"))?;
        Ok(Self {
            tcp,
            clients,
            engines,
            dir: plan.socket_dir.clone(),
        })
    }

    fn set_inheritable(&self, inheritable: bool) -> Result<(), Error> {
        set_inheritable(&self.tcp, inheritable)?;
        set_inheritable(&self.clients, inheritable)?;
        set_inheritable(&self.engines, inheritable)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // Best effort: a leftover socket file is replaced by the next cluster of this name.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The gateway's keeper.
pub struct Supervisor {
    gateway: Child,
    pid: Arc<AtomicU32>,
    pipe: ReportPipe,
    sockets: Sockets,
    config: Config,
    record: PathBuf,
}

impl Supervisor {
    /// Binds, makes certificate and secrets, starts the gateway and waits until it listens.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub fn start(plan: &Plan) -> Result<Self, Error> {
        if let Some(alive) = GatewayRecord::read_living(&plan.record_path()) {
            return Err(Error::AlreadyRunning {
                cluster: alive.cluster,
                pid: alive.pid,
                host: alive.host,
            });
        }
        let sockets = Sockets::bind(plan)?;
        let listening = sockets
            .tcp
            .local_addr()
            .map_err(Error::io("read the listening address"))?;
        let addresses = interfaces::advertised(listening, plan.interface.as_deref())?;
        let config = configure(plan, &addresses)?;
        let record = record_of(plan, &config, addresses);
        let (gateway, stdin) = spawn_gateway(&sockets, &config)?;
        record.write(&plan.record_path())?;
        let pipe = ReportPipe::open(stdin)?;
        let pid = Arc::new(AtomicU32::new(gateway.id()));
        Ok(Self {
            gateway,
            pid,
            pipe,
            sockets,
            config,
            record: plan.record_path(),
        })
    }

    /// For whoever reads the launcher.
    #[must_use]
    pub fn pipe(&self) -> ReportPipe {
        self.pipe.clone()
    }

    /// The gateway's process id, to end it early.
    #[must_use]
    pub fn gateway_pid(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.pid)
    }

    /// Ends the gateway at once: there is no world for it to serve.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn abandon(mut self) -> Result<(), Error> {
        self.gateway.kill().map_err(Error::io("end the gateway"))?;
        self.gateway.wait().map_err(Error::io("wait for the gateway"))?;
        self.clear_record();
        Ok(())
    }

    /// Waits until the gateway has ended in good order (after lingering) and clears its record away. One that was
    /// killed is started again, with the same sockets, certificate and secrets: engines and clients come back to it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn watch(mut self) -> Result<ExitStatus, Error> {
        let mut restarts = 0;
        loop {
            let status = self.gateway.wait().map_err(Error::io("wait for the gateway"))?;
            if status.success() || restarts == MAX_RESTARTS {
                self.clear_record();
                return Ok(status);
            }
            restarts += 1;
            self.config.restarted = true;
            tracing::error!(%status, restarts, "the gateway died and is started again");
            match spawn_gateway(&self.sockets, &self.config) {
                Ok((gateway, stdin)) => {
                    self.pid.store(gateway.id(), Ordering::SeqCst);
                    self.gateway = gateway;
                    self.pipe.turn_to(stdin);
                }
                Err(error) => {
                    // The next turn hears of the old one's end again and tries once more.
                    tracing::error!("the gateway does not start: {}", crate::error::chain(&error));
                    std::thread::sleep(RESTART_PAUSE);
                }
            }
        }
    }

    fn clear_record(&self) {
        if let Err(error) = std::fs::remove_file(&self.record) {
            tracing::warn!(%error, "cannot remove the gateway's record");
        }
    }
}

/// The supervisor as a process of its own: plan from standard input, one line of answer to standard output.
///
/// # Errors
/// Whatever keeps the gateway from starting; it is told to rank 0 too.
pub fn run() -> Result<(), Error> {
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(Error::io("read the plan"))?;
    let plan: Plan = serde_json::from_str(&line).map_err(Error::Greeting)?;
    let started = Supervisor::start(&plan);
    let answer = match &started {
        Ok(_) => "ready".to_owned(),
        Err(error) => crate::error::chain(error),
    };
    // Rank 0 may be gone already; the next line finds out.
    let _ = writeln!(io::stdout(), "{answer}");
    let gateway = started?;
    if !world_has_started()? {
        tracing::warn!("rank 0 ended before the world was up");
        gateway.abandon()?;
        // No client was ever to find this cluster.
        let _ = std::fs::remove_file(&plan.access_file);
        return Ok(());
    }
    release_stdio()?;
    let status = gateway.watch()?;
    tracing::info!(%status, "gateway ended");
    Ok(())
}

/// Waits for rank 0's word that the world is up; false if rank 0 ended without it.
fn world_has_started() -> Result<bool, Error> {
    let mut word = String::new();
    io::stdin()
        .read_line(&mut word)
        .map_err(Error::io("hear from rank 0"))?;
    Ok(word.trim() == STARTED)
}

/// Gives up the pipes to rank 0: it must see the end of ours, and we must not die of a closed one.
fn release_stdio() -> Result<(), Error> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(Error::io("open /dev/null"))?;
    let gone = |e: nix::Error| Error::io("release the standard streams")(e.into());
    nix::unistd::dup2_stdin(&null).map_err(gone)?;
    nix::unistd::dup2_stdout(&null).map_err(gone)
}

/// Reads a supervisor's or gateway's one line of answer; blocks until it is there.
///
/// # Errors
/// [`Error::Gateway`] with its words.
pub fn read_answer(answer: impl Read, log: &Path) -> Result<(), Error> {
    let mut line = String::new();
    BufReader::new(answer)
        .read_line(&mut line)
        .map_err(Error::io("hear from the gateway"))?;
    match line.trim() {
        "ready" => Ok(()),
        "" => Err(Error::Gateway {
            reason: "it ended at once".to_owned(),
            log: log.to_owned(),
        }),
        words => Err(Error::Gateway {
            reason: words.to_owned(),
            log: log.to_owned(),
        }),
    }
}

fn bind_unix(path: &Path) -> Result<UnixListener, Error> {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(Error::io(format!("replace {}", path.display()))(error));
    }
    UnixListener::bind(path).map_err(Error::io(format!("bind {}", path.display())))
}

fn fresh_secret() -> Result<String, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::io("draw random bytes")(io::Error::other(e.to_string())))?;
    Ok(Secret::new(bytes).to_hex())
}

fn configure(plan: &Plan, addresses: &[SocketAddr]) -> Result<Config, Error> {
    let hosts: Vec<String> = std::iter::once(host_name())
        .chain(addresses.iter().map(|a| a.ip().to_string()))
        .collect();
    let (certificate, key) = certificate::self_signed(&hosts)?;
    Ok(Config {
        cluster: plan.cluster.clone(),
        job: plan.job.clone(),
        size: plan.size,
        software: format!("ipengine-mpi {}", env!("CARGO_PKG_VERSION")),
        run_dir: plan.run_dir.clone(),
        access_file: plan.access_file.clone(),
        client_socket: plan.socket_dir.join("client.sock"),
        engine_socket: plan.socket_dir.join("engine.sock"),
        urls: addresses
            .iter()
            .map(|address| format!("wss://{address}/"))
            .collect(),
        host: host_name(),
        launcher: plan.resident,
        restarted: false,
        linger: plan.linger,
        client_secret: fresh_secret()?,
        engine_secret: fresh_secret()?,
        certificate,
        key,
    })
}

fn record_of(plan: &Plan, config: &Config, addresses: Vec<SocketAddr>) -> GatewayRecord {
    GatewayRecord {
        cluster: plan.cluster.clone(),
        pid: std::process::id(),
        host: host_name(),
        engine_socket: config.engine_socket.clone(),
        addresses,
        fingerprint: certificate::fingerprint(&config.certificate),
        engine_secret: config.engine_secret.clone(),
        resident: plan.resident,
    }
}

/// Starts a gateway process and waits until it listens.
fn spawn_gateway(sockets: &Sockets, config: &Config) -> Result<(Child, ChildStdin), Error> {
    let log = config.run_dir.join("logs").join("gateway.log");
    let inheritance = Inheritance {
        config: config.clone(),
        tcp: sockets.tcp.as_raw_fd(),
        clients: sockets.clients.as_raw_fd(),
        engines: sockets.engines.as_raw_fd(),
    };
    sockets.set_inheritable(true)?;
    let mut command = Command::new(THIS_PROGRAM);
    command
        .arg0(NAME)
        .arg("internal-gateway")
        // A signal to the launcher's or `serve`'s group is theirs to answer.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(detach::open_log(&log)?);
    let mut child = detach::scrubbed(&mut command)
        .spawn()
        .map_err(Error::io("start the gateway process"))?;
    // Nothing else that is started later (the launcher) may hold the sockets.
    sockets.set_inheritable(false)?;
    let mut stdin = child.stdin.take().expect("piped above");
    let text = serde_json::to_string(&inheritance).expect("plain data");
    writeln!(stdin, "{text}").map_err(Error::io("configure the gateway"))?;
    read_answer(child.stdout.take().expect("piped above"), &log)?;
    Ok((child, stdin))
}
