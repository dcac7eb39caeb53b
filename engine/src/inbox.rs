//! The hand-over between control thread and main thread: instructions in, reports out, and who may be interrupted.
//!
//! One mutex guards everything that both threads decide on together. Neither ever holds it while it waits for the GIL,
//! for MPI or for a socket.

use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ipengine_protocol::{CommAnswer, CommBirth, EngineId, Order, Outcome, Timing, Work};
use nix::sys::pthread::{Pthread, pthread_self};
use tokio::sync::mpsc::UnboundedSender;

use crate::output::Ends;

/// One instruction on its way to the main thread.
#[derive(Debug)]
pub struct Instruction {
    /// Place in the total order.
    pub order: Order,
    /// All targets, in the order that gives `ipengine.comm` its ranks.
    pub targets: Vec<EngineId>,
    /// The latest instruction of these targets that failed since their communicator was made.
    pub comm_suspect: Option<Order>,
    /// What to do.
    pub work: Work,
    /// Its binary parts.
    pub blobs: Vec<Bytes>,
}

/// What the main thread tells the control thread. The channel is unbounded because its sender must never wait for a
/// socket; it holds at most one `Finished` per instruction that the gateway's window admits, and displays.
#[derive(Debug)]
pub enum FromMain {
    /// A Jupyter message.
    Display {
        /// The instruction.
        order: Order,
        /// Jupyter's type.
        msg_type: String,
        /// JSON of its content.
        content: String,
        /// Output written before it.
        ends: Ends,
    },
    /// The instruction waits for a communicator, in this round, and has one already.
    CommWanted(Order, u32, Option<CommBirth>),
    /// It was interrupted while waiting.
    CommWithdrawn(Order, u32),
    /// It ended.
    Finished {
        /// The instruction.
        order: Order,
        /// How.
        outcome: Outcome,
        /// The value's parts.
        blobs: Vec<Bytes>,
        /// When it ran.
        timing: Timing,
        /// Output written until then.
        ends: Ends,
    },
    /// The main thread is about to finalise: flush, then answer.
    Leaving(std::sync::mpsc::Sender<()>),
}

/// A request for a communicator: instruction, round, and the birth of the one that this engine has.
pub type CommRequest = (Order, u32, Option<CommBirth>);

/// What the main thread gets.
pub enum Next {
    /// Run this.
    Run(Instruction),
    /// This one was interrupted before its turn.
    Doomed(Instruction),
    /// Nothing came in the time given.
    Nothing,
    /// Leave the loop.
    Stop,
}

/// Where an instruction is, seen from an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// On the main thread: the interrupt is armed, the signal has to be sent.
    Running(Order),
    /// Not begun: it will end as interrupted.
    Waiting,
    /// It has ended.
    Ended,
    /// Nothing runs.
    Idle,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Instruction>,
    running: Option<Order>,
    /// Highest order taken by the main thread.
    begun: u64,
    armed: Option<Order>,
    doomed: HashSet<Order>,
    stop: bool,
    comm_answer: Option<(Order, u32, CommAnswer)>,
    /// What the main thread waits for in [`Inbox::await_comm`].
    comm_awaited: Option<CommRequest>,
    /// Output below these offsets belongs to instructions whose end was reported.
    floor: Ends,
}

/// The shared state of both threads.
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    reports: UnboundedSender<FromMain>,
    main_thread: Pthread,
}

impl Inbox {
    /// Made on the main thread, which is the one that interrupts are sent to.
    #[must_use]
    pub fn new(reports: UnboundedSender<FromMain>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            reports,
            main_thread: pthread_self(),
        }
    }

    /// The state stays consistent at every unlock, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Main thread.

    /// Waits for the next instruction, at most `limit`.
    pub fn next(&self, limit: Option<Duration>) -> Next {
        let mut state = self.state();
        loop {
            if state.stop {
                return Next::Stop;
            }
            if let Some(instruction) = state.queue.pop_front() {
                return Self::begin(&mut state, instruction);
            }
            state = match limit {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(limit) => {
                    let (state, result) = self
                        .changed
                        .wait_timeout(state, limit)
                        .unwrap_or_else(PoisonError::into_inner);
                    if result.timed_out() && state.queue.is_empty() && !state.stop {
                        return Next::Nothing;
                    }
                    state
                }
            };
        }
    }

    fn begin(state: &mut State, instruction: Instruction) -> Next {
        state.begun = instruction.order.0;
        state.armed = None;
        state.comm_answer = None;
        if state.doomed.remove(&instruction.order) {
            return Next::Doomed(instruction);
        }
        state.running = Some(instruction.order);
        Next::Run(instruction)
    }

    /// The user's code has ended: from now on no interrupt can hit it.
    pub fn close(&self) {
        self.state().armed = None;
    }

    /// Whether the engine is stopping: what is interrupted now was not interrupted by a client.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.state().stop
    }

    /// Reports the end of the running instruction.
    pub fn finish(&self, order: Order, outcome: Outcome, blobs: Vec<Bytes>, timing: Timing, ends: Ends) {
        let mut state = self.state();
        state.running = None;
        state.armed = None;
        state.floor = ends;
        self.report(FromMain::Finished {
            order,
            outcome,
            blobs,
            timing,
            ends,
        });
    }

    /// Sends a report. The control thread lives as long as the process, so nothing is lost.
    pub fn report(&self, report: FromMain) {
        if self.reports.send(report).is_err() {
            tracing::error!("the control thread is gone");
        }
    }

    /// Takes an interrupt that is meant for the running instruction; true exactly once per interrupt.
    pub fn take_interrupt(&self) -> bool {
        let mut state = self.state();
        let hit = state.armed.is_some() && state.armed == state.running;
        if hit {
            state.armed = None;
        }
        hit
    }

    /// Asks the gateway for leave to use or create a communicator and waits for its answer. An interrupt withdraws the
    /// request; the gateway answers all the same, since other ranks may have been sent in already.
    pub fn await_comm(&self, order: Order, round: u32, have: Option<CommBirth>) -> CommAnswer {
        self.report(FromMain::CommWanted(order, round, have));
        let mut state = self.state();
        state.comm_awaited = Some((order, round, have));
        let mut withdrawn = false;
        loop {
            if state.stop {
                state.comm_awaited = None;
                return CommAnswer::Refused {
                    reason: "the engine is stopping".to_owned(),
                };
            }
            if let Some((answered, of_round, answer)) = state.comm_answer.take()
                && (answered, of_round) == (order, round)
            {
                state.comm_awaited = None;
                return answer;
            }
            if state.armed == Some(order) && !withdrawn {
                withdrawn = true;
                self.report(FromMain::CommWithdrawn(order, round));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    // Control thread.

    /// Queues an instruction.
    pub fn push(&self, instruction: Instruction) {
        self.state().queue.push_back(instruction);
        self.changed.notify_one();
    }

    /// Takes back those of `orders` that have not begun.
    pub fn recall(&self, orders: &[Order]) -> Vec<Order> {
        let mut state = self.state();
        let (back, stay) = std::mem::take(&mut state.queue)
            .into_iter()
            .partition(|i| orders.contains(&i.order));
        state.queue = stay;
        let back: VecDeque<Instruction> = back;
        back.into_iter().map(|instruction| instruction.order).collect()
    }

    /// What [`Self::await_comm`] waits for: to be asked again of a gateway that may not know of it.
    #[must_use]
    pub fn comm_awaited(&self) -> Option<CommRequest> {
        self.state().comm_awaited
    }

    /// Delivers the gateway's answer to [`Self::await_comm`].
    pub fn answer_comm(&self, order: Order, round: u32, answer: CommAnswer) {
        self.state().comm_answer = Some((order, round, answer));
        self.changed.notify_one();
    }

    /// Tells the main thread to leave its loop after the running instruction.
    pub fn stop(&self) {
        self.state().stop = true;
        self.changed.notify_one();
    }

    /// Finds what an interrupt is for and arms it.
    pub fn interrupt(&self, order: Option<Order>) -> Whereabouts {
        let mut state = self.state();
        let Some(order) = order.or(state.running) else {
            return Whereabouts::Idle;
        };
        if state.running == Some(order) {
            state.armed = Some(order);
            self.changed.notify_one();
            return Whereabouts::Running(order);
        }
        if order.0 <= state.begun {
            return Whereabouts::Ended;
        }
        state.doomed.insert(order);
        Whereabouts::Waiting
    }

    /// Whether an interrupt of `order` has not been taken yet and the signal should be sent again: it may have come
    /// while the runtime's own code was on the stack.
    #[must_use]
    pub fn is_armed(&self, order: Order) -> bool {
        self.state().armed == Some(order)
    }

    /// The thread that interrupts are sent to.
    #[must_use]
    pub fn main_thread(&self) -> Pthread {
        self.main_thread
    }

    /// Running instruction and number of waiting ones.
    #[must_use]
    pub fn load(&self) -> (Option<Order>, u64) {
        let state = self.state();
        (state.running, state.queue.len() as u64)
    }

    /// The running instruction, the floor of its output, and how far the output files reach at this very moment.
    pub fn output_now(&self, ends: impl FnOnce() -> Ends) -> (Option<Order>, Ends, Ends) {
        let state = self.state();
        (state.running, state.floor, ends())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> Inbox {
        Inbox::new(tokio::sync::mpsc::unbounded_channel().0)
    }

    fn instruction(order: u64) -> Instruction {
        Instruction {
            order: Order(order),
            targets: vec![EngineId(0)],
            comm_suspect: None,
            work: Work::Clear,
            blobs: Vec::new(),
        }
    }

    #[test]
    fn an_interrupt_hits_only_the_instruction_it_is_for() {
        let inbox = inbox();
        inbox.push(instruction(1));
        inbox.push(instruction(2));
        assert!(matches!(inbox.next(None), Next::Run(i) if i.order == Order(1)));
        assert_eq!(inbox.interrupt(Some(Order(1))), Whereabouts::Running(Order(1)));
        inbox.finish(
            Order(1),
            Outcome::Done(ipengine_protocol::ValueHead::null()),
            vec![],
            Timing::default(),
            Ends::default(),
        );
        assert!(matches!(inbox.next(None), Next::Run(i) if i.order == Order(2)));
        assert!(!inbox.take_interrupt(), "the interrupt of #1 must not hit #2");
        assert_eq!(inbox.interrupt(Some(Order(1))), Whereabouts::Ended);
    }

    #[test]
    fn an_interrupt_before_its_turn_waits_for_it() {
        let inbox = inbox();
        assert_eq!(inbox.interrupt(Some(Order(3))), Whereabouts::Waiting);
        inbox.push(instruction(3));
        assert!(matches!(inbox.next(None), Next::Doomed(i) if i.order == Order(3)));
    }

    #[test]
    fn what_has_begun_is_not_given_back() {
        let inbox = inbox();
        (1..=3).for_each(|order| inbox.push(instruction(order)));
        assert!(matches!(inbox.next(None), Next::Run(i) if i.order == Order(1)));
        assert_eq!(inbox.recall(&[Order(1), Order(2), Order(7)]), [Order(2)]);
        assert!(matches!(inbox.next(None), Next::Run(i) if i.order == Order(3)));
    }

    #[test]
    fn nothing_runs_nothing_is_hit() {
        assert_eq!(inbox().interrupt(None), Whereabouts::Idle);
    }

    #[test]
    fn taken_once() {
        let inbox = inbox();
        inbox.push(instruction(1));
        assert!(matches!(inbox.next(None), Next::Run(_)));
        inbox.interrupt(None);
        assert!(inbox.take_interrupt());
        assert!(!inbox.take_interrupt());
    }
}
