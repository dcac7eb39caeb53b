//! Interrupt and abort. What no target has been sent is taken out of all queues; what some target has is interrupted
//! on all of them, on the others as soon as it reaches them. The answer waits for the engines' own reports.

use std::collections::{BTreeMap, HashMap};

use ipengine_protocol::event::InterruptReport;
use ipengine_protocol::{
    Answer, ClientId, EngineId, Event, InstructionId, InterruptState, Order, Outcome, Targets, Timing,
    ToEngine,
};

use super::clients::Place;
use super::instruction::Stage;
use super::registry::Life;
use super::{Now, Router, Timer};
use crate::{Lane, Outbox};

/// Instructions of one client that it may take back before they have come.
const MOST_FORETOLD: usize = 10_000;

/// Requests that wait for engines to report.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    open: HashMap<u64, Open>,
    /// Which request an engine's report belongs to.
    parts: HashMap<u64, Part>,
}

#[derive(Debug)]
struct Part {
    whole: u64,
    engine: EngineId,
}

#[derive(Debug)]
struct Open {
    client: ClientId,
    request: u64,
    missing: usize,
    reports: BTreeMap<EngineId, InterruptReport>,
}

impl Open {
    /// One report per engine; with several instructions on it the one that matters most to a person.
    fn add(&mut self, report: InterruptReport) {
        let weight = |state| match state {
            InterruptState::Pending => 5,
            InterruptState::Interrupted => 4,
            InterruptState::Queued => 3,
            InterruptState::Lost => 2,
            InterruptState::Done => 1,
            InterruptState::Idle => 0,
        };
        match self.reports.get(&report.engine) {
            Some(known) if weight(known.state) >= weight(report.state) => {}
            _ => {
                self.reports.insert(report.engine, report);
            }
        }
    }
}

impl<O: Outbox> Router<O> {
    fn open_interrupt(&mut self, client: ClientId, request: u64) -> u64 {
        let whole = self.next_question();
        self.interrupts.open.insert(
            whole,
            Open {
                client,
                request,
                missing: 0,
                reports: BTreeMap::new(),
            },
        );
        whole
    }

    fn report(&mut self, whole: u64, engine: EngineId, state: InterruptState, detail: &str) {
        if let Some(open) = self.interrupts.open.get_mut(&whole) {
            open.add(InterruptReport {
                engine,
                state,
                detail: detail.to_owned(),
            });
        }
    }

    /// Asks one engine; its report is waited for.
    fn ask_interrupt(&mut self, whole: u64, engine: EngineId, order: Option<Order>) {
        let request = self.next_question();
        if let Some(open) = self.interrupts.open.get_mut(&whole) {
            open.missing += 1;
        }
        self.interrupts.parts.insert(request, Part { whole, engine });
        self.tell_engine(engine, &ToEngine::Interrupt { request, order }, Lane::Control);
    }

    fn answer_or_wait(&mut self, whole: u64, now: Now) {
        if self
            .interrupts
            .open
            .get(&whole)
            .is_some_and(|open| open.missing > 0)
        {
            self.set_timer(now.at + self.limits.interrupt, Timer::Interrupt(whole));
        } else {
            self.close_interrupt(whole);
        }
    }

    fn close_interrupt(&mut self, whole: u64) {
        if let Some(open) = self.interrupts.open.remove(&whole) {
            let reports = open.reports.into_values().collect();
            self.answer(open.client, open.request, Answer::Interrupt(reports), Vec::new());
        }
    }

    pub(super) fn on_interrupt_instructions(
        &mut self,
        client: ClientId,
        request: u64,
        counters: &[u64],
        now: Now,
    ) {
        let whole = self.open_interrupt(client, request);
        for counter in counters {
            self.withdraw(whole, client, *counter, &Withdrawal::Interrupt, now);
        }
        self.answer_or_wait(whole, now);
    }

    pub(super) fn on_abort(&mut self, client: ClientId, request: u64, counters: &[u64], now: Now) {
        let user = self.clients.get(client).map_or("", |state| &state.user);
        let how = Withdrawal::Abort(format!("aborted by {user}"));
        let whole = self.open_interrupt(client, request);
        for counter in counters {
            self.withdraw(whole, client, *counter, &how, now);
        }
        self.answer_or_wait(whole, now);
    }

    fn withdraw(&mut self, whole: u64, client: ClientId, counter: u64, how: &Withdrawal, now: Now) {
        let place = self
            .clients
            .get(client)
            .and_then(|state| state.open.get(&counter))
            .copied();
        match place {
            None => self.foretell(client, counter, how),
            Some(Place::Pooled(age)) => self.withdraw_task(whole, age, how),
            Some(Place::Ordered(order)) => self.withdraw_ordered(whole, order, how, now),
        }
    }

    /// A request overtakes the instruction it is about, which then ends as it arrives.
    fn foretell(&mut self, client: ClientId, counter: u64, how: &Withdrawal) {
        let Some(state) = self.clients.get_mut(client) else {
            return;
        };
        if counter > state.accepted && state.foretold.len() < MOST_FORETOLD {
            state.foretold.insert(counter, how.clone());
        }
    }

    /// Ends an instruction as it arrives if a request for that came before it; whether it did.
    pub(super) fn end_foretold(&mut self, id: InstructionId, targets: &Targets, bytes: u64) -> bool {
        let state = self.clients.get_mut(id.client);
        let Some(how) = state.and_then(|state| state.foretold.remove(&id.counter)) else {
            return false;
        };
        let ended = match targets {
            Targets::All(engines) => engines.as_slice(),
            // It has one outcome.
            Targets::OneOf(engines) => &engines[..1],
        };
        for engine in ended.iter().copied() {
            let event = Event::Finished {
                counter: id.counter,
                engine,
                outcome: how.outcome(|| self.never_started(engine)),
                timing: Timing::default(),
            };
            self.tell_client(id.client, event, Vec::new());
        }
        self.close_instruction(id, bytes);
        true
    }

    fn withdraw_task(&mut self, whole: u64, age: u64, how: &Withdrawal) {
        let Some(task) = self.pool.remove(age) else { return };
        let Some(engine) = task.candidates.first().copied() else {
            return;
        };
        self.report(whole, engine, InterruptState::Interrupted, how.detail());
        let outcome = how.outcome(|| self.never_started(engine));
        self.end_task(&task, outcome);
    }

    fn withdraw_ordered(&mut self, whole: u64, order: Order, how: &Withdrawal, now: Now) {
        let Some(instruction) = self.instructions.get_mut(&order) else {
            return;
        };
        let (waiting, sent) = (
            instruction.targets_in(Stage::Queued),
            instruction.targets_in(Stage::Sent),
        );
        if instruction.has_left() {
            instruction.interrupted = true;
            for engine in waiting {
                self.report(
                    whole,
                    engine,
                    InterruptState::Queued,
                    "it is interrupted as soon as it starts",
                );
            }
            for engine in sent {
                self.ask_interrupt(whole, engine, Some(order));
            }
            return;
        }
        for engine in &waiting {
            self.report(whole, *engine, InterruptState::Interrupted, how.detail());
        }
        let outcomes: HashMap<EngineId, Outcome> = waiting
            .iter()
            .map(|engine| (*engine, how.outcome(|| self.never_started(*engine))))
            .collect();
        self.end_unsent(order, |engine| outcomes[&engine].clone(), now);
        for engine in waiting {
            self.feed(engine, now);
        }
    }

    pub(super) fn on_interrupt_engines(
        &mut self,
        client: ClientId,
        request: u64,
        engines: &[EngineId],
        now: Now,
    ) {
        if let Some(unknown) = engines.iter().find(|engine| engine.index() >= self.engines.len()) {
            let reason = format!("there is no engine {unknown}");
            return self.answer(client, request, Answer::Refused { reason }, Vec::new());
        }
        let whole = self.open_interrupt(client, request);
        for engine in engines {
            match &self.engines[engine.index()].life {
                Life::Alive => self.ask_interrupt(whole, *engine, None),
                Life::Awaited => {
                    self.report(whole, *engine, InterruptState::Idle, "it has not connected yet")
                }
                Life::Gone(cause) => {
                    let detail = cause.to_string();
                    self.report(whole, *engine, InterruptState::Lost, &detail);
                }
            }
        }
        self.answer_or_wait(whole, now);
    }

    /// An engine reports. Only for requests that are still open.
    pub(super) fn on_interrupted(&mut self, engine: EngineId, request: u64, report: InterruptReport) {
        if self
            .interrupts
            .parts
            .get(&request)
            .is_none_or(|part| part.engine != engine)
        {
            return;
        }
        self.take_report(request, InterruptReport { engine, ..report });
    }

    fn take_report(&mut self, part: u64, report: InterruptReport) {
        let Some(Part { whole, .. }) = self.interrupts.parts.remove(&part) else {
            return;
        };
        let Some(open) = self.interrupts.open.get_mut(&whole) else {
            return;
        };
        open.add(report);
        open.missing -= 1;
        if open.missing == 0 {
            self.close_interrupt(whole);
        }
    }

    pub(super) fn on_interrupt_limit(&mut self, whole: u64) {
        self.end_parts(
            |part| part.whole == whole,
            InterruptState::Pending,
            "no answer from its control thread",
        );
    }

    pub(super) fn end_interrupts_on(&mut self, engine: EngineId, why: &str) {
        self.end_parts(|part| part.engine == engine, InterruptState::Lost, why);
    }

    fn end_parts(&mut self, which: impl Fn(&Part) -> bool, state: InterruptState, detail: &str) {
        let parts = self.interrupts.parts.iter().filter(|(_, part)| which(part));
        let parts: Vec<(u64, EngineId)> = parts.map(|(request, part)| (*request, part.engine)).collect();
        for (request, engine) in parts {
            self.take_report(
                request,
                InterruptReport {
                    engine,
                    state,
                    detail: detail.to_owned(),
                },
            );
        }
    }
}

/// How an instruction ends that no target has been sent.
#[derive(Clone, Debug)]
pub(super) enum Withdrawal {
    Interrupt,
    Abort(String),
}

impl Withdrawal {
    fn detail(&self) -> &'static str {
        match self {
            Self::Interrupt => "interrupted before it started",
            Self::Abort(_) => "removed before it started",
        }
    }

    fn outcome(&self, interrupted: impl FnOnce() -> Outcome) -> Outcome {
        match self {
            Self::Interrupt => interrupted(),
            Self::Abort(reason) => Outcome::Aborted {
                reason: reason.clone(),
            },
        }
    }
}
