//! The `ipsteer` command.

/// Runs it; returns the exit code.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> i32 {
    drop(args.into_iter().count());
    2
}
