//! Tests that this machine cannot run say so where it is seen: a runner hides what passing tests print.
//!
//! `scripts/test` names a file in `IPENGINE_TEST_SKIPS` and prints it at its end.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::thread;

/// Says that the calling test is skipped, and why: on standard error, and in the file of `IPENGINE_TEST_SKIPS`.
///
/// # Panics
/// When the file cannot be written.
pub fn skipped(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    if let Some(file) = env::var_os("IPENGINE_TEST_SKIPS") {
        append(Path::new(&file), &test(), reason);
    }
}

/// The calling test. A test that is alone runs on the main thread, which has no test's name.
fn test() -> String {
    let thread = || thread::current().name().map(str::to_owned);
    env::var("NEXTEST_TEST_NAME")
        .ok()
        .or_else(thread)
        .unwrap_or_default()
}

/// One line, in one call: runners append side by side.
fn append(file: &Path, test: &str, reason: &str) {
    let words: Vec<&str> = reason.split_whitespace().collect();
    let line = format!("{}\t{test}\n", words.join(" "));
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .expect("the file of IPENGINE_TEST_SKIPS can be opened");
    file.write_all(line.as_bytes()).expect("it can be written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_skip_is_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("skips");
        append(&file, "one", "no such\n  thing");
        append(&file, "two", "no such thing");
        let text = std::fs::read_to_string(file).expect("a file");
        assert_eq!(text, "no such thing\tone\nno such thing\ttwo\n");
    }
}
