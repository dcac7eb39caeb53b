//! The work lane out: instructions kept until the gateway has accepted them, sent as far as credit allows.
//!
//! Filled by the threads that submit, emptied by the I/O thread, both under the session's lock.

use std::collections::VecDeque;

use ipengine_protocol::{Credit, Message};

/// Instructions not yet accepted, in the order of their counters.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// The oldest is the first; counters are consecutive.
    kept: VecDeque<Kept>,
    /// How many of `kept`, from the front, went out on the present connection.
    sent: usize,
    /// Counter of the latest instruction.
    last: u64,
    /// Bytes of all instructions so far.
    bytes: u64,
    credit: Credit,
}

#[derive(Debug)]
struct Kept {
    counter: u64,
    message: Message,
    /// Bytes of all instructions before this one.
    before: u64,
}

impl Outgoing {
    /// The counter that the next instruction will have.
    pub(crate) fn next_counter(&self) -> u64 {
        self.last + 1
    }

    /// Queues the instruction with [`Outgoing::next_counter`].
    pub(crate) fn push(&mut self, message: Message) {
        let before = self.bytes;
        self.last += 1;
        self.bytes += message.len();
        self.kept.push_back(Kept {
            counter: self.last,
            message,
            before,
        });
    }

    /// The next instruction that may go out now. `unfinished`: all that have no outcome yet, sent or not.
    pub(crate) fn take(&mut self, unfinished: usize) -> Option<Message> {
        let next = self.kept.get(self.sent)?;
        // One instruction alone may overdraw the bytes: else one larger than the credit could never go.
        let alone = unfinished <= self.kept.len() - self.sent;
        let fits = next.before + next.message.len() <= self.credit.bytes;
        if next.counter > self.credit.instructions || !(fits || alone) {
            return None;
        }
        self.sent += 1;
        Some(next.message.clone())
    }

    /// All up to `counter` are accepted and need not be kept.
    pub(crate) fn accepted(&mut self, counter: u64) {
        while self.kept.front().is_some_and(|kept| kept.counter <= counter) {
            self.kept.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// A new connection: what is not accepted goes out again.
    pub(crate) fn reopened(&mut self, accepted: u64, credit: Credit) {
        self.accepted(accepted);
        self.sent = 0;
        self.credit = credit;
    }

    /// More may be sent; totals only grow.
    pub(crate) fn grant(&mut self, credit: Credit) {
        self.credit.instructions = self.credit.instructions.max(credit.instructions);
        self.credit.bytes = self.credit.bytes.max(credit.bytes);
    }

    /// Whether nothing waits to be sent or accepted.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Message {
        Message {
            head: vec![0; length].into(),
            blobs: Vec::new(),
        }
    }

    fn filled(lengths: &[usize], credit: Credit) -> Outgoing {
        let mut outgoing = Outgoing::default();
        lengths.iter().for_each(|length| outgoing.push(message(*length)));
        outgoing.grant(credit);
        outgoing
    }

    fn take_all(outgoing: &mut Outgoing) -> usize {
        let unfinished = outgoing.kept.len();
        std::iter::from_fn(|| outgoing.take(unfinished)).count()
    }

    #[test]
    fn the_count_of_instructions_limits() {
        let mut outgoing = filled(
            &[1, 1, 1],
            Credit {
                instructions: 2,
                bytes: 100,
            },
        );
        assert_eq!(take_all(&mut outgoing), 2);
        outgoing.grant(Credit {
            instructions: 3,
            bytes: 100,
        });
        assert_eq!(take_all(&mut outgoing), 1);
    }

    #[test]
    fn bytes_limit_but_one_alone_may_overdraw() {
        let mut outgoing = filled(
            &[60, 60, 160],
            Credit {
                instructions: 10,
                bytes: 100,
            },
        );
        assert_eq!(take_all(&mut outgoing), 1);
        outgoing.grant(Credit {
            instructions: 10,
            bytes: 120,
        });
        assert_eq!(take_all(&mut outgoing), 1);
        assert!(outgoing.take(2).is_none(), "another one has not finished");
        assert!(outgoing.take(1).is_some(), "it is the only one");
    }

    #[test]
    fn what_was_not_accepted_goes_out_again_and_nothing_else() {
        let mut outgoing = filled(
            &[1, 2, 3, 4],
            Credit {
                instructions: 10,
                bytes: 100,
            },
        );
        assert_eq!(take_all(&mut outgoing), 4);
        outgoing.accepted(1);
        outgoing.reopened(
            2,
            Credit {
                instructions: 10,
                bytes: 100,
            },
        );
        let again: Vec<u64> = std::iter::from_fn(|| outgoing.take(2))
            .map(|message| message.len())
            .collect();
        assert_eq!(again, [3, 4]);
        outgoing.accepted(4);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_late_credit_never_takes_back() {
        let mut outgoing = filled(
            &[1, 1],
            Credit {
                instructions: 2,
                bytes: 100,
            },
        );
        outgoing.grant(Credit {
            instructions: 1,
            bytes: 1,
        });
        assert_eq!(take_all(&mut outgoing), 2);
    }
}
