//! Steers a running world of MPI ranks from outside: the Rust library behind the `ipsteer` command and the Python
//! package `ipsteer`. Needs no MPI.
//!
//! | module | what it owns |
//! |---|---|
//! | [`client`] (with `options`, `question`) | the handle that programs use |
//! | [`access`] | connection files on this machine |
//! | [`discovery`] | which of them leads to a cluster that answers |
//! | `transport` | from an address to a proven WebSocket |
//! | `opening` | how a session begins |
//! | `connection`, `reconnect` | the I/O thread: lanes, acks, a new connection when one breaks |
//! | `shared` | the state between that thread and the user's |
//! | `outgoing`, [`pending`] | instructions on their way out; what came back |
//! | [`targets`] | how people name sets of engines |
//! | [`cli`] | the shell command; the only module that prints |
//! | `python` | the PyO3 skin (feature `python`) |

pub mod access;
pub mod cli;
pub mod client;
mod connection;
pub mod discovery;
pub mod error;
mod opening;
mod options;
mod outgoing;
pub mod pending;
mod pulse;
#[cfg(feature = "python")]
mod python;
mod question;
mod reconnect;
mod report;
mod shared;
pub mod targets;
mod text;
mod transport;

pub use client::{Client, Instruction, Options};
pub use discovery::Which;
pub use error::{Error, Exit};
