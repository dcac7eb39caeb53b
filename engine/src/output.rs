//! An engine's output: descriptors 1 and 2 go to append-only files of this rank, which the control thread tails.
//!
//! A file (and not a pipe) because writing to it never waits for a reader, because what is written is safe when the
//! process dies, and because everything lands in it alike: Python, C, Fortran, shell children. Two files, because that
//! is how the stream's name survives without markers in the text. The main thread notes how far they reach when an
//! instruction ends or displays something ([`Ends`]); the control thread reads up to there first, and so output and
//! results keep their order without anybody waiting.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use ipengine_protocol::OutputName;
use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::Errno;

use crate::error::Error;

/// Lengths of the two files, in bytes: stdout, stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends(pub [u64; 2]);

const NAMES: [OutputName; 2] = [OutputName::Stdout, OutputName::Stderr];

/// Bytes that an engine may send at once, and the rate at which this allowance grows back: a screenful a second for
/// ever, or a burst of a megabyte. More than that nobody reads live; the file has it all.
const BURST: u64 = 1 << 20;
const BYTES_PER_SECOND: f64 = 262_144.0;
/// Of what is left out, so much of the end is shown: the last lines say most.
const TAIL: u64 = 4096;
/// Largest piece of one message.
const PIECE: u64 = 256 << 10;

/// The two files, seen from both threads.
#[derive(Debug)]
pub struct OutputFiles {
    files: [File; 2],
    paths: [PathBuf; 2],
}

impl OutputFiles {
    /// Opens (and keeps what an earlier world wrote) `rank-N.out` and `rank-N.err`.
    ///
    /// # Errors
    /// Those of opening files.
    pub fn open(dir: &Path, rank: u32) -> io::Result<Self> {
        let path = |extension: &str| dir.join(format!("rank-{rank:04}.{extension}"));
        // Somebody else's link would lead our output elsewhere.
        let options = File::options()
            .create(true)
            .append(true)
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .to_owned();
        let open = |path: &PathBuf| options.open(path);
        let paths = [path("out"), path("err")];
        Ok(Self {
            files: [open(&paths[0])?, open(&paths[1])?],
            paths,
        })
    }

    /// Points descriptors 1 and 2 at the files and 0 at nothing; returns the launcher's own stdout and stderr.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn redirect(&self) -> Result<(File, File), Error> {
        let failed = |e: nix::Error| Error::io("redirect the output")(e.into());
        let own = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned()
                .map(File::from)
                .map_err(Error::io("keep the launcher's output"))
        };
        // Duplicates close on exec, so no child of the user holds the launcher's pipes.
        let launcher = (own(io::stdout().as_fd())?, own(io::stderr().as_fd())?);
        let null = File::open("/dev/null").map_err(Error::io("open /dev/null"))?;
        nix::unistd::dup2_stdin(&null).map_err(failed)?;
        nix::unistd::dup2_stdout(&self.files[0]).map_err(failed)?;
        nix::unistd::dup2_stderr(&self.files[1]).map_err(failed)?;
        Ok(launcher)
    }

    /// How far the files reach now.
    #[must_use]
    pub fn ends(&self) -> Ends {
        // A file that cannot be asked (its file system went away) counts as empty: results must not wait for it.
        Ends([0, 1].map(|i| length(&self.files[i]).unwrap_or(0)))
    }

    /// The files' paths: stdout, stderr.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf; 2] {
        &self.paths
    }

    /// The last `length` bytes of each.
    #[must_use]
    pub fn last(&self, length: u64) -> [Bytes; 2] {
        let Ends(ends) = self.ends();
        [0, 1].map(|i| self.read(i, ends[i].saturating_sub(length), ends[i]).into())
    }

    fn read(&self, stream: usize, from: u64, to: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or_default()];
        match self.files[stream].read_exact_at(&mut bytes, from) {
            Ok(()) => bytes,
            Err(error) => format!("[output cannot be read: {error}]\n").into_bytes(),
        }
    }
}

/// Length of a file that only this host writes to, as this host knows it: a file server that is slow or gone would hold
/// up each instruction, and with it both threads.
fn length(file: &File) -> io::Result<u64> {
    let known_here = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    match statx(file, c"", known_here, StatxFlags::SIZE) {
        Ok(about) => Ok(about.stx_size),
        // Kernels before 4.11 lack it, and some containers forbid what they do not know.
        Err(Errno::NOSYS | Errno::PERM) => Ok(file.metadata()?.len()),
        Err(error) => Err(error.into()),
    }
}

/// A piece of output to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which stream.
    pub name: OutputName,
    /// Bytes left out before it.
    pub omitted: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// The control thread's place in the files, and what it may still send.
#[derive(Debug)]
pub struct Tail {
    position: [u64; 2],
    allowance: u64,
    refilled: Instant,
}

impl Tail {
    /// Begins at the files' present ends.
    #[must_use]
    pub fn new(ends: Ends, now: Instant) -> Self {
        Self {
            position: ends.0,
            allowance: BURST,
            refilled: now,
        }
    }

    /// Whether everything below `floor` has been read.
    #[must_use]
    pub fn is_past(&self, floor: Ends) -> bool {
        self.position[0] >= floor.0[0] && self.position[1] >= floor.0[1]
    }

    /// Reads up to `ends`; what exceeds the allowance is left out but for its end, and counted.
    pub fn read_to(&mut self, files: &OutputFiles, ends: Ends, now: Instant) -> Vec<Piece> {
        self.refill(now);
        let mut pieces = Vec::new();
        for stream in [0, 1] {
            let (from, to) = (self.position[stream], ends.0[stream].max(self.position[stream]));
            self.position[stream] = to;
            self.cut(files, stream, from, to, &mut pieces);
        }
        pieces
    }

    fn refill(&mut self, now: Instant) {
        let earned = (now.saturating_duration_since(self.refilled).as_secs_f64() * BYTES_PER_SECOND) as u64;
        if earned > 0 {
            self.allowance = BURST.min(self.allowance + earned);
            self.refilled = now;
        }
    }

    fn cut(&mut self, files: &OutputFiles, stream: usize, from: u64, to: u64, pieces: &mut Vec<Piece>) {
        let whole = to - from;
        if whole == 0 {
            return;
        }
        let shown = whole.min(self.allowance);
        let tail = (whole - shown).min(TAIL);
        let omitted = whole - shown - tail;
        self.allowance -= shown;
        let mut at = from;
        while at < from + shown {
            let next = (at + PIECE).min(from + shown);
            pieces.push(Piece {
                name: NAMES[stream],
                omitted: 0,
                bytes: files.read(stream, at, next).into(),
            });
            at = next;
        }
        if tail > 0 {
            let bytes = files.read(stream, to - tail, to).into();
            pieces.push(Piece {
                name: NAMES[stream],
                omitted,
                bytes,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn total(pieces: &[Piece]) -> (u64, u64) {
        (
            pieces.iter().map(|p| p.bytes.len() as u64).sum(),
            pieces.iter().map(|p| p.omitted).sum(),
        )
    }

    #[test]
    fn what_is_over_the_bound_is_counted_and_the_end_is_kept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let files = OutputFiles::open(dir.path(), 3).expect("open");
        let now = Instant::now();
        let mut tail = Tail::new(files.ends(), now);
        let mut out = &files.files[0];
        out.write_all(&vec![b'x'; 3 << 20])
            .and_then(|()| out.write_all(b"the end\n"))
            .expect("write");
        let pieces = tail.read_to(&files, files.ends(), now);
        let (sent, omitted) = total(&pieces);
        assert_eq!(sent + omitted, (3 << 20) + 8);
        assert!(omitted > 0 && sent == BURST + TAIL);
        assert!(
            pieces
                .last()
                .is_some_and(|p| p.omitted == omitted && p.bytes.ends_with(b"the end\n"))
        );
    }

    #[test]
    fn the_allowance_grows_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let files = OutputFiles::open(dir.path(), 0).expect("open");
        let now = Instant::now();
        let mut tail = Tail::new(files.ends(), now);
        let mut err = &files.files[1];
        err.write_all(&vec![b'x'; BURST as usize]).expect("write");
        assert_eq!(total(&tail.read_to(&files, files.ends(), now)), (BURST, 0));
        err.write_all(&vec![b'y'; 1 << 17]).expect("write");
        assert_eq!(
            total(&tail.read_to(&files, files.ends(), now + Duration::from_secs(1))),
            (1 << 17, 0)
        );
    }
}
