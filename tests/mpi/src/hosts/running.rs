//! A program that runs on a virtual host: its output in files, its end awaited within limits.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::waiting::{LIMIT, until, until_within};

/// Number of the next program, for the names of its files.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A program. Dropping it kills it if it still runs; what it has started elsewhere is for the test to end.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
    outputs: [PathBuf; 2],
}

impl Running {
    pub(super) fn start(mut command: Command, what: &str, logs: &Path) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let outputs = ["out", "err"].map(|kind| logs.join(format!("command-{number}.{kind}")));
        let open = |path: &PathBuf| File::create(path).expect("a file for its output");
        command.stdout(open(&outputs[0])).stderr(open(&outputs[1]));
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{what} cannot be run: {error}"));
        Self {
            child,
            what: what.to_owned(),
            outputs,
        }
    }

    /// What it has printed on standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.outputs[0]).unwrap_or_default()
    }

    /// What it has printed on standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.outputs[1]).unwrap_or_default()
    }

    /// Its exit status, if it has ended.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.what);
        until(&what, || self.poll())
    }

    /// Waits until it has printed `text`, on either stream.
    ///
    /// # Panics
    /// When it ends before.
    pub fn wait_output(&mut self, text: &str) {
        let found = until_within(LIMIT, || {
            let ended = self.poll();
            let shown = self.stdout() + &self.stderr();
            (shown.contains(text) || ended.is_some()).then(|| shown.contains(text))
        });
        assert_eq!(
            found,
            Some(true),
            "{} does not print {text:?}: {}",
            self.what,
            self.all()
        );
    }

    /// Waits for its end, which must be a success; what it printed on standard output.
    ///
    /// # Panics
    /// When it fails or does not end.
    #[must_use]
    pub fn must(mut self) -> String {
        let status = self.wait();
        assert!(status.success(), "{}: {status}\n{}", self.what, self.all());
        self.stdout()
    }

    fn all(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", self.stdout(), self.stderr())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its parent-death signal takes the program on the host along.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
