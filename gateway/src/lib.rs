//! The gateway: the one address that clients talk to, and the only sequencer.
//!
//! It is a library; the process that runs it is the engine binary's, started by a supervisor that hands over bound
//! listeners and a [`Config`]. Everything runs on the caller's one thread, in one tokio `LocalRuntime`.
//!
//! ```text
//!  listener.rs  accepts, TLS, limits           access_file.rs  where clients find us, and the post-mortem
//!  greeting.rs  who is there (handshake)       certificate.rs  made at start, pinned by its fingerprint
//!  session.rs      one client  \                                          / engine_link.rs  one engine
//!      reader -> Switchboard -> Router (synchronous, no I/O) -> Hub -> Mailbox -> writer
//! ```
//!
//! All decisions are the [`router`]'s. Readers call it, it answers by putting messages into mailboxes, writers empty
//! those. It never waits and is never borrowed across an `await`.

mod access_file;
pub mod certificate;
mod config;
mod engine_link;
mod error;
mod greeting;
mod hub;
mod limits;
mod listener;
mod outbox;
pub mod router;
mod serve;
mod session;
mod switchboard;

pub use config::{Config, LauncherReport, Listeners};
pub use error::{Error, Fault};
pub use limits::Limits;
pub use outbox::{Lane, Outbox};
pub use serve::{Ended, serve, serve_within};
