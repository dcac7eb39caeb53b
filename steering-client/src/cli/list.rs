//! `ipsteer list`: the clusters that this user knows of.

use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::status::ago;
use crate::discovery::{self, Cluster};
use crate::pending::now;
use crate::{Exit, access};

/// List the clusters in $IPSTEER_DIR (or ~/.ipsteer), which of them answer, and how the others ended.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, console: &mut Console) -> Result<Exit, Failure> {
    let (clusters, unreadable) = discovery::clusters()?;
    for error in unreadable {
        console.note(&format!("ipsteer: {error}"));
    }
    if console.json {
        console.document(&Value::Array(clusters.iter().map(document).collect()))?;
    } else if clusters.is_empty() {
        console.note(&format!(
            "no connection files in {}",
            access::directory().display()
        ));
    } else {
        let header = ["cluster", "state", "engines", "host", "started", "end"];
        console.table(&header, clusters.iter().map(row).collect())?;
    }
    Ok(Exit::Ok)
}

fn state(cluster: &Cluster) -> &'static str {
    match (cluster.alive, &cluster.record.ended) {
        (true, _) => "alive",
        (false, Some(_)) => "ended",
        (false, None) => "silent",
    }
}

fn document(cluster: &Cluster) -> Value {
    let record = &cluster.record;
    json!({
        "cluster": record.cluster, "state": state(cluster), "alive": cluster.alive, "size": record.size,
        "host": record.host, "started": record.started, "mpi": record.mpi, "python": record.python,
        "file": cluster.path, "end": record.ended.as_ref().map(|ended| &ended.reason),
    })
}

fn row(cluster: &Cluster) -> Vec<String> {
    let record = &cluster.record;
    vec![
        record.cluster.clone(),
        state(cluster).to_owned(),
        record.size.to_string(),
        record.host.clone(),
        format!("{} ago", ago(now() - record.started as f64)),
        record
            .ended
            .as_ref()
            .map(|ended| shorten(&ended.reason))
            .unwrap_or_default(),
    ]
}

/// The beginning of a text: a launcher's words can fill a screen.
pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}
