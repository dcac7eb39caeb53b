//! The connection file: what a client needs to find a cluster and to prove itself. JSON, owner-only (mode 0600).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Contents of `<cluster>.json`. Unknown fields are ignored, so later versions may add some.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessRecord {
    /// Version of this file's format: 1.
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// The batch job that it runs in, `slurm-4711`, `pbs-17.head`; whatever the cluster's name is.
    pub job: Option<String>,
    /// Number of engines.
    pub size: u32,
    /// Host the gateway runs on.
    pub host: String,
    /// Unix time of the start in seconds.
    pub started: u64,
    /// Process id of the gateway on that host.
    pub gateway_pid: u32,
    /// WebSocket addresses to try, `wss://host:port/`, best first.
    pub urls: Vec<String>,
    /// Path of the Unix socket on the gateway's host.
    pub unix: Option<String>,
    /// SHA-256 of the gateway's TLS certificate (DER), 64 hexadecimal digits: the only certificate accepted.
    pub fingerprint: String,
    /// The client secret, 64 hexadecimal digits. Removed when the cluster has ended.
    pub token: Option<String>,
    /// Logs, results and spool on the gateway's host.
    pub run_dir: String,
    /// The MPI library of the engines.
    pub mpi: String,
    /// The engines' Python, `3.11.7`.
    pub python: String,
    /// How it ended; the file is kept as a post-mortem.
    pub ended: Option<Ended>,
}

/// The post-mortem of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// Unix time in seconds.
    pub at: u64,
    /// Why, in a sentence.
    pub reason: String,
}

impl fmt::Debug for AccessRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessRecord")
            .field("cluster", &self.cluster)
            .field("host", &self.host)
            .field("urls", &self.urls)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
