//! `ipsteer exec`: run source text.

use std::io::Read;

use ipengine_protocol::{Targets, Work};

use super::console::Console;
use super::failure::Failure;
use super::live::Live;
use super::signals::CtrlC;
use super::{Global, TargetArgs};
use crate::client::{Client, Instruction};
use crate::{Exit, targets};

/// Run source text on engines and watch it.
///
/// Output comes live, tagged with its rank; so do results. Equal errors of several ranks are told once. Ctrl-C
/// interrupts the engines and tells what became of it on each rank.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    targets: TargetArgs,
    /// Python source, or - to read it from standard input.
    #[arg(allow_hyphen_values = true)]
    code: String,
}

pub(super) fn run(args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let code = match args.code.as_str() {
        "-" => read_input()?,
        code => code.to_owned(),
    };
    let ctrl_c = CtrlC::watch();
    let client = global.connect()?;
    let counter = submit(&client, &args.targets.targets, code, None)?;
    Live::new(&client, counter, console, global.timeout).follow(&ctrl_c)
}

/// Submits source text.
pub(super) fn submit(
    client: &Client,
    targets: &str,
    code: String,
    filename: Option<String>,
) -> Result<u64, Failure> {
    let targets = Targets::All(targets::parse(targets, client.size()?)?);
    let work = Work::Execute {
        code,
        filename,
        silent: false,
        store_history: true,
        user_expressions: Vec::new(),
    };
    Ok(client.submit(Instruction {
        targets,
        work,
        blobs: Vec::new(),
        each: None,
        label: None,
    })?)
}

/// All of standard input.
pub(super) fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(Failure::Input)?;
    Ok(text)
}
