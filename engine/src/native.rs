//! The built-in Python module `_ipengine`: what the embedded Python glue asks of the Rust side.
//!
//! All functions run on the main thread, which owns the MPI world; from other Python threads they raise.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use ipengine_protocol::{CommAnswer, Order};
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
    /// Communicators made in it.
    rounds: u32,
    /// The latest instruction of the same targets that failed since their communicator was made.
    suspect: Option<Order>,
}

/// Communicators made so far, by the ordered tuple of their targets.
#[derive(Default)]
struct Communicators {
    made: HashMap<Vec<u32>, (u64, u64)>,
    generation: u64,
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

/// The communicator of the running instruction's targets, created when all of them have asked: its handle, its
/// generation, and the failed instruction that makes it suspect.
#[pyfunction]
fn comm_handle(py: Python<'_>) -> PyResult<(u64, u64, Option<u64>)> {
    let runtime = runtime()?;
    let (order, targets, round, suspect) = match &*runtime.current.borrow() {
        Some(Current {
            order,
            targets,
            rounds,
            suspect,
        }) => (*order, targets.clone(), *rounds, *suspect),
        None => {
            return Err(PyRuntimeError::new_err(
                "ipengine.comm exists only while an instruction runs",
            ));
        }
    };
    if let Some((handle, generation)) = runtime.communicators.borrow().made.get(&targets) {
        // A communicator that was made in this instruction is younger than any failure that the gateway knew of.
        return Ok((
            *handle,
            *generation,
            suspect.filter(|_| round == 0).map(|Order(number)| number),
        ));
    }
    // Before the others are sent in: they would wait in MPI for a rank that cannot come.
    runtime
        .world
        .borrow()
        .may_create_communicator()
        .map_err(refused)?;
    let inbox = Arc::clone(&runtime.inbox);
    match py.detach(move || inbox.await_comm(order, round)) {
        CommAnswer::Create => {
            create(py, &runtime, order, targets).map(|(handle, generation)| (handle, generation, None))
        }
        CommAnswer::Refused { .. } if runtime.inbox.is_armed(order) => Err(PyKeyboardInterrupt::new_err(
            "interrupted by a client while waiting for the other targets",
        )),
        CommAnswer::Refused { reason } => Err(PyRuntimeError::new_err(format!("ipengine.comm: {reason}"))),
    }
}

fn refused(error: Error) -> PyErr {
    PyRuntimeError::new_err(format!("ipengine.comm: {}", chain(&error)))
}

fn create(py: Python<'_>, runtime: &Rc<Runtime>, order: Order, targets: Vec<u32>) -> PyResult<(u64, u64)> {
    let work = SameThread((runtime, &targets));
    let made = py.detach(move || {
        let work = work;
        let SameThread((runtime, targets)) = work;
        SameThread(runtime.world.borrow_mut().create_communicator(targets, order.0))
    });
    let comm = made
        .0
        .map_err(|error| PyRuntimeError::new_err(format!("ipengine.comm: {}", chain(&error))))?;
    let mut communicators = runtime.communicators.borrow_mut();
    communicators.generation += 1;
    let entry = (handle_bits(comm), communicators.generation);
    communicators.made.insert(targets, entry);
    Ok(entry)
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
    if let Some(current) = &*runtime.current.borrow() {
        runtime.communicators.borrow_mut().made.remove(&current.targets);
    }
    Ok(())
}

/// Called in a forked child of the user's code. Last words and MPI's wrappers know the engine by its process id.
#[pyfunction]
fn after_fork_child() {
    link::close_in_forked_child();
}

/// Whether the running instruction is to be interrupted; true once per interrupt.
#[pyfunction]
fn take_interrupt() -> PyResult<bool> {
    Ok(runtime()?.inbox.take_interrupt())
}
