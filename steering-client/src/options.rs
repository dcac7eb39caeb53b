//! What goes into a session and what is told about it: plain data.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use ipengine_protocol::{EngineInfo, PythonVersion, Targets, Work};

use crate::discovery::Which;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// To which cluster.
    pub which: Which,
    /// Limit for finding it and opening the session.
    pub timeout: Duration,
    /// Name for other users and logs; `user@host` by default.
    pub user: Option<String>,
    /// The program.
    pub software: String,
    /// The client's interpreter, if it has one.
    pub python: Option<PythonVersion>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            which: Which::default(),
            timeout: Duration::from_secs(10),
            user: None,
            software: concat!("ipsteer ", env!("CARGO_PKG_VERSION")).to_owned(),
            python: None,
        }
    }
}

/// An instruction to submit.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// For whom.
    pub targets: Targets,
    /// What to do.
    pub work: Work,
    /// Its binary parts.
    pub blobs: Vec<Bytes>,
    /// One entry per target: so many consecutive parts are its own. `None`: every target gets all parts.
    pub each: Option<Vec<u32>>,
    /// The user's name for it.
    pub label: Option<String>,
}

/// What is known of the cluster.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its name.
    pub cluster: String,
    /// The connection file used.
    pub file: PathBuf,
    /// The address in use.
    pub address: String,
    /// Version of the gateway.
    pub software: String,
    /// In rank order.
    pub engines: Vec<EngineInfo>,
    /// Why the world ended, or why the connection is lost for good.
    pub ended: Option<String>,
}

/// The ends of an engine's output files.
#[derive(Clone, Debug)]
pub struct Logs {
    /// Path of the stdout file on the engine's host.
    pub stdout_path: String,
    /// Path of the stderr file on the engine's host.
    pub stderr_path: String,
    /// End of stdout.
    pub stdout: Bytes,
    /// End of stderr.
    pub stderr: Bytes,
}
