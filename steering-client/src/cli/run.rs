//! `ipsteer run`: run a file of this machine.

use std::path::PathBuf;

use super::console::Console;
use super::exec::submit;
use super::failure::Failure;
use super::live::Live;
use super::signals::CtrlC;
use super::{Global, TargetArgs};
use crate::Exit;

/// Run a file of this machine on engines and watch it, as `exec` does.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    targets: TargetArgs,
    /// The file; the engines need not see it.
    file: PathBuf,
}

pub(super) fn run(args: &Args, global: &Global, console: &mut Console) -> Result<Exit, Failure> {
    let code = std::fs::read_to_string(&args.file).map_err(|source| Failure::File {
        path: args.file.clone(),
        what: "read",
        source,
    })?;
    let ctrl_c = CtrlC::watch();
    let client = global.connect()?;
    let name = args.file.to_string_lossy().into_owned();
    let counter = submit(&client, &args.targets.targets, code, Some(name))?;
    Live::new(&client, counter, console, global.timeout).follow(&ctrl_c)
}
