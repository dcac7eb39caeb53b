//! Signs of life on one connection: when to give one, when to miss the other side's. Knows no socket; the I/O thread asks it.

use std::time::Duration;

use tokio::time::Instant;

/// After so long without a word of ours we ping: the gateway gives up clients that it hears nothing of, and one that
/// receives a large result over a slow line has nothing else to say. Also after so long without a word of theirs.
const PING_AFTER: Duration = Duration::from_secs(15);

/// Silence of the other side, pings notwithstanding, after which the connection counts as broken.
const DEAD_AFTER: Duration = Duration::from_secs(40);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    /// The network is gone without a word.
    Dead,
}

/// When each side was last heard.
#[derive(Debug)]
pub(crate) struct Pulse {
    spoke: Instant,
    heard: Instant,
    /// A ping of ours went out since they were heard.
    asked: bool,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            spoke: now,
            heard: now,
            asked: false,
        }
    }

    /// Something of ours went out.
    pub(crate) fn spoke(&mut self, now: Instant) {
        self.spoke = now;
    }

    /// Something of theirs came in.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = false;
    }

    /// When [`Self::due`] is to be asked next.
    pub(crate) fn next(&self) -> Instant {
        let answer = self.heard + if self.asked { DEAD_AFTER } else { PING_AFTER };
        answer.min(self.spoke + PING_AFTER)
    }

    /// What is due now; a ping counts as sent.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if self.asked && self.heard + DEAD_AFTER <= now {
            return Due::Dead;
        }
        let wonder = !self.asked && self.heard + PING_AFTER <= now;
        if self.spoke + PING_AFTER > now && !wonder {
            return Due::Nothing;
        }
        self.spoke = now;
        self.asked = true;
        Due::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn one_who_only_listens_gives_signs_of_life() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        for second in 1..=120 {
            let now = start + seconds(second);
            pulse.heard(now);
            let due = pulse.due(now);
            assert_eq!(due == Due::Ping, second % 15 == 0, "after {second} s");
            assert_ne!(due, Due::Dead);
        }
    }

    #[test]
    fn one_who_only_speaks_misses_the_answers() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        (1..15).for_each(|second| pulse.spoke(start + seconds(second)));
        assert_eq!(pulse.next(), start + seconds(15));
        assert_eq!(pulse.due(start + seconds(15)), Due::Ping);
        (16..40).for_each(|second| pulse.spoke(start + seconds(second)));
        assert_eq!(pulse.next(), start + seconds(40));
        assert_eq!(pulse.due(start + seconds(39)), Due::Nothing);
        assert_eq!(pulse.due(start + seconds(40)), Due::Dead);
    }

    #[test]
    fn a_process_that_stood_still_asks_before_it_gives_up() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let later = start + seconds(3600);
        assert_eq!(pulse.due(later), Due::Ping);
        pulse.heard(later + seconds(1));
        assert_eq!(pulse.due(later + seconds(14)), Due::Nothing);
        assert_eq!(pulse.next(), later + seconds(15));
    }
}
