//! Which processes of a job are alive. They are known by a variable in their environment that only this job has and
//! that launchers, supervisors and user children hand on.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable.
pub const MARK: &str = "IPENGINE_TEST_JOB";

/// A process of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its command line.
    pub command: String,
}

/// All living processes that carry `mark`.
#[must_use]
pub fn of_job(mark: &str) -> Vec<Process> {
    let wanted = format!("{MARK}={mark}").into_bytes();
    let entries = fs::read_dir("/proc").expect("/proc is there");
    entries
        .flatten()
        .filter_map(|entry| marked(entry.path(), &wanted))
        .collect()
}

fn marked(dir: PathBuf, wanted: &[u8]) -> Option<Process> {
    let pid = dir.file_name()?.to_str()?.parse().ok()?;
    // A zombie's environment is empty, and a process may end between two reads.
    let environment = fs::read(dir.join("environ")).ok()?;
    if !environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == wanted)
    {
        return None;
    }
    let command = fs::read(dir.join("cmdline")).ok()?;
    Some(Process {
        pid,
        command: String::from_utf8_lossy(&command)
            .replace('\0', " ")
            .trim()
            .to_owned(),
    })
}

/// Sends a signal; a process that has just ended is as good as signalled.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}
