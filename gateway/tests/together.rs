//! What concerns several engines at once: the rendezvous for a communicator, interrupt, abort, status, logs.

mod support;

use std::time::Duration;

use ipengine_protocol::event::InterruptReport;
use ipengine_protocol::{
    Answer, CommAnswer, CommBirth, EngineId, EngineState, FromEngine, InterruptState, InterruptTarget, Order,
    Outcome, RemoteException, Request, Timing, ToEngine,
};
use support::Gateway;
use support::engine::Engine;

async fn comm(engine: &mut Engine) -> CommAnswer {
    engine
        .wait_for(|message, _| match message {
            ToEngine::Comm { answer, .. } => Some(answer.clone()),
            _ => None,
        })
        .await
}

fn refused(reason: &str) -> CommAnswer {
    CommAnswer::Refused {
        reason: reason.to_owned(),
    }
}

async fn interrupt(engine: &mut Engine) -> (u64, Option<Order>) {
    engine
        .wait_for(|message, _| match message {
            ToEngine::Interrupt { request, order } => Some((*request, *order)),
            _ => None,
        })
        .await
}

async fn report(engine: &mut Engine, request: u64, state: InterruptState) {
    let report = InterruptReport {
        engine: EngineId(engine.rank),
        state,
        detail: "told".to_owned(),
    };
    engine.answer(FromEngine::Interrupted { request, report }).await;
}

fn states(answer: Answer) -> Vec<(u32, InterruptState)> {
    let Answer::Interrupt(reports) = answer else {
        panic!("no report but {answer:?}")
    };
    reports
        .iter()
        .map(|report| (report.engine.0, report.state))
        .collect()
}

#[tokio::test]
async fn a_communicator_is_created_when_every_target_has_asked() {
    let gateway = Gateway::start(3).await;
    let mut engines = gateway.engines(3).await;
    let mut client = gateway.client().await;
    client.submit(&[0, 1, 2]).await;
    for engine in &mut engines {
        let order = engine.run().await;
        engine
            .send(
                FromEngine::CommWanted {
                    order,
                    round: 0,
                    have: None,
                },
                vec![],
            )
            .await;
    }
    for engine in &mut engines {
        assert_eq!(comm(engine).await, CommAnswer::Create);
    }
}

#[tokio::test]
async fn a_target_that_ends_without_asking_frees_the_others() {
    let gateway = Gateway::start(3).await;
    let mut engines = gateway.engines(3).await;
    let mut client = gateway.client().await;
    client.submit(&[0, 1, 2]).await;
    let order = engines[0].run().await;
    engines[0]
        .send(
            FromEngine::CommWanted {
                order,
                round: 0,
                have: None,
            },
            vec![],
        )
        .await;
    engines[1].run().await;
    engines[1].finish(order).await;
    let reason = refused("rank 1 ended this instruction without using ipengine.comm");
    assert_eq!(comm(&mut engines[0]).await, reason);
    engines[2].run().await;
    engines[2]
        .send(
            FromEngine::CommWanted {
                order,
                round: 0,
                have: None,
            },
            vec![],
        )
        .await;
    assert_eq!(
        comm(&mut engines[2]).await,
        reason,
        "who asks later hears the same"
    );
}

#[tokio::test]
async fn who_stops_waiting_frees_the_others() {
    let gateway = Gateway::start(3).await;
    let mut engines = gateway.engines(3).await;
    let mut client = gateway.client().await;
    client.submit(&[0, 1, 2]).await;
    let order = engines[0].run().await;
    engines[1].run().await;
    engines[0]
        .send(
            FromEngine::CommWanted {
                order,
                round: 0,
                have: None,
            },
            vec![],
        )
        .await;
    // So that rank 0 has asked before rank 1 withdraws.
    engines[0].send(FromEngine::Started { order }, vec![]).await;
    client
        .wait_for(|event, _| matches!(event, ipengine_protocol::Event::Started { .. }).then_some(()))
        .await;
    engines[1]
        .send(
            FromEngine::CommWanted {
                order,
                round: 0,
                have: None,
            },
            vec![],
        )
        .await;
    engines[1]
        .send(FromEngine::CommWithdrawn { order, round: 0 }, vec![])
        .await;
    assert_eq!(comm(&mut engines[1]).await, refused("withdrawn"));
    assert_eq!(
        comm(&mut engines[0]).await,
        refused("rank 1 stopped waiting for ipengine.comm")
    );
}

#[tokio::test]
async fn questions_about_an_instruction_that_is_not_known_are_answered() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let wanted = FromEngine::CommWanted {
        order: Order(9),
        round: 0,
        have: None,
    };
    engine.send(wanted, vec![]).await;
    let reason = refused("the gateway does not know this instruction any more");
    assert_eq!(comm(&mut engine).await, reason);
    let withdrawn = FromEngine::CommWithdrawn {
        order: Order(9),
        round: 0,
    };
    engine.send(withdrawn, vec![]).await;
    assert_eq!(comm(&mut engine).await, refused("withdrawn"));
}

#[tokio::test]
async fn who_withdraws_too_late_hears_what_the_others_heard() {
    let gateway = Gateway::start(2).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    client.submit(&[0, 1]).await;
    for engine in &mut engines {
        let wanted = FromEngine::CommWanted {
            order: engine.run().await,
            round: 0,
            have: None,
        };
        engine.send(wanted, vec![]).await;
    }
    let withdrawn = FromEngine::CommWithdrawn {
        order: Order(1),
        round: 0,
    };
    for engine in &mut engines {
        assert_eq!(comm(engine).await, CommAnswer::Create);
    }
    engines[0].send(withdrawn, vec![]).await;
    assert_eq!(comm(&mut engines[0]).await, CommAnswer::Create);
}

#[tokio::test]
async fn a_lost_target_frees_the_others() {
    let gateway = Gateway::start_with(2, false, |_, limits| limits.reconnect = Duration::ZERO).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    client.submit(&[0, 1]).await;
    let order = engines[0].run().await;
    engines[0]
        .send(
            FromEngine::CommWanted {
                order,
                round: 0,
                have: None,
            },
            vec![],
        )
        .await;
    drop(engines.pop());
    assert_eq!(
        comm(&mut engines[0]).await,
        refused("rank 1 ended this instruction without using ipengine.comm")
    );
}

#[tokio::test]
async fn one_target_gets_its_communicator_at_once_and_again_after_a_broken_link() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    let order = engine.run().await;
    engine
        .send(
            FromEngine::CommWanted {
                order,
                round: 0,
                have: None,
            },
            vec![],
        )
        .await;
    assert_eq!(comm(&mut engine).await, CommAnswer::Create);
    let mut engine = engine.again(&gateway).await;
    assert_eq!(comm(&mut engine).await, CommAnswer::Create);
}

#[tokio::test]
async fn a_running_instruction_is_interrupted_on_the_engines_that_have_it() {
    let gateway = Gateway::start(2).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    let counter = client.submit(&[0, 1]).await;
    let order = engines[0].run().await;
    engines[1].run().await;
    let target = InterruptTarget::Counters(vec![counter, 99]);
    client
        .send(&Request::Interrupt { request: 5, target }, vec![])
        .await;
    for engine in &mut engines {
        let (request, meant) = interrupt(engine).await;
        assert_eq!(meant, Some(order));
        let exception = RemoteException {
            type_name: "KeyboardInterrupt".to_owned(),
            ..Default::default()
        };
        let outcome = Outcome::Interrupted(Box::new(exception));
        engine
            .send(
                FromEngine::Finished {
                    order,
                    outcome,
                    timing: Timing::default(),
                },
                vec![],
            )
            .await;
        report(engine, request, InterruptState::Interrupted).await;
    }
    let (request, answer) = client.answer().await;
    assert_eq!(request, 5);
    assert_eq!(
        states(answer),
        [(0, InterruptState::Interrupted), (1, InterruptState::Interrupted)]
    );
}

#[tokio::test]
async fn what_no_engine_has_is_taken_out_on_all_targets() {
    let gateway = Gateway::start_with(2, false, |_, limits| limits.window = 1).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    client.submit(&[0, 1]).await;
    client.submit(&[0, 1]).await;
    client.submit(&[0, 1]).await;
    let target = InterruptTarget::Counters(vec![2]);
    client
        .send(&Request::Interrupt { request: 1, target }, vec![])
        .await;
    for rank in [0, 1] {
        let (counter, engine, outcome) = client.outcome().await;
        assert_eq!((counter, engine), (2, rank));
        assert!(matches!(outcome, Outcome::Interrupted(_)), "{outcome:?}");
    }
    client
        .send(
            &Request::Abort {
                request: 2,
                counters: vec![3],
            },
            vec![],
        )
        .await;
    for rank in [0, 1] {
        let reason = "aborted by ada".to_owned();
        assert_eq!(client.outcome().await, (3, rank, Outcome::Aborted { reason }));
    }
    client.submit(&[0, 1]).await;
    for engine in &mut engines {
        assert_eq!(engine.run_and_finish(2).await, [1, 4], "neither 2 nor 3 was sent");
    }
}

#[tokio::test]
async fn what_some_engine_has_is_interrupted_on_the_others_when_it_comes() {
    let gateway = Gateway::start_with(2, false, |_, limits| limits.window = 1).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    let common = client.submit(&[0, 1]).await;
    let first = engines[0].run().await;
    let order = engines[1].run().await;
    client
        .send(
            &Request::Interrupt {
                request: 1,
                target: InterruptTarget::Counters(vec![common]),
            },
            vec![],
        )
        .await;
    let (request, _) = interrupt(&mut engines[1]).await;
    report(&mut engines[1], request, InterruptState::Pending).await;
    assert_eq!(
        states(client.answer().await.1),
        [(0, InterruptState::Queued), (1, InterruptState::Pending)]
    );
    engines[0].finish(first).await;
    assert_eq!(engines[0].run().await, order);
    assert_eq!(interrupt(&mut engines[0]).await.1, Some(order));
}

#[tokio::test]
async fn an_engine_that_does_not_report_is_pending() {
    let gateway =
        Gateway::start_with(2, false, |_, limits| limits.interrupt = Duration::from_millis(50)).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    let target = InterruptTarget::Engines(vec![EngineId(0), EngineId(1)]);
    client
        .send(&Request::Interrupt { request: 1, target }, vec![])
        .await;
    let (request, order) = interrupt(&mut engines[0]).await;
    assert_eq!(order, None);
    report(&mut engines[0], request, InterruptState::Idle).await;
    let (_, answer) = client.answer().await;
    let Answer::Interrupt(reports) = &answer else {
        panic!("{answer:?}")
    };
    assert_eq!(reports[1].detail, "no answer from its control thread");
    assert_eq!(
        states(answer),
        [(0, InterruptState::Idle), (1, InterruptState::Pending)]
    );
}

#[tokio::test]
async fn only_the_own_instructions_are_interrupted() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let (mut ada, mut bob) = (gateway.client().await, gateway.client().await);
    let counter = ada.submit(&[0]).await;
    engine.run().await;
    bob.send(
        &Request::Interrupt {
            request: 1,
            target: InterruptTarget::Counters(vec![counter]),
        },
        vec![],
    )
    .await;
    assert_eq!(bob.answer().await, (1, Answer::Interrupt(vec![])));
}

#[tokio::test]
async fn status_is_answered_while_engines_compute_and_names_who_is_silent() {
    let gateway = Gateway::start(2).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    let counter = client.submit(&[0]).await;
    let order = engines[0].run().await;
    client.send(&Request::Status { request: 3 }, vec![]).await;
    let request = engines[0]
        .wait_for(|message, _| {
            if let ToEngine::Status { request } = message {
                Some(*request)
            } else {
                None
            }
        })
        .await;
    let state = EngineState {
        running: Some(order),
        waiting: 0,
        rss: 1234,
        cpu: 5678,
    };
    engines[0].answer(FromEngine::Status { request, state }).await;
    let (3, Answer::Status(status)) = client.answer().await else {
        panic!("no status")
    };
    let first = &status.engines[0];
    assert_eq!((first.state.as_str(), first.rss, first.queued), ("busy", 1234, 0));
    let (id, summary, user) = first.instruction.clone().expect("it runs something");
    assert_eq!(
        (id.counter, summary.as_str(), user.as_str()),
        (counter, "clear", "ada")
    );
    let second = &status.engines[1];
    assert_eq!(
        (second.state.as_str(), second.detail.as_deref()),
        ("idle", Some("did not answer in time"))
    );
    assert_eq!(status.clients, [("ada".to_owned(), "test".to_owned())]);
}

#[tokio::test]
async fn logs_are_passed_on_and_an_unknown_engine_is_refused() {
    let gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client
        .send(
            &Request::Logs {
                request: 1,
                engine: EngineId(0),
                tail: 10,
            },
            vec![],
        )
        .await;
    let request = engine
        .wait_for(|message, _| {
            if let ToEngine::Logs { request, tail: 10 } = message {
                Some(*request)
            } else {
                None
            }
        })
        .await;
    let logs = FromEngine::Logs {
        request,
        stdout: "out".to_owned(),
        stderr: "err".to_owned(),
    };
    engine.send_numbered(0, logs, vec!["o".into(), "e".into()]).await;
    let (request, answer) = client.answer().await;
    assert_eq!(
        (request, answer),
        (
            1,
            Answer::Logs {
                stdout: "out".to_owned(),
                stderr: "err".to_owned()
            }
        )
    );
    client
        .send(
            &Request::Logs {
                request: 2,
                engine: EngineId(7),
                tail: 10,
            },
            vec![],
        )
        .await;
    assert!(matches!(client.answer().await, (2, Answer::Refused { .. })));
}

/// Engines that all have the same communicator use it; where one has none, all make another.
#[tokio::test]
async fn what_all_have_is_used_and_anything_else_is_made_anew() {
    let gateway = Gateway::start(2).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    let birth = CommBirth {
        order: Order(1),
        round: 0,
    };
    for (second, expected) in [(Some(birth), CommAnswer::Use), (None, CommAnswer::Create)] {
        client.submit(&[0, 1]).await;
        for (engine, have) in engines.iter_mut().zip([Some(birth), second]) {
            let order = engine.run().await;
            let wanted = FromEngine::CommWanted {
                order,
                round: 0,
                have,
            };
            engine.send(wanted, vec![]).await;
        }
        for engine in &mut engines {
            assert_eq!(comm(engine).await, expected);
        }
    }
}
