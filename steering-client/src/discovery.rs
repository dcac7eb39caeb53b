//! Which of the connection files leads to a cluster that answers. Runs on the I/O thread (or, for lists, on a runtime
//! of its own).

use std::path::PathBuf;
use std::time::Duration;

use ipengine_protocol::AccessRecord;
use tokio::task::JoinSet;

use crate::Error;
use crate::access::{self, Access, Found};
use crate::transport;

/// A cluster answers within this time, or counts as silent when it is one of several candidates.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// What the user said about which cluster is meant.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// This connection file.
    pub file: Option<PathBuf>,
    /// The cluster of this name.
    pub cluster: Option<String>,
    /// This address in the place of the file's (a tunnel): `wss://host:port/` or `unix:/path`.
    pub url: Option<String>,
}

/// A connection file and whether its cluster answers.
#[derive(Debug)]
pub struct Cluster {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub record: AccessRecord,
    /// Whether its gateway answers and holds the token.
    pub alive: bool,
}

impl Which {
    /// Finds the one cluster that is meant.
    pub(crate) async fn find(&self) -> Result<Access, Error> {
        let url = self.url.as_deref();
        match (&self.file, &self.cluster) {
            (Some(file), _) => Access::read(file, url),
            (None, Some(name)) => by_name(name, url),
            (None, None) => newest(url).await,
        }
    }
}

fn by_name(name: &str, url: Option<&str>) -> Result<Access, Error> {
    let path = access::path_of(name);
    if !path.exists() {
        let others = access::scan(&access::directory())
            .iter()
            .map(Found::name)
            .collect();
        return Err(Error::UnknownCluster {
            name: name.to_owned(),
            path,
            others,
        });
    }
    Access::read(&path, url)
}

async fn newest(url: Option<&str>) -> Result<Access, Error> {
    let dir = access::directory();
    let found = access::scan(&dir);
    if found.is_empty() {
        return Err(Error::NoCluster { dir });
    }
    let mut usable = Vec::new();
    let mut errors = Vec::new();
    for Found { path, record } in found {
        match record.and_then(|record| Access::new(&path, &record, url)) {
            Ok(access) => usable.push(access),
            Err(error) => errors.push(error),
        }
    }
    if usable.len() == 1 {
        // The connection itself will tell whether it answers.
        return Ok(usable.remove(0));
    }
    let mut alive = Vec::new();
    for (access, answer) in probe(usable).await {
        match answer {
            Ok(()) => alive.push(access),
            Err(error) => errors.push(error),
        }
    }
    match alive.len() {
        0 => Err(none_answers(errors)),
        1 => Ok(alive.remove(0)),
        _ => Err(Error::Several(
            alive.into_iter().map(|access| access.cluster).collect(),
        )),
    }
}

/// Clusters that ended long ago explain nothing; the newest does when there is nothing else.
fn none_answers(mut errors: Vec<Error>) -> Error {
    if errors.iter().any(|error| !matches!(error, Error::Ended { .. })) {
        errors.retain(|error| !matches!(error, Error::Ended { .. }));
    } else {
        errors.truncate(1);
    }
    Error::NoneAnswers(errors)
}

async fn probe(candidates: Vec<Access>) -> Vec<(Access, Result<(), Error>)> {
    let mut probes = JoinSet::new();
    for (place, access) in candidates.into_iter().enumerate() {
        probes.spawn(async move {
            let answer = answers(&access).await;
            (place, access, answer)
        });
    }
    let mut answers = probes.join_all().await;
    answers.sort_by_key(|(place, _, _)| *place);
    answers
        .into_iter()
        .map(|(_, access, answer)| (access, answer))
        .collect()
}

async fn answers(access: &Access) -> Result<(), Error> {
    let tried = || vec![access.cluster.clone()];
    let opened = tokio::time::timeout(PROBE_LIMIT, transport::open(access)).await;
    opened.unwrap_or_else(|_| {
        Err(Error::ConnectTimeout {
            seconds: PROBE_LIMIT.as_secs_f64(),
            tried: tried(),
        })
    })?;
    Ok(())
}

/// All connection files, the newest cluster first, each with whether its cluster answers, and what could not be read.
///
/// # Errors
/// [`Error::Thread`] if no runtime can be made.
pub fn clusters() -> Result<(Vec<Cluster>, Vec<Error>), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    let mut readable = Vec::new();
    let mut errors = Vec::new();
    for Found { path, record } in access::scan(&access::directory()) {
        match record {
            Ok(record) => readable.push((path, record)),
            Err(error) => errors.push(error),
        }
    }
    let candidates = readable
        .iter()
        .filter_map(|(path, record)| Access::new(path, record, None).ok())
        .collect();
    let answers = runtime.block_on(probe(candidates));
    let alive = |path: &PathBuf| {
        answers
            .iter()
            .any(|(access, answer)| access.file == *path && answer.is_ok())
    };
    let clusters = readable
        .into_iter()
        .map(|(path, record)| Cluster {
            alive: alive(&path),
            path,
            record,
        })
        .collect();
    Ok((clusters, errors))
}
