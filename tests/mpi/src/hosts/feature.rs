//! What virtual hosts can have, and whether this machine can give it.

use std::path::Path;
use std::process::Command;

use super::base_path;

/// Something that not every test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A real Slurm.
    Slurm,
    /// The look of PBS over it.
    Pbs,
}

impl Feature {
    /// Its name for `cluster.sh`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::Pbs => "pbs",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Slurm => &["slurmctld", "slurmd", "sbatch", "scontrol"],
            Self::Pbs => &["qsub", "qstat", "qdel"],
        }
    }
}

/// What every host needs.
const PROGRAMS: [&str; 8] = [
    "unshare",
    "nsenter",
    "setpriv",
    "ip",
    "ps",
    "ssh",
    "sshd",
    "ssh-keygen",
];

/// A namespace of each kind with a bridge in it.
const TRIAL: &str = "ip link add trial type bridge && mount -t tmpfs trial /run";

/// Says what is missing.
pub fn probe(features: &[Feature]) -> Result<(), String> {
    let wanted = features.iter().flat_map(|feature| feature.programs());
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .chain(wanted)
        .copied()
        .filter(|name| !is_there(name))
        .collect();
    if !missing.is_empty() {
        return Err(format!("these programs are missing: {}", missing.join(", ")));
    }
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    let trial = command
        .args([
            "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "sh", "-c", TRIAL,
        ])
        .env("PATH", base_path())
        .output()
        .map_err(|error| format!("unshare cannot be run: {error}"))?;
    if trial.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&trial.stderr).trim().to_owned();
    Err(format!("namespaces are not allowed here: {words}"))
}

fn is_there(program: &str) -> bool {
    base_path()
        .split(':')
        .any(|dir| Path::new(dir).join(program).is_file())
}
