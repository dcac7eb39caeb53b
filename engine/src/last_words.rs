//! Last words: a process that is about to die tells the gateway why, before it does.
//!
//! Four ways out are caught: fatal signals (a handler on the signal stack), `exit` (glibc's `on_exit`, which knows the
//! code), `_exit` and `MPI_Abort` (this program defines both names, and the dynamic linker binds every library's calls
//! to the executable's definition first). Each sets the cause, wakes the control thread and waits for it to ship the
//! tail of the output, at most [`PATIENCE_MS`]. Everything a signal handler does here is async-signal-safe: atomics,
//! `write` and `poll`. SIGKILL and the kernel's out-of-memory killer leave no time for words.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use ipengine_protocol::outcome::LossKind;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::Error;

/// The control thread needs microseconds; more is for a machine that swaps.
const PATIENCE_MS: c_int = 2000;
const FATAL: [c_int; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGABRT,
];

const NONE: u8 = 0;
const SIGNAL: u8 = 1;
const EXIT: u8 = 2;
const ABORT: u8 = 3;

/// What is dying of what, and the two wake-up descriptors (-1: not armed).
static KIND: AtomicU8 = AtomicU8::new(NONE);
static CODE: AtomicI32 = AtomicI32::new(0);
static WAKE: AtomicI32 = AtomicI32::new(-1);
static TOLD: AtomicI32 = AtomicI32::new(-1);
/// The engine's own process: a forked child must not speak for it.
static PROCESS: AtomicI32 = AtomicI32::new(0);
static CONTROL_THREAD: AtomicI32 = AtomicI32::new(0);
/// The thread that speaks; others that die meanwhile wait for it.
static SPEAKER: AtomicI32 = AtomicI32::new(0);
/// The runtime itself is ending the process in good order.
static ORDERLY: AtomicBool = AtomicBool::new(false);

/// The control thread's ends of the arrangement.
pub struct LastWords {
    wake: EventFd,
    told: EventFd,
}

impl LastWords {
    /// Installs the handlers. Before CPython starts (its faulthandler then prints the Python traceback first and calls
    /// ours) and after `MPI_Init` (whose handlers ours replace).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn install() -> Result<Self, Error> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let failed = |e: nix::Error| Error::io("prepare for last words")(e.into());
        let this = Self {
            wake: event().map_err(failed)?,
            told: event().map_err(failed)?,
        };
        PROCESS.store(std::process::id() as i32, Ordering::SeqCst);
        WAKE.store(this.wake.as_raw_fd(), Ordering::SeqCst);
        TOLD.store(this.told.as_raw_fd(), Ordering::SeqCst);
        for signal in FATAL {
            install_handler(signal).map_err(Error::io("install a signal handler"))?;
        }
        // SAFETY: `on_process_exit` is a function for the life of the program and takes what on_exit gives.
        unsafe { on_exit(on_process_exit, std::ptr::null_mut()) };
        Ok(this)
    }

    /// Called by the control thread on itself: its own death must not wait for itself.
    pub fn this_is_the_control_thread() {
        CONTROL_THREAD.store(nix::unistd::gettid().as_raw(), Ordering::SeqCst);
    }

    /// The descriptor that becomes readable when the process is dying.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be duplicated.
    pub fn wake_fd(&self) -> Result<OwnedFd, Error> {
        use std::os::fd::AsFd;
        self.wake
            .as_fd()
            .try_clone_to_owned()
            .map_err(Error::io("watch for last words"))
    }

    /// Why the process is dying.
    #[must_use]
    pub fn cause(&self) -> LossKind {
        let code = CODE.load(Ordering::SeqCst);
        match KIND.load(Ordering::SeqCst) {
            SIGNAL => LossKind::Signal(code),
            ABORT => LossKind::Abort(code),
            _ => LossKind::Exit(code),
        }
    }

    /// The words are sent: the dying thread may go on.
    pub fn told(&self) {
        // Nobody waits any more if this fails; the dying thread gives up by itself.
        let _ = self.told.write(1);
    }
}

/// The process ends in good order from here on: no last words.
pub fn end_is_orderly() {
    ORDERLY.store(true, Ordering::SeqCst);
}

/// Ends the process without asking anybody and without last words.
pub fn end_now(code: i32) -> ! {
    end_is_orderly();
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { _exit(code) }
}

/// Sets the cause, wakes the control thread and waits until it has spoken. Async-signal-safe.
fn speak(kind: u8, code: c_int) {
    // SAFETY: getpid and gettid only read.
    let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
    let control = CONTROL_THREAD.load(Ordering::SeqCst);
    let armed = control != 0 && process == PROCESS.load(Ordering::SeqCst);
    if !armed || ORDERLY.load(Ordering::SeqCst) || thread == control {
        return;
    }
    if KIND
        .compare_exchange(NONE, kind, Ordering::SeqCst, Ordering::SeqCst)
        .is_err()
    {
        // MPI_Abort ends in exit: the speaker itself goes on. Another thread that dies waits until the speaker ends
        // the process: its own end would cut the words off.
        if SPEAKER.load(Ordering::SeqCst) != thread {
            // SAFETY: poll without descriptors only waits.
            unsafe { libc::poll(std::ptr::null_mut(), 0, PATIENCE_MS) };
        }
        return;
    }
    SPEAKER.store(thread, Ordering::SeqCst);
    CODE.store(code, Ordering::SeqCst);
    let one = 1u64;
    // SAFETY: the descriptors stay open for the life of the process; eight bytes are what an eventfd takes; poll gets
    // one valid entry.
    unsafe {
        libc::write(WAKE.load(Ordering::SeqCst), (&raw const one).cast(), 8);
        let mut told = libc::pollfd {
            fd: TOLD.load(Ordering::SeqCst),
            events: libc::POLLIN,
            revents: 0,
        };
        libc::poll(&mut told, 1, PATIENCE_MS);
    }
}

fn install_handler(signal: c_int) -> std::io::Result<()> {
    // SAFETY: zero bits are a valid sigaction, the handler is async-signal-safe, and SA_ONSTACK only uses an alternate
    // stack where one is set.
    let code = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fatal_signal as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_NODEFER;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    if code == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

extern "C" fn on_fatal_signal(signal: c_int) {
    speak(SIGNAL, signal);
    // Only now, so that another thread's fault meanwhile comes here, too, and not to the default action.
    // SAFETY: zero bits are the default action; sigaction and raise are async-signal-safe.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &default, std::ptr::null_mut());
        libc::raise(signal);
    }
}

unsafe extern "C" {
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

extern "C" fn on_process_exit(status: c_int, _argument: *mut c_void) {
    speak(EXIT, status);
}

/// `_exit` for this process and every library in it (`os._exit`, Fortran run-times): last words, then the system call.
///
/// # Safety
/// As POSIX `_exit`: may be called from anywhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _exit(status: c_int) -> ! {
    speak(EXIT, status);
    // SAFETY: exit_group ends the process; it has no memory effects to get wrong.
    unsafe { libc::syscall(libc::SYS_exit_group, status) };
    std::process::abort()
}

/// `MPI_Abort` for this process and every library in it: last words, then MPI's own.
///
/// # Safety
/// As MPI's `MPI_Abort`: `comm` is a valid communicator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn MPI_Abort(comm: mpi::ffi::MPI_Comm, code: c_int) -> c_int {
    speak(ABORT, code);
    // SAFETY: the caller's obligations are passed on unchanged.
    unsafe { mpi::ffi::PMPI_Abort(comm, code) }
}
