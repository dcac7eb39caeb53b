//! `ipsteer status`: what everybody is doing, also while engines are busy.

use ipengine_protocol::{EngineStatus, Status};
use serde_json::{Value, json};

use super::Global;
use super::console::Console;
use super::failure::Failure;
use crate::{Error, Exit};

/// Time for an answer unless --timeout says otherwise.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Show what every engine is doing. Answered by threads that user code cannot block.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let limit = global.timeout.unwrap_or(LIMIT);
    let status = client.status()?.wait(Some(limit))?.ok_or(Error::Timeout {
        seconds: limit.as_secs_f64(),
    })?;
    if console.json {
        console.document(&document(&status))?;
        return Ok(Exit::Ok);
    }
    let clients: Vec<String> = status
        .clients
        .iter()
        .map(|(user, software)| format!("{user} ({software})"))
        .collect();
    let end = status
        .ended
        .as_ref()
        .map(|reason| format!("; ended: {reason}"))
        .unwrap_or_default();
    console.line(&format!(
        "cluster {}: {} engines{end}",
        status.cluster,
        status.engines.len()
    ))?;
    console.line(&format!("clients: {}", clients.join(", ")))?;
    let header = [
        "rank", "host", "pid", "state", "since", "queued", "done", "memory", "cpu", "running", "detail",
    ];
    console.table(
        &header,
        status
            .engines
            .iter()
            .map(|engine| row(engine, status.now))
            .collect(),
    )?;
    Ok(Exit::Ok)
}

fn row(engine: &EngineStatus, now: u64) -> Vec<String> {
    let running = engine
        .instruction
        .as_ref()
        .map(|(_, summary, user)| format!("{summary} [{user}]"));
    vec![
        engine.id.to_string(),
        engine.host.clone(),
        engine.pid.to_string(),
        engine.state.clone(),
        ago(now.saturating_sub(engine.since) as f64 / 1e9),
        engine.queued.to_string(),
        engine.completed.to_string(),
        known(engine.rss, |rss| format!("{} MB", rss / 1_000_000)),
        known(engine.cpu, |cpu| format!("{:.1} s", cpu as f64 / 1e9)),
        running.unwrap_or_default(),
        engine.detail.clone().unwrap_or_default(),
    ]
}

fn known(value: u64, show: impl FnOnce(u64) -> String) -> String {
    if value == 0 { "?".to_owned() } else { show(value) }
}

fn document(status: &Status) -> Value {
    let engine = |engine: &EngineStatus| {
        json!({
            "id": engine.id.0, "host": engine.host, "pid": engine.pid, "state": engine.state,
            "since": engine.since as f64 / 1e9, "queued": engine.queued, "completed": engine.completed,
            "rss": engine.rss, "cpu": engine.cpu as f64 / 1e9, "detail": engine.detail,
            "instruction": engine.instruction.as_ref().map(|(id, summary, user)| {
                json!({"id": id.to_string(), "summary": summary, "user": user})
            }),
        })
    };
    let client = |(user, software): &(String, String)| json!({"user": user, "software": software});
    json!({
        "cluster": status.cluster, "now": status.now as f64 / 1e9, "ended": status.ended,
        "engines": status.engines.iter().map(engine).collect::<Vec<_>>(),
        "clients": status.clients.iter().map(client).collect::<Vec<_>>(),
    })
}

/// A span of time for people: `12 s`, `3 min`, `2 h`, `5 d`.
pub(super) fn ago(seconds: f64) -> String {
    match seconds.max(0.0) {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        seconds => format!("{:.0} d", seconds / 86_400.0),
    }
}
