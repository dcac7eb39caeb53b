//! `ipsteer logs`: the ends of the engines' output files.

use ipengine_protocol::EngineId;
use serde_json::json;

use super::console::Console;
use super::failure::Failure;
use super::{Global, TargetArgs};
use crate::client::{Client, Logs};
use crate::{Error, Exit, targets};

/// Time for each answer unless --timeout says otherwise.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Show the end of each engine's own output files, which hold everything that it wrote.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    targets: TargetArgs,
    /// At most so many bytes from the end of each file (1 MiB at most).
    #[arg(short = 'n', long, default_value_t = 8192, value_name = "BYTES")]
    bytes: u64,
}

pub(super) fn run(args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let limit = global.timeout.unwrap_or(LIMIT);
    let mut exit = Exit::Ok;
    for engine in targets::parse(&args.targets.targets, client.size()?)? {
        match fetch(&client, engine, args.bytes, limit) {
            Ok(logs) => show(engine, &logs, console)?,
            // One engine that is gone does not hide the others' files.
            Err(error) => {
                console.note(&format!("rank {engine}: {error}"));
                exit = (&error).into();
            }
        }
    }
    Ok(exit)
}

fn fetch(client: &Client, engine: EngineId, bytes: u64, limit: std::time::Duration) -> Result<Logs, Error> {
    client
        .logs(engine, bytes)?
        .wait(Some(limit))?
        .ok_or(Error::Timeout {
            seconds: limit.as_secs_f64(),
        })
}

fn show(engine: EngineId, logs: &Logs, console: &mut Console) -> Result<(), Failure> {
    let text = String::from_utf8_lossy;
    if console.json {
        return console.document(&json!({
            "engine": engine.0,
            "stdout": {"path": logs.stdout_path, "text": text(&logs.stdout)},
            "stderr": {"path": logs.stderr_path, "text": text(&logs.stderr)},
        }));
    }
    for (path, bytes) in [
        (&logs.stdout_path, &logs.stdout),
        (&logs.stderr_path, &logs.stderr),
    ] {
        console.line(&format!("==> rank {engine}: {path} <=="))?;
        console.raw(bytes)?;
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            console.raw(b"\n")?;
        }
    }
    Ok(())
}
