//! What rank 0 has to know of the gateway: a private file in the run directory, written by the supervisor.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::interfaces::nearest_first;

/// How engines reach the gateway and prove themselves. Holds the engines' secret: mode 0600, never printed.
#[derive(Clone, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// Name of the cluster.
    pub cluster: String,
    /// The supervisor's process id.
    pub pid: u32,
    /// Its host.
    pub host: String,
    /// Unix socket for engines of that host.
    pub engine_socket: PathBuf,
    /// TLS addresses for engines of other hosts.
    pub addresses: Vec<SocketAddr>,
    /// SHA-256 of the gateway's certificate.
    pub fingerprint: String,
    /// The engines' secret.
    pub engine_secret: String,
    /// Started by `serve`: the next world of this name adopts it.
    pub resident: bool,
}

impl GatewayRecord {
    /// Writes the record, owner-only and whole.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(self).expect("plain data");
        let part = path.with_extension("json.part");
        let mut options = fs::OpenOptions::new();
        let opened = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part);
        opened
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&part, path))
            .map_err(Error::io(format!("write {}", path.display())))
    }

    /// Reads a record whose gateway is alive; `None` if there is none or its gateway is gone.
    #[must_use]
    pub fn read_living(path: &Path) -> Option<Self> {
        let mut file = fs::File::open(path).ok()?;
        let about = file.metadata().ok()?;
        // It says whom all ranks obey.
        if about.uid() != nix::unistd::geteuid().as_raw() || about.mode() & 0o077 != 0 {
            tracing::warn!("{} is not this user's alone: ignored", path.display());
            return None;
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        let record: Self = serde_json::from_slice(&text).ok()?;
        record.is_alive().then_some(record)
    }

    /// The socket is enough where it can be seen: a container has the host's name and a `/tmp` of its own.
    fn is_alive(&self) -> bool {
        let same_name = self.host == crate::place::host_name();
        if same_name && UnixStream::connect(&self.engine_socket).is_ok() {
            return true;
        }
        let limit = std::time::Duration::from_secs(2);
        nearest_first(&self.addresses, same_name)
            .iter()
            .any(|address| std::net::TcpStream::connect_timeout(address, limit).is_ok())
    }
}
