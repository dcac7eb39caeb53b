//! Deadlines. A timer that is out of date when it fires finds nothing to do; none is ever taken back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use ipengine_protocol::{ClientId, EngineId};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Send acks that waited for company.
    Flush,
    /// Every engine must have connected.
    Start,
    /// An interrupt is answered with what is known.
    Interrupt(u64),
    /// A status or log request is answered with what is known.
    Question(u64),
    /// An engine has not come back.
    Silent(EngineId),
    /// The cause of a death is decided with what is known.
    Settle,
    /// Engines that outlive a death are stopped.
    Survivors,
    /// Engines that were asked to stop have not.
    Stop,
    /// A client that left may be forgotten.
    Forget(ClientId),
    /// The gateway may leave.
    Linger,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
}

impl Timers {
    /// Returns whether this one is now the next.
    pub(super) fn set(&mut self, at: Instant, timer: Timer) -> bool {
        self.heap.push(Reverse((at, timer)));
        self.next() == Some(at)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}
