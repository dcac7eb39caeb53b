//! One row per engine: is it there, what has it, what has it done.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ipengine_protocol::{EngineFacts, EngineId, InstructionId, LossCause, Order};

use super::Now;
use crate::Limits;

/// Weight of the newest task in an engine's mean task duration.
const NEWEST: f64 = 0.25;

#[derive(Clone, Debug)]
pub(super) enum Life {
    /// It has not connected yet.
    Awaited,
    /// It is or was connected and nothing speaks for its death.
    Alive,
    /// It will never run anything again.
    Gone(LossCause),
}

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) id: EngineId,
    pub(super) facts: Option<EngineFacts>,
    pub(super) life: Life,
    pub(super) linked: bool,
    /// When its link closed, while it is waited for.
    pub(super) missing_since: Option<Instant>,
    /// It has said something that carries a number.
    pub(super) heard: bool,
    /// Envelope number of the last message taken over, and how far the engine was told so.
    pub(super) received: u64,
    pub(super) acked: u64,
    /// How far the engine was told that instructions are stable.
    pub(super) stable: Order,
    /// Accepted and not sent; some may have been removed since.
    pub(super) queue: VecDeque<Order>,
    /// Those in `queue` that have not been removed.
    pub(super) queued: usize,
    /// Sent and not finished here.
    pub(super) in_flight: usize,
    /// Sent, and perhaps not finished on all targets.
    pub(super) held: VecDeque<Order>,
    pub(super) running: Option<Order>,
    /// What ran last: output between instructions is ascribed to it.
    pub(super) last_run: Option<(Order, InstructionId)>,
    pub(super) completed: u64,
    /// Unix time at which its state (idle, busy, lost) began.
    pub(super) since: u64,
    /// Mean duration of pool tasks, in nanoseconds.
    pace: Option<f64>,
}

impl Engine {
    pub(super) fn new(id: EngineId, now: Now) -> Self {
        Self {
            id,
            facts: None,
            life: Life::Awaited,
            linked: false,
            missing_since: None,
            heard: false,
            received: 0,
            acked: 0,
            stable: Order(0),
            queue: VecDeque::new(),
            queued: 0,
            in_flight: 0,
            held: VecDeque::new(),
            running: None,
            last_run: None,
            completed: 0,
            since: now.unix,
            pace: None,
        }
    }

    pub(super) fn host(&self) -> &str {
        self.facts.as_ref().map_or("", |facts| &facts.host)
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.life, Life::Gone(_))
    }

    pub(super) fn unfinished(&self) -> usize {
        self.queued + self.in_flight
    }

    pub(super) fn learn_pace(&mut self, duration: u64) {
        let duration = duration as f64;
        self.pace = Some(
            self.pace
                .map_or(duration, |mean| mean + NEWEST * (duration - mean)),
        );
    }

    /// How many unfinished instructions it may have before it gets no further pool task: as many as run within
    /// `pool_ahead`, so that tiny tasks pipeline and long ones are never prefetched behind a busy engine.
    pub(super) fn pool_window(&self, limits: &Limits) -> usize {
        let ahead = duration_ns(limits.pool_ahead);
        self.pace
            .map_or(1, |mean| (ahead / mean.max(1.0)) as usize)
            .clamp(1, limits.pool_window)
    }

    pub(super) fn has_pool_room(&self, limits: &Limits) -> bool {
        // An engine says that it runs something only when that takes long: nothing small may wait behind it.
        let window = if self.running.is_some() {
            1
        } else {
            self.pool_window(limits)
        };
        matches!(self.life, Life::Alive) && self.linked && self.unfinished() < window
    }
}

fn duration_ns(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
