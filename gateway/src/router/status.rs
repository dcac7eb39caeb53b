//! Questions to engines on behalf of clients: what are you doing, what did you write. Control threads answer while
//! their engines compute; who does not answer in time is told apart in the answer.

use std::collections::HashMap;

use bytes::Bytes;
use ipengine_protocol::{Answer, ClientId, EngineId, EngineState, EngineStatus, Status, ToEngine};

use super::registry::{Engine, Life};
use super::{Now, Router, Timer};
use crate::{Lane, Outbox};

/// Questions that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Questions {
    statuses: HashMap<u64, StatusQuestion>,
    logs: HashMap<u64, LogQuestion>,
}

#[derive(Debug)]
struct StatusQuestion {
    client: ClientId,
    request: u64,
    asked_at: Now,
    missing: Vec<EngineId>,
    states: HashMap<EngineId, EngineState>,
}

#[derive(Debug)]
struct LogQuestion {
    client: ClientId,
    request: u64,
    engine: EngineId,
}

impl<O: Outbox> Router<O> {
    pub(super) fn on_status(&mut self, client: ClientId, request: u64, now: Now) {
        let question = self.next_question();
        let there = |row: &&Engine| matches!(row.life, Life::Alive) && row.linked;
        let missing: Vec<EngineId> = self.engines.iter().filter(there).map(|row| row.id).collect();
        for engine in &missing {
            self.tell_engine(*engine, &ToEngine::Status { request: question }, Lane::Control);
        }
        let alone = missing.is_empty();
        let open = StatusQuestion {
            client,
            request,
            asked_at: now,
            missing,
            states: HashMap::new(),
        };
        self.questions.statuses.insert(question, open);
        if alone {
            self.close_status(question, now);
        } else {
            self.set_timer(now.at + self.limits.status, Timer::Question(question));
        }
    }

    pub(super) fn on_engine_status(&mut self, engine: EngineId, question: u64, state: EngineState) {
        let Some(open) = self.questions.statuses.get_mut(&question) else {
            return;
        };
        open.states.insert(engine, state);
        self.no_status_from(engine, question);
    }

    fn no_status_from(&mut self, engine: EngineId, question: u64) {
        let Some(open) = self.questions.statuses.get_mut(&question) else {
            return;
        };
        open.missing.retain(|missing| *missing != engine);
        if open.missing.is_empty() {
            // The time of the question is near enough: it is at most `limits.status` ago.
            let asked_at = open.asked_at;
            self.close_status(question, asked_at);
        }
    }

    fn close_status(&mut self, question: u64, now: Now) {
        let Some(open) = self.questions.statuses.remove(&question) else {
            return;
        };
        let engines = self
            .engines
            .iter()
            .map(|row| self.engine_status(row, open.states.get(&row.id)))
            .collect();
        let clients = self.clients.all().filter(|client| client.connected);
        let status = Status {
            cluster: self.cluster.name.clone(),
            now: now.unix,
            engines,
            clients: clients
                .map(|client| (client.user.clone(), client.software.clone()))
                .collect(),
            ended: self.world.end.as_ref().map(|end| end.reason.clone()),
        };
        self.answer(
            open.client,
            open.request,
            Answer::Status(Box::new(status)),
            Vec::new(),
        );
    }

    fn engine_status(&self, row: &Engine, state: Option<&EngineState>) -> EngineStatus {
        let running = state.and_then(|state| state.running).or(row.running);
        let instruction = running
            .and_then(|order| self.instructions.get(&order))
            .map(|found| {
                let user = self
                    .clients
                    .get(found.id.client)
                    .map_or_else(String::new, |client| client.user.clone());
                (found.id, found.work.summary(), user)
            });
        let (name, detail) = match &row.life {
            Life::Gone(cause) => ("lost", Some(cause.to_string())),
            Life::Awaited => ("idle", Some("has not connected yet".to_owned())),
            Life::Alive if state.is_none() => (row.activity(), Some("did not answer in time".to_owned())),
            Life::Alive => (row.activity(), None),
        };
        EngineStatus {
            id: row.id,
            host: row.host().to_owned(),
            pid: row.facts.as_ref().map_or(0, |facts| facts.pid),
            state: name.to_owned(),
            since: row.since,
            queued: (row.unfinished() - usize::from(instruction.is_some() && row.in_flight > 0)) as u64,
            instruction,
            completed: row.completed,
            rss: state.map_or(0, |state| state.rss),
            cpu: state.map_or(0, |state| state.cpu),
            detail,
        }
    }

    pub(super) fn on_logs(&mut self, client: ClientId, request: u64, engine: EngineId, tail: u64, now: Now) {
        let refusal = match self.engines.get(engine.index()) {
            None => Some(format!("there is no engine {engine}")),
            Some(row) => match &row.life {
                Life::Gone(cause) => Some(format!(
                    "engine {engine} is lost ({cause}): read its log in the run directory"
                )),
                Life::Awaited => Some(format!("engine {engine} has not connected yet")),
                Life::Alive => None,
            },
        };
        if let Some(reason) = refusal {
            return self.answer(client, request, Answer::Refused { reason }, Vec::new());
        }
        let question = self.next_question();
        self.questions.logs.insert(
            question,
            LogQuestion {
                client,
                request,
                engine,
            },
        );
        self.tell_engine(
            engine,
            &ToEngine::Logs {
                request: question,
                tail,
            },
            Lane::Control,
        );
        self.set_timer(now.at + self.limits.logs, Timer::Question(question));
    }

    pub(super) fn on_engine_logs(
        &mut self,
        question: u64,
        stdout: String,
        stderr: String,
        blobs: Vec<Bytes>,
    ) {
        if let Some(open) = self.questions.logs.remove(&question) {
            self.answer(open.client, open.request, Answer::Logs { stdout, stderr }, blobs);
        }
    }

    pub(super) fn on_question_limit(&mut self, question: u64, now: Now) {
        self.close_status(question, now);
        self.refuse_logs(question, "it did not answer in time");
    }

    /// A lost engine answers nothing any more.
    pub(super) fn end_questions_to(&mut self, engine: EngineId) {
        for question in self.questions.statuses.keys().copied().collect::<Vec<_>>() {
            self.no_status_from(engine, question);
        }
        let logs = self
            .questions
            .logs
            .iter()
            .filter(|(_, open)| open.engine == engine);
        for question in logs.map(|(question, _)| *question).collect::<Vec<_>>() {
            self.refuse_logs(question, "it is lost: read its log in the run directory");
        }
    }

    fn refuse_logs(&mut self, question: u64, why: &str) {
        if let Some(open) = self.questions.logs.remove(&question) {
            let reason = format!("no log from engine {}: {why}", open.engine);
            self.answer(open.client, open.request, Answer::Refused { reason }, Vec::new());
        }
    }
}

impl Engine {
    fn activity(&self) -> &'static str {
        if self.in_flight > 0 { "busy" } else { "idle" }
    }
}
