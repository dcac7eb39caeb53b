//! The events of one client: numbered when they leave, kept until acked, sent again after a reconnection.
//!
//! Not yet sent events wait without a number, so that output that piles up can be merged and, beyond a bound, left
//! out and counted. Everything else is kept whatever happens.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use ipengine_protocol::{EngineId, Event, EventEnvelope, InstructionId, Message, OutputName};

use crate::Fault;

/// Waiting pieces of output are merged up to this size: fewer messages, and still no long copy.
const MERGED: usize = 64 << 10;

type StreamKey = (Option<InstructionId>, EngineId, OutputName);

#[derive(Debug, Default)]
pub(super) struct EventLog {
    /// Number of the last event sent.
    last: u64,
    sent: VecDeque<Sent>,
    sent_bytes: u64,
    waiting: VecDeque<Waiting>,
    waiting_stream_bytes: u64,
    omitted: HashMap<StreamKey, u64>,
}

#[derive(Debug)]
struct Sent {
    number: u64,
    message: Message,
    precious: bool,
}

#[derive(Debug)]
struct Waiting {
    event: Event,
    blobs: Vec<Bytes>,
}

impl EventLog {
    /// Takes an event; returns it as a message if it may leave at once.
    pub(super) fn record(
        &mut self,
        event: Event,
        blobs: Vec<Bytes>,
        window: u64,
        stream_bound: u64,
    ) -> Option<Message> {
        if self.waiting.is_empty() && self.has_room(window) {
            return Some(self.send(Waiting { event, blobs }));
        }
        self.wait(event, blobs, stream_bound);
        None
    }

    /// The next waiting event, if the window has room for it.
    pub(super) fn release(&mut self, window: u64) -> Option<Message> {
        if !self.has_room(window) {
            return None;
        }
        let waiting = self.waiting.pop_front()?;
        if let Event::Stream { .. } = waiting.event {
            self.waiting_stream_bytes -= waiting.blobs.iter().map(|blob| blob.len() as u64).sum::<u64>();
        }
        Some(self.send(waiting))
    }

    /// Forgets what the client has taken over.
    pub(super) fn ack(&mut self, seen: u64) -> Result<(), Fault> {
        if seen > self.last {
            return Err(Fault::SeenUnsent {
                seen,
                sent: self.last,
            });
        }
        while self.sent.front().is_some_and(|sent| sent.number <= seen) {
            self.sent_bytes -= self.sent.pop_front().map_or(0, |sent| sent.message.len());
        }
        Ok(())
    }

    /// Number of the last event sent.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// What was sent and not acked, oldest first.
    pub(super) fn unacked(&self) -> impl Iterator<Item = &Message> {
        self.sent.iter().map(|sent| &sent.message)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.waiting.is_empty()
    }

    /// Whether something is kept that nobody could know without it: an outcome, a refusal, a display.
    pub(super) fn holds_precious(&self) -> bool {
        self.sent.iter().any(|sent| sent.precious)
            || self.waiting.iter().any(|waiting| precious(&waiting.event))
    }

    fn has_room(&self, window: u64) -> bool {
        self.sent_bytes < window
    }

    fn send(&mut self, waiting: Waiting) -> Message {
        self.last += 1;
        let precious = precious(&waiting.event);
        let message = Message::new(
            &EventEnvelope {
                number: self.last,
                event: waiting.event,
            },
            waiting.blobs,
        );
        self.sent_bytes += message.len();
        self.sent.push_back(Sent {
            number: self.last,
            message: message.clone(),
            precious,
        });
        message
    }

    fn wait(&mut self, event: Event, blobs: Vec<Bytes>, stream_bound: u64) {
        match event {
            Event::Stream {
                id,
                engine,
                name,
                omitted,
            } => {
                self.wait_stream((id, engine, name), omitted, blobs, stream_bound);
            }
            Event::Finished { counter, engine, .. } => {
                self.tell_omitted(counter, engine);
                self.waiting.push_back(Waiting { event, blobs });
            }
            _ => self.waiting.push_back(Waiting { event, blobs }),
        }
    }

    fn wait_stream(&mut self, key: StreamKey, omitted: u64, blobs: Vec<Bytes>, bound: u64) {
        let length: u64 = blobs.iter().map(|blob| blob.len() as u64).sum();
        if self.waiting_stream_bytes + length > bound {
            *self.omitted.entry(key).or_default() += omitted + length;
            return;
        }
        self.waiting_stream_bytes += length;
        let omitted = omitted + self.omitted.remove(&key).unwrap_or(0);
        if omitted == 0 && self.merge(key, &blobs) {
            return;
        }
        let (id, engine, name) = key;
        self.waiting.push_back(Waiting {
            event: Event::Stream {
                id,
                engine,
                name,
                omitted,
            },
            blobs,
        });
    }

    fn merge(&mut self, key: StreamKey, blobs: &[Bytes]) -> bool {
        let Some(Waiting {
            event: Event::Stream { id, engine, name, .. },
            blobs: before,
        }) = self.waiting.back_mut()
        else {
            return false;
        };
        let length = before.iter().chain(blobs).map(Bytes::len).sum::<usize>();
        if (*id, *engine, *name) != key || length > MERGED {
            return false;
        }
        let mut merged = match before.pop().map(Bytes::try_into_mut) {
            Some(Ok(own)) => own,
            Some(Err(shared)) => BytesMut::from(&shared[..]),
            None => BytesMut::new(),
        };
        blobs.iter().for_each(|blob| merged.extend_from_slice(blob));
        before.push(merged.freeze());
        true
    }

    /// Output that was left out is told before the outcome, also when no more output came.
    fn tell_omitted(&mut self, counter: u64, engine: EngineId) {
        if self.omitted.is_empty() {
            return;
        }
        let due: Vec<StreamKey> = self
            .omitted
            .keys()
            .filter(|(id, from, _)| *from == engine && id.is_some_and(|id| id.counter == counter))
            .copied()
            .collect();
        for key in due {
            let omitted = self.omitted.remove(&key).unwrap_or(0);
            let (id, engine, name) = key;
            let event = Event::Stream {
                id,
                engine,
                name,
                omitted,
            };
            self.waiting.push_back(Waiting {
                event,
                blobs: vec![Bytes::new()],
            });
        }
    }
}

fn precious(event: &Event) -> bool {
    matches!(
        event,
        Event::Finished { .. } | Event::Rejected { .. } | Event::Display { .. }
    )
}

#[cfg(test)]
mod tests {
    use ipengine_protocol::{ClientId, Outcome, Timing, ValueHead};

    use super::*;

    fn stream(text: &str, omitted: u64) -> (Event, Vec<Bytes>) {
        let id = Some(InstructionId {
            client: ClientId([1; 16]),
            counter: 1,
        });
        let event = Event::Stream {
            id,
            engine: EngineId(0),
            name: OutputName::Stdout,
            omitted,
        };
        (event, vec![Bytes::copy_from_slice(text.as_bytes())])
    }

    fn finished() -> Event {
        let outcome = Outcome::Done(ValueHead::null());
        Event::Finished {
            counter: 1,
            engine: EngineId(0),
            outcome,
            timing: Timing::default(),
        }
    }

    fn drain(log: &mut EventLog) -> Vec<(u64, Event, Vec<Bytes>)> {
        std::iter::from_fn(|| log.release(u64::MAX))
            .map(|message| {
                let envelope: EventEnvelope = message.decode().unwrap();
                (envelope.number, envelope.event, message.blobs)
            })
            .collect()
    }

    #[test]
    fn output_that_waits_is_merged() {
        let mut log = EventLog::default();
        for text in ["ab", "cd", "ef"] {
            let (event, blobs) = stream(text, 0);
            assert!(log.record(event, blobs, 0, 100).is_none());
        }
        let released = drain(&mut log);
        assert_eq!(released.len(), 1);
        assert_eq!(released[0].2, [Bytes::from_static(b"abcdef")]);
    }

    #[test]
    fn output_over_the_bound_is_counted_before_the_outcome() {
        let mut log = EventLog::default();
        for text in ["12345678", "over", "over"] {
            let (event, blobs) = stream(text, 0);
            log.record(event, blobs, 0, 10);
        }
        log.record(finished(), vec![], 0, 10);
        let released = drain(&mut log);
        assert_eq!(
            released.iter().map(|(number, ..)| *number).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert!(matches!(released[1].1, Event::Stream { omitted: 8, .. }));
        assert!(matches!(released[2].1, Event::Finished { .. }));
    }

    #[test]
    fn the_next_piece_says_what_was_left_out() {
        let mut log = EventLog::default();
        let record = |log: &mut EventLog, text: &str| {
            let (event, blobs) = stream(text, 0);
            log.record(event, blobs, 0, 10);
        };
        record(&mut log, "12345678");
        record(&mut log, "over");
        assert_eq!(drain(&mut log).len(), 1);
        record(&mut log, "next");
        assert!(matches!(drain(&mut log)[0].1, Event::Stream { omitted: 4, .. }));
    }

    #[test]
    fn window_holds_back_and_acks_make_room() {
        let mut log = EventLog::default();
        assert!(
            log.record(finished(), vec![Bytes::from(vec![0; 100])], 50, 0)
                .is_some()
        );
        assert!(log.record(finished(), vec![], 50, 0).is_none());
        assert!(log.release(50).is_none());
        log.ack(1).unwrap();
        assert!(log.release(50).is_some());
        assert_eq!(log.unacked().count(), 1);
    }

    #[test]
    fn an_ack_of_what_was_never_sent_is_a_fault() {
        assert!(matches!(
            EventLog::default().ack(1),
            Err(Fault::SeenUnsent { seen: 1, sent: 0 })
        ));
    }
}
