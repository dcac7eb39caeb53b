//! Interrupts: a real-time signal to the main thread, which makes Python run our handler and system calls return.

use std::os::unix::thread::RawPthread;
use std::sync::Arc;

use crate::inbox::Inbox;

/// The signal. INT, USR1 and USR2 have owners: the terminal, the batch system, the user.
#[must_use]
pub fn signal_number() -> i32 {
    libc::SIGRTMIN() + 6
}

/// Makes the main thread look whether it is interrupted.
pub fn signal_main_thread(inbox: &Arc<Inbox>) {
    let thread: RawPthread = inbox.main_thread();
    // SAFETY: the main thread lives as long as the process, and Python's handler for this signal is installed before
    // the first instruction can run, so that it never meets the default action.
    let code = unsafe { libc::pthread_kill(thread, signal_number()) };
    if code != 0 {
        tracing::error!(code, "cannot signal the main thread");
    }
}
