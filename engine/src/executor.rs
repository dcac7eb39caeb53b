//! The main thread's loop: receive, run, report. One instruction at a time, in order.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ipengine_protocol::{EngineId, Outcome, RemoteException, Timing, ValueHead, Work};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::inbox::{Instruction, Next};
use crate::interpreter_choice::linked_version;
use crate::native::Runtime;
use crate::values;
use crate::{interpreter, last_words, native};

/// How often an idle rank lets MPI work on operations that an earlier instruction left unfinished.
const PROGRESS: Duration = Duration::from_millis(10);

/// The glue's entry points, looked up once.
struct Glue {
    execute: Py<PyAny>,
    apply: Py<PyAny>,
    push: Py<PyAny>,
    pull: Py<PyAny>,
    clear: Py<PyAny>,
}

impl Glue {
    fn load(py: Python<'_>) -> PyResult<Self> {
        let module = py.import("ipengine._runtime")?;
        let entry = |name: &str| module.getattr(name).map(Bound::unbind);
        Ok(Self {
            execute: entry("execute")?,
            apply: entry("apply")?,
            push: entry("push")?,
            pull: entry("pull")?,
            clear: entry("clear")?,
        })
    }

    fn call<'py>(&self, py: Python<'py>, work: &Work, blobs: &[Bytes]) -> PyResult<Bound<'py, PyAny>> {
        match work {
            Work::Execute {
                code,
                filename,
                silent,
                store_history,
                user_expressions,
            } => {
                let expressions = PyDict::new(py);
                for (name, source) in user_expressions {
                    expressions.set_item(name, source)?;
                }
                self.execute
                    .bind(py)
                    .call1((code, filename.as_deref(), *silent, *store_history, expressions))
            }
            Work::Apply { python, by_value, .. } => {
                let minor = python.filter(|_| *by_value).map(|version| (version.0, version.1));
                let stream = values::bytes(py, blobs.first());
                self.apply.bind(py).call1((
                    stream,
                    values::writable(py, blobs.get(1..).unwrap_or(&[]))?,
                    minor,
                ))
            }
            Work::Push { names, values: heads } => {
                self.push.bind(py).call1((names, glue_values(py, heads, blobs)?))
            }
            Work::Pull {
                names,
                format,
                single,
            } => self
                .pull
                .bind(py)
                .call1((names, values::format_name(*format), *single)),
            Work::Clear => self.clear.bind(py).call0(),
        }
    }
}

fn glue_values<'py>(py: Python<'py>, heads: &[ValueHead], blobs: &[Bytes]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    let mut rest = blobs;
    for head in heads {
        // The gateway checked only the total; a client that lies about the parts gets its own error.
        let (own, others) = rest.split_at((head.blobs as usize).min(rest.len()));
        rest = others;
        let (kind, meta) = values::to_glue(&head.kind);
        list.append((kind, meta, values::writable(py, own)?))?;
    }
    Ok(list)
}

/// Runs instructions until the control thread says stop. Main thread.
///
/// # Errors
/// Python's, if the glue cannot be loaded.
pub fn run(runtime: &Rc<Runtime>) -> PyResult<()> {
    Python::attach(|py| {
        let glue = Glue::load(py)?;
        loop {
            let (inbox, limit) = (
                Arc::clone(&runtime.inbox),
                crate::requests::unfinished().then_some(PROGRESS),
            );
            match py.detach(move || inbox.next(limit)) {
                Next::Run(instruction) => run_one(py, runtime, &glue, instruction),
                Next::Doomed(instruction) => end_doomed(runtime, &instruction),
                Next::Nothing => {
                    if let Err(error) = runtime.world.borrow().progress() {
                        tracing::warn!(%error, "MPI does not progress");
                    }
                }
                Next::Stop => return Ok(()),
            }
        }
    })
}

fn run_one(py: Python<'_>, runtime: &Rc<Runtime>, glue: &Glue, instruction: Instruction) {
    let Instruction {
        order,
        targets,
        comm_suspect,
        work,
        blobs,
    } = instruction;
    let started = now();
    runtime.begin(
        order,
        targets.into_iter().map(|EngineId(rank)| rank).collect(),
        comm_suspect,
    );
    let answer = glue.call(py, &work, &blobs);
    if native::is_forked() {
        end_forked_child(&answer);
    }
    drop(blobs);
    let answer = answer.and_then(|answer| values::outcome(&answer, linked_version()));
    runtime.inbox.close();
    let (mut outcome, parts) =
        answer.unwrap_or_else(|error| (runtime_failure(py, runtime, &error), Vec::new()));
    if let Outcome::Interrupted(exception) = &mut outcome
        && runtime.inbox.is_stopping()
    {
        say_why(exception);
    }
    runtime.end();
    flush_c_streams();
    let timing = Timing {
        started,
        completed: now(),
    };
    runtime
        .inbox
        .finish(order, outcome, parts, timing, runtime.files.ends());
}

/// User code forked and the child came back from the instruction: it must not go on as a second engine.
fn end_forked_child(answer: &PyResult<Bound<'_, PyAny>>) -> ! {
    flush_c_streams();
    let status = answer.as_ref().ok().and_then(|answer| answer.get_item(0).ok());
    let ended_well = status.is_some_and(|status| status.extract::<&str>().is_ok_and(|text| text == "ok"));
    last_words::end_now(i32::from(!ended_well))
}

/// The interrupt came with the order to stop, not from a client.
fn say_why(exception: &mut RemoteException) {
    const WORDS: &str = "interrupted because the cluster is stopping";
    exception.traceback = exception.traceback.replace(&exception.message, WORDS);
    WORDS.clone_into(&mut exception.message);
}

/// What the glue did not turn into data itself is a fault of the runtime; the user is told as much.
fn runtime_failure(py: Python<'_>, runtime: &Rc<Runtime>, error: &PyErr) -> Outcome {
    let text = interpreter::explain(py, error);
    tracing::error!("the runtime failed: {text}");
    let message = format!("the engine's runtime failed on this instruction (please report this): {text}");
    let rank = runtime.world.borrow().rank();
    Outcome::Raised(Box::new(RemoteException::of_runtime(
        "EngineError",
        message,
        rank,
        &runtime.host,
    )))
}

fn end_doomed(runtime: &Rc<Runtime>, instruction: &Instruction) {
    let rank = runtime.world.borrow().rank();
    let words = "interrupted before it started";
    let mut exception = RemoteException::of_runtime("KeyboardInterrupt", words, rank, &runtime.host);
    "builtins".clone_into(&mut exception.module);
    let outcome = Outcome::Interrupted(Box::new(exception));
    runtime.inbox.finish(
        instruction.order,
        outcome,
        Vec::new(),
        Timing::default(),
        runtime.files.ends(),
    );
}

/// Output of C and C++ code belongs to the instruction that made it.
fn flush_c_streams() {
    // SAFETY: a null stream means all of them.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
