//! What travels between clients, gateway and engines: the wire specification and its types.
//!
//! This crate does no I/O and knows neither tokio, MPI nor Python. Everything here is a value, a pure function or a
//! state machine that is fed bytes, so that it can be tested with bytes alone.
//!
//! # The two conversations
//!
//! ```text
//!  client                         gateway                          engine (one per MPI rank)
//!    |  ClientHello (fixed bytes)   |   ClientHello (fixed bytes)     |
//!    |----------------------------->|<--------------------------------|
//!    |  ServerHello + proof         |   ServerHello + proof           |
//!    |<-----------------------------|-------------------------------->|
//!    |  ClientProof                 |   ClientProof                   |
//!    |----------------------------->|<--------------------------------|
//!    |  Request::Open               |   FromEngine::Hello             |
//!    |----------------------------->|<--------------------------------|
//!    |  Event::Welcome              |   ToEngine::Welcome             |
//!    |<-----------------------------|-------------------------------->|
//!    |  Request::Submit #1          |   ToEngine::Run (order 1)       |
//!    |----------------------------->|-------------------------------->|
//!    |  Event::Accepted {up_to: 1}  |   FromEngine::Started           |
//!    |<-----------------------------|<--------------------------------|
//!    |  Event::Stream …             |   FromEngine::Stream …          |
//!    |<-----------------------------|<--------------------------------|
//!    |  Event::Finished             |   FromEngine::Finished          |
//!    |<-----------------------------|<--------------------------------|
//!    |  Request::Ack {events}       |   ToEngine::Ack, Stable         |
//!    |----------------------------->|-------------------------------->|
//! ```
//!
//! Four enums are the whole conversation: [`Request`] (client to gateway), [`Event`] (gateway to client), [`ToEngine`]
//! and [`FromEngine`]. Each travels as the head of a [`Message`] together with its binary parts ("blobs"), and
//! [`frame`] alone turns messages into bytes: on the WebSocket one frame is one binary message, on a control link
//! frames are preceded by their length.
//!
//! # Exactly one outcome
//!
//! - A client numbers its instructions 1, 2, 3, …; ([`ClientId`], counter) is an [`InstructionId`]. It keeps each
//!   until [`Event::Accepted`] covers it and sends it again after a reconnection; the gateway drops what it has had.
//! - The gateway gives every accepted instruction an [`Order`], a place in the one total order. An engine runs orders
//!   in increasing order and drops one it has had.
//! - Engines and gateway number what they send ([`FromEngineEnvelope`], [`EventEnvelope`]) and keep it until the other
//!   side's cumulative ack covers it.
//! - Clients send under credit ([`Credit`]) and the gateway sends to them within a window: what exceeds it waits at its
//!   sender; nothing is rejected for being too much. Engines send without credit.
//!
//! This holds while the gateway lives. One that was restarted does not know what the one before it had accepted: see
//! `docs/design/gateway-process.md`.

pub mod access;
mod codec;
pub mod control;
pub mod error;
pub mod event;
pub mod exception;
pub mod frame;
pub mod handshake;
pub mod id;
pub mod message;
pub mod outcome;
pub mod request;
pub mod value;
pub mod work;

pub use access::AccessRecord;
pub use control::{
    CommAnswer, CommBirth, EngineFacts, EngineState, FromEngine, FromEngineEnvelope, ToEngine,
};
pub use error::DecodeError;
pub use event::{Answer, Credit, EngineInfo, EngineStatus, Event, EventEnvelope, Status, Welcome};
pub use exception::RemoteException;
pub use frame::{Assembler, Frame, Incoming};
pub use id::{ClientId, EngineId, InstructionId, Order, PythonVersion};
pub use message::Message;
pub use outcome::{InterruptState, LossCause, Outcome, OutputName, Timing};
pub use request::{InterruptTarget, Request, Submit, Targets};
pub use value::{ValueHead, ValueKind};
pub use work::{PullFormat, Work};

/// The protocol version this build speaks. Peers also speak the one before, see [`handshake`].
pub const VERSION: u16 = 1;

/// The oldest protocol version this build still speaks.
pub const OLDEST_VERSION: u16 = 1;
