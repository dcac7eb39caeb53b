//! Where a cluster's files lie: names and directories. No process or network business.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Longest path that fits a Unix socket address, with its terminating zero.
const MAX_SOCKET_PATH: usize = 108;

/// A cluster's name and directories on one file system.
#[derive(Clone, Debug)]
pub struct Place {
    /// Name of the cluster.
    pub cluster: String,
    /// The connection file.
    pub access_file: PathBuf,
    /// Logs and records, mode 0700.
    pub run_dir: PathBuf,
}

impl Place {
    /// Chooses and creates the directories: `$IPSTEER_DIR`, else `~/.ipsteer`, else `.ipsteer` in the directory that
    /// the job was submitted from.
    ///
    /// # Errors
    /// [`Error::Directory`] naming every directory tried.
    pub fn create(cluster: Option<&str>) -> Result<Self, Error> {
        let cluster = cluster.map_or_else(default_cluster, str::to_owned);
        check_name(&cluster)?;
        let mut tried = Vec::new();
        for base in base_candidates() {
            let run_dir = base.join("runs").join(&cluster);
            match create_owned(&base, &run_dir, &run_dir.join("logs")) {
                Ok(()) => {
                    return Ok(Self {
                        access_file: base.join(format!("{cluster}.json")),
                        cluster,
                        run_dir,
                    });
                }
                Err(source) => tried.push((base, source)),
            }
        }
        Err(Error::Directory { tried })
    }

    /// The gateway's record for rank 0.
    #[must_use]
    pub fn gateway_record(&self) -> PathBuf {
        self.run_dir.join("gateway.json")
    }

    /// The gateway's log.
    #[must_use]
    pub fn gateway_log(&self) -> PathBuf {
        self.run_dir.join("logs").join("gateway.log")
    }

    /// Creates a fresh owner-only directory for Unix sockets: local, because run directories may lie on a file system
    /// without sockets; short, because socket addresses are; with a random end to its name, because clusters of one
    /// name may exist under several `IPSTEER_DIR`s, or end while the next one starts.
    ///
    /// # Errors
    /// [`Error::SocketDirectory`] if it cannot be made or its parent belongs to somebody else.
    pub fn socket_dir(&self) -> Result<PathBuf, Error> {
        let name = format!("ipsteer-{}", nix::unistd::geteuid());
        let fits = |root: &Path| {
            root.join(&self.cluster)
                .join(".random/engine.sock")
                .as_os_str()
                .len()
                < MAX_SOCKET_PATH
        };
        let preferred = env::temp_dir().join(&name);
        let root = if fits(&preferred) {
            preferred
        } else {
            Path::new("/tmp").join(&name)
        };
        let made = create_private(&root).and_then(|()| check_private(&root));
        let made = made.and_then(|()| {
            tempfile::Builder::new()
                .prefix(&format!("{}.", self.cluster))
                .tempdir_in(&root)
                .map(tempfile::TempDir::keep)
        });
        made.map_err(|source| Error::SocketDirectory { dir: root, source })
    }
}

/// Where a rank's output may lie, best first: rank 0's run directory, which this host may not have or may not write; then
/// the directory that the job was submitted from; then this host's own.
#[must_use]
pub fn log_dirs(run_dir: &Path, cluster: &str) -> Vec<LogDir> {
    let submit = submit_dir().map(|dir| LogDir::below(dir.join(".ipsteer"), Path::new("runs"), cluster));
    let name = format!("ipsteer-{}", nix::unistd::geteuid());
    let own = LogDir::below(env::temp_dir().join(name), Path::new(""), cluster);
    let shared = LogDir {
        dir: run_dir.join("logs"),
        root: None,
    };
    [Some(shared), submit, Some(own)].into_iter().flatten().collect()
}

/// A directory for a rank's output.
#[derive(Clone, Debug)]
pub struct LogDir {
    dir: PathBuf,
    /// What is to be made, and to be ours alone; none where rank 0 has made all: what is not there is on no file system
    /// that the two hosts share.
    root: Option<PathBuf>,
}

impl LogDir {
    fn below(root: PathBuf, runs: &Path, cluster: &str) -> Self {
        Self {
            dir: root.join(runs).join(cluster).join("logs"),
            root: Some(root),
        }
    }

    /// Its path, when it is there and can be written.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> io::Result<&Path> {
        match &self.root {
            None => writable(&self.dir)?,
            Some(root) => {
                create_private(root)?;
                check_private(root)?;
                create_private(&self.dir)?;
            }
        }
        Ok(&self.dir)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

/// The name in a job or on a workstation.
fn default_cluster() -> String {
    batch_job().unwrap_or_else(|| format!("local-{}-{}", host_name(), std::process::id()))
}

/// The batch job that this process runs in, as `slurm-4711` or `pbs-17.head`.
#[must_use]
pub fn batch_job() -> Option<String> {
    let job = |variable, system| {
        let id = env::var(variable).ok().filter(|id| !id.is_empty())?;
        Some(format!("{system}-{id}"))
    };
    job("SLURM_JOB_ID", "slurm").or_else(|| job("PBS_JOBID", "pbs"))
}

fn check_name(cluster: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.[]".contains(c);
    if cluster.is_empty() || cluster.starts_with('.') || cluster.len() > 64 || !cluster.chars().all(plain) {
        return Err(Error::ClusterName {
            name: cluster.chars().take(80).collect(),
        });
    }
    Ok(())
}

fn base_candidates() -> Vec<PathBuf> {
    if let Some(dir) = env::var_os("IPSTEER_DIR") {
        return vec![dir.into()];
    }
    env::var_os("HOME")
        .map(PathBuf::from)
        .into_iter()
        .chain(submit_dir())
        .map(|dir| dir.join(".ipsteer"))
        .collect()
}

/// The directory that the job was submitted from.
fn submit_dir() -> Option<PathBuf> {
    let told = ["SLURM_SUBMIT_DIR", "PBS_O_WORKDIR"]
        .into_iter()
        .find_map(env::var_os)
        .map(PathBuf::from);
    told.or_else(|| env::current_dir().ok())
}

/// Creates `logs` and what is above it. Whoever owned one of them could put a gateway of his in our place, so the run
/// directory must be ours, and so must `.ipsteer` where we chose its place: a directory that the user names may be shared.
fn create_owned(base: &Path, run_dir: &Path, logs: &Path) -> io::Result<()> {
    create_private(logs)?;
    if base.ends_with(".ipsteer") {
        check_private(base)?;
    }
    check_private(run_dir)
}

/// Creates a directory and its parents; what is created is owner-only. The directory must be writable.
fn create_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    writable(dir)
}

fn writable(dir: &Path) -> io::Result<()> {
    nix::unistd::access(
        dir,
        nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK,
    )?;
    Ok(())
}

/// Refuses a directory that somebody else made or may enter: in a shared /tmp anybody can take a name first.
fn check_private(dir: &Path) -> io::Result<()> {
    let about = fs::symlink_metadata(dir)?;
    if !about.is_dir() || about.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it belongs to another user",
        ));
    }
    if about.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// This host's name.
#[must_use]
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for bad in ["", "../up", ".hidden", "a/b", "a b"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["slurm-17", "pbs-0.head", "local-node7-4711", "pbs-12[3].server"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }
}
