//! From `serve` to a rank 0 on another host: a launcher hands on few variables of its environment.
//!
//! Open MPI hands on every variable whose name begins with `OMPI_`, so `serve` sets each of ours under such a name, too.
//! MPICH's launcher and `srun` hand on everything.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::place::Place;

const PREFIX: &str = "OMPI_FORWARDED_";

/// What rank 0 decides by, and the others hear from it.
const NAMES: [&str; 6] = [
    "IPENGINE_CLUSTER",
    "IPENGINE_LINK",
    "IPSTEER_DIR",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
];

/// Adds to the launcher's environment what rank 0 has to see wherever it runs. With the directory that was chosen here it
/// finds this gateway; one that it chose itself might be another.
pub fn give(launcher: &mut Command, place: &Place) {
    let base = place.access_file.parent().map(Path::as_os_str);
    launcher.env("IPENGINE_CLUSTER", &place.cluster);
    launcher.envs(base.map(|base| ("IPSTEER_DIR", base)));
    for name in NAMES {
        let value = match name {
            "IPENGINE_CLUSTER" => Some(place.cluster.clone().into()),
            "IPSTEER_DIR" => base.map(ToOwned::to_owned),
            _ => env::var_os(name),
        };
        if let Some(value) = value {
            launcher.env(format!("{PREFIX}{name}"), value);
        }
    }
}

/// Takes what [`give`] gave. First of all in `main`.
pub fn take() {
    for name in NAMES {
        let forwarded = env::var_os(format!("{PREFIX}{name}"));
        if let (None, Some(value)) = (env::var_os(name), forwarded) {
            // SAFETY: called before anything else in `main`, where this thread is the only one.
            unsafe { env::set_var(name, value) };
        }
    }
}
