//! Watching one instruction until it ends: live output, the first error at once, Ctrl-C, the time limit.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipengine_protocol::{EngineId, InterruptTarget, Outcome, ValueKind};
use serde_json::{Value, json};

use super::console::Console;
use super::errors;
use super::failure::Failure;
use super::signals::CtrlC;
use crate::client::Client;
use crate::pending::{Arrived, Output, OutputKind};
use crate::{Exit, report};

/// How long Ctrl-C may go unnoticed.
const SLICE: Duration = Duration::from_millis(50);

/// How long an interrupt may take before we say that it is on its way.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(5);

/// One instruction that is watched.
pub(super) struct Live<'a> {
    client: &'a Client,
    counter: u64,
    console: &'a mut Console,
    deadline: Option<Instant>,
    /// Outputs shown.
    read: usize,
    /// Outcomes shown (as JSON) or looked at.
    known: HashSet<EngineId>,
    /// Engines of which the result was shown when it was displayed.
    shown: HashSet<EngineId>,
    interrupted: bool,
    first_error: bool,
}

impl<'a> Live<'a> {
    pub(super) fn new(
        client: &'a Client,
        counter: u64,
        console: &'a mut Console,
        limit: Option<Duration>,
    ) -> Self {
        Self {
            client,
            counter,
            console,
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            read: 0,
            known: HashSet::new(),
            shown: HashSet::new(),
            interrupted: false,
            first_error: false,
        }
    }

    /// Watches until the end. The exit code tells how it ended.
    pub(super) fn follow(mut self, ctrl_c: &CtrlC) -> Result<Exit, Failure> {
        let mut seen = 0;
        loop {
            // Whether it is finished is asked first: what came before that is then shown below.
            let finished = self.client.finished(self.counter)?;
            self.show_news()?;
            if finished {
                return self.conclude();
            }
            if ctrl_c.take() > 0 {
                if self.interrupted {
                    return self.abandon(Exit::Interrupted, "left running");
                }
                self.interrupt()?;
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return self.abandon(Exit::Timeout, "not finished in time and still running");
            }
            seen = self.client.wait_change(self.counter, seen, Some(SLICE))?;
        }
    }

    fn show_news(&mut self) -> Result<(), Failure> {
        let outputs = self.client.outputs(self.counter, self.read)?;
        self.read += outputs.len();
        for output in &outputs {
            if self.console.json {
                self.output_json(output)
            } else {
                self.output_text(output)
            }?;
        }
        let fresh: Vec<Arc<Arrived>> = self
            .outcomes()?
            .into_iter()
            .filter(|arrived| self.known.insert(arrived.engine))
            .collect();
        fresh.iter().try_for_each(|arrived| self.outcome(arrived))
    }

    fn outcomes(&self) -> Result<Vec<Arc<Arrived>>, Failure> {
        Ok(self
            .client
            .outcomes(self.counter)?
            .into_iter()
            .flatten()
            .collect())
    }

    fn output_text(&mut self, output: &Output) -> Result<(), Failure> {
        let engine = output.engine;
        match &output.kind {
            OutputKind::Stream(name) => self.console.stream(engine, name.as_str(), &output.text),
            OutputKind::Display(kind) if kind == "execute_result" => {
                self.shown.insert(engine);
                self.display("Out", engine, &output.text)
            }
            OutputKind::Display(kind) if kind == "display_data" => {
                self.display("display", engine, &output.text)
            }
            // Errors are told with the outcome; the rest is for notebooks.
            OutputKind::Display(_) => Ok(()),
        }
    }

    fn display(&mut self, tag: &str, engine: EngineId, content: &str) -> Result<(), Failure> {
        let content: Value = serde_json::from_str(content).unwrap_or_default();
        match plain_text(&content) {
            Some(text) => self.console.tagged(tag, engine, text),
            None => Ok(()),
        }
    }

    fn output_json(&mut self, output: &Output) -> Result<(), Failure> {
        let event = match &output.kind {
            OutputKind::Stream(name) => json!({
                "type": "stream", "engine": output.engine.0, "name": name.as_str(), "text": output.text,
            }),
            OutputKind::Display(kind) => json!({
                "type": kind, "engine": output.engine.0,
                "content": serde_json::from_str::<Value>(&output.text).unwrap_or_default(),
            }),
        };
        self.console.document(&event)
    }

    fn outcome(&mut self, arrived: &Arrived) -> Result<(), Failure> {
        if self.console.json {
            return self.console.document(&outcome_json(arrived));
        }
        match report::exception(arrived) {
            None if self.shown.contains(&arrived.engine) => Ok(()),
            None => self.result(arrived),
            Some(exception) => {
                let running = self.client.running(self.counter)?;
                if !self.first_error && !running.is_empty() {
                    let text = format!(
                        "rank {}: {} (still running: {})",
                        arrived.engine,
                        exception.summary(),
                        crate::targets::describe(&running)
                    );
                    self.console.note(&text);
                }
                self.first_error = true;
                Ok(())
            }
        }
    }

    fn result(&mut self, arrived: &Arrived) -> Result<(), Failure> {
        let Outcome::Done(head) = &arrived.outcome else {
            return Ok(());
        };
        let (ValueKind::ExecuteReply | ValueKind::Mime, Some(blob)) = (&head.kind, arrived.blobs.first())
        else {
            return Ok(());
        };
        let reply: Value = serde_json::from_slice(blob).unwrap_or_default();
        match plain_text(&reply) {
            Some(text) => self.console.tagged("Out", arrived.engine, text),
            None => Ok(()),
        }
    }

    fn interrupt(&mut self) -> Result<(), Failure> {
        self.interrupted = true;
        self.console
            .note("interrupting; Ctrl-C again to leave it running");
        let question = self
            .client
            .interrupt(InterruptTarget::Counters(vec![self.counter]))?;
        match question.wait(Some(INTERRUPT_LIMIT))? {
            None => self.console.note("the interrupt is on its way; no answer yet"),
            Some(reports) => {
                for report in reports {
                    let detail = if report.detail.is_empty() {
                        String::new()
                    } else {
                        format!(": {}", report.detail)
                    };
                    let state = report::interrupt_word(report.state);
                    self.console
                        .note(&format!("rank {}: {state}{detail}", report.engine));
                }
            }
        }
        Ok(())
    }

    fn abandon(self, exit: Exit, what: &str) -> Result<Exit, Failure> {
        self.console.flush()?;
        let running = self.client.running(self.counter)?;
        let ranks = errors::name_ranks(&running);
        self.console.note(&format!(
            "ipsteer: {what} on {ranks}; `ipsteer interrupt` would stop it"
        ));
        Ok(exit)
    }

    fn conclude(self) -> Result<Exit, Failure> {
        self.console.flush()?;
        let outcomes = self.outcomes()?;
        let outcomes = || outcomes.iter().map(|arrived| &**arrived);
        let text = errors::merged(outcomes());
        if !text.is_empty() && !self.console.json {
            self.console.note(&text);
        }
        self.client.forget(&[self.counter])?;
        Ok(if self.interrupted {
            Exit::Interrupted
        } else {
            errors::exit(outcomes())
        })
    }
}

/// `data["text/plain"]` of a mime bundle.
fn plain_text(bundle: &Value) -> Option<&str> {
    bundle.get("data")?.get("text/plain")?.as_str()
}

/// An outcome as a JSON object.
pub(super) fn outcome_json(arrived: &Arrived) -> Value {
    let mut object = json!({
        "type": "outcome", "engine": arrived.engine.0, "status": report::status(&arrived.outcome),
        "started": arrived.timing.started as f64 / 1e9, "completed": arrived.timing.completed as f64 / 1e9,
    });
    let (key, value) = match (&arrived.outcome, report::exception(arrived)) {
        (Outcome::Done(head), _) => ("value", value_json(&head.kind, arrived)),
        (_, Some(exception)) => ("error", report::exception_json(&exception)),
        (_, None) => return object,
    };
    object[key] = value;
    object
}

/// A value as JSON, as far as it can be.
pub(super) fn value_json(kind: &ValueKind, arrived: &Arrived) -> Value {
    let Some(blob) = arrived.blobs.first() else {
        return Value::Null;
    };
    match kind {
        ValueKind::Json | ValueKind::Mime | ValueKind::ExecuteReply => {
            serde_json::from_slice(blob).unwrap_or_default()
        }
        ValueKind::Text | ValueKind::Literal => Value::String(String::from_utf8_lossy(blob).into_owned()),
        _ => json!({"bytes": arrived.blobs.iter().map(|blob| blob.len()).sum::<usize>()}),
    }
}
