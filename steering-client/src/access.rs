//! Connection files on this machine: where they lie, which may be used, what they say. No network.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipengine_protocol::AccessRecord;
use ipengine_protocol::handshake::Secret;
use ipengine_sockets::pinned;

use crate::Error;

/// A connection file is a page of JSON; what is longer is something else.
const LONGEST_FILE: u64 = 1 << 20;

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Where connection files lie: `$IPSTEER_DIR`, else `~/.ipsteer`.
#[must_use]
pub fn directory() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("IPSTEER_DIR").unwrap_or_else(|| set("HOME").unwrap_or_else(|| PathBuf::from("/")).join(".ipsteer"))
}

/// The connection file of a cluster of this name.
#[must_use]
pub fn path_of(cluster: &str) -> PathBuf {
    directory().join(format!("{cluster}.json"))
}

/// A connection file that was found.
#[derive(Debug)]
pub struct Found {
    /// Where.
    pub path: PathBuf,
    /// What it says, or why it cannot be used.
    pub record: Result<AccessRecord, Error>,
}

impl Found {
    /// Name of the cluster: the file's name without `.json`.
    #[must_use]
    pub fn name(&self) -> String {
        self.path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    fn started(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.started)
    }
}

/// All connection files of `dir`, the newest cluster first. A directory that does not exist has none.
#[must_use]
pub fn scan(dir: &Path) -> Vec<Found> {
    let entries = fs::read_dir(dir)
        .map(|entries| entries.flatten().collect())
        .unwrap_or_else(|_| Vec::new());
    let mut found: Vec<Found> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| Found {
            record: read(&path),
            path,
        })
        .collect();
    found.sort_by(|a, b| b.started().cmp(&a.started()).then_with(|| a.path.cmp(&b.path)));
    found
}

/// Reads one connection file.
///
/// # Errors
/// [`Error::Permissions`] when others may read or write it, [`Error::ReadFile`], [`Error::ParseFile`].
pub fn read(path: &Path) -> Result<AccessRecord, Error> {
    let unreadable = |source| Error::ReadFile {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(Error::Permissions {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Vec::new();
    file.take(LONGEST_FILE)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    serde_json::from_slice(&text).map_err(|source| Error::ParseFile {
        path: path.to_owned(),
        source,
    })
}

/// What is needed to connect, checked.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Name of the cluster.
    pub cluster: String,
    /// Where this was read: read again before each reconnection.
    pub file: PathBuf,
    /// Addresses, best first.
    pub addresses: Vec<Address>,
    /// SHA-256 of the gateway's certificate.
    pub fingerprint: [u8; 32],
    /// The client secret.
    pub token: Secret,
    /// An address given by the user in the place of the file's.
    pub url: Option<String>,
}

/// One way to a gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// A socket in an owner-only directory of this host.
    Unix(PathBuf),
    /// TLS over TCP.
    Tls {
        /// Name or IP address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl Address {
    /// Reads `wss://host:port/` or `unix:/path`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(wrong())
            };
        }
        let rest = text.strip_prefix("wss://").ok_or_else(wrong)?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() {
            Err(wrong())
        } else {
            Ok(Self::Tls {
                host: host.to_owned(),
                port,
            })
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls { host, port } if host.contains(':') => write!(f, "wss://[{host}]:{port}/"),
            Self::Tls { host, port } => write!(f, "wss://{host}:{port}/"),
        }
    }
}

impl Access {
    /// Checks a record. `url` replaces the file's addresses (a tunnel).
    pub(crate) fn new(path: &Path, record: &AccessRecord, url: Option<&str>) -> Result<Self, Error> {
        if let Some(ended) = &record.ended {
            return Err(Error::Ended {
                cluster: record.cluster.clone(),
                reason: ended.reason.clone(),
            });
        }
        let lacks = |field| Error::IncompleteFile {
            path: path.to_owned(),
            field,
        };
        let token = record
            .token
            .as_deref()
            .and_then(Secret::from_hex)
            .ok_or_else(|| lacks("token"))?;
        let fingerprint = pinned::from_hex(&record.fingerprint).ok_or_else(|| lacks("fingerprint"))?;
        let addresses = match url {
            Some(url) => vec![Address::parse(url)?],
            None => addresses(record)?,
        };
        if addresses.is_empty() {
            return Err(lacks("address"));
        }
        let url = url.map(str::to_owned);
        Ok(Self {
            cluster: record.cluster.clone(),
            file: path.to_owned(),
            addresses,
            fingerprint,
            token,
            url,
        })
    }

    /// The same from the file as it is now.
    pub(crate) fn read(path: &Path, url: Option<&str>) -> Result<Self, Error> {
        Self::new(path, &read(path)?, url)
    }
}

/// The Unix socket first, if it is on this host: no TLS, half the latency.
fn addresses(record: &AccessRecord) -> Result<Vec<Address>, Error> {
    let unix = record
        .unix
        .as_ref()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .map(Address::Unix);
    let tls = record
        .urls
        .iter()
        .map(|url| Address::parse(url))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(unix.into_iter().chain(tls).collect())
}
