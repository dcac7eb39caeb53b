//! What an engine has to say to the gateway: numbered, kept until acked, in two lanes. No I/O.

use std::collections::VecDeque;

use bytes::Bytes;
use ipengine_protocol::{Frame, FromEngine, FromEngineEnvelope, Message, frame};

/// The queue towards the gateway.
#[derive(Debug, Default)]
pub struct Outbound {
    last_number: u64,
    kept: VecDeque<(u64, Message)>,
    control: VecDeque<Frame>,
    work: VecDeque<Frame>,
    last_transfer: u32,
    connected: bool,
}

impl Outbound {
    /// Queues what must arrive: output, outcomes, last words. In order, also over a reconnection.
    pub fn keep(&mut self, message: FromEngine, blobs: Vec<Bytes>) {
        self.last_number += 1;
        let envelope = FromEngineEnvelope {
            number: self.last_number,
            message,
        };
        let message = Message::new(&envelope, blobs);
        if self.connected {
            self.queue_work(&message);
        }
        self.kept.push_back((self.last_number, message));
    }

    /// Queues an answer to a question of this connection: overtakes output and outcomes, is gone with the connection.
    pub fn answer(&mut self, message: FromEngine, blobs: Vec<Bytes>) {
        if self.connected {
            let message = Message::new(&FromEngineEnvelope { number: 0, message }, blobs);
            self.last_transfer = self.last_transfer.wrapping_add(1).max(1);
            self.control.extend(frame::frames(&message, self.last_transfer));
        }
    }

    fn queue_work(&mut self, message: &Message) {
        self.last_transfer = self.last_transfer.wrapping_add(1).max(1);
        self.work.extend(frame::frames(message, self.last_transfer));
    }

    /// The gateway has everything up to `number`.
    pub fn acked(&mut self, number: u64) {
        while self.kept.front().is_some_and(|(kept, _)| *kept <= number) {
            self.kept.pop_front();
        }
    }

    /// A connection was made, on which the gateway told that it has everything up to `received`.
    pub fn connected(&mut self, received: u64) {
        self.acked(received);
        self.connected = true;
        let again: Vec<Message> = self.kept.iter().map(|(_, message)| message.clone()).collect();
        again.iter().for_each(|message| self.queue_work(message));
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.control.clear();
        self.work.clear();
    }

    /// The next frame to write: control before work.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.control.pop_front().or_else(|| self.work.pop_front())
    }

    /// Whether everything was handed to the writer.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.control.is_empty() && self.work.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(outbound: &mut Outbound) -> Vec<u64> {
        let mut assembler = ipengine_protocol::Assembler::new(u64::MAX);
        std::iter::from_fn(|| outbound.next_frame())
            .filter_map(
                |frame| match assembler.take(frame.into_bytes()).expect("our own frame") {
                    ipengine_protocol::Incoming::Message(m) => {
                        Some(m.decode::<FromEngineEnvelope>().expect("ours").number)
                    }
                    ipengine_protocol::Incoming::Chunk { .. } => None,
                },
            )
            .collect()
    }

    #[test]
    fn what_was_not_acked_is_sent_again_in_order() {
        let mut outbound = Outbound::default();
        outbound.connected(0);
        (0..3).for_each(|_| outbound.keep(FromEngine::Leaving, Vec::new()));
        assert_eq!(numbers(&mut outbound), [1, 2, 3]);
        outbound.disconnected();
        outbound.keep(FromEngine::Leaving, Vec::new());
        outbound.connected(1);
        assert_eq!(numbers(&mut outbound), [2, 3, 4]);
    }

    #[test]
    fn answers_overtake_and_do_not_survive() {
        let mut outbound = Outbound::default();
        outbound.connected(0);
        outbound.keep(FromEngine::Leaving, Vec::new());
        outbound.answer(FromEngine::Leaving, Vec::new());
        assert_eq!(numbers(&mut outbound), [0, 1]);
        outbound.answer(FromEngine::Leaving, Vec::new());
        outbound.disconnected();
        outbound.connected(1);
        assert!(outbound.is_drained());
    }
}
