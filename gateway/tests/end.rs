//! How a world ends, and what clients learn of it.

mod support;

use std::time::Duration;

use ipengine_gateway::LauncherReport;
use ipengine_protocol::outcome::LossKind;
use ipengine_protocol::{AccessRecord, Event, FromEngine, LossCause, Outcome, Request, ToEngine};
use support::client::Client;
use support::engine::Engine;
use support::{Gateway, within};

fn segfault(engine: u32) -> LossCause {
    let detail = "in sum.py line 3".to_owned();
    LossCause {
        engine,
        host: "here".to_owned(),
        kind: LossKind::Signal(11),
        detail,
    }
}

async fn lost(client: &mut Client) -> (u32, LossCause) {
    client
        .wait_for(|event, _| match event {
            Event::EngineLost { engine, cause } => Some((engine.0, cause.clone())),
            _ => None,
        })
        .await
}

/// Looks for the file until it is there, as clients do.
async fn record(gateway: &Gateway) -> AccessRecord {
    let look = async {
        loop {
            match std::fs::read(gateway.path("test.json")) {
                Ok(json) => return json,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    serde_json::from_slice(&within("the connection file", look).await).unwrap()
}

async fn shutdown(client: &mut Client) {
    client
        .send(
            &Request::Shutdown {
                reason: "enough".to_owned(),
            },
            vec![],
        )
        .await;
}

#[tokio::test]
async fn a_stop_that_was_asked_for_is_orderly_and_leaves_a_post_mortem() {
    let mut gateway = Gateway::start(2).await;
    let engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    let path = gateway.path("test.json");
    let before = record(&gateway).await;
    assert_eq!(
        (before.token, before.mpi.as_str()),
        (Some(gateway.client_secret.to_hex()), "test MPI")
    );
    assert_eq!(before.job.as_deref(), Some("slurm-4711"));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    shutdown(&mut client).await;
    for engine in engines {
        engine.leave().await;
    }
    let reason = client.end().await;
    assert_eq!(reason, "stopped by ada: enough");
    client.ack().await;
    let ended = gateway.ended().await;
    assert_eq!((ended.reason, ended.orderly), (reason.clone(), true));
    let after = record(&gateway).await;
    assert_eq!((after.token, after.ended.unwrap().reason), (None, reason));
}

#[tokio::test]
async fn a_stopping_world_takes_nothing_new_and_drops_what_has_not_begun() {
    let gateway = Gateway::start_with(1, false, |_, limits| limits.window = 1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    client.submit(&[0]).await;
    let waiting = client.submit_one_of(&[0]).await;
    let order = engine.run().await;
    shutdown(&mut client).await;
    let mut aborted = vec![client.outcome().await, client.outcome().await];
    aborted.sort_by_key(|outcome| outcome.0);
    let reason = "stopped by ada: enough".to_owned();
    let expected = Outcome::Aborted { reason };
    assert_eq!(aborted, [(2, 0, expected.clone()), (waiting, 0, expected)]);
    let late = client.submit(&[0]).await;
    assert_eq!(
        client.rejection().await,
        (late, "the cluster is stopping".to_owned())
    );
    engine.finish(order).await;
    assert_eq!(client.outcome().await.0, 1);
    engine.leave().await;
    client.end().await;
}

#[tokio::test]
async fn last_words_become_the_cause_for_everything_outstanding() {
    let mut gateway = Gateway::start(2).await;
    let mut engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    client.submit(&[0, 1]).await;
    client.submit(&[1]).await;
    let order = engines[1].run().await;
    let mut second = engines.pop().unwrap();
    second
        .send(
            FromEngine::Dying {
                cause: segfault(1),
                order: Some(order),
            },
            vec![],
        )
        .await;
    drop(second);
    for counter in [1, 2] {
        assert_eq!(client.outcome().await, (counter, 1, Outcome::Lost(segfault(1))));
    }
    assert_eq!(lost(&mut client).await, (1, segfault(1)));
    let refused = client.submit(&[1]).await;
    let (counter, reason) = client.rejection().await;
    assert_eq!(counter, refused);
    assert!(reason.contains("SIGSEGV"), "{reason}");
    drop(engines);
    let (counter, engine, outcome) = client.outcome().await;
    assert_eq!((counter, engine), (1, 0));
    let Outcome::Lost(cause) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (cause.engine, cause.kind),
        (1, LossKind::Signal(11)),
        "the first death is the cause"
    );
    assert!(
        cause
            .detail
            .starts_with("the world ended because engine 1 was lost"),
        "{cause}"
    );
    assert!(client.end().await.contains("SIGSEGV"));
    client.ack().await;
    assert!(!gateway.ended().await.orderly);
}

#[tokio::test]
async fn a_process_that_is_gone_is_not_waited_for() {
    // Long enough for the test to fail if the gateway waits.
    let gateway =
        Gateway::start_with(1, false, |_, limits| limits.reconnect = Duration::from_secs(3600)).await;
    let script = "import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  b=sys.stdin.buffer\nwhile True:\n n=b.read(1)[0]*256+b.read(1)[0]\n s.sendall(b.read(n))\n \
                  r=s.recv(4096)\n sys.stdout.buffer.write(bytes([len(r)//256,len(r)%256])+r); sys.stdout.flush()";
    let mut child = tokio::process::Command::new("python3")
        .args(["-c", script])
        .arg(gateway.path("engine"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    support::engine::greet_through(&gateway, &mut child).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    child.start_kill().unwrap();
    within("the child's end", child.wait()).await.unwrap();
    let (counter, _, outcome) = client.outcome().await;
    assert_eq!(counter, 1);
    assert!(
        matches!(
            outcome,
            Outcome::Lost(LossCause {
                kind: LossKind::LinkClosed,
                ..
            })
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn the_launcher_explains_what_the_engine_could_not() {
    let gateway = Gateway::start_with(2, true, |_, limits| limits.reconnect = Duration::ZERO).await;
    let engines = gateway.engines(2).await;
    let mut client = gateway.client().await;
    client.submit(&[0, 1]).await;
    drop(engines);
    let launcher = gateway.launcher.clone().unwrap();
    for line in ["-----------", "rank 1 exited on signal 9 (Killed)."] {
        launcher
            .send(LauncherReport::Output(line.to_owned()))
            .await
            .unwrap();
    }
    launcher
        .send(LauncherReport::Exited {
            code: Some(137),
            signal: None,
        })
        .await
        .unwrap();
    let (_, cause) = lost(&mut client).await;
    assert_eq!(
        cause.detail,
        "the launcher ended with exit code 137; it says: rank 1 exited on signal 9 (Killed)."
    );
    client.end().await;
}

#[tokio::test]
async fn a_launcher_that_ends_before_all_engines_came_ends_the_world() {
    let mut gateway = Gateway::start_with(2, true, |_, _| {}).await;
    let _first = Engine::connect(&gateway, 0, 2).await;
    let launcher = gateway.launcher.clone().unwrap();
    launcher
        .send(LauncherReport::Output("no slots".to_owned()))
        .await
        .unwrap();
    launcher
        .send(LauncherReport::Exited {
            code: Some(1),
            signal: None,
        })
        .await
        .unwrap();
    let ended = gateway.ended().await;
    let reason = "the world did not start: the launcher ended with exit code 1; it says: no slots";
    assert_eq!((ended.reason.as_str(), ended.orderly), (reason, false));
    let record = record(&gateway).await;
    assert_eq!(
        (record.token, record.ended.unwrap().reason.as_str()),
        (None, reason)
    );
}

#[tokio::test]
async fn a_gateway_in_the_place_of_another_does_not_say_that_there_was_no_world() {
    let mut gateway = Gateway::start_with(2, true, |config, _| config.restarted = true).await;
    gateway
        .launcher
        .clone()
        .unwrap()
        .send(LauncherReport::Exited {
            code: Some(0),
            signal: None,
        })
        .await
        .unwrap();
    let ended = gateway.ended().await;
    assert_eq!(ended.reason, "the launcher ended with exit code 0");
}

#[tokio::test]
async fn missing_engines_are_named() {
    let mut gateway =
        Gateway::start_with(3, false, |_, limits| limits.start = Duration::from_millis(50)).await;
    let engine = Engine::connect(&gateway, 1, 3).await;
    engine.leave().await;
    let ended = gateway.ended().await;
    assert_eq!(
        ended.reason,
        "engines 0, 2 did not connect within 50ms of the first one"
    );
    assert!(!ended.orderly);
}

#[tokio::test]
async fn a_signal_from_outside_stops_the_world_with_its_name() {
    let mut gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    engine.send(FromEngine::Signalled { signal: 15 }, vec![]).await;
    engine.leave().await;
    let ended = gateway.ended().await;
    assert_eq!(
        (ended.reason.as_str(), ended.orderly),
        ("rank 0 received SIGTERM", true)
    );
}

#[tokio::test]
async fn engines_that_do_not_stop_are_not_waited_for() {
    let mut gateway =
        Gateway::start_with(1, false, |_, limits| limits.stop = Duration::from_millis(50)).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    engine.run().await;
    shutdown(&mut client).await;
    assert!(matches!(client.outcome().await, (1, 0, Outcome::Lost(_))));
    client.end().await;
    client.ack().await;
    assert!(!gateway.ended().await.orderly);
}

#[tokio::test]
async fn survivors_of_a_death_are_stopped() {
    let gateway =
        Gateway::start_with(2, false, |_, limits| limits.survivors = Duration::from_millis(50)).await;
    let mut engines = gateway.engines(2).await;
    let mut second = engines.pop().unwrap();
    second
        .send(
            FromEngine::Dying {
                cause: segfault(1),
                order: None,
            },
            vec![],
        )
        .await;
    drop(second);
    let reason = engines[0]
        .wait_for(|message, _| {
            if let ToEngine::Stop { reason } = message {
                Some(reason.clone())
            } else {
                None
            }
        })
        .await;
    assert!(reason.contains("SIGSEGV"), "{reason}");
}

#[tokio::test]
async fn results_wait_for_a_client_that_was_away_at_the_end() {
    let mut gateway = Gateway::start(1).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    let mut other = gateway.client().await;
    client.submit(&[0]).await;
    engine.run_and_finish(1).await;
    client.outcome().await;
    let seen = client.last_event - 1;
    let id = client.id;
    drop(client);
    shutdown(&mut other).await;
    engine.leave().await;
    other.end().await;
    other.ack().await;
    let mut back = Client::connect(&gateway, id, seen).await;
    assert_eq!(back.welcome.ended.as_deref(), Some("stopped by ada: enough"));
    assert_eq!(back.outcome().await.0, 1);
    back.end().await;
    back.ack().await;
    assert!(gateway.ended().await.orderly);
}

#[tokio::test]
async fn lingering_has_an_end() {
    let mut gateway = Gateway::start_with(1, false, |config, _| config.linger = 0).await;
    let mut engine = Engine::connect(&gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    engine.run_and_finish(1).await;
    client.outcome().await;
    drop(client);
    engine.send(FromEngine::Signalled { signal: 2 }, vec![]).await;
    engine.leave().await;
    assert_eq!(gateway.ended().await.reason, "rank 0 received SIGINT");
}

#[tokio::test]
async fn signals_of_the_launcher_after_a_death_do_not_hide_it() {
    let mut gateway = Gateway::start(2).await;
    let mut engines = gateway.engines(2).await;
    let mut second = engines.pop().unwrap();
    let mut client = gateway.client().await;
    second
        .send(
            FromEngine::Dying {
                cause: segfault(1),
                order: None,
            },
            vec![],
        )
        .await;
    assert_eq!(lost(&mut client).await.0, 1);
    drop(second);
    engines[0]
        .send(FromEngine::Signalled { signal: 15 }, vec![])
        .await;
    engines.pop().unwrap().leave().await;
    let reason = client.end().await;
    assert_eq!(reason, segfault(1).to_string());
    client.ack().await;
    assert!(!gateway.ended().await.orderly);
}

#[tokio::test]
async fn last_words_are_heard_when_the_engine_no_longer_listens() {
    for _ in 0..20 {
        let gateway = Gateway::start(1).await;
        let mut engine = Engine::connect(&gateway, 0, 1).await;
        let mut client = gateway.client().await;
        // Unread bytes at the engine, and more to be written to it while it goes.
        for _ in 0..16 {
            client.submit(&[0]).await;
        }
        engine.run().await;
        engine
            .send(
                FromEngine::Dying {
                    cause: segfault(0),
                    order: None,
                },
                vec![],
            )
            .await;
        drop(engine);
        for _ in 0..8 {
            client.submit(&[0]).await;
        }
        assert_eq!(lost(&mut client).await, (0, segfault(0)));
    }
}

#[tokio::test]
async fn a_world_of_unknown_size_learns_it_from_its_first_engine() {
    let gateway = Gateway::start(0).await;
    let mut early = gateway.client().await;
    early.submit(&[0]).await;
    assert_eq!(early.rejection().await.1, "no engine has connected yet");
    let mut engines = gateway.engines(2).await;
    assert_eq!(record(&gateway).await.size, 2);
    early.submit(&[0, 1]).await;
    for engine in &mut engines {
        engine.run_and_finish(1).await;
        assert_eq!(early.outcome().await.0, 2);
    }
}

#[tokio::test]
async fn no_engine_at_all_ends_in_words() {
    let mut gateway = Gateway::start_with(0, false, |_, limits| {
        limits.first_engine = Duration::from_millis(20)
    })
    .await;
    assert_eq!(
        gateway.ended().await.reason,
        "no engine connected within 20ms of the start"
    );
}

#[tokio::test]
async fn the_supervisor_can_stop_the_world() {
    let mut gateway = Gateway::start_with(1, true, |_, _| {}).await;
    let engine = Engine::connect(&gateway, 0, 1).await;
    let stop = LauncherReport::Stop {
        reason: "SIGTERM to the supervisor".to_owned(),
    };
    gateway.launcher.clone().unwrap().send(stop).await.unwrap();
    engine.leave().await;
    let ended = gateway.ended().await;
    assert_eq!(
        (ended.reason.as_str(), ended.orderly),
        ("SIGTERM to the supervisor", true)
    );
}
