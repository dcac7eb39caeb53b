//! CPython: start as the chosen environment's python, the embedded sources, the end.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::error::Error;
use crate::native;

/// `(module, path, is_package, source, code)` of every embedded file; written by the build script.
static EMBEDDED: &[(&str, &str, u8, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
const IMPORTER: &CStr =
    match CStr::from_bytes_with_nul(concat!(include_str!("embedded_importer.py"), "\0").as_bytes()) {
        Ok(source) => source,
        Err(_) => panic!("the importer's source holds a zero byte"),
    };

/// Starts CPython on this thread, with `python` as its program, and leaves it without the GIL.
///
/// # Errors
/// [`Error::PythonStart`].
pub fn start(python: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::PythonStart {
        path: python.to_owned(),
        reason,
    };
    native::register();
    initialise(python).map_err(failed)?;
    let prepared = Python::attach(|py| prepare(py).map_err(|error| explain(py, &error)));
    // SAFETY: this thread holds the GIL since initialisation; from here on it is taken only through PyO3.
    unsafe { ffi::PyEval_SaveThread() };
    prepared.map_err(failed)
}

fn initialise(python: &Path) -> Result<(), String> {
    let program = CString::new(python.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: PyConfig is plain data that PyConfig_InitPythonConfig fills; the configuration is cleared on all paths
    // and not used afterwards; `program` lives over the call that copies it.
    unsafe {
        let mut config: ffi::PyConfig = std::mem::zeroed();
        let config = &raw mut config;
        ffi::PyConfig_InitPythonConfig(config);
        (*config).install_signal_handlers = 0;
        (*config).parse_argv = 0;
        // Prints the Python traceback when the process dies of a signal; last_words.rs reads it from the file.
        (*config).faulthandler = 1;
        let mut status =
            ffi::PyConfig_SetBytesString(config, &raw mut (*config).program_name, program.as_ptr());
        if ffi::PyStatus_Exception(status) == 0 {
            status = ffi::Py_InitializeFromConfig(config);
        }
        ffi::PyConfig_Clear(config);
        if ffi::PyStatus_Exception(status) == 0 {
            return Ok(());
        }
        if status.err_msg.is_null() {
            return Err(format!("exit code {}", status.exitcode));
        }
        Err(CStr::from_ptr(status.err_msg).to_string_lossy().into_owned())
    }
}

fn prepare(py: Python<'_>) -> PyResult<()> {
    leave_interrupt_alone(py)?;
    let scope = PyDict::new(py);
    py.run(IMPORTER, Some(&scope), None)?;
    let install = scope.get_item("install")?.expect("defined by the importer");
    install.call1((PyTuple::new(py, EMBEDDED.iter().copied())?,))?;
    py.import("ipengine._runtime")?
        .call_method1("start", (PyDict::new(py),))?;
    Ok(())
}

/// INT from outside means stop, and the control thread hears it. Python's signal module sets a handler for INT whatever
/// the configuration says, which would raise in user code first; asyncio and others put theirs in place of that one.
fn leave_interrupt_alone(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("signal")?;
    let default = signal.getattr("SIG_DFL")?;
    signal.call_method1("signal", (libc::SIGINT, default)).map(drop)
}

/// An exception of the runtime's own Python, with its traceback, for the log.
#[must_use]
pub fn explain(py: Python<'_>, error: &PyErr) -> String {
    let format = || -> PyResult<String> {
        let lines = py
            .import("traceback")?
            .call_method1("format_exception", (error.value(py),))?;
        lines.try_iter()?.map(|line| line?.extract::<String>()).collect()
    };
    format().unwrap_or_else(|_| error.to_string())
}

/// Ends CPython: runs `atexit` and finalisers. Called on the main thread, under the watchdog.
pub fn finish() {
    // SAFETY: the main thread initialised Python and holds no reference into it any more; it takes the GIL first.
    unsafe {
        ffi::PyGILState_Ensure();
        if ffi::Py_FinalizeEx() != 0 {
            tracing::warn!("Python's output could not be flushed at its end");
        }
    }
}
