//! How a job is started: the command line, its environment and its private directory.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use tempfile::TempDir;

use crate::job::MpiJob;
use crate::mpi::{self, Mpi};
use crate::processes::MARK;

/// A job that is about to be started.
#[derive(Clone, Debug)]
pub struct Launch {
    engines: u32,
    resident: bool,
    launcher: Option<Vec<String>>,
    cluster: String,
    python: Option<PathBuf>,
    options: Vec<String>,
    others: Vec<String>,
    environment: Vec<(String, Option<String>)>,
    dir: Rc<TempDir>,
    ipsteer_dir: Option<PathBuf>,
}

impl Launch {
    /// A job of `engines` ranks, started as `mpiexec -n N ipengine-mpi`.
    #[must_use]
    pub fn plain(engines: u32) -> Self {
        // Short: the sockets' paths must fit a socket address.
        let dir = tempfile::Builder::new()
            .prefix("ipt")
            .tempdir_in("/tmp")
            .expect("a private directory");
        Self {
            engines,
            resident: false,
            launcher: Some(Mpi::under_test().launcher_words(mpi::launcher())),
            cluster: "test".to_owned(),
            python: Some(venv_python()),
            options: Vec::new(),
            others: Vec::new(),
            environment: Vec::new(),
            dir: Rc::new(dir),
            ipsteer_dir: None,
        }
    }

    /// A job started as `ipengine-mpi serve -- mpiexec -n N ipengine-mpi`.
    #[must_use]
    pub fn resident(engines: u32) -> Self {
        Self {
            resident: true,
            ..Self::plain(engines)
        }
    }

    /// Without mpiexec: a world of one, or what another MPI's launcher makes of it.
    #[must_use]
    pub fn without_mpiexec(mut self) -> Self {
        self.launcher = None;
        self
    }

    /// With another launcher: the words before the number of ranks.
    #[must_use]
    pub fn launcher(mut self, words: Vec<String>) -> Self {
        self.launcher = Some(words);
        self
    }

    /// In the directory of another job, under its name.
    #[must_use]
    pub fn beside(mut self, job: &MpiJob) -> Self {
        self.dir = job.shared_dir();
        self
    }

    /// Adds an option of `ipengine-mpi` (of `serve`, in resident mode).
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Another interpreter, or `None` to let the engine choose.
    #[must_use]
    pub fn python(mut self, python: Option<&Path>) -> Self {
        self.python = python.map(Path::to_owned);
        self
    }

    /// Sets (or with `None` removes) an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: Option<&str>) -> Self {
        self.environment.push((name.to_owned(), value.map(str::to_owned)));
        self
    }

    /// Another directory for connection files.
    #[must_use]
    pub fn ipsteer_dir(mut self, dir: &Path) -> Self {
        self.ipsteer_dir = Some(dir.to_owned());
        self
    }

    /// Adds ranks that are another program: what follows `:` on mpiexec's command line.
    #[must_use]
    pub fn and_ranks_of(mut self, command: &[&str]) -> Self {
        self.others.extend(
            [":", "-n", "1"]
                .into_iter()
                .chain(command.iter().copied())
                .map(str::to_owned),
        );
        self
    }

    /// Starts it and waits until it can be steered.
    #[must_use]
    pub fn start(self) -> MpiJob {
        let mut job = self.spawn();
        job.wait_ready();
        job
    }

    /// Starts it and does not wait.
    ///
    /// # Panics
    /// When the command cannot be run at all.
    #[must_use]
    pub fn spawn(self) -> MpiJob {
        let words = self.words();
        let mark = mark();
        let (mut command, out, err) = (
            self.command(&words, &mark),
            self.file(&mark, "out"),
            self.file(&mark, "err"),
        );
        let open = |path: &Path| File::create(path).expect("the launcher's output file");
        command
            .stdin(Stdio::null())
            .stdout(open(&out))
            .stderr(open(&err))
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?} cannot be run: {error}"));
        let base = self.ipsteer_dir.unwrap_or_else(|| self.dir.path().to_owned());
        MpiJob::new(
            child,
            words.join(" "),
            mark,
            self.dir,
            base,
            self.cluster,
            self.engines,
            [out, err],
        )
    }

    /// The job's own directory, for files that it finds when it starts.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, mark: &str, kind: &str) -> PathBuf {
        self.dir.path().join(format!("launcher-{mark}.{kind}"))
    }

    fn words(&self) -> Vec<String> {
        let own = |text: &str| text.to_owned();
        let program = engine_program().display().to_string();
        let place = [own("--cluster"), self.cluster.clone()];
        let mut words = Vec::new();
        if self.resident {
            words.extend([program.clone(), own("serve")].into_iter().chain(place.clone()));
            words.extend(self.options.iter().cloned());
            words.push(own("--"));
        }
        if let Some(launcher) = &self.launcher {
            words.extend(launcher.iter().cloned());
            words.extend([own("-n"), self.engines.to_string()]);
        }
        words.push(program);
        if let Some(python) = &self.python {
            words.extend([own("--python"), python.display().to_string()]);
        }
        if !self.resident {
            words.extend(place.into_iter().chain(self.options.iter().cloned()));
        }
        words.extend(self.others.iter().cloned());
        words
    }

    fn command(&self, words: &[String], mark: &str) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        for name in [
            "IPENGINE_CLUSTER",
            "SLURM_JOB_ID",
            "PBS_JOBID",
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
        ] {
            command.env_remove(name);
        }
        command
            .env(MARK, mark)
            .env(
                "IPSTEER_DIR",
                self.ipsteer_dir.as_deref().unwrap_or(self.dir.path()),
            )
            .env("TMPDIR", self.dir.path())
            // Open MPI refuses root without both; others ignore them.
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

/// No two jobs, also of tests that run at the same time, have the same.
fn mark() -> String {
    let mut random = [0; 6];
    getrandom::fill(&mut random).expect("random bytes");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The root of the source tree.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the source tree is there")
}

/// `ipengine-mpi` under test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn engine_program() -> PathBuf {
    let path = Mpi::under_test().program();
    assert!(
        path.is_file(),
        "{} is not built: run scripts/build, or set IPENGINE_MPI",
        path.display()
    );
    path
}

/// The project's Python, with the mpi4py of the MPI under test.
#[must_use]
pub fn venv_python() -> PathBuf {
    Mpi::under_test().python()
}
