//! `ipsteer stop`: end a cluster in good order.

use serde_json::json;

use super::Global;
use super::console::Console;
use super::failure::Failure;
use crate::{Error, Exit};

/// Time for the end unless --timeout says otherwise: interrupt, `MPI_Finalize` with its own limit, and the launcher.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Stop a cluster: interrupt what runs, finalise MPI, end all processes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let cluster = client.info()?.cluster;
    let limit = global.timeout.unwrap_or(LIMIT);
    client.shutdown("")?;
    let reason = client.wait_end(Some(limit))?.ok_or(Error::Timeout {
        seconds: limit.as_secs_f64(),
    })?;
    if console.json {
        console.document(&json!({"cluster": cluster, "end": reason}))?;
    } else {
        console.line(&format!("cluster {cluster} has ended: {reason}"))?;
    }
    Ok(Exit::Ok)
}
