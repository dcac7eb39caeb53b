//! The MPI world: initialisation, the greeting of the ranks, communicators for instructions, the end.
//!
//! The runtime's own MPI calls are all here and all made on the main thread. They use the C interface, because rsmpi
//! drops return codes and has no group-collective creation.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::os::unix::fs::FileTypeExt;
use std::ptr;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::environment::Universe;
use mpi::ffi;

use crate::cli::ThreadLevel;
use crate::error::Error;
use crate::{fatal_errors, last_words};

/// Tag of the greeting on `MPI_COMM_WORLD`, before the private communicator exists. MPI guarantees tags to 32767.
const GREETING_TAG: c_int = 0x1be7;
/// Communicators for instructions that one process creates at most: MPICH runs out of context ids at about 2 000.
const MAX_COMMUNICATORS: usize = 1000;
/// For a launcher to read what was written to it.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// The initialised world.
pub struct World {
    rank: u32,
    size: u32,
    thread_level: ThreadLevel,
    library: String,
    /// Only for the runtime; created once every rank is known to be an engine.
    private: Option<ffi::MPI_Comm>,
    created: usize,
    /// Would finalise MPI when dropped: only [`Self::finalize`] does that.
    universe: ManuallyDrop<Universe>,
}

impl World {
    /// Calls `MPI_Init_thread`. Collective over the job.
    ///
    /// # Errors
    /// [`Error::MpiInit`] if MPI is initialised already.
    pub fn init(level: ThreadLevel) -> Result<Self, Error> {
        let (universe, provided) = mpi::initialize_with_threading(threading(level)).ok_or(Error::MpiInit)?;
        fatal_errors::install()?;
        // SAFETY: MPI is initialised and RSMPI_COMM_WORLD is a constant of the linked MPI.
        let world = unsafe { ffi::RSMPI_COMM_WORLD };
        let (mut rank, mut size) = (0, 0);
        // SAFETY: the communicator is valid and the out-parameters live over the calls.
        unsafe {
            check("MPI_Comm_rank", ffi::MPI_Comm_rank(world, &mut rank))?;
            check("MPI_Comm_size", ffi::MPI_Comm_size(world, &mut size))?;
        }
        Ok(Self {
            rank: u32::try_from(rank).unwrap_or_default(),
            size: u32::try_from(size).unwrap_or_default(),
            thread_level: level_of(provided),
            library: library_version(),
            private: None,
            created: 0,
            universe: ManuallyDrop::new(universe),
        })
    }

    /// This process's rank in `MPI_COMM_WORLD`.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Number of ranks.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// What MPI granted.
    #[must_use]
    pub fn thread_level(&self) -> ThreadLevel {
        self.thread_level
    }

    /// First line of the MPI library's version.
    #[must_use]
    pub fn library(&self) -> &str {
        &self.library
    }

    /// Duplicates `MPI_COMM_WORLD` for the runtime. Collective over the world: every rank must be an engine.
    ///
    /// # Errors
    /// [`Error::Mpi`].
    pub fn make_private(&mut self) -> Result<(), Error> {
        // SAFETY: `MPI_Comm` is a plain handle (pointer or integer) for which zero bits are a value that is overwritten.
        let mut private: ffi::MPI_Comm = unsafe { std::mem::zeroed() };
        // SAFETY: MPI_COMM_WORLD is valid; the out-parameter lives over the call; all ranks make this call here.
        let code = unsafe { ffi::MPI_Comm_dup(ffi::RSMPI_COMM_WORLD, &mut private) };
        check("MPI_Comm_dup", code)?;
        self.private = Some(private);
        Ok(())
    }

    /// Sends a greeting to a rank; returns once the buffer is free again.
    ///
    /// # Errors
    /// [`Error::Mpi`].
    pub fn greet(&self, rank: u32, text: &[u8]) -> Result<(), Error> {
        let length = c_int::try_from(text.len()).expect("greetings are short");
        let dest = rank as c_int;
        // SAFETY: the buffer is valid for `length` bytes over this blocking call; world and datatype are constants.
        let code = unsafe {
            ffi::MPI_Send(
                text.as_ptr().cast(),
                length,
                ffi::RSMPI_UINT8_T,
                dest,
                GREETING_TAG,
                ffi::RSMPI_COMM_WORLD,
            )
        };
        check("MPI_Send", code)
    }

    /// Waits for greetings from `ranks`; entry i is `None` if rank i of them did not send one until `deadline`.
    ///
    /// # Errors
    /// [`Error::Mpi`].
    pub fn hear(&self, ranks: &[u32], deadline: Instant) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut heard = vec![None; ranks.len()];
        let mut missing = ranks.len();
        let begun = Instant::now();
        while missing > 0 && Instant::now() < deadline {
            for (slot, rank) in heard.iter_mut().zip(ranks) {
                if slot.is_none()
                    && let Some(text) = self.try_hear(*rank)?
                {
                    *slot = Some(text);
                    missing -= 1;
                }
            }
            back_off(begun.elapsed());
        }
        Ok(heard)
    }

    fn try_hear(&self, rank: u32) -> Result<Option<Vec<u8>>, Error> {
        let source = rank as c_int;
        let (mut flag, mut count) = (0, 0);
        // SAFETY: `MPI_Status` is plain data that MPI_Iprobe fills before it is read.
        let mut status: ffi::MPI_Status = unsafe { std::mem::zeroed() };
        // SAFETY: the world is valid and the out-parameters live over the calls.
        unsafe {
            let code = ffi::MPI_Iprobe(
                source,
                GREETING_TAG,
                ffi::RSMPI_COMM_WORLD,
                &mut flag,
                &mut status,
            );
            check("MPI_Iprobe", code)?;
            if flag == 0 {
                return Ok(None);
            }
            check(
                "MPI_Get_count",
                ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut count),
            )?;
        }
        let mut text = vec![0u8; usize::try_from(count).unwrap_or_default()];
        // SAFETY: the message was probed just now by the only thread that receives on this tag, and the buffer has its
        // length; status is ignored.
        let code = unsafe {
            ffi::MPI_Recv(
                text.as_mut_ptr().cast(),
                count,
                ffi::RSMPI_UINT8_T,
                source,
                GREETING_TAG,
                ffi::RSMPI_COMM_WORLD,
                ffi::RSMPI_STATUS_IGNORE,
            )
        };
        check("MPI_Recv", code)?;
        Ok(Some(text))
    }

    /// Whether this process may create another communicator; asked before the other targets are sent in.
    ///
    /// # Errors
    /// [`Error::TooManyCommunicators`].
    pub fn may_create_communicator(&self) -> Result<(), Error> {
        if self.created < MAX_COMMUNICATORS {
            Ok(())
        } else {
            Err(Error::TooManyCommunicators {
                limit: MAX_COMMUNICATORS,
            })
        }
    }

    /// Creates the communicator whose rank i is the i-th of `ranks`. Collective over `ranks`: the caller has heard from
    /// the gateway that all of them are here.
    ///
    /// # Errors
    /// [`Error::Mpi`].
    pub fn create_communicator(&mut self, ranks: &[u32], order: u64) -> Result<ffi::MPI_Comm, Error> {
        let private = self.private.ok_or(Error::Mpi {
            call: "MPI_Comm_create_group before the greeting",
            class: 0,
        })?;
        let ranks: Vec<c_int> = ranks.iter().map(|rank| *rank as c_int).collect();
        // The tag keeps creations by different instructions apart.
        let tag = (order % 32000) as c_int;
        // SAFETY: handles are plain values that the calls fill before they are read.
        let (mut all, mut group): (ffi::MPI_Group, ffi::MPI_Group) = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut made: ffi::MPI_Comm = unsafe { std::mem::zeroed() };
        // SAFETY: `private` is valid, `ranks` holds valid and distinct ranks (the gateway checked them), all
        // out-parameters live over the calls, and the groups are freed once.
        unsafe {
            check("MPI_Comm_group", ffi::MPI_Comm_group(private, &mut all))?;
            let count = ranks.len() as c_int;
            check(
                "MPI_Group_incl",
                ffi::MPI_Group_incl(all, count, ranks.as_ptr(), &mut group),
            )?;
            let created = check(
                "MPI_Comm_create_group",
                ffi::MPI_Comm_create_group(private, group, tag, &mut made),
            );
            check("MPI_Group_free", ffi::MPI_Group_free(&mut group))?;
            check("MPI_Group_free", ffi::MPI_Group_free(&mut all))?;
            created?;
        }
        self.created += 1;
        Ok(made)
    }

    /// Lets MPI work on unfinished nonblocking operations of the user. Local.
    ///
    /// # Errors
    /// [`Error::Mpi`].
    pub fn progress(&self) -> Result<(), Error> {
        let Some(private) = self.private else {
            return Ok(());
        };
        let mut flag = 0;
        // SAFETY: `private` is valid and no message is ever sent with this tag; the flag lives over the call.
        let code = unsafe {
            let any = ffi::RSMPI_ANY_SOURCE;
            ffi::MPI_Iprobe(any, GREETING_TAG, private, &mut flag, ffi::RSMPI_STATUS_IGNORE)
        };
        check("MPI_Iprobe", code)
    }

    /// `MPI_Finalize`. Collective over the world, and so not what a drop does: a rank that fails alone would wait in it
    /// for all others.
    pub fn finalize(self) {
        drop(ManuallyDrop::into_inner(self.universe));
    }
}

/// Ends the job at once, after last words. For a rank that cannot go on and must not leave the others waiting.
pub fn abort_job(code: i32) -> ! {
    await_reader_of_stderr();
    // SAFETY: MPI is initialised and not finalised where this is called, so MPI_COMM_WORLD is valid.
    unsafe { last_words::MPI_Abort(ffi::RSMPI_COMM_WORLD, code) };
    last_words::end_now(code)
}

/// Why it aborts is in the launcher's pipe, and MPICH's launcher reads no more once it has heard of the abort.
fn await_reader_of_stderr() {
    let is_pipe = std::fs::metadata("/proc/self/fd/2").is_ok_and(|file| file.file_type().is_fifo());
    let end = Instant::now() + READER_PATIENCE;
    let mut unread: c_int = 1;
    while is_pipe && unread > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
        // SAFETY: FIONREAD writes one integer, which lives over the call.
        if unsafe { libc::ioctl(libc::STDERR_FILENO, libc::FIONREAD, &raw mut unread) } != 0 {
            return;
        }
    }
}

/// A handle's bits, as mpi4py takes them: a pointer in Open MPI, an integer in MPICH.
#[must_use]
pub fn handle_bits(comm: ffi::MPI_Comm) -> u64 {
    const { assert!(size_of::<ffi::MPI_Comm>() <= size_of::<u64>()) };
    let mut bits = 0u64;
    // SAFETY: both are plain memory and the source is not longer than the destination.
    unsafe {
        ptr::copy_nonoverlapping(
            (&raw const comm).cast::<u8>(),
            (&raw mut bits).cast(),
            size_of_val(&comm),
        )
    };
    bits
}

/// First line of the MPI library's own version text. May be called before initialisation.
#[must_use]
pub fn library_version() -> String {
    let text = mpi::environment::library_version().unwrap_or_default();
    let line = text.lines().next().unwrap_or("").trim_end_matches('\0');
    // Open MPI: "Open MPI v4.1.4, package: Debian OpenMPI, ident: …"; MPICH: "MPICH Version:\t4.0.2".
    let line = line
        .split(", package")
        .next()
        .unwrap_or(line)
        .replace("Version:", "")
        .replace('\t', " ");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Start-up answers within milliseconds or not at all: spin briefly, then sleep.
fn back_off(waited: Duration) {
    if waited < Duration::from_millis(2) {
        std::thread::yield_now();
    } else {
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn threading(level: ThreadLevel) -> Threading {
    match level {
        ThreadLevel::Single => Threading::Single,
        ThreadLevel::Funneled => Threading::Funneled,
        ThreadLevel::Serialized => Threading::Serialized,
        ThreadLevel::Multiple => Threading::Multiple,
    }
}

fn level_of(provided: Threading) -> ThreadLevel {
    match provided {
        Threading::Single => ThreadLevel::Single,
        Threading::Funneled => ThreadLevel::Funneled,
        Threading::Serialized => ThreadLevel::Serialized,
        Threading::Multiple => ThreadLevel::Multiple,
    }
}

/// The error of an MPI call that returned one.
///
/// # Errors
/// [`Error::Mpi`].
pub fn check(call: &'static str, code: c_int) -> Result<(), Error> {
    if code == 0 {
        return Ok(());
    }
    let mut class = 0;
    // SAFETY: the out-parameter lives over the call; the code comes from MPI.
    unsafe { ffi::MPI_Error_class(code, &mut class) };
    Err(Error::Mpi { call, class })
}
