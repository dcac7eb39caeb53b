//! Errors in MPI that end the job: last words first, which MPI's own `MPI_ERRORS_ARE_FATAL` leaves no time for.
//!
//! That handler aborts from inside the library. MPICH's launcher then kills all ranks at once, and whose link closes
//! first is chance: nobody could tell which rank made the error. The handler here prints MPI's explanation and ends the
//! job by way of this program's own `MPI_Abort`. User code that asks for `MPI_ERRORS_ARE_FATAL` on a communicator gets
//! this handler, and sees the constant when it asks back. Called on whatever thread calls MPI.

use std::ffi::{c_char, c_int};
use std::io::Write;
use std::sync::OnceLock;

use mpi::ffi;

use crate::error::Error;
use crate::last_words;
use crate::world::check;

/// The handles, fixed at start.
struct Handlers {
    /// `MPI_ERRORS_ARE_FATAL`.
    theirs: ffi::MPI_Errhandler,
    ours: ffi::MPI_Errhandler,
    /// `MPI_ERRHANDLER_NULL`.
    null: ffi::MPI_Errhandler,
}

// SAFETY: handles are values that any thread may pass to MPI; nothing is read through them here.
unsafe impl Send for Handlers {}
// SAFETY: as above.
unsafe impl Sync for Handlers {}

static HANDLERS: OnceLock<Handlers> = OnceLock::new();

type Handler = unsafe extern "C" fn(*mut ffi::MPI_Comm, *mut c_int);
type VariadicHandler = unsafe extern "C" fn(*mut ffi::MPI_Comm, *mut c_int, ...);

/// Puts the handler on `MPI_COMM_WORLD` and `MPI_COMM_SELF`, from which all others inherit. Right after `MPI_Init`.
///
/// # Errors
/// [`Error::Mpi`].
pub fn install() -> Result<(), Error> {
    // SAFETY: handles are plain values that the calls fill before they are read.
    let [mut theirs, mut ours, mut null]: [ffi::MPI_Errhandler; 3] = unsafe { std::mem::zeroed() };
    // SAFETY: MPI calls a handler with two arguments and, on the platforms that it runs on, a callee that takes no
    // more ignores that the call is variadic.
    let handler = unsafe { std::mem::transmute::<Handler, VariadicHandler>(end_job) };
    // SAFETY: MPI is initialised, the communicators are constants of it and the out-parameters live over the calls.
    unsafe {
        let (world, own) = (ffi::RSMPI_COMM_WORLD, ffi::RSMPI_COMM_SELF);
        // Until somebody sets another one it is MPI_ERRORS_ARE_FATAL, whose name in C is no constant for Rust.
        check(
            "MPI_Comm_get_errhandler",
            ffi::PMPI_Comm_get_errhandler(world, &mut theirs),
        )?;
        check(
            "MPI_Comm_create_errhandler",
            ffi::PMPI_Comm_create_errhandler(Some(handler), &mut ours),
        )?;
        // Another name that is no constant for Rust: what a handle becomes when it is freed.
        check(
            "MPI_Comm_create_errhandler",
            ffi::PMPI_Comm_create_errhandler(Some(handler), &mut null),
        )?;
        check("MPI_Errhandler_free", ffi::PMPI_Errhandler_free(&mut null))?;
        for comm in [world, own] {
            check(
                "MPI_Comm_set_errhandler",
                ffi::PMPI_Comm_set_errhandler(comm, ours),
            )?;
        }
    }
    // A second world in one process cannot be.
    let _ = HANDLERS.set(Handlers { theirs, ours, null });
    Ok(())
}

unsafe extern "C" fn end_job(comm: *mut ffi::MPI_Comm, code: *mut c_int) {
    // SAFETY: MPI passes pointers to the communicator and to the error code.
    let (comm, code) = unsafe { (*comm, *code) };
    // A closed stream is no reason to go on.
    let _ = writeln!(std::io::stderr(), "fatal MPI error: {}", explain(code));
    // SAFETY: MPI is initialised, since it called this, and the communicator is its own.
    unsafe { last_words::MPI_Abort(comm, class_of(code)) };
}

fn class_of(code: c_int) -> c_int {
    let mut class = 0;
    // SAFETY: the out-parameter lives over the call.
    unsafe { ffi::PMPI_Error_class(code, &mut class) };
    class.max(1)
}

fn explain(code: c_int) -> String {
    let mut text = [0u8; ffi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut length = 0;
    // SAFETY: the buffer is as long as MPI asks for; both out-parameters live over the call.
    unsafe { ffi::PMPI_Error_string(code, text.as_mut_ptr().cast::<c_char>(), &mut length) };
    let length = usize::try_from(length).unwrap_or_default().min(text.len());
    String::from_utf8_lossy(&text[..length]).into_owned()
}

/// `MPI_Comm_set_errhandler` for this process and every library in it.
///
/// # Safety
/// As MPI's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn MPI_Comm_set_errhandler(comm: ffi::MPI_Comm, handler: ffi::MPI_Errhandler) -> c_int {
    let handler = match HANDLERS.get() {
        Some(handlers) if handler == handlers.theirs => handlers.ours,
        _ => handler,
    };
    // SAFETY: the caller's obligations are passed on; our handle is never freed.
    unsafe { ffi::PMPI_Comm_set_errhandler(comm, handler) }
}

/// `MPI_Comm_get_errhandler` for this process and every library in it.
///
/// # Safety
/// As MPI's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn MPI_Comm_get_errhandler(
    comm: ffi::MPI_Comm,
    handler: *mut ffi::MPI_Errhandler,
) -> c_int {
    // SAFETY: the caller's obligations are passed on unchanged.
    let code = unsafe { ffi::PMPI_Comm_get_errhandler(comm, handler) };
    if let Some(handlers) = HANDLERS.get() {
        // SAFETY: MPI has just written to it, or returned an error and left what the caller had there. The reference
        // that MPI counted is given back, since the caller is to free the constant and not our handler.
        unsafe {
            if code == 0 && *handler == handlers.ours {
                let mut counted = std::mem::replace(&mut *handler, handlers.theirs);
                return ffi::PMPI_Errhandler_free(&mut counted);
            }
        }
    }
    code
}

/// `MPI_Errhandler_free` for this process and every library in it. Whoever asked for a communicator's handler has to free
/// it; Open MPI 4 counts that on the constant, too, and in the end calls it an error.
///
/// # Safety
/// As MPI's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn MPI_Errhandler_free(handler: *mut ffi::MPI_Errhandler) -> c_int {
    // SAFETY: the caller passes a handle that may be freed, and all handles of the constant are the same one.
    unsafe {
        if let Some(handlers) = HANDLERS.get()
            && *handler == handlers.theirs
        {
            *handler = handlers.null;
            return 0;
        }
        ffi::PMPI_Errhandler_free(handler)
    }
}
