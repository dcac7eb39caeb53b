//! A client of a job: the project's own Rust library, with every wait bounded.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ipengine_protocol::event::InterruptReport;
use ipengine_protocol::{EngineId, InterruptTarget, OutputName, PullFormat, Status, Targets, Work};
use ipsteer::client::{Client, Instruction, Options};
use ipsteer::discovery::Which;
use ipsteer::pending::{Arrived, Output, OutputKind};
use serde_json::Value;

use crate::outcome;
use crate::waiting::LIMIT;

/// A connected client. Also the library's own handle, by dereference.
#[derive(Debug)]
pub struct Session {
    client: Client,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Source text as an instruction's work.
#[must_use]
pub fn code(source: &str) -> Work {
    Work::Execute {
        code: source.to_owned(),
        filename: None,
        silent: false,
        store_history: true,
        user_expressions: Vec::new(),
    }
}

/// What to connect to, for tests that connect by themselves.
#[must_use]
pub fn options(access_file: &Path, url: Option<&str>) -> Options {
    let which = Which {
        file: Some(access_file.to_owned()),
        cluster: None,
        url: url.map(str::to_owned),
    };
    Options {
        which,
        timeout: LIMIT,
        ..Options::default()
    }
}

fn ids(targets: &[u32]) -> Vec<EngineId> {
    targets.iter().copied().map(EngineId).collect()
}

impl Session {
    /// Connects.
    ///
    /// # Panics
    /// When there is no connection.
    #[must_use]
    pub fn open(access_file: &Path, url: Option<&str>) -> Self {
        let client = Client::connect(options(access_file, url));
        Self {
            client: client.unwrap_or_else(|error| panic!("no connection: {error}")),
        }
    }

    /// Submits work for all of `targets`.
    ///
    /// # Panics
    /// When the library refuses it.
    pub fn send(&self, targets: &[u32], work: Work, blobs: Vec<Bytes>) -> u64 {
        let targets = Targets::All(ids(targets));
        let instruction = Instruction {
            targets,
            work,
            blobs,
            each: None,
            label: None,
        };
        self.client
            .submit(instruction)
            .expect("the instruction is accepted locally")
    }

    /// Submits source text.
    pub fn begin(&self, targets: &[u32], source: &str) -> u64 {
        self.send(targets, code(source), Vec::new())
    }

    /// Submits source text and waits for all outcomes, in target order.
    pub fn run(&self, targets: &[u32], source: &str) -> Vec<Arc<Arrived>> {
        self.finish(self.begin(targets, source))
    }

    /// Runs source text that must end as asked everywhere.
    ///
    /// # Panics
    /// When it does not.
    pub fn must(&self, targets: &[u32], source: &str) -> Vec<Arc<Arrived>> {
        let arrived = self.run(targets, source);
        for one in &arrived {
            assert!(
                one.outcome.is_done(),
                "engine {} on {source:?}: {:?}",
                one.engine,
                one.outcome
            );
        }
        arrived
    }

    /// Waits for all outcomes of an instruction, in target order.
    ///
    /// # Panics
    /// When they do not come.
    pub fn finish(&self, counter: u64) -> Vec<Arc<Arrived>> {
        let done = self
            .client
            .wait(&[counter], Some(LIMIT), false)
            .expect("the session lives");
        if !done {
            let running = self.client.running(counter);
            panic!(
                "instruction {counter} has not ended: {running:?} still run, {:?}",
                self.status_now()
            );
        }
        let outcomes = self.client.outcomes(counter).expect("it is known");
        outcomes
            .into_iter()
            .map(|outcome| outcome.expect("finished means all"))
            .collect()
    }

    /// The value of an expression on one engine, as JSON.
    pub fn value(&self, engine: u32, expression: &str) -> Value {
        outcome::json(&self.pull(&[engine], expression, PullFormat::Json)[0])
    }

    /// Pulls one expression from engines.
    pub fn pull(&self, targets: &[u32], expression: &str, format: PullFormat) -> Vec<Arc<Arrived>> {
        let work = Work::Pull {
            names: vec![expression.to_owned()],
            format,
            single: true,
        };
        self.finish(self.send(targets, work, Vec::new()))
    }

    /// Waits until an engine has written `text` on a stream during an instruction: its sign that it got so far.
    ///
    /// # Panics
    /// When the text does not come, or the instruction ends before.
    pub fn wait_output(&self, counter: u64, engine: u32, text: &str) {
        let mut seen = 0;
        loop {
            let ended = self.client.finished(counter).expect("it is known");
            if self.stream(counter, engine, OutputName::Stdout).contains(text) {
                return;
            }
            assert!(
                !ended,
                "the instruction ended without printing {text:?}: {:?}",
                self.client.outcomes(counter)
            );
            let changes = self
                .client
                .wait_change(counter, seen, Some(LIMIT))
                .expect("the session lives");
            assert!(changes > seen, "engine {engine} does not print {text:?}");
            seen = changes;
        }
    }

    /// All that an engine wrote on a stream during an instruction, as far as it has come.
    ///
    /// # Panics
    /// When the instruction is unknown.
    pub fn stream(&self, counter: u64, engine: u32, name: OutputName) -> String {
        let outputs = self.client.outputs(counter, 0).expect("it is known");
        let wanted =
            |output: &&Output| output.engine == EngineId(engine) && output.kind == OutputKind::Stream(name);
        outputs
            .iter()
            .filter(wanted)
            .map(|output| output.text.as_str())
            .collect()
    }

    /// What an engine wrote on stdout.
    pub fn stdout(&self, counter: u64, engine: u32) -> String {
        self.stream(counter, engine, OutputName::Stdout)
    }

    /// Interrupts instructions of this client; one report per engine concerned.
    ///
    /// # Panics
    /// When the gateway does not answer.
    pub fn interrupt_counters(&self, counters: &[u64]) -> Vec<InterruptReport> {
        self.interrupt_target(InterruptTarget::Counters(counters.to_vec()))
    }

    /// Interrupts whatever these engines run.
    ///
    /// # Panics
    /// When the gateway does not answer.
    pub fn interrupt_engines(&self, engines: &[u32]) -> Vec<InterruptReport> {
        self.interrupt_target(InterruptTarget::Engines(ids(engines)))
    }

    fn interrupt_target(&self, target: InterruptTarget) -> Vec<InterruptReport> {
        let question = self.client.interrupt(target).expect("the session lives");
        question
            .wait(Some(LIMIT))
            .expect("the gateway carries it out")
            .expect("the gateway answers in time")
    }

    /// What everybody is doing.
    ///
    /// # Panics
    /// When the gateway does not answer.
    pub fn status_now(&self) -> Status {
        let question = self.client.status().expect("the session lives");
        question
            .wait(Some(LIMIT))
            .expect("the gateway carries it out")
            .expect("the gateway answers in time")
    }

    /// Stops the cluster and waits until the world has ended; the reason.
    ///
    /// # Panics
    /// When it does not end.
    pub fn shutdown(&self) -> String {
        self.client
            .shutdown("the test is over")
            .expect("the session lives");
        self.wait_ended()
    }

    /// Waits until this client hears that the world has ended; the reason.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_ended(&self) -> String {
        self.client
            .wait_end(Some(LIMIT))
            .expect("the session is not closed")
            .expect("the world ends in time")
    }
}
