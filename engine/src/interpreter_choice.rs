//! Which Python an engine becomes: found and asked by rank 0 before `MPI_Init`, told to all ranks.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipengine_protocol::PythonVersion;
use pyo3::ffi;

use crate::detach;
use crate::error::Error;

/// The version of the libpython this program is linked with.
#[must_use]
pub fn linked_version() -> PythonVersion {
    // SAFETY: Py_GetVersion may be called at any time, also before initialisation, and returns a static C string.
    let text = unsafe { std::ffi::CStr::from_ptr(ffi::Py_GetVersion()) }
        .to_string_lossy()
        .into_owned();
    parse_version(&text).unwrap_or(PythonVersion(0, 0, 0))
}

/// Chooses the interpreter: `--python`, the one beside this program, `VIRTUAL_ENV`, `CONDA_PREFIX`, `python3`.
///
/// # Errors
/// [`Error::NoPython`] or [`Error::PythonMinor`].
pub fn choose(given: Option<&Path>) -> Result<PathBuf, Error> {
    let path = given.map_or_else(first_found, |path| Ok(path.to_owned()))?;
    let (found, path) = ask(&path)?;
    let built = linked_version();
    if !built.same_minor(found) {
        return Err(Error::PythonMinor { built, found, path });
    }
    Ok(path)
}

fn first_found() -> Result<PathBuf, Error> {
    let beside = env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(|dir| dir.join("python3")));
    let of_env = |name: &str| env::var_os(name).map(|dir| PathBuf::from(dir).join("bin/python3"));
    let candidates = [beside, of_env("VIRTUAL_ENV"), of_env("CONDA_PREFIX")];
    if let Some(path) = candidates.into_iter().flatten().find(|path| path.exists()) {
        return Ok(path);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join("python3"))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NoPython {
            reason: "none beside this program, in VIRTUAL_ENV, in CONDA_PREFIX or on PATH".to_owned(),
        })
}

/// Runs the interpreter to hear its version and its own path: a version manager's shim is only a script.
fn ask(path: &Path) -> Result<(PythonVersion, PathBuf), Error> {
    let mut command = Command::new(path);
    command.args([
        "-I",
        "-S",
        "-c",
        "import sys; print(sys.version.split()[0], sys.executable, sep='\\n')",
    ]);
    let output = detach::scrubbed(&mut command)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::NoPython {
            reason: format!("{} cannot be run: {error}", path.display()),
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let version = lines.next().and_then(parse_version);
    match (version, lines.next()) {
        (Some(version), Some(executable)) if !executable.is_empty() => Ok((version, executable.into())),
        _ => {
            let words = String::from_utf8_lossy(&output.stderr);
            let words: String = words.trim().chars().take(300).collect();
            Err(Error::NoPython {
                reason: format!("{} does not tell its version: {words}", path.display()),
            })
        }
    }
}

fn parse_version(text: &str) -> Option<PythonVersion> {
    let number = text.split_whitespace().next()?;
    let mut parts = number.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    // The last part may carry a suffix, as in 3.14.0rc1.
    let digits: String = parts
        .next()
        .unwrap_or("0")
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Some(PythonVersion(major, minor, digits.parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_interpreters_print() {
        assert_eq!(parse_version("3.11.7"), Some(PythonVersion(3, 11, 7)));
        assert_eq!(parse_version("3.14.0rc1 (main)"), Some(PythonVersion(3, 14, 0)));
        assert_eq!(parse_version("not a version"), None);
    }
}
