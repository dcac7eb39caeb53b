//! `ipsteer pull`: values of engines, printed or saved.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ipengine_protocol::{EngineId, Outcome, PullFormat, Targets, ValueKind, Work};
use serde_json::{Map, Value};

use super::console::Console;
use super::errors;
use super::failure::Failure;
use super::live::value_json;
use super::{Global, TargetArgs};
use crate::client::Instruction;
use crate::pending::Arrived;
use crate::{Error, Exit, targets};

/// Print or save values of the engines' namespace.
///
/// Prints repr, one line per engine, or with --json an object from rank to value. With -o FILE the extension tells the
/// form: .npy an array, .json data, .txt repr, .pkl a pickle. With several targets the rank is put before the extension
/// (x.npy becomes x.0.npy, x.1.npy, …).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    targets: TargetArgs,
    /// A name or any expression: x, a.b, x[:10].
    name: String,
    /// Save to this file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let format = match &args.output {
        Some(path) => format_of(path)?,
        None if console.json => PullFormat::Json,
        None => PullFormat::Repr,
    };
    let client = global.connect()?;
    let engines = targets::parse(&args.targets.targets, client.size()?)?;
    let several = engines.len() > 1;
    let work = Work::Pull {
        names: vec![args.name.clone()],
        format,
        single: true,
    };
    let targets = Targets::All(engines);
    let counter = client.submit(Instruction {
        targets,
        work,
        blobs: Vec::new(),
        each: None,
        label: None,
    })?;
    if !client.wait(&[counter], global.timeout, false)? {
        return Err(Error::Timeout {
            seconds: global.timeout.unwrap_or_default().as_secs_f64(),
        }
        .into());
    }
    let outcomes: Vec<Arc<Arrived>> = client.outcomes(counter)?.into_iter().flatten().collect();
    match &args.output {
        Some(path) => save(path, several, &outcomes, console)?,
        None if console.json => console.document(&json(&outcomes))?,
        None => print(several, &outcomes, console)?,
    }
    let outcomes = || outcomes.iter().map(|arrived| &**arrived);
    let text = errors::merged(outcomes());
    if !text.is_empty() {
        console.note(&text);
    }
    Ok(errors::exit(outcomes()))
}

fn format_of(path: &Path) -> Result<PullFormat, Failure> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => Ok(PullFormat::Npy),
        Some("json") => Ok(PullFormat::Json),
        Some("txt") => Ok(PullFormat::Repr),
        Some("pkl") => Ok(PullFormat::Pickle),
        _ => Err(super::assignment::AssignmentError::Extension(path.to_owned()).into()),
    }
}

fn values(outcomes: &[Arc<Arrived>]) -> impl Iterator<Item = (EngineId, &ValueKind, &Arrived)> {
    outcomes.iter().filter_map(|arrived| match &arrived.outcome {
        Outcome::Done(head) => Some((arrived.engine, &head.kind, &**arrived)),
        _ => None,
    })
}

fn json(outcomes: &[Arc<Arrived>]) -> Value {
    let entries =
        values(outcomes).map(|(engine, kind, arrived)| (engine.to_string(), value_json(kind, arrived)));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn print(several: bool, outcomes: &[Arc<Arrived>], console: &mut Console) -> Result<(), Failure> {
    for (engine, _, arrived) in values(outcomes) {
        let text = arrived
            .blobs
            .first()
            .map_or("None".into(), |blob| String::from_utf8_lossy(blob));
        if several {
            console.tagged("Out", engine, &text)?
        } else {
            console.line(&text)?
        }
    }
    Ok(())
}

fn save(path: &Path, several: bool, outcomes: &[Arc<Arrived>], console: &mut Console) -> Result<(), Failure> {
    for (engine, kind, arrived) in values(outcomes) {
        let path = if several {
            numbered(path, engine)
        } else {
            path.to_owned()
        };
        let bytes = file_bytes(&path, kind, &arrived.blobs)?;
        std::fs::write(&path, &bytes).map_err(|source| Failure::File {
            path: path.clone(),
            what: "written",
            source,
        })?;
        console.progress(&format!("{} ({} bytes)", path.display(), bytes.len()));
    }
    Ok(())
}

fn file_bytes(path: &Path, kind: &ValueKind, blobs: &[Bytes]) -> Result<Bytes, Failure> {
    match (kind, blobs) {
        (ValueKind::Pickle { .. }, [_, _, ..]) => Err(Failure::Format {
            path: path.to_owned(),
            reason: "this value travels in several parts, which no pickle file holds; pull it as .npy or from Python",
        }),
        (_, [only]) => Ok(only.clone()),
        _ => Ok("None".into()),
    }
}

/// `x.npy` for engine 3: `x.3.npy`.
fn numbered(path: &Path, engine: EngineId) -> PathBuf {
    match path.extension() {
        Some(extension) => path.with_extension(format!("{engine}.{}", extension.to_string_lossy())),
        None => path.with_extension(engine.to_string()),
    }
}
