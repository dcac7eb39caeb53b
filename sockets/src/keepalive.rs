//! How long the kernel believes in a peer that has fallen silent: a host that lost its power, or its cable, says no
//! farewell. The kernel asks, not the program, so that a process stopped in a debugger counts as alive, unless more is
//! under way to it than its kernel has room for.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// When a silent peer counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Silence before the kernel asks.
    pub idle: Duration,
    /// Between two questions.
    pub interval: Duration,
    /// Silence, asked or with bytes on the way, after which the connection breaks.
    pub limit: Duration,
}

/// A client may be on a bad line.
pub const CLIENT: Patience = Patience {
    idle: Duration::from_secs(20),
    interval: Duration::from_secs(10),
    limit: Duration::from_secs(60),
};

/// Gateway and engines share a cluster's network, and clients want to hear within seconds that a node is gone. The engine
/// may still come back.
pub const ENGINE: Patience = Patience {
    idle: Duration::from_secs(2),
    interval: Duration::from_secs(1),
    limit: Duration::from_secs(6),
};

impl Patience {
    /// Sets it for a connection.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn set(self, stream: &TcpStream) -> io::Result<()> {
        let questions = self.limit.saturating_sub(self.idle).as_secs() / self.interval.as_secs().max(1);
        let asking = TcpKeepalive::new()
            .with_time(self.idle)
            .with_interval(self.interval)
            .with_retries(u32::try_from(questions).unwrap_or(u32::MAX).max(1));
        let socket = SockRef::from(stream);
        socket.set_tcp_keepalive(&asking)?;
        #[cfg(target_os = "linux")]
        // With unacknowledged bytes under way the kernel does not ask but repeats them, by itself for a quarter of an hour.
        socket.set_tcp_user_timeout(Some(self.limit))?;
        Ok(())
    }
}
