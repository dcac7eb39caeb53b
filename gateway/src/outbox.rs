//! Outgoing messages: the router's view of them ([`Outbox`]) and one connection's queue ([`Mailbox`]).
//!
//! A mailbox has two lanes. The work lane is in order; control messages go before it, also between the chunks of a
//! large message. It is unbounded by itself: what the router puts into it is bounded by credit (clients) and by the
//! window in flight (engines).

use std::cell::RefCell;
use std::collections::VecDeque;

use ipengine_protocol::{ClientId, EngineId, Frame, Message, frame};
use tokio::sync::Notify;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Before everything that waits in the work lane.
    Control,
    /// In order.
    Work,
}

/// Where the router puts what it has to say. It never blocks and cannot fail: a peer that is not there hears nothing.
pub trait Outbox {
    /// Sends to a client.
    fn to_client(&mut self, client: ClientId, message: Message, lane: Lane);
    /// Sends to an engine.
    fn to_engine(&mut self, engine: EngineId, message: Message, lane: Lane);
    /// Closes an engine's link.
    fn close_engine(&mut self, engine: EngineId);
}

/// Bytes taken at once by a writer: large enough to fill a write, small enough for control messages to come soon.
const BATCH: usize = 256 << 10;

/// The queue between router and one connection's writer. Same thread, so plain cells.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inner: RefCell<Inner>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    control: VecDeque<Message>,
    work: VecDeque<Message>,
    /// Frames of a message that was begun.
    begun: VecDeque<Frame>,
    transfer: u32,
    ping: bool,
    closing: Option<Closing>,
}

/// Why and how a connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// When everything has been written.
    Drained,
    /// Now; the text is for the peer.
    Now(String),
}

/// What a writer has to do next.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Write these and, if asked, a ping.
    Frames(Vec<Frame>, bool),
    /// Close and end.
    Close(String),
}

impl Mailbox {
    pub(crate) fn push(&self, message: Message, lane: Lane) {
        let mut inner = self.inner.borrow_mut();
        match lane {
            Lane::Control => inner.control.push_back(message),
            Lane::Work => inner.work.push_back(message),
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// Asks the writer to send a ping.
    pub(crate) fn ping(&self) {
        self.inner.borrow_mut().ping = true;
        self.wake.notify_one();
    }

    pub(crate) fn close(&self, closing: Closing) {
        self.inner.borrow_mut().closing.get_or_insert(closing);
        self.wake.notify_one();
    }

    /// Waits for something to do. Only one writer may wait.
    pub(crate) async fn next(&self) -> Batch {
        loop {
            if let Some(batch) = self.inner.borrow_mut().take() {
                return batch;
            }
            self.wake.notified().await;
        }
    }
}

impl Inner {
    fn take(&mut self) -> Option<Batch> {
        if let Some(Closing::Now(reason)) = &self.closing {
            return Some(Batch::Close(reason.clone()));
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH && self.take_one(&mut frames, &mut bytes) {}
        let ping = std::mem::take(&mut self.ping);
        if frames.is_empty() && !ping {
            return self
                .closing
                .as_ref()
                .map(|_| Batch::Close("the gateway ends".to_owned()));
        }
        Some(Batch::Frames(frames, ping))
    }

    fn take_one(&mut self, frames: &mut Vec<Frame>, bytes: &mut usize) -> bool {
        let mut add = |frame: Frame| {
            *bytes += frame.len();
            frames.push(frame);
        };
        if let Some(message) = self.control.pop_front() {
            // Whole: the largest control message is the end of two log files.
            let transfer = next_transfer(&mut self.transfer);
            frame::frames(&message, transfer).for_each(add);
            return true;
        }
        if self.begun.is_empty() {
            let Some(message) = self.work.pop_front() else {
                return false;
            };
            let transfer = next_transfer(&mut self.transfer);
            self.begun.extend(frame::frames(&message, transfer));
        }
        if let Some(frame) = self.begun.pop_front() {
            add(frame);
        }
        true
    }
}

/// At most two transfers of a mailbox are open at a time, so a number that has come round is free again.
fn next_transfer(transfer: &mut u32) -> u32 {
    *transfer = transfer.checked_add(1).unwrap_or(1);
    *transfer
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ipengine_protocol::{Assembler, Incoming};

    use super::*;

    fn message(text: &str, payload: usize) -> Message {
        Message::new(&text.to_owned(), vec![Bytes::from(vec![7; payload])])
    }

    fn texts(batch: &Batch, assembler: &mut Assembler) -> Vec<String> {
        let Batch::Frames(frames, _) = batch else {
            panic!("expected frames, not {batch:?}")
        };
        frames
            .iter()
            .filter_map(
                |frame| match assembler.take(frame.clone().into_bytes()).unwrap() {
                    Incoming::Message(message) => Some(message.decode().unwrap()),
                    Incoming::Chunk { .. } => None,
                },
            )
            .collect()
    }

    #[tokio::test]
    async fn control_goes_between_the_chunks_of_bulk() {
        let mailbox = Mailbox::default();
        let mut assembler = Assembler::new(u64::MAX);
        mailbox.push(message("bulk", 5 << 20), Lane::Work);
        mailbox.push(message("after", 1), Lane::Work);
        assert_eq!(texts(&mailbox.next().await, &mut assembler), Vec::<String>::new());
        mailbox.push(message("urgent", 1), Lane::Control);
        assert_eq!(texts(&mailbox.next().await, &mut assembler), ["urgent"]);
        let mut rest = Vec::new();
        while rest.len() < 2 {
            rest.extend(texts(&mailbox.next().await, &mut assembler));
        }
        assert_eq!(rest, ["bulk", "after"]);
    }

    #[tokio::test]
    async fn many_small_messages_leave_in_one_batch() {
        let mailbox = Mailbox::default();
        (0..100).for_each(|n| mailbox.push(message(&n.to_string(), 10), Lane::Work));
        let found = texts(&mailbox.next().await, &mut Assembler::new(u64::MAX));
        assert_eq!(found, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn closing_when_drained_writes_the_rest_first() {
        let mailbox = Mailbox::default();
        mailbox.push(message("last", 1), Lane::Work);
        mailbox.close(Closing::Drained);
        assert_eq!(
            texts(&mailbox.next().await, &mut Assembler::new(u64::MAX)),
            ["last"]
        );
        assert!(matches!(mailbox.next().await, Batch::Close(_)));
    }

    #[tokio::test]
    async fn closing_now_leaves_the_rest() {
        let mailbox = Mailbox::default();
        mailbox.push(message("last", 1), Lane::Work);
        mailbox.close(Closing::Now("no".to_owned()));
        assert!(matches!(mailbox.next().await, Batch::Close(reason) if reason == "no"));
    }
}
