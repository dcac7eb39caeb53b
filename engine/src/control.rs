//! The control thread's state and what it does with each message: no GIL, no MPI, no waiting.
//!
//! Everything is synchronous here; `control_thread.rs` owns the sockets and timers and calls in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipengine_protocol::event::InterruptReport;
use ipengine_protocol::outcome::LossKind;
use ipengine_protocol::{
    EngineFacts, EngineState, FromEngine, InterruptState, LossCause, Order, Outcome, ToEngine,
};

use crate::inbox::{FromMain, Inbox, Instruction, Whereabouts};
use crate::interrupt;
use crate::outbound::Outbound;
use crate::output::{Ends, OutputFiles, Piece, Tail};

/// How long an interrupt may take until it is reported as pending.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(2);
/// Largest answer to a request for logs, per file.
const MAX_LOG: u64 = 1 << 20;
/// Of the output, what is searched and quoted in last words.
const LAST_OUTPUT: u64 = 16 << 10;

/// What the caller has to do after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    /// Go on.
    Nothing,
    /// The gateway, or whoever, wants this engine to stop.
    Stop(String),
}

/// An interrupt that was sent and whose instruction has not ended yet.
#[derive(Debug)]
struct SentInterrupt {
    request: u64,
    order: Order,
    since: Instant,
    answered: bool,
}

/// The control thread's state.
pub struct Control {
    /// This engine, for `Hello`.
    pub facts: EngineFacts,
    /// Towards the gateway.
    pub outbound: Outbound,
    inbox: Arc<Inbox>,
    files: Arc<OutputFiles>,
    tail: Tail,
    interrupts: Vec<SentInterrupt>,
    announced: Option<Order>,
    summaries: HashMap<Order, String>,
    stopping: bool,
}

impl Control {
    /// The state at start.
    #[must_use]
    pub fn new(facts: EngineFacts, inbox: Arc<Inbox>, files: Arc<OutputFiles>) -> Self {
        let tail = Tail::new(files.ends(), Instant::now());
        Self {
            facts,
            outbound: Outbound::default(),
            inbox,
            files,
            tail,
            interrupts: Vec::new(),
            announced: None,
            summaries: HashMap::new(),
            stopping: false,
        }
    }

    /// A message of the gateway.
    pub fn on_gateway(&mut self, message: ToEngine, blobs: Vec<Bytes>) -> Then {
        match message {
            ToEngine::Welcome { received } | ToEngine::Ack { received } => self.outbound.acked(received),
            ToEngine::Run {
                order,
                targets,
                work,
                comm_suspect,
                ..
            } => {
                self.on_run(Instruction {
                    order,
                    targets,
                    comm_suspect,
                    work,
                    blobs,
                });
            }
            ToEngine::Recall { orders } => self.on_recall(&orders),
            ToEngine::Interrupt { request, order } => self.on_interrupt(request, order),
            ToEngine::Comm { order, round, answer } => self.inbox.answer_comm(order, round, answer),
            // Ended on all targets: nothing of it is kept here beyond its acked outcome.
            ToEngine::Stable { .. } => {}
            ToEngine::Status { request } => self.on_status(request),
            ToEngine::Logs { request, tail } => self.on_logs(request, tail),
            ToEngine::Stop { reason } => return Then::Stop(reason),
        }
        Then::Nothing
    }

    /// A link is up, on which the gateway told that it has everything up to `received`. An answer about a communicator may
    /// have been lost with the old link, or with the old gateway.
    pub fn on_link(&mut self, received: u64) {
        self.outbound.connected(received);
        if let Some((order, round, have)) = self.inbox.comm_awaited() {
            self.outbound
                .keep(FromEngine::CommWanted { order, round, have }, Vec::new());
        }
    }

    fn on_run(&mut self, instruction: Instruction) {
        if instruction.order <= self.facts.orders_seen {
            return; // sent again after a reconnection: runs at most once
        }
        self.facts.orders_seen = instruction.order;
        self.summaries
            .insert(instruction.order, instruction.work.summary());
        self.inbox.push(instruction);
    }

    fn on_recall(&mut self, orders: &[Order]) {
        let orders = self.inbox.recall(orders);
        if !orders.is_empty() {
            orders.iter().for_each(|order| drop(self.summaries.remove(order)));
            self.outbound.keep(FromEngine::Recalled { orders }, Vec::new());
        }
    }

    fn on_interrupt(&mut self, request: u64, order: Option<Order>) {
        let (state, detail) = match self.inbox.interrupt(order) {
            Whereabouts::Running(order) => {
                interrupt::signal_main_thread(&self.inbox);
                let sent = SentInterrupt {
                    request,
                    order,
                    since: Instant::now(),
                    answered: false,
                };
                self.interrupts.push(sent);
                return;
            }
            Whereabouts::Waiting => (
                InterruptState::Queued,
                "it ends as interrupted when its turn comes",
            ),
            Whereabouts::Ended => (InterruptState::Done, "it had ended"),
            Whereabouts::Idle => (InterruptState::Idle, "nothing was running"),
        };
        self.answer_interrupt(request, state, detail.to_owned());
    }

    fn answer_interrupt(&mut self, request: u64, state: InterruptState, detail: String) {
        let report = InterruptReport {
            engine: self.facts.id,
            state,
            detail,
        };
        self.outbound
            .answer(FromEngine::Interrupted { request, report }, Vec::new());
    }

    fn on_status(&mut self, request: u64) {
        let (running, waiting) = self.inbox.load();
        let (rss, cpu) = usage();
        let state = EngineState {
            running,
            waiting,
            rss,
            cpu,
        };
        self.outbound
            .answer(FromEngine::Status { request, state }, Vec::new());
    }

    fn on_logs(&mut self, request: u64, tail: u64) {
        let blobs = self.files.last(tail.min(MAX_LOG)).to_vec();
        let [stdout, stderr] = self
            .files
            .paths()
            .each_ref()
            .map(|path| path.display().to_string());
        self.outbound.answer(
            FromEngine::Logs {
                request,
                stdout,
                stderr,
            },
            blobs,
        );
    }

    /// A report of the main thread. Returns the sender to tell once everything is flushed.
    pub fn on_main(&mut self, report: FromMain) -> Option<std::sync::mpsc::Sender<()>> {
        match report {
            FromMain::Display {
                order,
                msg_type,
                content,
                ends,
            } => {
                self.send_output(Some(order), ends);
                self.outbound
                    .keep(FromEngine::Display { order, msg_type }, vec![content.into()]);
            }
            FromMain::CommWanted(order, round, have) => {
                self.outbound
                    .keep(FromEngine::CommWanted { order, round, have }, Vec::new());
            }

            FromMain::CommWithdrawn(order, round) => {
                self.outbound
                    .keep(FromEngine::CommWithdrawn { order, round }, Vec::new());
            }
            FromMain::Finished {
                order,
                outcome,
                blobs,
                timing,
                ends,
            } => {
                self.send_output(Some(order), ends);
                self.resolve_interrupts(order, &outcome);
                self.summaries.remove(&order);
                self.outbound.keep(
                    FromEngine::Finished {
                        order,
                        outcome,
                        timing,
                    },
                    blobs,
                );
            }
            FromMain::Leaving(flushed) => {
                self.send_output(None, self.files.ends());
                self.outbound.keep(FromEngine::Leaving, Vec::new());
                return Some(flushed);
            }
        }
        None
    }

    fn resolve_interrupts(&mut self, order: Order, outcome: &Outcome) {
        let (state, detail) = match outcome {
            Outcome::Interrupted(_) => (InterruptState::Interrupted, ""),
            _ => (
                InterruptState::Done,
                "it ended by itself before the interrupt took effect",
            ),
        };
        let (mine, others) = std::mem::take(&mut self.interrupts)
            .into_iter()
            .partition(|sent| sent.order == order);
        self.interrupts = others;
        let mine: Vec<SentInterrupt> = mine;
        for sent in mine.into_iter().filter(|sent| !sent.answered) {
            self.answer_interrupt(sent.request, state, detail.to_owned());
        }
    }

    fn send_output(&mut self, order: Option<Order>, ends: Ends) {
        for Piece { name, omitted, bytes } in self.tail.read_to(&self.files, ends, Instant::now()) {
            self.outbound
                .keep(FromEngine::Stream { order, name, omitted }, vec![bytes]);
        }
    }

    /// Regular look at what happens without a message: live output, long instructions, slow interrupts. All reports of
    /// the main thread that were sent before this call must have been given to [`Self::on_main`]. Returns whether
    /// there is reason to look again soon.
    pub fn on_tick(&mut self, now: Instant) -> bool {
        let (running, floor, ends) = self.inbox.output_now(|| self.files.ends());
        if let Some(order) = running
            && self.announced != Some(order)
        {
            self.announced = Some(order);
            self.outbound.keep(FromEngine::Started { order }, Vec::new());
        }
        // Below the floor is output of an instruction whose end is still on its way here: it comes with that.
        if self.tail.is_past(floor) {
            self.send_output(running, ends);
        }
        self.repeat_interrupts(now);
        running.is_some()
    }

    fn repeat_interrupts(&mut self, now: Instant) {
        let mut late = Vec::new();
        for sent in &mut self.interrupts {
            if self.inbox.is_armed(sent.order) {
                interrupt::signal_main_thread(&self.inbox);
            }
            if !sent.answered && now.duration_since(sent.since) > INTERRUPT_PATIENCE {
                sent.answered = true;
                late.push(sent.request);
            }
        }
        for request in late {
            let detail = "delivered, but it is in code that has not returned to Python; it will be raised when it does";
            self.answer_interrupt(request, InterruptState::Pending, detail.to_owned());
        }
    }

    /// Ends the running instruction and the main loop. Returns false if this was done before.
    pub fn begin_stop(&mut self) -> bool {
        if std::mem::replace(&mut self.stopping, true) {
            return false;
        }
        self.inbox.stop();
        if let Whereabouts::Running(order) = self.inbox.interrupt(None) {
            interrupt::signal_main_thread(&self.inbox);
            self.interrupts.push(SentInterrupt {
                request: 0,
                order,
                since: Instant::now(),
                answered: true,
            });
        }
        true
    }

    /// Whether the engine is on its way out.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// INT or TERM came from outside.
    pub fn on_signal(&mut self, signal: i32) {
        self.outbound.keep(FromEngine::Signalled { signal }, Vec::new());
    }

    /// The process is dying: say why, with what it was doing and what it printed last.
    pub fn on_dying(&mut self, kind: LossKind) -> LossCause {
        let (order, _, ends) = self.inbox.output_now(|| self.files.ends());
        self.send_output(order, ends);
        let cause = LossCause {
            engine: self.facts.id.0,
            host: self.facts.host.clone(),
            kind,
            detail: self.last_doings(order, kind),
        };
        self.outbound.keep(
            FromEngine::Dying {
                cause: cause.clone(),
                order,
            },
            Vec::new(),
        );
        cause
    }

    fn last_doings(&self, order: Option<Order>, kind: LossKind) -> String {
        let doing = match order.and_then(|order| Some((order, self.summaries.get(&order)?))) {
            Some((order, summary)) => format!("in instruction {order} ({summary})"),
            None => "between instructions".to_owned(),
        };
        let [_, stderr] = self.files.last(LAST_OUTPUT);
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        match (kind, source_line(&stderr)) {
            (LossKind::Signal(_), Some(line)) => format!("{doing} at {line}"),
            _ => doing,
        }
    }
}

/// Finds, in what faulthandler wrote after the last `(most recent call first):`, the innermost line of the user's code,
/// and the library line that it had called if there is one.
fn source_line(stderr: &str) -> Option<String> {
    let (_, dump) = stderr.rsplit_once("(most recent call first):")?;
    let frames = dump
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("File \""))
        .take(64);
    let frames: Vec<&str> = frames.filter(|line| !line.contains("<ipengine>")).collect();
    let innermost = frames.first()?;
    let is_library = |line: &str| line.contains("/lib/python") || line.contains("<frozen");
    match frames.iter().find(|line| !is_library(line)) {
        Some(user) if user != innermost => Some(format!("{user}, in a call to {innermost}")),
        _ => Some((*innermost).to_owned()),
    }
}

/// Resident memory in bytes and CPU time in nanoseconds of this process.
fn usage() -> (u64, u64) {
    use nix::sys::resource::{UsageWho, getrusage};
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .unwrap_or(4096);
    let cpu = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        let nanoseconds = |t: nix::sys::time::TimeVal| {
            u64::try_from(t.tv_sec() * 1_000_000_000 + t.tv_usec() * 1000).unwrap_or_default()
        };
        nanoseconds(usage.user_time()) + nanoseconds(usage.system_time())
    });
    (pages.unwrap_or(0) * u64::try_from(page).unwrap_or(4096), cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_innermost_line_is_found_in_a_dump() {
        let dump = "noise\nFatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n  \
                    File \"<ipengine>/_runtime.py\", line 9 in call\n  File \"solver.py\", line 61 in step\n  File \"run.py\", line 2 in <module>\n";
        assert_eq!(
            source_line(dump).as_deref(),
            Some("File \"solver.py\", line 61 in step")
        );
        let library = "(most recent call first):\n  File \"/usr/lib/python3.11/ctypes/__init__.py\", line 519 in string_at\n  \
                       File \"<cell 0a1b2c3d>\", line 3 in f\n";
        let found = source_line(library).unwrap_or_default();
        assert!(
            found.starts_with("File \"<cell 0a1b2c3d>\", line 3 in f, in a call to File"),
            "{found}"
        );
        assert_eq!(source_line("no dump"), None);
    }

    #[test]
    fn usage_is_that_of_a_living_process() {
        let (rss, _) = usage();
        assert!(rss > 100_000);
    }
}
