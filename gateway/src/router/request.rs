//! What a client asks: one method per request.

use bytes::Bytes;
use ipengine_protocol::{Answer, ClientId, Event, InterruptTarget, Request};

use super::{Now, Router};
use crate::{Fault, Outbox};

impl<O: Outbox> Router<O> {
    /// Takes one request of a client whose conversation is open. `bytes` is the size of the whole message.
    ///
    /// # Errors
    /// A [`Fault`] for which the connection is closed.
    pub fn on_request(
        &mut self,
        client: ClientId,
        request: Request,
        blobs: Vec<Bytes>,
        bytes: u64,
        now: Now,
    ) -> Result<(), Fault> {
        self.clients.last_activity = Some(now.at);
        match request {
            Request::Open { .. } => return Err(Fault::OpenedTwice),
            Request::Submit(submit) => self.on_submit(client, submit, blobs, bytes, now)?,
            Request::Interrupt {
                request,
                target: InterruptTarget::Counters(counters),
            } => {
                self.on_interrupt_instructions(client, request, &counters, now);
            }
            Request::Interrupt {
                request,
                target: InterruptTarget::Engines(engines),
            } => {
                self.on_interrupt_engines(client, request, &engines, now);
            }
            Request::Abort { request, counters } => self.on_abort(client, request, &counters, now),
            Request::Status { request } => self.on_status(client, request, now),
            Request::Logs {
                request,
                engine,
                tail,
            } => self.on_logs(client, request, engine, tail, now),
            Request::Shutdown { reason } => self.on_shutdown(client, &reason, now),
            Request::Ack { events } => self.on_ack(client, events)?,
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, client: ClientId, request: u64, answer: Answer, blobs: Vec<Bytes>) {
        self.answer_client(client, Event::Answer { request, answer }, blobs);
    }
}
