//! Reading outcomes.

use ipengine_protocol::{LossCause, Outcome, RemoteException, ValueKind};
use ipsteer::pending::Arrived;
use serde_json::Value;

/// The JSON of a value that was asked for as JSON, or of an `execute` reply.
///
/// # Panics
/// When it did not end as asked, or is no JSON.
#[must_use]
pub fn json(arrived: &Arrived) -> Value {
    match &arrived.outcome {
        Outcome::Done(head) if matches!(head.kind, ValueKind::Json | ValueKind::ExecuteReply) => {
            serde_json::from_slice(&arrived.blobs[0]).expect("the engine sends JSON")
        }
        other => panic!("engine {} answers {other:?}", arrived.engine),
    }
}

/// The text of a value that was asked for as its `repr`.
///
/// # Panics
/// When it did not end as asked.
#[must_use]
pub fn text(arrived: &Arrived) -> String {
    match &arrived.outcome {
        Outcome::Done(head) if head.kind == ValueKind::Text => {
            String::from_utf8(arrived.blobs[0].to_vec()).expect("UTF-8")
        }
        other => panic!("engine {} answers {other:?}", arrived.engine),
    }
}

/// `text/plain` of the result that an `execute` shows.
///
/// # Panics
/// As [`json`].
#[must_use]
pub fn shown(arrived: &Arrived) -> String {
    json(arrived)["data"]["text/plain"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// The exception.
///
/// # Panics
/// When it did not raise.
#[must_use]
pub fn raised(arrived: &Arrived) -> &RemoteException {
    match &arrived.outcome {
        Outcome::Raised(exception) => exception,
        other => panic!("engine {} did not raise but {other:?}", arrived.engine),
    }
}

/// The `KeyboardInterrupt`.
///
/// # Panics
/// When it was not interrupted.
#[must_use]
pub fn interrupted(arrived: &Arrived) -> &RemoteException {
    match &arrived.outcome {
        Outcome::Interrupted(exception) => exception,
        other => panic!("engine {} was not interrupted but {other:?}", arrived.engine),
    }
}

/// Why the engine is gone.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn lost(arrived: &Arrived) -> &LossCause {
    match &arrived.outcome {
        Outcome::Lost(cause) => cause,
        other => panic!("engine {} is not lost but {other:?}", arrived.engine),
    }
}

/// Whether it ended as asked.
#[must_use]
pub fn is_done(arrived: &Arrived) -> bool {
    arrived.outcome.is_done()
}
