//! What the supervisor hands to the gateway: settings, listening sockets, the launcher's words.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of one gateway. Travels as JSON from the supervisor over a private pipe, since it holds the secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// The batch job that it runs in, `slurm-4711`.
    #[serde(default)]
    pub job: Option<String>,
    /// Number of engines; 0 when only the engines know, as under a launcher whose command line nobody parsed.
    pub size: u32,
    /// `ipengine-mpi 0.1.0`.
    pub software: String,
    /// Logs and results.
    pub run_dir: PathBuf,
    /// Where clients find the cluster.
    pub access_file: PathBuf,
    /// The socket that clients on this host use.
    pub client_socket: PathBuf,
    /// The socket that engines on this host use.
    pub engine_socket: PathBuf,
    /// Addresses of the TCP listener for clients, best first.
    pub urls: Vec<String>,
    /// Name of this host.
    pub host: String,
    /// Whether the supervisor runs the launcher and reports what it says.
    #[serde(default)]
    pub launcher: bool,
    /// Whether this gateway takes the place of one that died: what the world was before it is not known.
    #[serde(default)]
    pub restarted: bool,
    /// Seconds to stay after the end of the world while results have not been fetched; 300 at most.
    #[serde(default = "default_linger")]
    pub linger: u64,
    /// The clients' secret, 64 hexadecimal digits.
    pub client_secret: String,
    /// The engines' secret, 64 hexadecimal digits.
    pub engine_secret: String,
    /// The TLS certificate, DER.
    pub certificate: Vec<u8>,
    /// Its key, PKCS 8 DER.
    pub key: Vec<u8>,
}

fn default_linger() -> u64 {
    60
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("cluster", &self.cluster)
            .field("size", &self.size)
            .field("access_file", &self.access_file)
            .field("urls", &self.urls)
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

/// Bound and listening sockets. The supervisor keeps copies, so that a restarted gateway has the same addresses.
#[derive(Debug)]
pub struct Listeners {
    /// TLS: WebSocket for clients, control links for engines, told apart by ALPN.
    pub tcp: Option<std::net::TcpListener>,
    /// WebSocket for clients of this host.
    pub clients: std::os::unix::net::UnixListener,
    /// Control links of engines of this host.
    pub engines: std::os::unix::net::UnixListener,
}

/// What the supervisor reports: the launcher's words and end, and what the supervisor itself is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherReport {
    /// One line of the launcher's own messages.
    Output(String),
    /// It ended.
    Exited {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// The supervisor was told to end the world in good order.
    Stop {
        /// By what, for the post-mortem.
        reason: String,
    },
}
