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
/// Prints repr, one line per engine, or with --json an object from rank to value; with several names an object from name to
/// that. With -o FILE one name is saved and the extension tells the form: .npy an array, .json data, .txt repr, .pkl a
/// pickle. With several targets the rank is put before the extension (x.npy becomes x.0.npy, x.1.npy, …).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    targets: TargetArgs,
    /// Names or any expressions: x, a.b, x[:10].
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Save the one value to this file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let format = match &args.output {
        Some(_) if args.names.len() > 1 => return Err(Failure::OneName),
        Some(path) => format_of(path)?,
        None if console.json => PullFormat::Json,
        None => PullFormat::Repr,
    };
    let client = global.connect()?;
    let engines = targets::parse(&args.targets.targets, client.size()?)?;
    let several = engines.len() > 1;
    let ask = |name: &String| client.submit(request(name, &engines, format));
    let counters: Vec<u64> = args.names.iter().map(ask).collect::<Result<_, _>>()?;
    if !client.wait(&counters, global.timeout, false)? {
        return Err(Error::Timeout {
            seconds: global.timeout.unwrap_or_default().as_secs_f64(),
        }
        .into());
    }
    let arrived = |counter: &u64| Ok(client.outcomes(*counter)?.into_iter().flatten().collect());
    let answers: Vec<Vec<Arc<Arrived>>> = counters.iter().map(arrived).collect::<Result<_, Error>>()?;
    match &args.output {
        Some(path) => save(path, several, &answers[0], console)?,
        None if console.json => console.document(&document(&args.names, &answers))?,
        None => print(&args.names, several, &answers, console)?,
    }
    let outcomes = || answers.iter().flatten().map(|arrived| &**arrived);
    let text = errors::merged(outcomes());
    if !text.is_empty() {
        console.note(&text);
    }
    Ok(errors::exit(outcomes()))
}

/// One instruction per name, so that a name that is missing keeps nobody from the others.
fn request(name: &str, engines: &[EngineId], format: PullFormat) -> Instruction {
    let work = Work::Pull {
        names: vec![name.to_owned()],
        format,
        single: true,
    };
    Instruction {
        targets: Targets::All(engines.to_vec()),
        work,
        blobs: Vec::new(),
        each: None,
        label: None,
    }
}

fn document(names: &[String], answers: &[Vec<Arc<Arrived>>]) -> Value {
    match answers {
        [only] => json(only),
        _ => Value::Object(
            names
                .iter()
                .cloned()
                .zip(answers.iter().map(|answer| json(answer)))
                .collect(),
        ),
    }
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

fn print(
    names: &[String],
    several: bool,
    answers: &[Vec<Arc<Arrived>>],
    console: &mut Console,
) -> Result<(), Failure> {
    for (name, answer) in names.iter().zip(answers) {
        for (engine, _, arrived) in values(answer) {
            let text = arrived
                .blobs
                .first()
                .map_or("None".into(), |blob| String::from_utf8_lossy(blob));
            match (names.len() > 1, several) {
                (false, false) => console.line(&text)?,
                (true, false) => console.line(&format!("{name} = {text}"))?,
                (false, true) => console.tagged("Out", engine, &text)?,
                (true, true) => console.tagged(name, engine, &text)?,
            }
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
