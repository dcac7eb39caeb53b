//! `ipsteer interrupt`: interrupt what engines run.

use ipengine_protocol::InterruptTarget;
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::{Global, TargetArgs};
use crate::{Error, Exit, report, targets};

/// Time for an answer unless --timeout says otherwise.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Interrupt whatever engines run now, whoever sent it, and tell what became of it.
///
/// The code raises KeyboardInterrupt. "pending" means that it is in code that has not returned to Python yet.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    targets: TargetArgs,
}

pub(super) fn run(args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let engines = targets::parse(&args.targets.targets, client.size()?)?;
    let limit = global.timeout.unwrap_or(LIMIT);
    let question = client.interrupt(InterruptTarget::Engines(engines))?;
    let reports = question.wait(Some(limit))?.ok_or(Error::Timeout {
        seconds: limit.as_secs_f64(),
    })?;
    let word = report::interrupt_word;
    if console.json {
        let rows = reports.iter().map(
            |report| json!({"engine": report.engine.0, "state": word(report.state), "detail": report.detail}),
        );
        console.document(&Value::Array(rows.collect()))?;
    } else {
        let rows = reports.iter().map(|report| {
            vec![
                report.engine.to_string(),
                word(report.state).to_owned(),
                report.detail.clone(),
            ]
        });
        console.table(&["rank", "state", "detail"], rows.collect())?;
    }
    Ok(Exit::Ok)
}
