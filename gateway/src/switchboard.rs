//! How connection tasks reach the router: synchronously, one call at a time, on the one thread.

use std::cell::RefCell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::hub::Hub;
use crate::router::{Now, Router};

/// The router and the bell of the task that looks after its timers and its end.
pub(crate) struct Switchboard {
    router: RefCell<Router<Hub>>,
    attention: Notify,
}

impl Switchboard {
    pub(crate) fn new(router: Router<Hub>) -> Self {
        Self {
            router: RefCell::new(router),
            attention: Notify::new(),
        }
    }

    /// Calls the router. Never across an `await`: `call` is not async and lends nothing out.
    pub(crate) fn call<T>(&self, call: impl FnOnce(&mut Router<Hub>, Now) -> T) -> T {
        let mut router = self.router.borrow_mut();
        let answer = call(&mut router, now());
        if router.take_attention() {
            self.attention.notify_one();
        }
        answer
    }

    /// Waits until the router has a new deadline or a new phase.
    pub(crate) async fn attention(&self) {
        self.attention.notified().await;
    }
}

/// Both clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        at: Instant::now(),
        unix: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
    }
}
