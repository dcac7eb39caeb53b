//! The harness of the tests on real processes: `mpiexec`, engines, gateway, clients, and those that misbehave.
//!
//! | module | what it owns |
//! |---|---|
//! | [`launch`] | how a job is started |
//! | [`mpi`] | the MPI under test, and in what MPIs differ |
//! | [`job`] | a running job: its files, its end, and what a failing test prints |
//! | [`hosts`] | virtual hosts, with Slurm and the look of PBS on request |
//! | [`processes`] | which processes of a job are alive |
//! | [`session`] | a client of a job, with bounded waits |
//! | [`outcome`] | reading outcomes |
//! | [`pickle`] | functions as a Python client would send them |
//! | [`raw`] | a client that speaks the protocol by hand, rightly or wrongly |
//! | [`tls`] | TLS without a look at the certificate, and a man in the middle |
//! | [`relay`] | a Unix socket in front of the gateway's that can be cut |
//! | [`skip`] | what a test says that this machine cannot run |
//! | [`waiting`] | the one way to wait for what sends no event |
//!
//! Everything here is synchronous and runs on the test's thread, but for relays and for the I/O thread of each client.

pub mod hosts;
pub mod job;
pub mod launch;
pub mod mpi;
pub mod outcome;
pub mod pickle;
pub mod processes;
pub mod raw;
pub mod relay;
pub mod session;
pub mod skip;
pub mod tls;
pub mod waiting;

pub use hosts::Hosts;
pub use job::MpiJob;
pub use launch::Launch;
pub use mpi::Mpi;
pub use session::Session;
pub use skip::skipped;
pub use waiting::{LIMIT, until};
