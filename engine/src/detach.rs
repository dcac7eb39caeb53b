//! Starting a child beside MPI: a process that no launcher waits for and that is no rank.
//!
//! The child must not hold the launcher's pipes (MPICH's mpiexec hangs until the last holder ends), must not carry
//! the variables that make a process a rank, must not sit in the launcher's session (it would die of the terminal's
//! signals), and must not inherit rank 0's core binding. Everything happens by executing this program again, never by
//! forking a process that has threads.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::Error;
use crate::launcher;

/// This program, also after its file was replaced by a new build.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// What `ps` shows.
pub const NAME: &str = "ipengine-mpi";

/// The pipes to a supervisor that was started by [`spawn`].
pub struct Pipes {
    /// Its standard input: while it is open, the supervisor knows that this process lives.
    pub to: ChildStdin,
    /// Its standard output: one line of answer.
    pub from: ChildStdout,
}

/// First half, in rank 0 before `MPI_Init`: runs `internal-detach`, which starts `internal-supervise` and ends.
/// `plan` is what the supervisor reads from its standard input.
///
/// # Errors
/// [`Error::Io`] if the program cannot be executed again.
pub fn spawn(plan: &[u8], log: &Path) -> Result<Pipes, Error> {
    let log_file = open_log(log)?;
    let mut child = Command::new(THIS_PROGRAM)
        .arg0(NAME)
        .arg("internal-detach")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .map_err(Error::io("start the gateway"))?;
    let mut stdin = child.stdin.take().expect("piped above");
    stdin
        .write_all(plan)
        .and_then(|()| stdin.write_all(b"\n"))
        .map_err(Error::io("hand the plan to the gateway"))?;
    // It ends as soon as the supervisor runs: waiting leaves no zombie for the launcher to wonder about.
    child
        .wait()
        .map_err(Error::io("wait for the detaching process"))?;
    Ok(Pipes {
        to: stdin,
        from: child.stdout.take().expect("piped above"),
    })
}

/// Second half, in the intermediate process: sheds everything of the launcher and starts the supervisor.
///
/// # Errors
/// [`Error::Io`] if a step fails.
pub fn run() -> Result<(), Error> {
    close_inherited()?;
    nix::unistd::setsid().map_err(|e| Error::io("begin a session")(e.into()))?;
    use_all_cpus(Pid::from_raw(0));
    // The parent ends without waiting, so the supervisor becomes a child of init.
    scrubbed(Command::new(THIS_PROGRAM).arg0(NAME).arg("internal-supervise"))
        .spawn()
        .map_err(Error::io("start the supervisor"))?;
    Ok(())
}

/// Opens a log for appending.
///
/// # Errors
/// [`Error::Io`].
pub fn open_log(log: &Path) -> Result<File, Error> {
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(Error::io(format!("open the log {}", log.display())))
}

/// Removes the variables that make a process a rank.
pub fn scrubbed(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(launcher::marks_a_rank) {
            command.env_remove(name);
        }
    }
    command
}

/// Lets a process or thread (0: this thread) run on every CPU of its cpuset. A launcher's binding is meant for ranks.
pub fn use_all_cpus(pid: Pid) {
    let mut all = CpuSet::new();
    (0..CpuSet::count()).for_each(|cpu| all.set(cpu).expect("below count"));
    // The kernel cuts this to the cpuset; a refusal leaves the binding, which costs speed only.
    if let Err(error) = sched_setaffinity(pid, &all) {
        tracing::debug!(%error, "cannot widen the CPU affinity");
    }
}

/// Closes every descriptor from 3 on.
fn close_inherited() -> Result<(), Error> {
    let entries = std::fs::read_dir("/proc/self/fd").map_err(Error::io("list open files"))?;
    // Collected first: the listing itself holds a descriptor, which is closed by then.
    let open: Vec<RawFd> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd >= 3) {
        // Only the listing's own descriptor is already closed, and that error means nothing.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// Sets or clears close-on-exec.
///
/// # Errors
/// [`Error::Io`].
pub fn set_inheritable(fd: &impl AsRawFd, inheritable: bool) -> Result<(), Error> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    // SAFETY: the borrow of `fd` keeps the descriptor open for the duration of this call.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let flags = if inheritable {
        FdFlag::empty()
    } else {
        FdFlag::FD_CLOEXEC
    };
    fcntl(borrowed, FcntlArg::F_SETFD(flags)).map_err(|e| Error::io("mark a descriptor")(e.into()))?;
    Ok(())
}
