//! What the sockets between clients, gateway and engines need beyond tokio and rustls.
//!
//! | module | what it owns |
//! |---|---|
//! | [`local`] | a Unix socket whose writer sleeps until it has something to write |
//! | [`keepalive`] | when a silent peer counts as gone |
//! | [`pinned`] | TLS with exactly one certificate, known by its fingerprint |

pub mod keepalive;
pub mod local;
pub mod pinned;

pub use local::LocalStream;
