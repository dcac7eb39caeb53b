//! The banner: what rank 0 prints on the launcher's standard output once clients can connect.

use std::env;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::greeting::Briefing;
use crate::interpreter_choice::linked_version;
use crate::place::host_name;
use crate::world::World;

/// Between two looks for the connection file. Only rank 0, only at start, never in MPI.
const LOOK: Duration = Duration::from_millis(10);
/// The gateway gives up waiting for engines before this.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the banner says.
pub struct Facts {
    cluster: String,
    size: u32,
    mpi: String,
    thread_level: String,
    python: PathBuf,
    begun: Instant,
}

impl Facts {
    /// Collects them.
    #[must_use]
    pub fn new(briefing: &Briefing, world: &World, begun: Instant) -> Self {
        Self {
            cluster: briefing.cluster.clone(),
            size: world.size(),
            mpi: world.library().to_owned(),
            thread_level: format!("{:?}", world.thread_level()).to_lowercase(),
            python: briefing.python.clone(),
            begun,
        }
    }

    fn text(&self, access_file: &Path) -> String {
        let Self {
            cluster,
            size,
            mpi,
            thread_level,
            python,
            begun,
        } = self;
        let (version, host, file) = (linked_version(), host_name(), access_file.display());
        let seconds = begun.elapsed().as_secs_f64();
        let engines = if *size == 1 { "engine" } else { "engines" };
        let warning = match thread_level.as_str() {
            "multiple" => String::new(),
            level => {
                format!("  warning     MPI grants thread level {level} only\n")
            }
        };
        format!(
            "ipengine-mpi: {size} {engines} ready after {seconds:.2} s\n  \
             cluster     {cluster}\n  \
             MPI         {mpi}\n  \
             Python      {version} ({})\n  \
             connection  {file}\n{warning}  \
             here        ipsteer --cluster {cluster} status\n  \
             laptop      {}\n",
            python.display(),
            way_from_laptop(cluster, &host, access_file)
        )
    }
}

/// What to paste on the laptop. The nodes of a batch job are mostly reached through the login node only.
fn way_from_laptop(cluster: &str, host: &str, access_file: &Path) -> String {
    let submitted_from = |system: &str, job: &str, host: &str| {
        env::var_os(job)?;
        let login = env::var(host).ok()?;
        Some(format!(
            "scripts/{system}/tunnel.sh {login} {cluster}{}",
            elsewhere(access_file)
        ))
    };
    submitted_from("slurm", "SLURM_JOB_ID", "SLURM_SUBMIT_HOST")
        .or_else(|| submitted_from("pbs", "PBS_JOBID", "PBS_O_HOST"))
        .unwrap_or_else(|| {
            let file = access_file.display();
            format!("scp {host}:{file} . && ipsteer --connect {cluster}.json status")
        })
}

/// The directory of connection files as another argument, if it is not the usual one.
fn elsewhere(access_file: &Path) -> String {
    let usual = env::var_os("HOME").map(|home| Path::new(&home).join(".ipsteer"));
    match access_file.parent() {
        Some(dir) if Some(dir) != usual.as_deref() => format!(" {}", dir.display()),
        _ => String::new(),
    }
}

/// Waits in the background until the connection file is there, then prints.
pub fn print_when_ready(facts: Facts, access_file: Option<PathBuf>, mut launcher: File) {
    let Some(access_file) = access_file else { return };
    std::thread::spawn(move || {
        while facts.begun.elapsed() < PATIENCE {
            if is_ready(&access_file) {
                // A launcher that reads no more is no reason to end.
                let _ = launcher.write_all(facts.text(&access_file).as_bytes());
                return;
            }
            std::thread::sleep(LOOK);
        }
    });
}

/// A post-mortem of an earlier cluster of this name is not this one's file.
fn is_ready(access_file: &Path) -> bool {
    let Ok(text) = std::fs::read(access_file) else {
        return false;
    };
    serde_json::from_slice::<ipengine_protocol::AccessRecord>(&text)
        .is_ok_and(|record| record.ended.is_none())
}
