//! Submitting, waiting and coming back, against a gateway that the test plays.

mod gateway;

use std::time::Duration;

use bytes::Bytes;
use gateway::{FakeGateway, Heard, LIMIT, finish, generous};
use ipengine_protocol::outcome::LossKind;
use ipengine_protocol::{
    Answer, ClientId, Credit, EngineId, Event, InstructionId, InterruptState, InterruptTarget, LossCause,
    Outcome, OutputName, Request, Targets, Timing, ValueHead, ValueKind, Work, access::Ended,
    event::InterruptReport,
};
use ipsteer::{Client, Error, Instruction};

fn engines(ranks: &[u32]) -> Vec<EngineId> {
    ranks.iter().copied().map(EngineId).collect()
}

fn instruction(ranks: &[u32]) -> Instruction {
    Instruction {
        targets: Targets::All(engines(ranks)),
        work: Work::Clear,
        blobs: Vec::new(),
        each: None,
        label: None,
    }
}

fn submit(client: &Client, ranks: &[u32]) -> u64 {
    client.submit(instruction(ranks)).expect("queued")
}

fn finished(counter: u64, rank: u32, outcome: Outcome) -> Event {
    Event::Finished {
        counter,
        engine: EngineId(rank),
        outcome,
        timing: Timing {
            started: 1,
            completed: 2,
        },
    }
}

fn done(counter: u64, rank: u32) -> Event {
    finished(counter, rank, Outcome::Done(ValueHead::null()))
}

fn wait(client: &Client, counters: &[u64]) {
    assert!(
        client.wait(counters, Some(LIMIT), false).expect("known"),
        "not finished in time"
    );
}

fn wait_changes(client: &Client, counter: u64, changes: usize) {
    let seen = client
        .wait_change(counter, changes - 1, Some(LIMIT))
        .expect("known");
    assert!(seen >= changes, "{seen} of {changes} changes in time");
}

#[test]
fn an_instruction_goes_out_and_its_outcomes_come_back() {
    for mut gateway in [FakeGateway::unix(), FakeGateway::tls()] {
        let client = gateway.connect();
        let counter = submit(&client, &[2, 0]);
        assert_eq!(gateway.submit(), counter);
        assert_eq!(client.running(counter).expect("known"), engines(&[2, 0]));
        let blob = Bytes::from(vec![5; 3 << 20]);
        let head = ValueHead {
            kind: ValueKind::Bytes,
            blobs: 1,
        };
        gateway.say(finished(counter, 0, Outcome::Done(head)), vec![blob.clone()]);
        gateway.say(done(counter, 2), Vec::new());
        wait(&client, &[counter]);
        let outcomes = client.outcomes(counter).expect("known");
        let of: Vec<u32> = outcomes
            .iter()
            .flatten()
            .map(|arrived| arrived.engine.0)
            .collect();
        assert_eq!(of, [2, 0], "in the order of the targets");
        assert_eq!(outcomes[1].as_ref().expect("there").blobs, [blob]);
        assert_eq!(client.next_finished(Some(LIMIT)).expect("open"), [counter]);
        client.forget(&[counter]).expect("finished");
        assert!(matches!(
            client.outcomes(counter),
            Err(Error::UnknownInstruction(_))
        ));
    }
}

#[test]
fn what_was_not_accepted_is_sent_again_and_replay_is_not_doubled() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let first = submit(&client, &[0]);
    let second = submit(&client, &[1]);
    assert_eq!(
        (gateway.unaccepted_submit(), gateway.unaccepted_submit()),
        (first, second)
    );
    gateway.say(Event::Accepted { up_to: first }, Vec::new());
    let output = || Event::Stream {
        id: Some(InstructionId {
            client: client.id(),
            counter: first,
        }),
        engine: EngineId(0),
        name: OutputName::Stdout,
        omitted: 0,
    };
    gateway.say(output(), vec![Bytes::from_static(b"once\n")]);
    wait_changes(&client, first, 1);
    gateway.cut();
    let seen = gateway.open(first, generous());
    assert_eq!(seen, 2, "events taken over");
    assert_eq!(gateway.submit(), second, "only what was not accepted");
    gateway.say_as(2, output(), vec![Bytes::from_static(b"once\n")]);
    gateway.say(done(first, 0), Vec::new());
    gateway.say(done(second, 1), Vec::new());
    gateway.say_as(
        4,
        finished(
            second,
            1,
            Outcome::Aborted {
                reason: String::new(),
            },
        ),
        Vec::new(),
    );
    wait(&client, &[first, second]);
    let texts: Vec<String> = client
        .outputs(first, 0)
        .expect("known")
        .into_iter()
        .map(|o| o.text)
        .collect();
    assert_eq!(texts, ["once\n"]);
    let outcome = client.outcomes(second).expect("known").remove(0).expect("there");
    assert!(outcome.outcome.is_done());
}

#[test]
fn credit_holds_back_and_nothing_is_lost() {
    let mut gateway = FakeGateway::unix();
    let connecting = Client::start(gateway.options()).expect("a thread");
    gateway.open(
        0,
        Credit {
            instructions: 1,
            bytes: 1 << 30,
        },
    );
    let client = finish(connecting).expect("a session");
    let counters: Vec<u64> = (0..3).map(|_| submit(&client, &[0])).collect();
    assert_eq!(gateway.submit(), counters[0]);
    // Control overtakes what waits: the next thing heard is the question, not the second submit.
    let question = client.status().expect("asked");
    assert!(matches!(gateway.request(), (Request::Status { .. }, _)));
    drop(question);
    gateway.say_unnumbered(Event::Credit(Credit {
        instructions: 3,
        bytes: 1 << 30,
    }));
    assert_eq!((gateway.submit(), gateway.submit()), (counters[1], counters[2]));
}

#[test]
fn the_first_error_ends_a_wait_for_it() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let counter = submit(&client, &[0, 1]);
    gateway.submit();
    assert!(
        !client
            .wait(&[counter], Some(Duration::ZERO), true)
            .expect("known")
    );
    gateway.say(finished(counter, 1, Outcome::Raised(Box::default())), Vec::new());
    assert!(client.wait(&[counter], Some(LIMIT), true).expect("known"));
    assert!(!client.finished(counter).expect("known"));
    assert_eq!(client.running(counter).expect("known"), engines(&[0]));
    assert!(matches!(client.forget(&[counter]), Err(Error::Unfinished(_))));
}

#[test]
fn one_of_many_has_one_outcome() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let targets = Targets::OneOf(engines(&[0, 1, 2, 3]));
    let counter = client
        .submit(Instruction {
            targets,
            ..instruction(&[0])
        })
        .expect("queued");
    gateway.submit();
    gateway.say(
        Event::Started {
            counter,
            engine: EngineId(3),
        },
        Vec::new(),
    );
    gateway.say(done(counter, 3), Vec::new());
    wait(&client, &[counter]);
    let outcomes = client.outcomes(counter).expect("known");
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].as_ref().expect("there").engine, EngineId(3));
}

#[test]
fn a_rejected_instruction_ends() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let counter = submit(&client, &[0, 1]);
    gateway.submit();
    gateway.say(
        Event::Rejected {
            counter,
            reason: "the world has ended".to_owned(),
        },
        Vec::new(),
    );
    wait(&client, &[counter]);
    for arrived in client.outcomes(counter).expect("known").into_iter().flatten() {
        assert!(matches!(&arrived.outcome, Outcome::Aborted { reason } if reason == "the world has ended"));
    }
}

#[test]
fn target_sets_and_parts_are_checked_before_anything_is_sent() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let refused = |instruction: Instruction| client.submit(instruction).expect_err("refused");
    assert!(matches!(refused(instruction(&[])), Error::NoTargets));
    assert!(matches!(
        refused(instruction(&[4])),
        Error::UnknownEngine { engine: 4, size: 4 }
    ));
    assert!(matches!(
        refused(instruction(&[1, 1])),
        Error::RepeatedEngine(EngineId(1))
    ));
    let each = Instruction {
        each: Some(vec![1, 1]),
        blobs: vec![Bytes::new()],
        ..instruction(&[0, 1])
    };
    assert!(matches!(refused(each), Error::Parts { .. }));
    assert_eq!(submit(&client, &[0]), 1, "refused ones took no number");
}

#[test]
fn an_interrupt_is_answered_even_over_a_reconnection() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let question = client
        .interrupt(InterruptTarget::Engines(engines(&[1])))
        .expect("asked");
    assert!(matches!(gateway.request(), (Request::Interrupt { .. }, _)));
    gateway.cut();
    gateway.open(0, generous());
    let (Request::Interrupt { request, .. }, _) = gateway.request() else {
        panic!("expected it again")
    };
    let report = InterruptReport {
        engine: EngineId(1),
        state: InterruptState::Interrupted,
        detail: String::new(),
    };
    gateway.say_unnumbered(Event::Answer {
        request,
        answer: Answer::Interrupt(vec![report.clone()]),
    });
    assert_eq!(question.wait(Some(LIMIT)).expect("answered"), Some(vec![report]));
}

#[test]
fn events_are_acked_before_their_window_is_full() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let counter = submit(&client, &[0]);
    gateway.submit();
    let half = Bytes::from(vec![0; 600 << 10]);
    gateway.say(
        finished(
            counter,
            0,
            Outcome::Done(ValueHead {
                kind: ValueKind::Bytes,
                blobs: 1,
            }),
        ),
        vec![half],
    );
    let Heard::Request(Request::Ack { events }, _) = gateway.hear() else {
        panic!("expected an ack")
    };
    assert_eq!(events, 1);
    wait(&client, &[counter]);
}

#[test]
fn closing_sends_what_is_queued_and_ends_waits() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let counter = submit(&client, &[0]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.wait(&[counter], Some(LIMIT), false));
        let closing = scope.spawn(|| client.close());
        assert_eq!(gateway.unaccepted_submit(), counter);
        gateway.say(Event::Accepted { up_to: counter }, Vec::new());
        closing.join().expect("no panic").expect("closed");
        assert!(matches!(waiting.join().expect("no panic"), Err(Error::Closed)));
    });
    assert!(matches!(client.submit(instruction(&[0])), Err(Error::Closed)));
    while !matches!(gateway.hear(), Heard::Closed) {}
}

#[test]
fn a_cluster_that_ended_for_good_leaves_nobody_waiting() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let counter = submit(&client, &[0, 1]);
    gateway.submit();
    let cause = LossCause {
        engine: 1,
        host: "h".to_owned(),
        kind: LossKind::Signal(11),
        detail: String::new(),
    };
    gateway.say(
        Event::EngineLost {
            engine: EngineId(1),
            cause: cause.clone(),
        },
        Vec::new(),
    );
    gateway.record.ended = Some(Ended {
        at: 2,
        reason: "engine 1 died".to_owned(),
    });
    gateway.record.token = None;
    gateway.write_file();
    gateway.cut();
    wait(&client, &[counter]);
    let outcomes = client.outcomes(counter).expect("known");
    let lost = |place: usize| match &outcomes[place].as_ref().expect("there").outcome {
        Outcome::Lost(cause) => cause.clone(),
        other => panic!("expected Lost, got {other:?}"),
    };
    assert!(lost(0).detail.contains("engine 1 died"), "{}", lost(0));
    assert_eq!(lost(1), cause);
    assert!(matches!(
        client.submit(instruction(&[0])),
        Err(Error::Lost { .. })
    ));
    assert!(
        client
            .info()
            .expect("known")
            .ended
            .expect("ended")
            .contains("engine 1 died")
    );
}

#[test]
fn output_of_others_is_kept_apart_and_characters_stay_whole() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let counter = submit(&client, &[0]);
    gateway.submit();
    let stream = |client: ClientId| Event::Stream {
        id: Some(InstructionId { client, counter }),
        engine: EngineId(0),
        name: OutputName::Stdout,
        omitted: 0,
    };
    gateway.say(stream(ClientId([1; 16])), vec![Bytes::from_static(b"not mine")]);
    gateway.say(stream(client.id()), vec![Bytes::from_static(b"caf\xc3")]);
    gateway.say(stream(client.id()), vec![Bytes::from_static(b"\xa9\n")]);
    gateway.say(done(counter, 0), Vec::new());
    wait(&client, &[counter]);
    let text: String = client
        .outputs(counter, 0)
        .expect("known")
        .into_iter()
        .map(|output| output.text)
        .collect();
    assert_eq!(text, "café\n");
    let strays: Vec<String> = client
        .strays()
        .expect("open")
        .into_iter()
        .map(|output| output.text)
        .collect();
    assert_eq!(strays, ["not mine"]);
}

#[test]
fn a_gateway_that_does_not_know_the_session_ends_it_for_good() {
    for while_reconnecting in [false, true] {
        let mut gateway = FakeGateway::unix();
        let client = gateway.connect();
        let counter = submit(&client, &[0, 1]);
        assert_eq!(gateway.submit(), counter);
        if while_reconnecting {
            gateway.cut();
            while !matches!(gateway.hear(), Heard::Request(Request::Open { .. }, _)) {}
        }
        gateway.close(4001, "forgotten after 60 s");
        wait(&client, &[counter]);
        for outcome in client.outcomes(counter).expect("known") {
            match &outcome.expect("there").outcome {
                Outcome::Lost(cause) => assert_eq!(
                    cause.detail,
                    "forgotten after 60 s; connect again with a new Client"
                ),
                other => panic!("expected Lost, got {other:?}"),
            }
        }
        let refused = client.submit(instruction(&[0]));
        assert!(matches!(refused, Err(Error::Lost { .. })), "{refused:?}");
    }
}

#[test]
fn another_close_code_is_told_and_does_not_end_the_session() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let counter = submit(&client, &[0]);
    assert_eq!(gateway.submit(), counter);
    gateway.close(1012, "restarting");
    gateway.open(counter, generous());
    gateway.say(done(counter, 0), Vec::new());
    wait(&client, &[counter]);

    let mut gateway = FakeGateway::unix();
    let connecting = Client::start(gateway.options()).expect("a thread");
    while !matches!(gateway.hear(), Heard::Request(Request::Open { .. }, _)) {}
    gateway.close(1013, "too many clients");
    let error = finish(connecting).expect_err("no session").to_string();
    assert!(
        error.contains("closed with code 1013: too many clients"),
        "{error}"
    );
}

#[test]
fn what_was_forgotten_counts_as_finished_and_what_never_was_is_unknown() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    let (first, second) = (submit(&client, &[0]), submit(&client, &[0]));
    assert_eq!([gateway.submit(), gateway.submit()], [first, second]);
    gateway.say(done(first, 0), Vec::new());
    wait(&client, &[first]);
    client.forget(&[first]).expect("finished");
    wait(&client, &[first]);
    assert!(client.finished(first).expect("known"));
    assert_eq!(client.wait_change(first, 7, Some(LIMIT)).expect("known"), 8);
    assert!(
        !client
            .wait(&[first, second], Some(Duration::ZERO), true)
            .expect("known")
    );
    gateway.say(done(second, 0), Vec::new());
    wait(&client, &[second, first]);
    for never in [0, second + 1] {
        let unknown = client.wait(&[never], Some(LIMIT), false);
        assert!(
            matches!(unknown, Err(Error::UnknownInstruction(_))),
            "{unknown:?}"
        );
        let unknown = client.finished(never);
        assert!(
            matches!(unknown, Err(Error::UnknownInstruction(_))),
            "{unknown:?}"
        );
    }
}

#[test]
fn a_shutdown_is_asked_for_again_after_a_reconnection() {
    let mut gateway = FakeGateway::unix();
    let client = gateway.connect();
    gateway.cut();
    while !matches!(gateway.hear(), Heard::Request(Request::Open { .. }, _)) {}
    client.shutdown("enough").expect("queued");
    gateway.welcome(0, generous());
    let reason = |heard| match heard {
        (Request::Shutdown { reason }, _) => reason,
        other => panic!("expected Shutdown, heard {other:?}"),
    };
    assert_eq!(reason(gateway.request()), "enough");
    gateway.cut();
    gateway.open(0, generous());
    assert_eq!(reason(gateway.request()), "enough");
    gateway.say_unnumbered(Event::Ended {
        reason: "stopped".to_owned(),
    });
    let end = client.wait_end(Some(LIMIT)).expect("open");
    assert_eq!(end.as_deref(), Some("stopped"));
}
