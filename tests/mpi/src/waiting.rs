//! The one way to wait for what sends no event: a file that appears, a process that ends.

use std::thread;
use std::time::{Duration, Instant};

/// Nothing that a test waits for takes so long on a machine that works. A limit, never a measure.
pub const LIMIT: Duration = Duration::from_secs(40);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `look` finds something.
///
/// # Panics
/// When nothing is found within [`LIMIT`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, look).unwrap_or_else(|| panic!("waited {LIMIT:?} in vain for {what}"))
}

/// The same with another limit; `None` when it is over.
pub fn until_within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(PAUSE);
    }
}
