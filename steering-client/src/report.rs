//! Outcomes as data for those who show or raise them: a status word and an exception for everything but `Done`.

use ipengine_protocol::exception::ExceptionArgument;
use ipengine_protocol::{InterruptState, Outcome, RemoteException};
use serde_json::{Value, json};

use crate::pending::Arrived;

/// The status word of an outcome.
pub(crate) fn status(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done(_) => "ok",
        Outcome::Raised(_) => "error",
        Outcome::Interrupted(_) => "interrupted",
        Outcome::Aborted { .. } => "aborted",
        Outcome::Lost(_) => "lost",
    }
}

/// The exception that stands for an outcome; `None` for `Done`.
pub(crate) fn exception(arrived: &Arrived) -> Option<RemoteException> {
    let rank = arrived.engine.0;
    match &arrived.outcome {
        Outcome::Done(_) => None,
        Outcome::Raised(exception) | Outcome::Interrupted(exception) => Some((**exception).clone()),
        Outcome::Aborted { reason } => Some(RemoteException::of_runtime("TaskAborted", reason, rank, "")),
        Outcome::Lost(cause) => Some(RemoteException::of_runtime(
            "EngineError",
            cause.to_string(),
            rank,
            &cause.host,
        )),
    }
}

/// The JSON of an exception. An argument that is no plain data has no field `json` (a field `null` is Python's None).
pub(crate) fn exception_json(exception: &RemoteException) -> Value {
    let mut value = serde_json::to_value(exception).unwrap_or_else(|_| plain(exception));
    strip(&mut value, exception);
    value
}

/// What remains of an exception whose embedded JSON is none.
fn plain(exception: &RemoteException) -> Value {
    json!({
        "type_name": exception.type_name, "module": exception.module, "message": exception.message,
        "rank": exception.rank, "host": exception.host, "traceback": exception.traceback,
    })
}

fn strip(value: &mut Value, exception: &RemoteException) {
    for (place, argument) in exception.args.iter().enumerate() {
        strip_argument(value.pointer_mut(&format!("/args/{place}")), argument);
    }
    for (name, argument) in &exception.attributes {
        strip_argument(
            value
                .get_mut("attributes")
                .and_then(|attributes| attributes.get_mut(name)),
            argument,
        );
    }
    for (key, linked) in [("cause", &exception.cause), ("context", &exception.context)] {
        if let (Some(value), Some(linked)) = (value.get_mut(key), linked) {
            strip(value, linked);
        }
    }
}

fn strip_argument(value: Option<&mut Value>, argument: &ExceptionArgument) {
    if let (Some(Value::Object(fields)), None) = (value, &argument.json) {
        fields.remove("json");
    }
}

/// The word for what became of an interrupt.
pub(crate) fn interrupt_word(state: InterruptState) -> &'static str {
    match state {
        InterruptState::Interrupted => "interrupted",
        InterruptState::Pending => "pending",
        InterruptState::Done => "done",
        InterruptState::Queued => "queued",
        InterruptState::Idle => "idle",
        InterruptState::Lost => "lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(repr: &str, json: Option<&str>) -> ExceptionArgument {
        ExceptionArgument {
            repr: repr.to_owned(),
            json: json.map(str::to_owned),
        }
    }

    #[test]
    fn none_is_told_from_what_is_no_data_at_every_depth() {
        let cause = RemoteException {
            args: vec![argument("<f>", None)],
            ..RemoteException::default()
        };
        let exception = RemoteException {
            args: vec![
                argument("None", Some("null")),
                argument("<object>", None),
                argument("[1]", Some("[1]")),
            ],
            attributes: vec![("code".to_owned(), argument("<c>", None))],
            cause: Some(Box::new(cause)),
            ..RemoteException::default()
        };
        let json = exception_json(&exception);
        assert_eq!(
            json["args"],
            json!([{"repr": "None", "json": null}, {"repr": "<object>"}, {"repr": "[1]", "json": [1]}])
        );
        assert_eq!(json["attributes"], json!({"code": {"repr": "<c>"}}));
        assert_eq!(json["cause"]["args"], json!([{"repr": "<f>"}]));
    }
}
