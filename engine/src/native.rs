//! The built-in Python module `_ipengine`: what the embedded Python glue asks of the Rust side.
//!
//! All functions run on the main thread, which owns the MPI world; from other Python threads they raise.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipengine_protocol::{CommAnswer, CommBirth, Order};
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;

use crate::error::{Error, chain};
use crate::inbox::{FromMain, Inbox};
use crate::output::OutputFiles;
use crate::world::{World, handle_bits};
use crate::{interrupt, link};

/// What the module's functions work on.
pub struct Runtime {
    /// The hand-over to the control thread.
    pub inbox: Arc<Inbox>,
    /// The output files, for the order of displays and output.
    pub files: Arc<OutputFiles>,
    /// MPI.
    pub world: RefCell<World>,
    /// Name of the cluster.
    pub cluster: String,
    /// Host name.
    pub host: String,
    current: RefCell<Option<Current>>,
    communicators: RefCell<Communicators>,
}

/// The running instruction.
struct Current {
    order: Order,
    targets: Vec<u32>,
    /// Rounds in which its targets have agreed on a communicator.
    rounds: u32,
    /// Whether the one that this engine has is agreed on.
    agreed: bool,
    /// The latest instruction of the same targets that failed since their communicator was made.
    suspect: Option<Order>,
}

/// Communicators made so far, by the ordered tuple of their targets.
#[derive(Default)]
struct Communicators {
    made: HashMap<Vec<u32>, Made>,
    generation: u64,
}

/// One communicator. A handle that MPI uses again has another generation.
#[derive(Clone, Copy)]
struct Made {
    handle: u64,
    generation: u64,
    birth: CommBirth,
}

thread_local! {
    static RUNTIME: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
}

impl Runtime {
    /// Makes the runtime and hands it to the module. Main thread only.
    #[must_use]
    pub fn install(
        inbox: Arc<Inbox>,
        files: Arc<OutputFiles>,
        world: World,
        cluster: String,
        host: String,
    ) -> Rc<Self> {
        let runtime = Rc::new(Self {
            inbox,
            files,
            world: RefCell::new(world),
            cluster,
            host,
            current: RefCell::default(),
            communicators: RefCell::default(),
        });
        RUNTIME.with_borrow_mut(|slot| *slot = Some(Rc::clone(&runtime)));
        runtime
    }

    /// Takes the runtime away from the module again, so that the world can be finalised.
    pub fn uninstall() {
        RUNTIME.with_borrow_mut(Option::take);
    }

    /// An instruction begins.
    pub fn begin(&self, order: Order, targets: Vec<u32>, suspect: Option<Order>) {
        *self.current.borrow_mut() = Some(Current {
            order,
            targets,
            rounds: 0,
            agreed: false,
            suspect,
        });
    }

    /// It has ended.
    pub fn end(&self) {
        *self.current.borrow_mut() = None;
    }
}

fn runtime() -> PyResult<Rc<Runtime>> {
    RUNTIME.with_borrow(Option::clone).ok_or_else(|| {
        PyRuntimeError::new_err(
            "only on the engine's main thread: start what needs this outside of other threads",
        )
    })
}

/// Makes the module importable. Before CPython starts.
pub fn register() {
    pyo3::append_to_inittab!(_ipengine);
}

/// See the module's documentation.
#[pymodule]
fn _ipengine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let runtime = runtime()?;
    let world = runtime.world.borrow();
    module.add("rank", world.rank())?;
    module.add("size", world.size())?;
    module.add("cluster", &runtime.cluster)?;
    module.add("host", &runtime.host)?;
    module.add("mpi_library_path", loaded_mpi().unwrap_or_default())?;
    module.add("interrupt_signal", interrupt::signal_number())?;
    module.add_function(wrap_pyfunction!(emit, module)?)?;
    module.add_function(wrap_pyfunction!(comm_handle, module)?)?;
    module.add_function(wrap_pyfunction!(reset_comm, module)?)?;
    module.add_function(wrap_pyfunction!(take_interrupt, module)?)?;
    module.add_function(wrap_pyfunction!(after_fork_child, module)?)
}

/// Path of the MPI library that this process has loaded.
#[must_use]
pub fn loaded_mpi() -> Option<String> {
    loaded_library("/libmpi")
}

/// Path of a loaded library whose path contains `part`.
#[must_use]
pub fn loaded_library(part: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .filter_map(|line| line.split_once('/').map(|(_, rest)| format!("/{rest}")));
    path.into_iter()
        .find(|path| path.contains(part) && path.contains(".so"))
}

/// Sends a Jupyter message of the running instruction.
#[pyfunction]
fn emit(msg_type: String, content: String) -> PyResult<()> {
    let runtime = runtime()?;
    let current = runtime.current.borrow();
    // A callback that fires between instructions has nobody to show anything to.
    if let Some(Current { order, .. }) = &*current {
        let ends = runtime.files.ends();
        runtime.inbox.report(FromMain::Display {
            order: *order,
            msg_type,
            content,
            ends,
        });
    }
    Ok(())
}

/// The communicator of the running instruction's targets, once all of them have come to use it: its handle, its
/// generation, and the failed instruction that makes it suspect.
#[pyfunction]
fn comm_handle(py: Python<'_>) -> PyResult<(u64, u64, Option<u64>)> {
    if is_forked() {
        return Err(PyRuntimeError::new_err(
            "ipengine.comm: a forked child is no engine",
        ));
    }
    let runtime = runtime()?;
    let (order, targets, round, agreed, suspect) = match &*runtime.current.borrow() {
        Some(current) => (
            current.order,
            current.targets.clone(),
            current.rounds,
            current.agreed,
            current.suspect,
        ),
        None => {
            return Err(PyRuntimeError::new_err(
                "ipengine.comm exists only while an instruction runs",
            ));
        }
    };
    let have = runtime.communicators.borrow().made.get(&targets).copied();
    if let Some(made) = have.filter(|_| agreed || targets.len() == 1) {
        return Ok((made.handle, made.generation, None));
    }
    if have.is_none() {
        // Before the others are sent in: they would wait in MPI for a rank that cannot come.
        runtime
            .world
            .borrow()
            .may_create_communicator()
            .map_err(refused)?;
    }
    let (inbox, birth) = (Arc::clone(&runtime.inbox), have.map(|made| made.birth));
    let answer = py.detach(move || inbox.await_comm(order, round, birth));
    let (made, suspect) = match (answer, have) {
        (CommAnswer::Use, Some(made)) => (made, suspect),
        (CommAnswer::Use | CommAnswer::Create, _) => {
            (create(py, &runtime, CommBirth { order, round }, targets)?, None)
        }
        (CommAnswer::Refused { .. }, _) if runtime.inbox.is_armed(order) => {
            let words = "interrupted by a client while waiting for the other targets";
            return Err(PyKeyboardInterrupt::new_err(words));
        }
        (CommAnswer::Refused { reason }, _) => {
            return Err(PyRuntimeError::new_err(format!("ipengine.comm: {reason}")));
        }
    };
    if let Some(current) = &mut *runtime.current.borrow_mut() {
        current.rounds += 1;
        current.agreed = true;
    }
    Ok((made.handle, made.generation, suspect.map(|Order(number)| number)))
}

fn refused(error: Error) -> PyErr {
    PyRuntimeError::new_err(format!("ipengine.comm: {}", chain(&error)))
}

fn create(py: Python<'_>, runtime: &Rc<Runtime>, birth: CommBirth, targets: Vec<u32>) -> PyResult<Made> {
    let work = SameThread((runtime, &targets));
    let made = py.detach(move || {
        let work = work;
        let SameThread((runtime, targets)) = work;
        SameThread(
            runtime
                .world
                .borrow_mut()
                .create_communicator(targets, birth.order.0),
        )
    });
    let handle = handle_bits(made.0.map_err(refused)?);
    let mut communicators = runtime.communicators.borrow_mut();
    communicators.generation += 1;
    let made = Made {
        handle,
        generation: communicators.generation,
        birth,
    };
    communicators.made.insert(targets, made);
    Ok(made)
}

/// Lets a closure that gives up the GIL use what belongs to this thread.
struct SameThread<T>(T);

// SAFETY: `Python::detach` runs its closure on the calling thread; nothing is sent anywhere. The wrapper is private to
// `create`.
unsafe impl<T> Send for SameThread<T> {}

/// Forgets the communicator of the running instruction's targets; the next access makes a new one.
#[pyfunction]
fn reset_comm() -> PyResult<()> {
    let runtime = runtime()?;
    if let Some(current) = &mut *runtime.current.borrow_mut() {
        runtime.communicators.borrow_mut().made.remove(&current.targets);
        current.agreed = false;
    }
    Ok(())
}

/// Set in forked children of the user's code: they are no engine.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Whether this process is a forked child of an engine.
#[must_use]
pub fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Called in a forked child of the user's code. Last words and MPI's wrappers know the engine by its process id.
#[pyfunction]
fn after_fork_child() {
    FORKED.store(true, Ordering::Relaxed);
    link::close_in_forked_child();
}

/// Whether the running instruction is to be interrupted; true once per interrupt.
#[pyfunction]
fn take_interrupt() -> PyResult<bool> {
    Ok(runtime()?.inbox.take_interrupt())
}
