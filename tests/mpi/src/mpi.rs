//! The MPI under test, and the one place that says in what MPIs differ.
//!
//! `IPENGINE_TEST_MPI` names it, `openmpi` by default; `MPIEXEC` is its launcher. Its build is in `target/<name>/` when
//! it was built beside another MPI's, else in `target/release/` with `.venv/`.

use std::env;
use std::path::PathBuf;

use crate::launch::root;

/// What tests have to know about an MPI.
#[derive(Debug, PartialEq, Eq)]
pub struct Mpi {
    /// As in `IPENGINE_TEST_MPI`.
    pub name: &'static str,
    /// How its library's version text begins.
    pub version: &'static str,
    /// How the file name of its library begins.
    pub libraries: &'static [&'static str],
    /// How an engine names its launcher.
    pub launcher: &'static str,
    /// Where its launcher tells a process its rank and the number of ranks.
    pub variables: [&'static str; 2],
    /// How its launcher is told the hosts, before their list: `h1:2,h2:2` for two ranks on each.
    pub hosts: &'static [&'static str],
    /// What its launcher wants for more ranks than cores.
    pub oversubscribe: &'static [&'static str],
    /// What its launcher says when it is not told to put more ranks on a machine than that has cores; `None` if it just
    /// does so.
    pub too_few_slots: Option<&'static str>,
}

/// Open MPI.
pub static OPEN_MPI: Mpi = Mpi {
    name: "openmpi",
    version: "Open MPI",
    libraries: &["libmpi.so.40"],
    launcher: "Open MPI's mpiexec",
    variables: ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
    hosts: &["--host"],
    oversubscribe: &["--oversubscribe"],
    too_few_slots: Some("There are not enough slots available in the system"),
};

/// MPICH.
pub static MPICH: Mpi = Mpi {
    name: "mpich",
    version: "MPICH",
    // Debian's name, and its own.
    libraries: &["libmpich.so.12", "libmpi.so.12"],
    launcher: "MPICH's or Intel's mpiexec",
    variables: ["PMI_RANK", "PMI_SIZE"],
    hosts: &["-launcher", "ssh", "-hosts"],
    oversubscribe: &[],
    too_few_slots: None,
};

impl Mpi {
    /// The MPI under test.
    ///
    /// # Panics
    /// When `IPENGINE_TEST_MPI` names none that tests know.
    #[must_use]
    pub fn under_test() -> &'static Self {
        match env::var("IPENGINE_TEST_MPI").as_deref() {
            Err(_) | Ok("openmpi") => &OPEN_MPI,
            Ok("mpich") => &MPICH,
            Ok(name) => panic!("IPENGINE_TEST_MPI={name}: tests know openmpi and mpich"),
        }
    }

    /// The MPI that is not under test.
    #[must_use]
    pub fn other() -> &'static Self {
        if *Self::under_test() == OPEN_MPI {
            &MPICH
        } else {
            &OPEN_MPI
        }
    }

    /// Its `ipengine-mpi`: `$IPENGINE_MPI`, else the release build.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        if let Some(path) = env::var_os("IPENGINE_MPI") {
            return path.into();
        }
        let beside = self.directory().join("release/ipengine-mpi");
        if beside.exists() {
            beside
        } else {
            root().join("target/release/ipengine-mpi")
        }
    }

    /// The Python environment whose mpi4py is built for it.
    #[must_use]
    pub fn python(&self) -> PathBuf {
        let beside = self.directory().join("venv/bin/python");
        if beside.exists() {
            beside
        } else {
            root().join(".venv/bin/python")
        }
    }

    /// Where its build is if it is not the first one.
    fn directory(&self) -> PathBuf {
        root().join("target").join(self.name)
    }

    /// Command line of its launcher `program`, ready for more ranks than cores.
    #[must_use]
    pub fn launcher_words(&self, program: String) -> Vec<String> {
        let options = self.oversubscribe.iter().copied().map(str::to_owned);
        std::iter::once(program).chain(options).collect()
    }

    /// Its launcher as Debian calls it where several MPIs are installed, if it is there.
    #[must_use]
    pub fn installed_launcher(&self) -> Option<PathBuf> {
        let name = format!("mpiexec.{}", self.name);
        let path = env::var_os("PATH")?;
        env::split_paths(&path)
            .map(|dir| dir.join(&name))
            .find(|file| file.is_file())
    }
}

/// The launcher of the MPI under test.
#[must_use]
pub fn launcher() -> String {
    env::var("MPIEXEC").unwrap_or_else(|_| "mpiexec".to_owned())
}
