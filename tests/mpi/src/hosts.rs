//! Virtual hosts: a login node `head`, compute nodes `h1`…, a `laptop`, each with its own name, address, processes,
//! `/dev/shm` and `/tmp`. `tests/mpi/hosts/cluster.sh` makes them; `docs/design/virtual-hosts.md` says how.
//!
//! The hosts live as long as a pipe from this process: they end with it, whatever kills it. The test itself stays
//! outside and cannot reach their network; it runs programs on them ([`Hosts::spawn`], [`Hosts::run`]).

mod census;
mod feature;
mod running;
mod spread;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::launch::{engine_program, root, venv_python};
use crate::mpi::{Mpi, OPEN_MPI};
use crate::processes::Process;
use crate::skip::skipped;
use crate::waiting::{until, until_within};
use census::Census;
pub use census::living_of;
use feature::Feature;
pub use running::Running;
pub use spread::{Spread, World};

/// What a job may take to end after the test has ended it.
const ENDING: Duration = Duration::from_secs(30);
/// What a failing test prints of each log.
const LONGEST_EXCERPT: usize = 4000;

/// Hosts that are about to be started.
#[derive(Clone, Debug)]
pub struct Builder {
    count: u32,
    features: Vec<Feature>,
    open_mpi: bool,
}

impl Builder {
    /// For a test that knows only what Open MPI's launcher does.
    #[must_use]
    pub fn open_mpi(mut self) -> Self {
        self.open_mpi = true;
        self
    }

    /// Slurm on `head` and all compute nodes.
    #[must_use]
    pub fn slurm(mut self) -> Self {
        self.features.push(Feature::Slurm);
        self
    }

    /// What looks like PBS to jobs and their submitters: `qsub`, `qstat`, `qdel` and a job's environment.
    #[must_use]
    pub fn pbs(mut self) -> Self {
        self.features.extend([Feature::Slurm, Feature::Pbs]);
        self
    }

    /// Starts them. `None` where this machine cannot have them; the reason is printed.
    ///
    /// # Panics
    /// When they do not start although they could.
    #[must_use]
    pub fn start(self) -> Option<Hosts> {
        if *Mpi::under_test() != OPEN_MPI && !self.features.is_empty() {
            skipped("the batch systems here know how to run Open MPI only");
            return None;
        }
        if self.open_mpi && *Mpi::under_test() != OPEN_MPI {
            skipped("this test knows Open MPI's launcher only");
            return None;
        }
        if let Err(missing) = feature::probe(&self.features) {
            skipped(&format!("no virtual hosts: {missing}"));
            return None;
        }
        Some(Hosts::start(self.count, &self.features))
    }
}

/// Running hosts. Dropping them ends them, and fails the test if a process is left that is not their own.
#[derive(Debug)]
pub struct Hosts {
    child: Child,
    orders: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    census: Census,
    features: Vec<Feature>,
    dir: TempDir,
    ready_after: Duration,
}

impl Hosts {
    /// `count` compute nodes, beside `head` and `laptop`.
    #[must_use]
    pub fn of(count: u32) -> Builder {
        Builder {
            count,
            features: Vec::new(),
            open_mpi: false,
        }
    }

    fn start(count: u32, features: &[Feature]) -> Self {
        let began = Instant::now();
        // Short: the sockets' paths must fit a socket address.
        let dir = tempfile::Builder::new().prefix("ipt").tempdir_in("/tmp");
        let dir = dir.expect("a private directory");
        let mut child = Command::new(root().join("tests/mpi/hosts/cluster.sh"))
            .arg(dir.path())
            .arg(count.to_string())
            .args(features.iter().map(|feature| feature.word()))
            .env("PATH", base_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cluster.sh can be run");
        let orders = child.stdin.take().expect("piped above");
        let mut answers = BufReader::new(child.stdout.take().expect("piped above"));
        let mut word = String::new();
        answers.read_line(&mut word).expect("cluster.sh answers");
        assert_eq!(word.trim(), "ready", "{}", logs(dir.path()));
        Self {
            census: Census::take(dir.path(), count),
            child,
            orders: Mutex::new(Some((orders, answers))),
            features: features.to_vec(),
            dir,
            ready_after: began.elapsed(),
        }
    }

    /// How long it took until all was ready.
    #[must_use]
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Everything that the hosts write, seen from the test and from each host under the same path.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The user's home directory on a host: the laptop has its own, the cluster's hosts share one.
    #[must_use]
    pub fn home(&self, host: &str) -> PathBuf {
        self.dir
            .path()
            .join(if host == "laptop" { "home-laptop" } else { "home" })
    }

    /// A host's own `/tmp`, as the test sees it.
    #[must_use]
    pub fn tmp(&self, host: &str) -> PathBuf {
        self.dir.path().join(host).join("tmp")
    }

    /// A command line on a host, as after a login there: in the home directory, with nothing of this process's
    /// environment, builds on `PATH`. It ends with this process, and when the returned child is killed.
    ///
    /// # Panics
    /// When there is no such host (any more).
    #[must_use]
    pub fn command(&self, host: &str, words: &[&str]) -> Command {
        let pid = self.census.first_process(host);
        let pid = pid
            .unwrap_or_else(|| panic!("there is no host {host}"))
            .to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-n", "-u", "-i", "-m", "-p"]);
        if !nix::unistd::geteuid().is_root() {
            command.args(["-U", "--preserve-credentials"]);
        }
        command
            .args(["--", "setpriv", "--pdeathsig", "KILL", "env", "-C"])
            .arg(self.home(host))
            .args(words)
            .stdin(Stdio::null())
            .env_clear()
            .envs(self.environment(host));
        command
    }

    fn environment(&self, host: &str) -> Vec<(&'static str, String)> {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
        let user = user.ok().flatten().map_or_else(String::new, |user| user.name);
        let text = |path: &Path| path.display().to_string();
        let built = engine_program();
        let environment = venv_python();
        let environment = environment.ancestors().nth(2).expect("…/bin/python");
        let mut path = [
            text(built.parent().expect("absolute")),
            text(&root().join("target/release")),
            base_path(),
        ]
        .join(":");
        let mut variables = vec![
            ("HOME", text(&self.home(host))),
            ("USER", user.clone()),
            ("LOGNAME", user),
            ("SHELL", "/bin/bash".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("LOGIN_PATH", base_path()),
            // As after `source .venv/bin/activate`.
            ("VIRTUAL_ENV", text(environment)),
            // Open MPI refuses root without both; others ignore them.
            ("OMPI_ALLOW_RUN_AS_ROOT", "1".to_owned()),
            ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1".to_owned()),
        ];
        if self.features.contains(&Feature::Pbs) {
            path = format!("{}:{path}", text(&root().join("tests/mpi/hosts/pbs")));
        }
        if self.features.contains(&Feature::Slurm) && host != "laptop" {
            variables.push(("SLURM_CONF", text(&self.dir.path().join("slurm/slurm.conf"))));
        }
        variables.push(("PATH", path));
        variables
    }

    /// Starts a command line on a host.
    #[must_use]
    pub fn spawn(&self, host: &str, words: &[&str]) -> Running {
        self.spawn_command(self.command(host, words), &format!("{host}: {}", words.join(" ")))
    }

    /// Starts a command of [`Hosts::command`] that the test has changed.
    #[must_use]
    pub fn spawn_command(&self, command: Command, what: &str) -> Running {
        Running::start(command, what, &self.dir.path().join("log"))
    }

    /// Runs a command line on a host; what it prints.
    ///
    /// # Panics
    /// When it fails or does not end.
    pub fn run(&self, host: &str, words: &[&str]) -> String {
        self.spawn(host, words).must()
    }

    /// Runs Python source text on a host with the project's Python; what it prints.
    ///
    /// # Panics
    /// As [`Hosts::run`].
    pub fn python(&self, host: &str, source: &str) -> String {
        self.run(host, &[&venv_python().display().to_string(), "-c", source])
    }

    /// Runs a shell command line on a host with all capabilities: what an administrator does.
    ///
    /// # Panics
    /// When it fails.
    pub fn administer(&self, host: &str, line: &str) {
        let code = self.order(host, line);
        assert_eq!(code, "0", "{host}: {line}\n{}", logs(self.dir.path()));
    }

    fn order(&self, host: &str, line: &str) -> String {
        let mut guard = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let (orders, answers) = guard.as_mut().expect("the hosts live");
        writeln!(orders, "{host} {line}").expect("the hosts listen");
        let mut code = String::new();
        answers.read_line(&mut code).expect("the hosts answer");
        code.trim().to_owned()
    }

    /// The host vanishes: its processes and its network, without a word.
    ///
    /// # Panics
    /// When there is no such host.
    pub fn kill(&self, host: &str) {
        self.administer(
            "head",
            &format!("kill -KILL $(<{}/run/{host}.pid)", self.dir.path().display()),
        );
        until("the host to vanish", || {
            self.census.processes(host).is_empty().then_some(())
        });
    }

    /// The host's network cable is cut: nothing is told to either side.
    ///
    /// # Panics
    /// When there is no such host.
    pub fn cut(&self, host: &str) {
        self.administer("head", &format!("ip link set v-{host} down"));
    }

    /// The cable is plugged in again.
    ///
    /// # Panics
    /// When there is no such host.
    pub fn mend(&self, host: &str) {
        self.administer("head", &format!("ip link set v-{host} up"));
    }

    /// Living processes on a host but for its own daemons, with their ids outside.
    #[must_use]
    pub fn processes_on(&self, host: &str) -> Vec<Process> {
        self.census.users(host)
    }

    /// The same of all hosts.
    #[must_use]
    pub fn processes(&self) -> Vec<(String, Process)> {
        self.census.all_users()
    }

    /// Waits until no process but the hosts' own daemons lives anywhere.
    ///
    /// # Panics
    /// When one stays.
    pub fn wait_idle(&self) {
        let idle = until_within(ENDING, || self.processes().is_empty().then_some(()));
        assert!(idle.is_some(), "these are left: {:#?}", self.processes());
    }

    /// What ended only because Slurm ended it after its job or step: lines of host, `job` or `step`, and command.
    #[must_use]
    pub fn killed_by_slurm(&self) -> String {
        fs::read_to_string(self.dir.path().join("log/killed.log")).unwrap_or_default()
    }

    /// Everything that helps to understand a failure.
    #[must_use]
    pub fn report(&self) -> String {
        let alive: String = self
            .processes()
            .iter()
            .map(|(host, process)| format!("alive on {host}: {} {}\n", process.pid, process.command))
            .collect();
        alive + &logs(self.dir.path())
    }

    fn end(&mut self) {
        // The end of their input ends them.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        if until_within(ENDING, || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
            return self.end();
        }
        until_within(ENDING, || self.processes().is_empty().then_some(()));
        let left = self.processes();
        if !left.is_empty() {
            eprintln!("{}", self.report());
        }
        self.end();
        assert!(left.is_empty(), "these outlive the test: {left:#?}");
    }
}

/// What a login shell has, without the test runner's own directories.
fn base_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    // Not every user has them, and sshd, ip, slurmctld lie there.
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin")
}

/// The ends of all logs: the hosts' own, the commands' output, the engines' logs.
fn logs(dir: &Path) -> String {
    let mut files = vec![dir.join("cluster.log")];
    for place in ["log", "home", "home/.ipsteer"] {
        let entries = fs::read_dir(dir.join(place)).into_iter().flatten().flatten();
        files.extend(entries.map(|entry| entry.path()));
    }
    let runs = fs::read_dir(dir.join("home/.ipsteer/runs"))
        .into_iter()
        .flatten()
        .flatten();
    for run in runs {
        let entries = fs::read_dir(run.path().join("logs"))
            .into_iter()
            .flatten()
            .flatten();
        files.extend(entries.map(|entry| entry.path()));
    }
    files.sort();
    files.iter().filter_map(|path| excerpt(path)).collect()
}

fn excerpt(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok().filter(|bytes| !bytes.is_empty())?;
    let from = bytes.len().saturating_sub(LONGEST_EXCERPT);
    let text = String::from_utf8_lossy(&bytes[from..]).into_owned();
    Some(format!("--- {}\n{text}\n", path.display()))
}
