//! The Python module `ipsteer._native`: a skin over [`crate::Client`] without logic of its own.
//!
//! Every waiting call releases the GIL and looks for signals (Ctrl-C) at least ten times a second.

mod buffer;
mod outcome;
mod session;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use ipengine_protocol::{AccessRecord, PythonVersion};
use pyo3::create_exception;
use pyo3::exceptions::{PyKeyError, PyOSError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::client::{Client, Options};
use crate::discovery::{self, Which};
use crate::{Error, Exit};

create_exception!(ipsteer._native, ConnectError, PyOSError, "No cluster answered.");
create_exception!(
    ipsteer._native,
    SessionClosed,
    PyOSError,
    "The session was closed, lost, or its process forked."
);

/// How long a wait goes on without looking for signals.
const SLICE: Duration = Duration::from_millis(100);

/// The Rust core of the client.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("protocol_version", ipengine_protocol::VERSION)?;
    module.add("ConnectError", py.get_type::<ConnectError>())?;
    module.add("SessionClosed", py.get_type::<SessionClosed>())?;
    module.add_class::<session::Session>()?;
    module.add_class::<outcome::Outcome>()?;
    module.add_class::<outcome::Output>()?;
    module.add_function(wrap_pyfunction!(connect, module)?)?;
    module.add_function(wrap_pyfunction!(clusters, module)?)?;
    module.add_function(wrap_pyfunction!(main, module)?)
}

/// Connect: to the access file given, or to the newest cluster that answers.
#[pyfunction]
#[pyo3(signature = (file=None, url=None, cluster=None, timeout=10.0, username=None))]
fn connect(
    py: Python<'_>,
    file: Option<PathBuf>,
    url: Option<String>,
    cluster: Option<String>,
    timeout: f64,
    username: Option<String>,
) -> PyResult<session::Session> {
    let info = py.version_info();
    let options = Options {
        which: Which { file, cluster, url },
        timeout: duration(Some(timeout))?.unwrap_or(Duration::MAX),
        user: username,
        software: format!(
            "ipsteer {} (Python {}.{}.{})",
            env!("CARGO_PKG_VERSION"),
            info.major,
            info.minor,
            info.patch
        ),
        python: Some(PythonVersion(info.major, info.minor, info.patch)),
    };
    let mut connecting = Client::start(options).map_err(python_error)?;
    loop {
        if let Some(result) = py.detach(|| connecting.wait(SLICE)) {
            return Ok(session::Session::new(result.map_err(python_error)?));
        }
        py.check_signals()?;
    }
}

/// The connection files found.
#[pyfunction]
fn clusters(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let (found, _unreadable) = py.detach(discovery::clusters).map_err(python_error)?;
    found
        .into_iter()
        .map(|cluster| cluster_dict(py, &cluster.path, &cluster.record, cluster.alive))
        .collect()
}

fn cluster_dict<'py>(
    py: Python<'py>,
    path: &std::path::Path,
    record: &AccessRecord,
    alive: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("cluster", &record.cluster)?;
    dict.set_item("file", path.to_string_lossy())?;
    dict.set_item("size", record.size)?;
    dict.set_item("host", &record.host)?;
    dict.set_item("alive", alive)?;
    dict.set_item("started", record.started as f64)?;
    dict.set_item("end", record.ended.as_ref().map(|ended| &ended.reason))?;
    Ok(dict)
}

/// The `ipsteer` command. Returns the exit code.
#[pyfunction]
fn main(py: Python<'_>, argv: Vec<std::ffi::OsString>) -> PyResult<i32> {
    // Python's own handler would raise KeyboardInterrupt once more after the command has dealt with Ctrl-C.
    let signal = py.import("signal")?;
    signal.call_method1("signal", (signal.getattr("SIGINT")?, signal.getattr("SIG_DFL")?))?;
    Ok(py.detach(|| crate::cli::main(argv)))
}

/// The Python exception for an error of the client.
fn python_error(error: Error) -> PyErr {
    let text = describe(&error);
    match (&error, Exit::from(&error)) {
        (Error::Address(_), _) => PyValueError::new_err(text),
        (_, Exit::NoCluster) => ConnectError::new_err(text),
        (_, Exit::Lost) => SessionClosed::new_err(text),
        (_, Exit::Timeout) => PyTimeoutError::new_err(text),
        (Error::UnknownInstruction(_), _) => PyKeyError::new_err(text),
        (Error::Refused(_), _) => PyOSError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}

/// An error with its causes.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Seconds from Python; `None` and infinity mean no limit, below zero is zero.
fn duration(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds.is_nan() => Err(PyValueError::new_err("timeout is not a number")),
        Some(seconds) => Ok(Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
    }
}

/// Repeats `step`, which waits up to the time given, until it gives something or the time is over.
fn wait<T: Send>(
    py: Python<'_>,
    timeout: Option<f64>,
    mut step: impl FnMut(Duration) -> Result<Option<T>, Error> + Send,
) -> PyResult<Option<T>> {
    let limit = duration(timeout)?;
    let began = std::time::Instant::now();
    loop {
        let rest = limit.map_or(SLICE, |limit| limit.saturating_sub(began.elapsed()));
        if let Some(result) = py.detach(|| step(rest.min(SLICE))).map_err(python_error)? {
            return Ok(Some(result));
        }
        py.check_signals()?;
        if rest <= SLICE && limit.is_some_and(|limit| began.elapsed() >= limit) {
            return Ok(None);
        }
    }
}
