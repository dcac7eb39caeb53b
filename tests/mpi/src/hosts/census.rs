//! Which processes live on which virtual host, seen from outside: by the process namespace that each host has.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::processes::Process;

/// The variable of every process that belongs to the hosts themselves.
const MARK: &str = "VIRTUAL_HOSTS";

/// Daemons that write over their environment to show what they do.
const DAEMONS: [&str; 6] = [
    "sshd",
    "sshd-session",
    "sshd-auth",
    "slurmctld",
    "slurmd",
    "slurmstepd",
];

/// A host's first process and its namespace.
#[derive(Clone, Debug)]
struct Entry {
    pid: i32,
    namespace: PathBuf,
}

/// All hosts of a cluster.
#[derive(Debug)]
pub struct Census {
    hosts: BTreeMap<String, Entry>,
}

impl Census {
    /// Finds the hosts `head`, `laptop`, `h1` to `h<count>` that `cluster.sh` made in `dir`.
    ///
    /// # Panics
    /// When one is not there.
    pub fn take(dir: &Path, count: u32) -> Self {
        let first: Vec<(i32, String)> = living_of(dir)
            .into_iter()
            .filter(|process| is_first(process.pid))
            .map(|process| (process.pid, process.command))
            .collect();
        let nodes = (1..=count).map(|i| format!("h{i}"));
        let names = ["head".to_owned(), "laptop".to_owned()].into_iter().chain(nodes);
        let entry = |name: String| {
            let sign = match name.as_str() {
                "head" => format!("cluster.sh {} ", dir.display()),
                other => format!("host.sh {} {other}", dir.display()),
            };
            let found = first
                .iter()
                .find(|(_, command)| (command.clone() + " ").contains(&sign));
            let (pid, _) = found.unwrap_or_else(|| panic!("no host {name} among {first:?}"));
            let namespace = namespace(*pid).expect("its namespace can be seen");
            (name, Entry { pid: *pid, namespace })
        };
        Self {
            hosts: names.map(entry).collect(),
        }
    }

    /// The process through which a host is entered, while it lives.
    pub fn first_process(&self, host: &str) -> Option<i32> {
        let entry = self.hosts.get(host)?;
        (namespace(entry.pid)? == entry.namespace).then_some(entry.pid)
    }

    /// Every process on a host.
    pub fn processes(&self, host: &str) -> Vec<i32> {
        let Some(entry) = self.hosts.get(host) else {
            return Vec::new();
        };
        let on_it = |pid: &i32| namespace(*pid).as_ref() == Some(&entry.namespace);
        pids().filter(on_it).collect()
    }

    /// Every process on a host but for those that belong to it.
    pub fn users(&self, host: &str) -> Vec<Process> {
        self.processes(host).into_iter().filter_map(user).collect()
    }

    /// The same of all hosts.
    pub fn all_users(&self) -> Vec<(String, Process)> {
        let by_namespace: BTreeMap<&PathBuf, &String> = self
            .hosts
            .iter()
            .map(|(name, entry)| (&entry.namespace, name))
            .collect();
        let on_some = |pid| Some((by_namespace.get(&namespace(pid)?)?.to_string(), user(pid)?));
        pids().filter_map(on_some).collect()
    }
}

/// Living processes that belong to the hosts of this directory themselves.
#[must_use]
pub fn living_of(dir: &Path) -> Vec<Process> {
    let mark = format!("{MARK}={}", dir.display());
    let marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    };
    pids()
        .filter(marked)
        .filter_map(|pid| {
            Some(Process {
                pid,
                command: command_of(pid)?,
            })
        })
        .collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// Whether it is the first process of its innermost namespace.
fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.and_then(|ids| ids.split_whitespace().next_back()) == Some("1")
}

/// `None` for zombies, which have no command line any more.
fn command_of(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .trim()
        .to_owned();
    (!text.is_empty()).then_some(text)
}

fn user(pid: i32) -> Option<Process> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = program.file_name()?.to_str()?;
    let name = name.strip_suffix("-wlm").unwrap_or(name);
    if DAEMONS.contains(&name) {
        return None;
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let own = |variable: &[u8]| variable.starts_with(format!("{MARK}=").as_bytes());
    if environment.split(|byte| *byte == 0).any(own) {
        return None;
    }
    Some(Process {
        pid,
        command: command_of(pid)?,
    })
}
