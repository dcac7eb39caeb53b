//! Nonblocking operations that user code has begun: while some may be unfinished, an idle rank keeps MPI going.
//!
//! A large `isend` from one instruction otherwise never completes: MPI works only inside its calls. This program defines
//! the calls that begin such operations and passes them on; it does not follow their completion, so a rank that has
//! begun one keeps a slow heartbeat of progress for the rest of its life.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use mpi::ffi;

static BEGUN: AtomicBool = AtomicBool::new(false);

/// Whether operations may be unfinished.
#[must_use]
pub fn unfinished() -> bool {
    BEGUN.load(Ordering::Relaxed)
}

macro_rules! begins {
    ($($name:ident => $forward:ident ($buffer:ty, $count:ty)),+ $(,)?) => {$(
        /// MPI's function of this name for this process and every library in it.
        ///
        /// # Safety
        /// As MPI's own.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            buffer: $buffer,
            count: $count,
            datatype: ffi::MPI_Datatype,
            peer: c_int,
            tag: c_int,
            comm: ffi::MPI_Comm,
            request: *mut ffi::MPI_Request,
        ) -> c_int {
            BEGUN.store(true, Ordering::Relaxed);
            // SAFETY: the caller's obligations are passed on unchanged.
            unsafe { ffi::$forward(buffer, count, datatype, peer, tag, comm, request) }
        }
    )+};
}

begins! {
    MPI_Isend => PMPI_Isend (*const c_void, c_int),
    MPI_Ibsend => PMPI_Ibsend (*const c_void, c_int),
    MPI_Issend => PMPI_Issend (*const c_void, c_int),
    MPI_Irsend => PMPI_Irsend (*const c_void, c_int),
    MPI_Irecv => PMPI_Irecv (*mut c_void, c_int),
}

// MPI 4 has each of them once more, with a wider count, and mpi4py calls those where it finds them.
#[cfg(mpi_large_counts)]
begins! {
    MPI_Isend_c => PMPI_Isend_c (*const c_void, ffi::MPI_Count),
    MPI_Ibsend_c => PMPI_Ibsend_c (*const c_void, ffi::MPI_Count),
    MPI_Issend_c => PMPI_Issend_c (*const c_void, ffi::MPI_Count),
    MPI_Irsend_c => PMPI_Irsend_c (*const c_void, ffi::MPI_Count),
    MPI_Irecv_c => PMPI_Irecv_c (*mut c_void, ffi::MPI_Count),
}
