//! `ipsteer push`: bind names on engines.

use ipengine_protocol::{Targets, Work};

use super::assignment::Assignment;
use super::console::Console;
use super::failure::Failure;
use super::live::Live;
use super::signals::CtrlC;
use super::{Global, TargetArgs};
use crate::client::Instruction;
use crate::{Exit, targets};

/// Bind names in the engines' namespace.
///
/// NAME=LITERAL takes a Python literal (x=1.5, s='"text"', v=[1,2]), NAME:=JSON takes JSON, NAME=@FILE takes a file:
/// .npy an array, .json data, .txt text, .pkl a pickle; @- takes text from standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    targets: TargetArgs,
    /// What to bind.
    #[arg(required = true, value_name = "NAME=VALUE")]
    assignments: Vec<String>,
}

pub(super) fn run(args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let mut names = Vec::new();
    let mut values = Vec::new();
    let mut blobs = Vec::new();
    for text in &args.assignments {
        let assignment = Assignment::parse(text)?;
        let (head, parts) = assignment.value()?;
        names.push(assignment.name);
        values.push(head);
        blobs.extend(parts);
    }
    let ctrl_c = CtrlC::watch();
    let client = global.connect()?;
    let targets = Targets::All(targets::parse(&args.targets.targets, client.size()?)?);
    let work = Work::Push { names, values };
    let counter = client.submit(Instruction {
        targets,
        work,
        blobs,
        each: None,
        label: None,
    })?;
    Live::new(&client, counter, console, global.timeout).follow(&ctrl_c)
}
