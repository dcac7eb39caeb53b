//! Every bound and time limit of the gateway, in one place, so that tests can shorten them.

use std::time::Duration;

/// Bounds and time limits. [`Limits::default`] is what runs.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From accept to the first message after the handshake: a stranger holds a slot no longer than this.
    pub greeting: Duration,
    /// Connections that have not proved themselves; more wait in the kernel's backlog.
    pub unproved: usize,
    /// Instructions that an engine has been sent and has not finished: enough to hide the round trip, few enough
    /// that nearly everything stays here, where it can be seen and removed.
    pub window: usize,
    /// The same for tasks that any of several engines may run.
    pub pool_window: usize,
    /// Work that may wait behind a busy engine for tasks that any of several engines may run.
    pub pool_ahead: Duration,
    /// Instructions that a client may have unfinished.
    pub credit_instructions: u64,
    /// Bytes of instructions that a client may have unfinished.
    pub credit_bytes: u64,
    /// Bytes of events sent to a client and not acked.
    pub event_window: u64,
    /// Bytes of output that wait for one client; more is left out and counted.
    pub stream_bytes: u64,
    /// How long acks may wait for something to travel with: saves a write and a wake-up on each round trip.
    pub flush: Duration,
    /// For an engine's control thread to say what an interrupt did.
    pub interrupt: Duration,
    /// For engines to say what they are doing.
    pub status: Duration,
    /// For an engine to send the end of its logs.
    pub logs: Duration,
    /// For an engine whose process may live to come back after its link closed.
    pub reconnect: Duration,
    /// For the launcher to say why an engine died.
    pub launcher: Duration,
    /// For the launcher to end its sentence.
    pub launcher_more: Duration,
    /// Between a death and the end of the engines that outlive it.
    pub survivors: Duration,
    /// For engines to leave after they were asked to stop.
    pub stop: Duration,
    /// For all engines to connect after the first.
    pub start: Duration,
    /// For the first engine to connect: MPI's own start lies before it.
    pub first_engine: Duration,
    /// How long a client that left is remembered when nothing of it is outstanding.
    pub remember: Duration,
    /// Clients remembered at once.
    pub clients: usize,
    /// Silence of a client's connection after which it is asked for a sign of life; it is cut after three times this.
    pub heartbeat: Duration,
    /// For the last bytes to leave before the gateway returns.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(5),
            unproved: 64,
            window: 32,
            pool_window: 64,
            pool_ahead: Duration::from_millis(2),
            credit_instructions: 4096,
            credit_bytes: 256 << 20,
            event_window: 32 << 20,
            stream_bytes: 16 << 20,
            flush: Duration::from_millis(10),
            interrupt: Duration::from_secs(5),
            status: Duration::from_millis(300),
            logs: Duration::from_secs(5),
            reconnect: Duration::from_secs(5),
            // Open MPI names the signal only when it has ended all ranks, some 2 s after the death.
            launcher: Duration::from_secs(4),
            launcher_more: Duration::from_millis(3500),
            survivors: Duration::from_secs(10),
            stop: Duration::from_secs(20),
            start: Duration::from_secs(120),
            first_engine: Duration::from_secs(600),
            // What bounds memory is `clients`: a laptop may sleep over a holiday.
            remember: Duration::from_secs(30 * 24 * 3600),
            clients: 4096,
            heartbeat: Duration::from_secs(20),
            farewell: Duration::from_secs(2),
        }
    }
}
