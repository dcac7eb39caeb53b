//! `ipsteer repl`: a prompt whose cells run on engines.

use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper};

use super::completeness::is_complete;
use super::console::Console;
use super::exec::submit;
use super::failure::Failure;
use super::live::Live;
use super::signals::CtrlC;
use super::{Global, TargetArgs};
use crate::client::Client;
use crate::{Error, Exit, access, targets};

/// A prompt whose cells run on engines.
///
/// A cell goes out when it is whole; a block ends with an empty line. Output comes live, tagged with its rank.
/// `%targets 0,2` changes the engines, `%targets` shows them. Ctrl-C interrupts the running cell, Ctrl-D leaves; the
/// engines keep everything.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    targets: TargetArgs,
}

type Line = Editor<Cells, DefaultHistory>;

pub(super) fn run(args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let mut targets = args.targets.targets.clone();
    let size = client.size()?;
    targets::parse(&targets, size)?;
    let ctrl_c = CtrlC::watch();
    let mut editor =
        Line::with_config(Config::builder().auto_add_history(true).build()).map_err(Failure::Terminal)?;
    editor.set_helper(Some(Cells));
    // The first time there is no history.
    let _ = editor.load_history(&history_file());
    let info = client.info()?;
    console.progress(&format!(
        "cluster {} with {size} engines; Ctrl-D leaves",
        info.cluster
    ));
    let exit = converse(&mut editor, &client, &mut targets, global, &ctrl_c, console);
    // A history that cannot be kept is no reason to fail.
    let _ = editor.save_history(&history_file());
    exit
}

fn converse(
    editor: &mut Line,
    client: &Client,
    targets: &mut String,
    global: &Global,
    ctrl_c: &CtrlC,
    console: &mut Console,
) -> Result<Exit, Failure> {
    loop {
        let cell = match editor.readline(&format!("[{targets}]: ")) {
            Ok(cell) => cell,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(Exit::Ok),
            Err(error) => return Err(Failure::Terminal(error)),
        };
        strays(client, console)?;
        if cell.trim().is_empty() {
            continue;
        }
        if let Some(rest) = cell.trim().strip_prefix("%targets") {
            choose(targets, rest.trim(), client, console)?;
            continue;
        }
        ctrl_c.take();
        let counter = submit(client, targets, cell, None)?;
        if Live::new(client, counter, console, global.timeout).follow(ctrl_c)? == Exit::Lost
            && let Some(reason) = client.info()?.ended
        {
            return Err(Error::Ended {
                cluster: client.info()?.cluster,
                reason,
            }
            .into());
        }
    }
}

/// What engines wrote between cells.
fn strays(client: &Client, console: &mut Console) -> Result<(), Failure> {
    for output in client.strays()? {
        if let crate::pending::OutputKind::Stream(name) = output.kind {
            console.stream(output.engine, name.as_str(), &output.text)?;
        }
    }
    console.flush()
}

fn choose(targets: &mut String, wanted: &str, client: &Client, console: &mut Console) -> Result<(), Failure> {
    if !wanted.is_empty() {
        match targets::parse(wanted, client.size()?) {
            Ok(_) => wanted.clone_into(targets),
            Err(error) => console.note(&error.to_string()),
        }
        return Ok(());
    }
    let engines = targets::parse(targets, client.size()?)?;
    console.line(&format!("{targets}: {}", targets::describe(&engines)))
}

fn history_file() -> PathBuf {
    access::directory().join("history")
}

/// Tells the editor when a cell is whole.
struct Cells;

impl Helper for Cells {}
impl Highlighter for Cells {}

impl Completer for Cells {
    type Candidate = String;
}

impl Hinter for Cells {
    type Hint = String;
}

impl Validator for Cells {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let whole = is_complete(context.input());
        Ok(if whole {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}
