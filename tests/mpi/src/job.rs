//! A running job: its files, its end, and what a failing test prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::rc::Rc;
use std::time::Duration;

use ipengine_protocol::AccessRecord;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::processes::{self, Process};
use crate::session::Session;
use crate::waiting::{until, until_within};

/// For an end in good order.
const ENDING: Duration = Duration::from_secs(30);
/// What a failing test prints of each file.
const LONGEST_EXCERPT: usize = 6000;

/// A job. Dropping it ends it, and fails the test if anything of it stays alive.
#[derive(Debug)]
pub struct MpiJob {
    child: Child,
    command: String,
    mark: String,
    dir: Rc<TempDir>,
    base: PathBuf,
    cluster: String,
    engines: u32,
    outputs: [PathBuf; 2],
    exit: Option<ExitStatus>,
}

impl MpiJob {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, by the builder that gathers them"
    )]
    pub(crate) fn new(
        child: Child,
        command: String,
        mark: String,
        dir: Rc<TempDir>,
        base: PathBuf,
        cluster: String,
        engines: u32,
        outputs: [PathBuf; 2],
    ) -> Self {
        Self {
            child,
            command,
            mark,
            dir,
            base,
            cluster,
            engines,
            outputs,
            exit: None,
        }
    }

    /// Waits until the connection file is there.
    ///
    /// # Panics
    /// When the job ends before.
    pub fn wait_ready(&mut self) {
        until("the connection file", || {
            if let Some(status) = self.poll_exit() {
                panic!("the job ended at its start with {status}: {}", self.text());
            }
            self.read_record()
                .filter(|record| record.ended.is_none() && record.token.is_some())
        });
    }

    /// Number of engines.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.engines
    }

    /// All engines.
    #[must_use]
    pub fn all(&self) -> Vec<u32> {
        (0..self.engines).collect()
    }

    /// Process id of what was started: mpiexec or `serve`.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    /// A client, over the first address that answers.
    #[must_use]
    pub fn connect(&self) -> Session {
        Session::open(&self.access_file(), None)
    }

    /// A client over this address.
    #[must_use]
    pub fn connect_to(&self, url: &str) -> Session {
        Session::open(&self.access_file(), Some(url))
    }

    pub(crate) fn shared_dir(&self) -> Rc<TempDir> {
        self.dir.clone()
    }

    /// The job's own directory, for files of the test too.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The connection file.
    #[must_use]
    pub fn access_file(&self) -> PathBuf {
        self.base.join(format!("{}.json", self.cluster))
    }

    /// Its present contents.
    #[must_use]
    pub fn record(&self) -> AccessRecord {
        self.read_record().expect("a connection file")
    }

    fn read_record(&self) -> Option<AccessRecord> {
        serde_json::from_slice(&fs::read(self.access_file()).ok()?).ok()
    }

    /// The directory of logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.base.join("runs").join(&self.cluster).join("logs")
    }

    /// What the launcher and the banner have printed, stderr last.
    #[must_use]
    pub fn text(&self) -> String {
        self.outputs
            .iter()
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .collect()
    }

    /// Living processes of the job: launcher, ranks, supervisor, gateway, user children.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        processes::of_job(&self.mark)
    }

    /// Sends a signal to what was started, as a batch system does.
    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// How what was started has ended, if it has.
    ///
    /// # Panics
    /// When the kernel does not tell.
    pub fn poll_exit(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("the child can be waited for");
        }
        self.exit
    }

    /// Waits until what was started has returned.
    pub fn wait_exit(&mut self) -> ExitStatus {
        until("the launcher to return", || self.poll_exit())
    }

    /// Waits until the post-mortem is written and returns its reason.
    #[must_use]
    pub fn wait_post_mortem(&self) -> String {
        until("the post-mortem", || self.read_record()?.ended).reason
    }

    /// Waits until no process of the job lives.
    pub fn wait_gone(&self) {
        until("the last process to end", || {
            self.processes().is_empty().then_some(())
        });
    }

    /// Stops the job in good order and checks everything about its end.
    ///
    /// # Panics
    /// When something is left, or an exit code is wrong.
    pub fn stop(&mut self) {
        self.connect().shutdown();
        let status = self.wait_exit();
        assert!(
            status.success(),
            "after an orderly stop the launcher returns {status}"
        );
        self.wait_gone();
        self.check_files();
    }

    /// After the end: no socket, no record of a living gateway, no token.
    ///
    /// # Panics
    /// When one is left.
    pub fn check_files(&self) {
        let record = self.record();
        assert!(record.token.is_none(), "the token outlives the cluster");
        assert!(record.ended.is_some(), "the post-mortem is missing");
        let socket = record.unix.expect("a Unix socket was there");
        assert!(!Path::new(&socket).exists(), "{socket} is left");
        let gateway = self.logs().with_file_name("gateway.json");
        assert!(!gateway.exists(), "{} is left", gateway.display());
    }

    /// Everything that helps to understand a failure.
    #[must_use]
    pub fn report(&self) -> String {
        let mut report = format!("command: {}\nexit: {:?}\n", self.command, self.exit);
        for process in self.processes() {
            report += &format!("alive: {} {}\n", process.pid, process.command);
        }
        let mut files = self.outputs.to_vec();
        if let Ok(entries) = fs::read_dir(self.logs()) {
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files[2..].sort();
        for path in files {
            let bytes = fs::read(&path).unwrap_or_default();
            if !bytes.is_empty() {
                let from = bytes.len().saturating_sub(LONGEST_EXCERPT);
                report += &format!(
                    "--- {}\n{}\n",
                    path.display(),
                    String::from_utf8_lossy(&bytes[from..])
                );
            }
        }
        report
    }

    fn kill_all(&mut self) {
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        self.processes()
            .iter()
            .for_each(|process| processes::signal(process.pid, Signal::SIGKILL));
        let _ = self.child.wait();
    }

    /// Ends what lives, in good order where that is possible; returns what is left.
    fn end(&mut self) -> Vec<Process> {
        let alive = self.read_record().is_some_and(|record| record.ended.is_none());
        if self.poll_exit().is_none() && alive {
            self.connect().shutdown();
        } else if self.poll_exit().is_none() {
            self.signal(Signal::SIGTERM);
        }
        until_within(ENDING, || self.poll_exit());
        until_within(ENDING, || self.processes().is_empty().then_some(()));
        self.processes()
    }
}

impl Drop for MpiJob {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
            return self.kill_all();
        }
        let left = self.end();
        if !left.is_empty() {
            eprintln!("{}", self.report());
            self.kill_all();
            panic!("these outlive the job: {left:?}");
        }
    }
}
