//! Which mailbox is whose: the real [`Outbox`]. One connection per client and per engine; a newer one replaces it.

use std::collections::HashMap;
use std::rc::Rc;

use ipengine_protocol::{ClientId, EngineId, Message};

use crate::Fault;
use crate::outbox::{Closing, Lane, Mailbox, Outbox};

/// The open connections.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    clients: HashMap<ClientId, Rc<Mailbox>>,
    engines: HashMap<EngineId, Rc<Mailbox>>,
}

impl Hub {
    pub(crate) fn attach_client(&mut self, client: ClientId, mailbox: &Rc<Mailbox>) {
        if let Some(old) = self.clients.insert(client, mailbox.clone()) {
            old.close(Closing::Now(Fault::Replaced.to_string()));
        }
    }

    pub(crate) fn attach_engine(&mut self, engine: EngineId, mailbox: &Rc<Mailbox>) {
        if let Some(old) = self.engines.insert(engine, mailbox.clone()) {
            old.close(Closing::Now(Fault::Replaced.to_string()));
        }
    }

    /// Forgets the connection; `false` if a newer one had replaced it.
    pub(crate) fn detach_client(&mut self, client: ClientId, mailbox: &Rc<Mailbox>) -> bool {
        let current = self
            .clients
            .get(&client)
            .is_some_and(|found| Rc::ptr_eq(found, mailbox));
        if current {
            self.clients.remove(&client);
        }
        current
    }

    /// As [`Hub::detach_client`].
    pub(crate) fn detach_engine(&mut self, engine: EngineId, mailbox: &Rc<Mailbox>) -> bool {
        let current = self
            .engines
            .get(&engine)
            .is_some_and(|found| Rc::ptr_eq(found, mailbox));
        if current {
            self.engines.remove(&engine);
        }
        current
    }

    /// Closes everything once it is written.
    pub(crate) fn close_all(&self) {
        self.clients
            .values()
            .chain(self.engines.values())
            .for_each(|mailbox| mailbox.close(Closing::Drained));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.engines.is_empty()
    }
}

impl Outbox for Hub {
    fn to_client(&mut self, client: ClientId, message: Message, lane: Lane) {
        if let Some(mailbox) = self.clients.get(&client) {
            mailbox.push(message, lane);
        }
    }

    fn to_engine(&mut self, engine: EngineId, message: Message, lane: Lane) {
        if let Some(mailbox) = self.engines.get(&engine) {
            mailbox.push(message, lane);
        }
    }

    fn close_engine(&mut self, engine: EngineId) {
        if let Some(mailbox) = self.engines.get(&engine) {
            mailbox.close(Closing::Drained);
        }
    }
}
