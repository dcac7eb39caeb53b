//! The connection file: written when the world is complete, and again, without the token, when it has ended.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ipengine_protocol::access::Ended;
use ipengine_protocol::{AccessRecord, EngineFacts};

use crate::{Config, Error, certificate};

/// The file and what is in it.
pub(crate) struct AccessFile {
    path: PathBuf,
    record: AccessRecord,
    written: bool,
}

impl AccessFile {
    pub(crate) fn new(config: &Config) -> Self {
        let record = AccessRecord {
            format: 1,
            cluster: config.cluster.clone(),
            job: config.job.clone(),
            size: config.size,
            host: config.host.clone(),
            started: unix_seconds(),
            gateway_pid: std::process::id(),
            urls: config.urls.clone(),
            unix: Some(config.client_socket.display().to_string()),
            fingerprint: certificate::fingerprint(&config.certificate),
            token: Some(config.client_secret.clone()),
            run_dir: config.run_dir.display().to_string(),
            mpi: String::new(),
            python: String::new(),
            ended: None,
        };
        Self {
            path: config.access_file.clone(),
            record,
            written: false,
        }
    }

    /// Announces the cluster, once.
    pub(crate) fn announce(&mut self, facts: Option<&EngineFacts>) -> Result<(), Error> {
        if self.written {
            return Ok(());
        }
        if let Some(facts) = facts {
            self.record.size = facts.size;
            self.record.mpi = facts.mpi.clone();
            self.record.python = facts.python.to_string();
        }
        self.write()?;
        self.written = true;
        Ok(())
    }

    /// Leaves the post-mortem, also for a world that never was complete.
    pub(crate) fn end(&mut self, reason: &str) -> Result<(), Error> {
        self.record.token = None;
        self.record.ended = Some(Ended {
            at: unix_seconds(),
            reason: reason.to_owned(),
        });
        self.write()
    }

    fn write(&self) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(&self.record).map_err(io::Error::from);
        let written = json.and_then(|json| replace(&self.path, &json));
        written.map_err(|source| Error::AccessFile {
            path: self.path.clone(),
            source,
        })
    }
}

/// Whole or not at all: readers never see half a file. Owner-only from its first byte.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
