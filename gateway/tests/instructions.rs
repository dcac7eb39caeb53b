//! Instructions on their way: order, fan-out, parts for each, credit, replay, over real sockets.

mod support;

use bytes::Bytes;
use ipengine_protocol::{
    EngineId, Event, FromEngine, Outcome, OutputName, Request, Submit, Targets, Timing, ToEngine, ValueHead,
    ValueKind, Work,
};
use support::Gateway;
use support::client::{Client, close_frame, close_reason};
use support::engine::Engine;

#[tokio::test]
async fn an_instruction_runs_and_its_outcome_comes_back() {
    let gateway = Gateway::start(2).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    assert_eq!(client.welcome.engines.len(), 2);
    let counter = client.submit(&[1]).await;
    let order = engines[1].run().await;
    engines[1].send(FromEngine::Started { order }, vec![]).await;
    let piece = FromEngine::Stream {
        order: Some(order),
        name: OutputName::Stdout,
        omitted: 0,
    };
    engines[1].send(piece, vec![Bytes::from_static(b"hello")]).await;
    let outcome = Outcome::Done(ValueHead {
        kind: ValueKind::Text,
        blobs: 1,
    });
    let finished = FromEngine::Finished {
        order,
        outcome: outcome.clone(),
        timing: Timing::default(),
    };
    engines[1].send(finished, vec![Bytes::from_static(b"42")]).await;
    let mut seen = Vec::new();
    let value = client
        .wait_for(|event, blobs| {
            seen.push(match event {
                Event::Accepted { up_to: 1 } => "accepted",
                Event::Started {
                    counter: 1,
                    engine: EngineId(1),
                } => "started",
                Event::Stream { .. } if blobs[0] == "hello" => "stream",
                Event::Finished { outcome: found, .. } => {
                    assert_eq!(*found, outcome);
                    return Some(blobs[0].clone());
                }
                other => panic!("unexpected {other:?}"),
            });
            None
        })
        .await;
    assert_eq!((counter, value), (1, Bytes::from_static(b"42")));
    assert_eq!(seen, ["accepted", "started", "stream"]);
}

#[tokio::test]
async fn everything_works_over_tls_with_and_without_alpn() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect_tls(&gateway, 0, 1).await;
    for alpn in [&b""[..], b"http/1.1"] {
        let mut client = Client::connect_tls(&gateway, alpn).await;
        client.submit(&[0]).await;
        engine.run_and_finish(1).await;
        assert!(matches!(client.outcome().await, (1, 0, Outcome::Done(_))));
    }
}

#[tokio::test]
async fn bulk_crosses_in_both_directions() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect_tls(&gateway, 0, 1).await;
    let mut client = Client::connect_tls(&gateway, b"").await;
    let data: Bytes = (0..5_000_000u32)
        .map(|n| (n % 251) as u8)
        .collect::<Vec<_>>()
        .into();
    let work = Work::Push {
        names: vec!["x".to_owned()],
        values: vec![ValueHead {
            kind: ValueKind::Bytes,
            blobs: 1,
        }],
    };
    client
        .submit_work(Targets::All(vec![EngineId(0)]), work, vec![data.clone()], None)
        .await;
    let order = engine
        .wait_for(|message, blobs| match message {
            ToEngine::Run { order, .. } => {
                assert!(blobs == [data.clone()], "the bytes arrive as they were sent");
                Some(*order)
            }
            _ => None,
        })
        .await;
    let outcome = Outcome::Done(ValueHead {
        kind: ValueKind::Bytes,
        blobs: 1,
    });
    let finished = FromEngine::Finished {
        order,
        outcome,
        timing: Timing::default(),
    };
    // The gateway reads while this is written: both ends are served at once.
    engine.send(finished, vec![data.clone()]).await;
    let back = client
        .wait_for(|event, blobs| matches!(event, Event::Finished { .. }).then(|| blobs[0].clone()))
        .await;
    assert!(back == data);
}

#[tokio::test]
async fn parts_for_each_reach_their_engine() {
    let gateway = Gateway::start(3).await;
    let mut engines = gateway.engines(3).await;
    let mut client = gateway.client().await;
    let blobs = ["a", "b", "c"]
        .map(|text| Bytes::from_static(text.as_bytes()))
        .to_vec();
    let targets = Targets::All(vec![EngineId(2), EngineId(0), EngineId(1)]);
    client
        .submit_work(targets, Work::Clear, blobs, Some(vec![1, 0, 2]))
        .await;
    for (rank, expected) in [(2, vec!["a"]), (0, vec![]), (1, vec!["b", "c"])] {
        let found = engines[rank]
            .wait_for(|message, blobs| match message {
                ToEngine::Run { targets, .. } => {
                    assert_eq!(*targets, [EngineId(2), EngineId(0), EngineId(1)]);
                    Some(blobs.to_vec())
                }
                _ => None,
            })
            .await;
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn two_clients_with_overlapping_sets_get_one_order() {
    const ROUNDS: usize = 100;
    let gateway = Gateway::start(3).await;
    let mut engines = gateway.engines(3).await;
    let (mut ada, mut bob) = (gateway.client().await, Client::connect_tls(&gateway, b"").await);
    for _ in 0..ROUNDS {
        ada.submit(&[0, 1]).await;
        bob.submit(&[1, 2, 0]).await;
    }
    let mut common = Vec::new();
    for (rank, count) in [(0, 2 * ROUNDS), (1, 2 * ROUNDS), (2, ROUNDS)] {
        let orders = engines[rank].run_and_finish(count).await;
        assert!(orders.is_sorted(), "an engine's instructions come in order");
        common.push(orders);
    }
    assert_eq!(common[0], common[1]);
    for _ in 0..2 * ROUNDS {
        ada.outcome().await;
    }
    for _ in 0..3 * ROUNDS {
        bob.outcome().await;
    }
}

#[tokio::test]
async fn what_can_never_run_is_rejected_with_its_reason() {
    let gateway = Gateway::start(2).await;
    let _engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    let cases: [(Targets, Option<Vec<u32>>, &str); 6] = [
        (Targets::All(vec![EngineId(2)]), None, "no engine 2"),
        (Targets::All(vec![]), None, "empty"),
        (Targets::OneOf(vec![]), None, "empty"),
        (Targets::All(vec![EngineId(1), EngineId(1)]), None, "named twice"),
        (
            Targets::All(vec![EngineId(0), EngineId(1)]),
            Some(vec![1]),
            "parts for 1 engines",
        ),
        (Targets::All(vec![EngineId(0)]), Some(vec![2]), "make 2 blobs"),
    ];
    for (targets, each, expected) in cases {
        let counter = client
            .submit_work(targets, Work::Clear, vec![Bytes::from_static(b"x")], each)
            .await;
        let (rejected, reason) = client.rejection().await;
        assert_eq!(rejected, counter);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed_and_nothing_runs_twice() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    client.submit(&[0]).await;
    let first = engine.run().await;
    engine.finish(first).await;
    assert_eq!(client.outcome().await.0, 1);
    let seen = client.last_event;
    let old = client;
    let second = engine.run().await;
    let mut client = old.again(&gateway, seen).await;
    drop(old);
    assert_eq!(client.welcome.accepted, 2);
    // As a client does that has not heard of the acceptance.
    let again = Submit {
        counter: 2,
        targets: Targets::All(vec![EngineId(0)]),
        work: Work::Clear,
        each: None,
        label: None,
    };
    client.send(&Request::Submit(again), vec![]).await;
    engine.finish(second).await;
    assert_eq!(client.outcome().await.0, 2);
    client.submit(&[0]).await;
    assert_eq!(
        engine.run().await.0,
        second.0 + 1,
        "the instruction that was sent again did not run again"
    );
}

#[tokio::test]
async fn events_are_sent_again_until_they_are_acked() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    engine.run_and_finish(1).await;
    client.outcome().await;
    let mut second = client.again(&gateway, 0).await;
    assert_eq!(second.outcome().await.0, 1, "not acked, so it comes again");
    second.ack().await;
    let seen = second.last_event;
    let mut third = second.again(&gateway, seen).await;
    third.submit(&[0]).await;
    engine.run_and_finish(1).await;
    assert_eq!(third.outcome().await.0, 2);
}

#[tokio::test]
async fn a_gap_in_the_numbers_closes_the_connection() {
    let gateway = Gateway::start(1).await;
    let _engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    let submit = Submit {
        counter: 3,
        targets: Targets::All(vec![EngineId(0)]),
        work: Work::Clear,
        each: None,
        label: None,
    };
    client.send(&Request::Submit(submit), vec![]).await;
    let close = close_frame(&mut client.web).await;
    assert_eq!(close, Some((1008, "number 3 where 2 is due".to_owned())));
}

#[tokio::test]
async fn sending_over_the_credit_closes_the_connection_and_finished_work_gives_it_back() {
    let gateway = Gateway::start_with(1, false, |_, limits| limits.credit_instructions = 4).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    assert_eq!(client.welcome.credit.instructions, 4);
    client.submit(&[0]).await;
    engine.run_and_finish(1).await;
    let credit = client
        .wait_for(|event, _| {
            if let Event::Credit(credit) = event {
                Some(*credit)
            } else {
                None
            }
        })
        .await;
    assert_eq!(credit.instructions, 5);
    for _ in 0..5 {
        client.submit(&[0]).await;
    }
    assert_eq!(
        close_reason(&mut client.web).await,
        "more was sent than the credit allows"
    );
}

#[tokio::test]
async fn a_slow_client_holds_back_at_most_its_window() {
    let gateway = Gateway::start_with(1, false, |_, limits| limits.event_window = 1000).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        client.submit(&[0]).await;
        let order = engine.run().await;
        let outcome = Outcome::Done(ValueHead {
            kind: ValueKind::Bytes,
            blobs: 1,
        });
        let finished = FromEngine::Finished {
            order,
            outcome,
            timing: Timing::default(),
        };
        engine.send(finished, vec![Bytes::from(vec![0; 1000])]).await;
    }
    assert_eq!(client.outcome().await.0, 1);
    // The answer overtakes what waits for an ack, and nothing numbered comes before it.
    client.send(&Request::Status { request: 7 }, vec![]).await;
    let (envelope, _) = client.receive().await;
    assert!(
        matches!(envelope.event, Event::Answer { request: 7, .. }),
        "{envelope:?}"
    );
    client.ack().await;
    assert_eq!(client.outcome().await.0, 2);
    client.ack().await;
    assert_eq!(client.outcome().await.0, 3);
}

#[tokio::test]
async fn tasks_for_one_of_several_go_to_the_idle_engine() {
    let gateway = Gateway::start(2).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    let busy = engines[0].run().await;
    for _ in 0..3 {
        client.submit_one_of(&[0, 1]).await;
        let order = engines[1].run().await;
        engines[1].finish(order).await;
        assert_eq!(client.outcome().await.1, 1);
    }
    engines[0].finish(busy).await;
    assert_eq!(client.outcome().await, (1, 0, Outcome::Done(ValueHead::null())));
}

#[tokio::test]
async fn an_engine_whose_link_breaks_comes_back_and_loses_nothing() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    client.submit(&[0]).await;
    let first = engine.run().await;
    // The second may or may not have arrived; this engine has not taken it.
    let mut engine = engine.again(&gateway).await;
    engine.finish(first).await;
    assert_eq!(engine.run().await.0, first.0 + 1);
    let mut numbers = vec![client.outcome().await.0];
    engine.finish(ipengine_protocol::Order(first.0 + 1)).await;
    numbers.push(client.outcome().await.0);
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn what_an_engine_says_twice_counts_once() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    let order = engine.run().await;
    let piece = |text: &'static str| {
        let stream = FromEngine::Stream {
            order: Some(order),
            name: OutputName::Stdout,
            omitted: 0,
        };
        (stream, vec![Bytes::from_static(text.as_bytes())])
    };
    let (message, blobs) = piece("once");
    engine.send_numbered(1, message.clone(), blobs.clone()).await;
    engine.send_numbered(1, message, blobs).await;
    let (message, blobs) = piece("then");
    engine.send_numbered(2, message, blobs).await;
    let mut texts = Vec::new();
    while texts.len() < 2 {
        let text = client
            .wait_for(|event, blobs| matches!(event, Event::Stream { .. }).then(|| blobs[0].clone()))
            .await;
        texts.push(text);
    }
    assert_eq!(texts, ["once", "then"]);
}
