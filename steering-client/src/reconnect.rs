//! A new connection when one breaks: when to try, and when to give up. Runs on the I/O thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::access::Access;
use crate::connection::{Identity, Link, establish};
use crate::error::AttemptError;
use crate::shared::{Life, Shared};

/// First and longest pause between two attempts to connect again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// A gateway on this host whose socket nobody holds, or a stranger at its address, is given up after this time; the
/// gateway's supervisor restarts it much faster. A gateway that the network hides is never given up.
const GIVE_UP: Duration = Duration::from_secs(20);

/// Tries until there is a connection, the session is closed, or none will come any more: then the reason.
pub(crate) async fn reconnect(
    access: &mut Access,
    identity: &Identity,
    shared: &Arc<Shared>,
    broken: AttemptError,
) -> Result<Link, String> {
    let began = Instant::now();
    let mut pause = PAUSES.0;
    loop {
        if shared.lock().life != Life::Open {
            return Err("closed".to_owned());
        }
        match Access::read(&access.file, access.url.as_deref()) {
            Ok(fresh) => *access = fresh,
            Err(ended @ Error::Ended { .. }) => return Err(ended.to_string()),
            // A file that is being replaced or was removed says nothing about the gateway.
            Err(_) => {}
        }
        match establish(access, identity, shared).await {
            Ok(link) => {
                shared.announce_all();
                return Ok(link);
            }
            Err(error) => {
                let ended = shared.lock().facts.ended.clone();
                if let Some(reason) = ended {
                    return Err(reason);
                }
                if let Some(refusal) = refusal(&error) {
                    return Err(refusal.to_string());
                }
                if began.elapsed() > GIVE_UP && is_hopeless(&error) {
                    return Err(format!("{broken}; then {error}"));
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
            // A new request, or the end: no reason to wait, but none to hurry either.
            () = shared.wake.notified() => tokio::time::sleep(PAUSES.0).await,
        }
    }
}

/// The gateway's word that this session is no more.
fn refusal(error: &Error) -> Option<&AttemptError> {
    let Error::Unreachable { attempts, .. } = error else {
        return None;
    };
    let mut errors = attempts.iter().map(|attempt| &attempt.error);
    errors.find(|error| error.is_final())
}

fn is_hopeless(error: &Error) -> bool {
    let Error::Unreachable { attempts, .. } = error else {
        return false;
    };
    attempts.iter().all(|attempt| {
        attempt.error.is_stranger() || (attempt.address.starts_with("unix:") && attempt.error.is_refusal())
    })
}
