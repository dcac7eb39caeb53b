//! Random schedules: whatever clients, engines and deaths do in whatever order, every accepted instruction ends in
//! exactly one outcome per target, and every engine gets its instructions in rising order and each once.

use std::collections::{HashMap, HashSet};

use ipengine_protocol::outcome::LossKind;
use ipengine_protocol::{InterruptTarget, LossCause};
use proptest::prelude::*;

use super::*;
use crate::router::StopOrigin;

const SIZE: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        client: usize,
        targets: Vec<u32>,
        pooled: bool,
    },
    /// The engine ends the oldest instruction it has.
    Finish {
        engine: u32,
        micros: u64,
    },
    CommWanted {
        engine: u32,
    },
    Interrupt {
        client: usize,
        counter: u64,
    },
    Abort {
        client: usize,
        counter: u64,
    },
    /// The client's connection breaks and it comes back, having seen everything or nothing new.
    Reconnect {
        client: usize,
    },
    Leave {
        client: usize,
    },
    Ack {
        client: usize,
    },
    /// The engine's link breaks and it comes back; the last so many instructions had not arrived.
    Relink {
        engine: u32,
        missed: usize,
    },
    Die {
        engine: u32,
    },
    Vanish {
        engine: u32,
    },
    Stop,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..2usize;
    let engine = 0..SIZE;
    let targets = prop::sample::subsequence(vec![0, 1, 2], 1..=3).prop_shuffle();
    prop_oneof![
        12 => (client.clone(), targets, any::<bool>())
            .prop_map(|(client, targets, pooled)| Step::Submit { client, targets, pooled }),
        16 => (engine.clone(), 1..5000u64).prop_map(|(engine, micros)| Step::Finish { engine, micros }),
        3 => engine.clone().prop_map(|engine| Step::CommWanted { engine }),
        2 => (client.clone(), 1..20u64).prop_map(|(client, counter)| Step::Interrupt { client, counter }),
        2 => (client.clone(), 1..20u64).prop_map(|(client, counter)| Step::Abort { client, counter }),
        2 => client.clone().prop_map(|client| Step::Reconnect { client }),
        1 => client.clone().prop_map(|client| Step::Leave { client }),
        3 => client.prop_map(|client| Step::Ack { client }),
        3 => (engine.clone(), 0..3usize).prop_map(|(engine, missed)| Step::Relink { engine, missed }),
        1 => engine.clone().prop_map(|engine| Step::Die { engine }),
        1 => engine.prop_map(|engine| Step::Vanish { engine }),
        1 => Just(Step::Stop),
        4 => Just(Step::Wait),
    ]
}

/// A client as the other end of the conversation sees it.
#[derive(Default)]
struct Client {
    counter: u64,
    connected: bool,
    seen: u64,
    /// What was submitted: how many outcomes are due for it.
    due: HashMap<u64, usize>,
    rejected: HashSet<u64>,
    outcomes: HashMap<u64, HashSet<u32>>,
}

struct Play {
    bench: Bench,
    clients: [Client; 2],
    /// What each engine was sent and has not finished, in order.
    inboxes: Vec<Vec<Order>>,
    highest: Vec<u64>,
    dead: [bool; SIZE as usize],
}

fn id(client: usize) -> ClientId {
    [ADA, BOB][client]
}

impl Play {
    fn new() -> Self {
        let limits = Limits {
            window: 2,
            event_window: 600,
            credit_instructions: 1000,
            ..Limits::default()
        };
        let mut bench = Bench::new(SIZE, limits);
        bench.open(BOB, 0).unwrap();
        let inboxes = vec![Vec::new(); SIZE as usize];
        let connected = || Client {
            connected: true,
            ..Client::default()
        };
        let clients = [connected(), connected()];
        Self {
            bench,
            clients,
            inboxes,
            highest: vec![0; SIZE as usize],
            dead: [false; SIZE as usize],
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Submit {
                client,
                targets,
                pooled,
            } => self.submit(*client, targets, *pooled),
            Step::Finish { engine, micros } => self.finish(*engine, Duration::from_micros(*micros)),
            Step::CommWanted { engine } => self.want_comm(*engine),
            Step::Interrupt { client, counter } if self.clients[*client].connected => {
                let target = InterruptTarget::Counters(vec![*counter]);
                self.bench
                    .ask(id(*client), Request::Interrupt { request: 1, target })
                    .unwrap();
            }
            Step::Abort { client, counter } if self.clients[*client].connected => {
                let counters = vec![*counter];
                self.bench
                    .ask(id(*client), Request::Abort { request: 1, counters })
                    .unwrap();
            }
            Step::Interrupt { .. } | Step::Abort { .. } => {}
            Step::Reconnect { client } => self.reconnect(*client),
            Step::Leave { client } => self.leave(*client),
            Step::Ack { client } => self.ack(*client),
            Step::Relink { engine, missed } => self.relink(*engine, *missed),
            Step::Die { engine } => self.die(*engine),
            Step::Vanish { engine } => self.vanish(*engine),
            Step::Stop => {
                self.bench
                    .router
                    .begin_stop("enough".to_owned(), StopOrigin::Asked, self.bench.now)
            }
            Step::Wait => self.bench.pass(Duration::from_millis(20)),
        }
        self.deliver();
    }

    fn submit(&mut self, client: usize, targets: &[u32], pooled: bool) {
        let state = &mut self.clients[client];
        if !state.connected {
            return;
        }
        state.counter += 1;
        let (due, targets) = if pooled {
            (1, one_of(targets))
        } else {
            (targets.len(), all(targets))
        };
        state.due.insert(state.counter, due);
        self.bench.submit(id(client), state.counter, targets);
    }

    fn finish(&mut self, engine: u32, duration: Duration) {
        if self.dead[engine as usize] || self.inboxes[engine as usize].is_empty() {
            return;
        }
        let order = self.inboxes[engine as usize].remove(0);
        self.bench.say(engine, FromEngine::Started { order });
        self.bench.finish(engine, order, duration);
    }

    fn want_comm(&mut self, engine: u32) {
        if let Some(order) = self.inboxes[engine as usize]
            .first()
            .filter(|_| !self.dead[engine as usize])
        {
            let order = *order;
            self.bench.say(
                engine,
                FromEngine::CommWanted {
                    order,
                    round: 0,
                    have: None,
                },
            );
        }
    }

    fn leave(&mut self, client: usize) {
        if std::mem::take(&mut self.clients[client].connected) {
            self.bench.router.on_client_closed(id(client), self.bench.now);
        }
    }

    fn reconnect(&mut self, client: usize) {
        self.leave(client);
        self.clients[client].connected = true;
        self.bench.open(id(client), self.clients[client].seen).unwrap();
    }

    fn ack(&mut self, client: usize) {
        if self.clients[client].connected {
            let events = self.clients[client].seen;
            self.bench.ask(id(client), Request::Ack { events }).unwrap();
        }
    }

    fn relink(&mut self, engine: u32, missed: usize) {
        let index = engine as usize;
        if self.dead[index] {
            return;
        }
        self.bench
            .router
            .on_engine_closed(EngineId(engine), false, self.bench.now);
        let gone = self.bench.router.engines[index].is_gone();
        self.dead[index] = gone;
        if gone {
            return;
        }
        // What was lost on the way are the newest of those that have not ended.
        let keep = self.inboxes[index].len().saturating_sub(missed);
        let lost = self.inboxes[index].split_off(keep);
        if let Some(first) = lost.first() {
            self.highest[index] = first.0 - 1;
        }
        self.bench.hello(engine, SIZE, self.highest[index]);
    }

    fn die(&mut self, engine: u32) {
        if std::mem::replace(&mut self.dead[engine as usize], true) {
            return;
        }
        let kind = LossKind::Signal(11);
        let cause = LossCause {
            engine,
            host: String::new(),
            kind,
            detail: String::new(),
        };
        self.bench.say(engine, FromEngine::Dying { cause, order: None });
        self.bench
            .router
            .on_engine_closed(EngineId(engine), true, self.bench.now);
    }

    fn vanish(&mut self, engine: u32) {
        if !std::mem::replace(&mut self.dead[engine as usize], true) {
            self.bench
                .router
                .on_engine_closed(EngineId(engine), true, self.bench.now);
        }
    }

    /// Hands over what the router said and checks it.
    fn deliver(&mut self) {
        for (engine, order) in self.bench.runs() {
            let index = engine as usize;
            assert!(
                order.0 > self.highest[index],
                "engine {engine} got {order} after {}",
                self.highest[index]
            );
            self.highest[index] = order.0;
            self.inboxes[index].push(order);
        }
        let sent = std::mem::take(&mut self.bench.router.outbox().clients);
        for (to, message, _) in sent {
            let client = if to == ADA { 0 } else { 1 };
            self.hear(client, &message.decode().unwrap());
        }
    }

    fn hear(&mut self, client: usize, envelope: &EventEnvelope) {
        let state = &mut self.clients[client];
        if envelope.number == 0 {
            // Answers are for who is there.
            return;
        }
        assert!(
            state.connected,
            "what is kept is not sent to a client that is not there"
        );
        assert_eq!(envelope.number, state.seen + 1);
        state.seen = envelope.number;
        match &envelope.event {
            Event::Finished { counter, engine, .. } => {
                assert!(!state.rejected.contains(counter), "rejected and ended");
                let new = state.outcomes.entry(*counter).or_default().insert(engine.0);
                assert!(new, "instruction {counter} ended twice on engine {engine}");
            }
            Event::Rejected { counter, .. } => assert!(state.rejected.insert(*counter)),
            _ => {}
        }
    }

    /// Lets everything end, one way or the other, and counts.
    fn end(mut self, die: bool) {
        if die {
            (0..SIZE).for_each(|engine| self.take(&Step::Die { engine }));
        }
        for client in 0..2 {
            self.take(&Step::Reconnect { client });
        }
        for _ in 0..1000 {
            (0..SIZE).for_each(|engine| self.take(&Step::Finish { engine, micros: 1 }));
            (0..2).for_each(|client| self.take(&Step::Ack { client }));
        }
        for state in &self.clients {
            for (counter, due) in &state.due {
                let found = state.outcomes.get(counter).map_or(0, HashSet::len);
                let expected = if state.rejected.contains(counter) { 0 } else { *due };
                assert_eq!(found, expected, "outcomes of instruction {counter}");
            }
        }
        assert!(self.bench.router.instructions.is_empty());
        assert!(self.bench.router.pool.is_empty());
        assert!(self.bench.router.engines.iter().all(|row| row.unfinished() == 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn exactly_one_outcome_per_target(steps in prop::collection::vec(step(), 1..120), die: bool) {
        let mut play = Play::new();
        play.deliver();
        steps.iter().for_each(|step| play.take(step));
        play.end(die);
    }
}
