//! The router with a recording outbox: no sockets, no clock.

mod schedule;

use std::time::{Duration, Instant};

use bytes::Bytes;
use ipengine_protocol::{
    ClientId, EngineFacts, EngineId, Event, EventEnvelope, FromEngine, FromEngineEnvelope, Message, Order,
    Outcome, PythonVersion, Request, Submit, Targets, Timing, ToEngine, ValueHead, Work,
};

use super::{Cluster, Now, Opening, Router};
use crate::{Fault, Lane, Limits, Outbox};

/// Keeps what the router says.
#[derive(Debug, Default)]
struct Record {
    clients: Vec<(ClientId, Message, Lane)>,
    engines: Vec<(EngineId, Message, Lane)>,
    closed: Vec<EngineId>,
}

impl Outbox for Record {
    fn to_client(&mut self, client: ClientId, message: Message, lane: Lane) {
        self.clients.push((client, message, lane));
    }

    fn to_engine(&mut self, engine: EngineId, message: Message, lane: Lane) {
        self.engines.push((engine, message, lane));
    }

    fn close_engine(&mut self, engine: EngineId) {
        self.closed.push(engine);
    }
}

const ADA: ClientId = ClientId([1; 16]);
const BOB: ClientId = ClientId([2; 16]);

struct Bench {
    router: Router<Record>,
    now: Now,
    numbers: Vec<u64>,
}

impl Bench {
    /// A world that nobody has joined.
    fn starting(size: u32, limits: Limits) -> Self {
        let now = Now {
            at: Instant::now(),
            unix: 1,
        };
        let cluster = Cluster {
            name: "test".to_owned(),
            software: String::new(),
            size,
            launcher: false,
            restarted: false,
            linger: Duration::from_secs(60),
        };
        let router = Router::new(cluster, limits, Record::default(), now);
        Self {
            router,
            now,
            numbers: vec![0; size as usize],
        }
    }

    /// A complete world with one client, Ada.
    fn new(size: u32, limits: Limits) -> Self {
        let mut bench = Self::starting(size, limits);
        (0..size).for_each(|rank| bench.hello(rank, size, 0));
        bench.open(ADA, 0).unwrap();
        bench
    }

    fn hello(&mut self, rank: u32, size: u32, seen: u64) {
        let facts = EngineFacts {
            id: EngineId(rank),
            size,
            host: "here".to_owned(),
            pid: 1,
            python: PythonVersion(3, 11, 7),
            mpi: String::new(),
            orders_seen: Order(seen),
        };
        self.router.on_engine_hello(facts, self.now);
    }

    fn open(&mut self, client: ClientId, events_seen: u64) -> Result<(), Fault> {
        let opening = Opening {
            client,
            user: String::new(),
            software: String::new(),
            events_seen,
        };
        self.router.on_client_open(opening, self.now)
    }

    fn ask(&mut self, client: ClientId, request: Request) -> Result<(), Fault> {
        self.router.on_request(client, request, vec![], 100, self.now)
    }

    fn submit(&mut self, client: ClientId, counter: u64, targets: Targets) {
        let submit = Submit {
            counter,
            targets,
            work: Work::Clear,
            each: None,
            label: None,
        };
        self.ask(client, Request::Submit(submit)).unwrap();
    }

    fn say(&mut self, rank: u32, message: FromEngine) {
        let number = &mut self.numbers[rank as usize];
        *number += 1;
        let envelope = FromEngineEnvelope {
            number: *number,
            message,
        };
        self.router
            .on_engine_message(EngineId(rank), envelope, vec![], self.now)
            .unwrap();
    }

    fn finish(&mut self, rank: u32, order: Order, duration: Duration) {
        let timing = Timing {
            started: 1,
            completed: 1 + duration.as_nanos() as u64,
        };
        let outcome = Outcome::Done(ValueHead::null());
        self.say(
            rank,
            FromEngine::Finished {
                order,
                outcome,
                timing,
            },
        );
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.router.on_time(self.now);
    }

    fn sent(&mut self) -> Vec<(u32, ToEngine)> {
        let sent = std::mem::take(&mut self.router.outbox().engines);
        sent.into_iter()
            .map(|(engine, message, _)| (engine.0, message.decode().unwrap()))
            .collect()
    }

    fn runs(&mut self) -> Vec<(u32, Order)> {
        let runs = self
            .sent()
            .into_iter()
            .filter_map(|(engine, message)| match message {
                ToEngine::Run { order, .. } => Some((engine, order)),
                _ => None,
            });
        runs.collect()
    }

    fn events(&mut self, client: ClientId) -> Vec<Event> {
        let sent = std::mem::take(&mut self.router.outbox().clients);
        let own = sent.into_iter().filter(|(to, ..)| *to == client);
        own.map(|(_, message, _)| message.decode::<EventEnvelope>().unwrap().event)
            .collect()
    }
}

fn all(engines: &[u32]) -> Targets {
    Targets::All(engines.iter().copied().map(EngineId).collect())
}

fn one_of(engines: &[u32]) -> Targets {
    Targets::OneOf(engines.iter().copied().map(EngineId).collect())
}

#[test]
fn an_engine_has_at_most_its_window_in_flight() {
    let mut bench = Bench::new(2, Limits::default());
    (1..=40).for_each(|counter| bench.submit(ADA, counter, all(&[0, 1])));
    let runs = bench.runs();
    assert_eq!(runs.iter().filter(|(engine, _)| *engine == 0).count(), 32);
    bench.finish(0, Order(1), Duration::ZERO);
    assert_eq!(
        bench.runs(),
        [(0, Order(33))],
        "the engine that has room goes on alone"
    );
}

#[test]
fn an_instruction_is_encoded_once_for_all_targets() {
    let mut bench = Bench::new(3, Limits::default());
    bench.sent();
    bench.submit(ADA, 1, all(&[0, 1, 2]));
    let heads: Vec<*const u8> = bench
        .router
        .outbox()
        .engines
        .iter()
        .map(|(_, message, _)| message.head.as_ptr())
        .collect();
    assert_eq!(heads.len(), 3);
    assert!(heads.iter().all(|head| *head == heads[0]));
}

#[test]
fn long_tasks_are_not_prefetched_behind_a_busy_engine() {
    let mut bench = Bench::new(2, Limits::default());
    (1..=6).for_each(|counter| bench.submit(ADA, counter, one_of(&[0, 1])));
    assert_eq!(bench.runs(), [(0, Order(1)), (1, Order(2))]);
    bench.finish(1, Order(2), Duration::from_secs(1));
    assert_eq!(bench.runs(), [(1, Order(3))]);
}

#[test]
fn tiny_tasks_are_pipelined() {
    let mut bench = Bench::new(1, Limits::default());
    (1..=100).for_each(|counter| bench.submit(ADA, counter, one_of(&[0])));
    assert_eq!(bench.runs().len(), 1);
    bench.finish(0, Order(1), Duration::from_micros(100));
    assert_eq!(bench.runs().len(), 20, "as many as fit into 2 ms");
}

#[test]
fn orders_on_an_engine_only_rise_when_tasks_and_instructions_mix() {
    let mut bench = Bench::new(
        2,
        Limits {
            window: 1,
            ..Limits::default()
        },
    );
    bench.submit(ADA, 1, one_of(&[0]));
    bench.submit(ADA, 2, one_of(&[0]));
    bench.submit(ADA, 3, all(&[0, 1]));
    assert_eq!(bench.runs(), [(0, Order(1)), (1, Order(2))]);
    bench.finish(0, Order(1), Duration::from_secs(1));
    assert_eq!(bench.runs(), [(0, Order(2))]);
    bench.finish(0, Order(2), Duration::from_secs(1));
    assert_eq!(
        bench.runs(),
        [(0, Order(3))],
        "the task got its place when it found room"
    );
}

#[test]
fn acks_wait_for_company_and_stability_for_all_targets() {
    let mut bench = Bench::new(2, Limits::default());
    bench.submit(ADA, 1, all(&[0, 1]));
    bench.sent();
    bench.finish(0, Order(1), Duration::ZERO);
    assert_eq!(bench.sent(), []);
    bench.pass(Duration::from_millis(10));
    assert_eq!(bench.sent(), [(0, ToEngine::Ack { received: 1 })]);
    bench.finish(1, Order(1), Duration::ZERO);
    bench.pass(Duration::from_millis(10));
    let stable = ToEngine::Stable { up_to: Order(1) };
    let ack = ToEngine::Ack { received: 1 };
    assert_eq!(bench.sent(), [(0, stable.clone()), (1, ack), (1, stable)]);
}

#[test]
fn sixty_four_messages_are_acked_at_once() {
    let mut bench = Bench::new(1, Limits::default());
    bench.sent();
    for _ in 0..64 {
        bench.say(0, FromEngine::Started { order: Order(9) });
    }
    assert_eq!(bench.sent(), [(0, ToEngine::Ack { received: 64 })]);
}

#[test]
fn output_outside_instructions_goes_to_all_who_are_there() {
    let mut bench = Bench::new(1, Limits::default());
    bench.open(BOB, 0).unwrap();
    bench.events(ADA);
    let stream = FromEngine::Stream {
        order: None,
        name: ipengine_protocol::OutputName::Stderr,
        omitted: 0,
    };
    bench.say(0, stream);
    let told: Vec<ClientId> = bench
        .router
        .outbox()
        .clients
        .iter()
        .map(|(client, ..)| *client)
        .collect();
    assert!(told.len() == 2 && told.contains(&ADA) && told.contains(&BOB));
}

#[test]
fn a_client_that_left_is_forgotten_in_time_and_one_with_results_is_not() {
    let mut bench = Bench::new(1, Limits::default());
    bench.open(BOB, 0).unwrap();
    bench.submit(ADA, 1, all(&[0]));
    bench.router.on_client_closed(ADA, bench.now);
    bench.router.on_client_closed(BOB, bench.now);
    bench.finish(0, Order(1), Duration::ZERO);
    bench.pass(Limits::default().remember);
    assert!(bench.router.clients.get(BOB).is_none());
    bench.events(ADA);
    bench.open(ADA, 0).unwrap();
    assert!(
        bench
            .events(ADA)
            .iter()
            .any(|event| matches!(event, Event::Finished { counter: 1, .. }))
    );
}

#[test]
fn one_message_may_overdraw_the_bytes_and_the_next_may_not() {
    let limits = Limits {
        credit_bytes: 150,
        ..Limits::default()
    };
    let mut bench = Bench::new(1, limits);
    // Each counts 100 bytes.
    bench.submit(ADA, 1, all(&[0]));
    bench.submit(ADA, 2, all(&[0]));
    let third = Submit {
        counter: 3,
        targets: all(&[0]),
        work: Work::Clear,
        each: None,
        label: None,
    };
    let refused = bench.ask(ADA, Request::Submit(third));
    assert!(matches!(refused, Err(Fault::Overdrawn)));
    bench.finish(0, Order(1), Duration::ZERO);
    bench.submit(ADA, 3, all(&[0]));
}

#[test]
fn as_many_clients_as_can_be_remembered() {
    let mut bench = Bench::new(
        1,
        Limits {
            clients: 2,
            ..Limits::default()
        },
    );
    bench.open(BOB, 0).unwrap();
    let third = ClientId([3; 16]);
    assert!(matches!(bench.open(third, 0), Err(Fault::TooManyClients)));
    bench.router.on_client_closed(BOB, bench.now);
    bench.open(third, 0).unwrap();
    assert!(bench.router.clients.get(BOB).is_none());
}

#[test]
fn a_client_with_nothing_but_output_makes_room_and_one_with_results_does_not() {
    let mut bench = Bench::new(
        1,
        Limits {
            clients: 2,
            ..Limits::default()
        },
    );
    bench.open(BOB, 0).unwrap();
    bench.submit(ADA, 1, all(&[0]));
    let stream = FromEngine::Stream {
        order: None,
        name: ipengine_protocol::OutputName::Stdout,
        omitted: 0,
    };
    bench.say(0, stream);
    bench.router.on_client_closed(ADA, bench.now);
    bench.pass(Duration::from_secs(1));
    bench.router.on_client_closed(BOB, bench.now);
    bench.finish(0, Order(1), Duration::ZERO);
    bench.open(ClientId([3; 16]), 0).unwrap();
    assert!(bench.router.clients.get(BOB).is_none());
    assert!(bench.router.clients.get(ADA).is_some());
}

#[test]
fn a_client_that_came_back_in_between_counts_as_away_from_the_last_time() {
    let mut bench = Bench::new(1, Limits::default());
    bench.open(BOB, 0).unwrap();
    let half = Limits::default().remember / 2;
    for _ in 0..2 {
        bench.router.on_client_closed(BOB, bench.now);
        bench.pass(half);
        bench.open(BOB, 0).unwrap();
    }
    bench.router.on_client_closed(BOB, bench.now);
    bench.pass(half);
    assert!(bench.router.clients.get(BOB).is_some());
    bench.pass(half);
    assert!(bench.router.clients.get(BOB).is_none());
}

#[test]
fn an_engine_message_out_of_turn_is_a_fault() {
    let mut bench = Bench::new(1, Limits::default());
    bench.say(0, FromEngine::Started { order: Order(1) });
    for number in [0, 3] {
        let envelope = FromEngineEnvelope {
            number,
            message: FromEngine::Leaving,
        };
        let fault = bench
            .router
            .on_engine_message(EngineId(0), envelope, Vec::<Bytes>::new(), bench.now);
        assert!(matches!(fault, Err(Fault::Gap { expected: 2, .. })));
    }
}

#[test]
fn an_engine_that_comes_and_goes_has_its_full_time_after_each_parting() {
    let mut bench = Bench::new(1, Limits::default());
    let reconnect = Limits::default().reconnect;
    bench.router.on_engine_closed(EngineId(0), false, bench.now);
    bench.pass(reconnect / 2);
    bench.hello(0, 1, 0);
    bench.router.on_engine_closed(EngineId(0), false, bench.now);
    bench.pass(reconnect / 2);
    assert!(bench.router.is_missing(EngineId(0)), "the first limit is void");
    bench.pass(reconnect / 2);
    assert!(!bench.router.is_missing(EngineId(0)));
}

#[test]
fn an_engine_that_comes_back_while_the_launcher_is_asked_is_not_lost() {
    let mut bench = Bench::new(1, Limits::default());
    // As long as somebody listens to the launcher, a loss is not decided at once.
    bench.router.world.launcher.heard = true;
    bench.router.on_engine_closed(EngineId(0), false, bench.now);
    bench.pass(Limits::default().reconnect);
    bench.hello(0, 1, 0);
    bench.events(ADA);
    bench.pass(Limits::default().launcher);
    let lost = bench
        .events(ADA)
        .into_iter()
        .any(|event| matches!(event, Event::EngineLost { .. }));
    assert!(!lost);
    bench.submit(ADA, 1, all(&[0]));
    assert_eq!(bench.runs(), [(0, Order(1))]);
}

#[test]
fn an_engine_that_came_back_once_is_lost_like_any_other() {
    let mut bench = Bench::new(1, Limits::default());
    bench.router.world.launcher.heard = true;
    for _ in 0..2 {
        bench.hello(0, 1, 0);
        bench.router.on_engine_closed(EngineId(0), false, bench.now);
        bench.pass(Limits::default().reconnect);
    }
    bench.pass(Limits::default().launcher);
    assert_eq!(lost_first(&mut bench), Some(0));
}

/// A launcher kills the others so soon after a death that their ends may be seen before that of the first.
#[test]
fn the_link_that_closed_first_is_to_blame() {
    let mut bench = Bench::new(3, Limits::default());
    for engine in [2, 0, 1] {
        bench.router.on_engine_closed(EngineId(engine), false, bench.now);
        bench.pass(Duration::from_millis(1));
    }
    bench.router.on_process_gone(EngineId(0), bench.now);
    assert_eq!(lost_first(&mut bench), Some(2));
}

/// The engine that ADA hears to be the cause of all.
fn lost_first(bench: &mut Bench) -> Option<u32> {
    bench.events(ADA).into_iter().find_map(|event| match event {
        Event::EngineLost { cause, .. } => Some(cause.engine),
        _ => None,
    })
}

#[test]
fn a_restarted_gateway_goes_on_where_the_old_one_ended() {
    let mut bench = Bench::starting(1, Limits::default());
    bench.numbers = vec![7];
    bench.hello(0, 1, 41);
    bench.finish(0, Order(41), Duration::ZERO);
    bench.open(ADA, 0).unwrap();
    bench.sent();
    bench.submit(ADA, 1, all(&[0]));
    assert_eq!(bench.runs(), [(0, Order(42))]);
}

/// A host was cut off; the launcher notices and ends the others with signals before the engine's time to come back is over.
#[test]
fn the_launchers_signals_after_a_cut_name_the_engine_that_was_cut_off() {
    let mut bench = Bench::new(2, Limits::default());
    bench.submit(ADA, 1, all(&[0, 1]));
    bench.router.on_engine_closed(EngineId(1), false, bench.now);
    bench.say(0, FromEngine::Signalled { signal: 15 });
    bench.say(0, FromEngine::Leaving);
    let lost: Vec<(u32, u32)> = bench
        .events(ADA)
        .into_iter()
        .filter_map(|event| match event {
            Event::EngineLost { engine, cause } => Some((engine.0, cause.engine)),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [(1, 1), (0, 1)]);
}

#[test]
fn the_gateway_leaves_when_everything_is_fetched_or_its_time_is_over() {
    let mut bench = Bench::new(1, Limits::default());
    bench.submit(ADA, 1, all(&[0]));
    bench.finish(0, Order(1), Duration::ZERO);
    bench.router.on_client_closed(ADA, bench.now);
    bench.say(0, FromEngine::Leaving);
    bench.router.on_engine_closed(EngineId(0), true, bench.now);
    let ended_at = bench.now;
    assert!(!bench.router.may_leave(bench.now));
    assert_eq!(
        bench.router.next_deadline(),
        Some(bench.now.at + Limits::default().flush)
    );
    bench.pass(Duration::from_secs(59));
    assert!(!bench.router.may_leave(bench.now));
    bench.pass(Duration::from_secs(2));
    assert!(bench.router.may_leave(bench.now));
    bench.now = ended_at;
    bench.open(ADA, 0).unwrap();
    let last = bench
        .router
        .outbox()
        .clients
        .last()
        .unwrap()
        .1
        .decode::<EventEnvelope>()
        .unwrap()
        .number;
    bench.ask(ADA, Request::Ack { events: last }).unwrap();
    assert!(bench.router.may_leave(bench.now));
}

#[test]
fn tasks_behind_a_long_one_are_taken_back_and_run_elsewhere() {
    let mut bench = Bench::new(2, Limits::default());
    let tiny = Duration::from_micros(20);
    // Tiny tasks make the engines' windows wide.
    for counter in 1..=20 {
        bench.submit(ADA, counter, one_of(&[0, 1]));
        for (rank, order) in bench.runs() {
            bench.finish(rank, order, tiny);
        }
    }
    (21..=28).for_each(|counter| bench.submit(ADA, counter, one_of(&[0, 1])));
    let (first, second): (Vec<_>, Vec<_>) = bench.runs().into_iter().partition(|(rank, _)| *rank == 0);
    let first: Vec<Order> = first.into_iter().map(|(_, order)| order).collect();
    assert!(first.len() > 1, "nothing was sent ahead");
    bench.say(0, FromEngine::Started { order: first[0] });
    let behind = first[1..].to_vec();
    let recalled = bench.sent();
    assert!(
        recalled.contains(&(
            0,
            ToEngine::Recall {
                orders: behind.clone()
            }
        )),
        "{recalled:?}"
    );
    bench.router.on_engine_closed(EngineId(0), false, bench.now);
    bench.hello(0, 2, behind[behind.len() - 1].0);
    let again = ToEngine::Recall {
        orders: behind.clone(),
    };
    assert!(
        bench.sent().contains(&(0, again)),
        "asked again after a broken link"
    );
    for (rank, order) in second {
        bench.finish(rank, order, tiny);
    }
    // What comes back goes to the idle engine and not behind the long task again.
    bench.say(
        0,
        FromEngine::Recalled {
            orders: behind.clone(),
        },
    );
    let mut again = bench.runs();
    assert_eq!(again.len(), behind.len());
    assert!(again.iter().all(|(rank, _)| *rank == 1), "{again:?}");
    again.push((0, first[0]));
    for (rank, order) in again {
        bench.finish(rank, order, tiny);
    }
    let finished = bench
        .events(ADA)
        .into_iter()
        .filter(|event| matches!(event, Event::Finished { .. }));
    assert_eq!(finished.count(), 28);
}
