//! Clients that vanish and come back, and the addresses that lead to a gateway.

use std::path::Path;

use ipengine_protocol::EngineId;
use ipengine_tests::outcome::{is_done, shown};
use ipengine_tests::raw::RawClient;
use ipengine_tests::relay::Relay;
use ipengine_tests::session::code;
use ipengine_tests::{Launch, MpiJob, until};
use serde_json::json;

fn wait_for(go: &Path) -> String {
    format!("import os, time\nprint('here')\nwhile not os.path.exists({go:?}): time.sleep(0.005)")
}

fn relay(job: &MpiJob) -> Relay {
    let socket = job.record().unix.expect("a Unix socket");
    Relay::start(&job.dir().join("relay.sock"), Path::new(&socket))
}

#[test]
fn one_that_vanishes_mid_instruction() {
    // The gateway would wait long for it to fetch its outcome.
    let job = Launch::plain(2).option("--linger", "0").start();
    let go = job.dir().join("go");
    let mut raw = RawClient::over_unix(&job);
    raw.open(&job);
    let counter = raw.submit(&[0, 1], code(&format!("{}\ndone = 'yes'", wait_for(&go))));
    let started = raw.event(|event, _| match event {
        ipengine_protocol::Event::Stream { .. } => Some(()),
        _ => None,
    });
    started.expect("it runs");
    assert_eq!(counter, 1);
    drop(raw); // no farewell, just a closed socket
    let other = job.connect();
    until("the gateway to notice", || {
        (other.status_now().clients.len() == 1).then_some(())
    });
    let status = other.status_now();
    assert!(
        status.engines.iter().all(|engine| engine.state == "busy"),
        "the instruction goes on: {status:?}"
    );
    std::fs::write(&go, "").expect("a file");
    // Its turn comes after the instruction of the client that is gone.
    assert_eq!(other.value(1, "done"), json!("yes"));
    assert_eq!(other.value(0, "done"), json!("yes"));
    until("the engines to be idle", || {
        other
            .status_now()
            .engines
            .iter()
            .all(|engine| engine.state == "idle")
            .then_some(())
    });
}

#[test]
fn one_that_vanishes_in_the_middle_of_a_transfer() {
    let job = Launch::plain(1).start();
    let mut raw = RawClient::over_unix(&job);
    raw.open(&job);
    let mut chunk = vec![1, 9, 0, 0, 0];
    chunk.resize(1 << 20, 7);
    (0..8).for_each(|_| raw.send(chunk.clone()));
    drop(raw);
    let client = job.connect();
    until("the gateway to notice", || {
        (client.status_now().clients.len() == 1).then_some(())
    });
    client.must(&[0], "1");
}

#[test]
fn one_whose_network_fails_misses_nothing() {
    let job = Launch::plain(2).start();
    let relay = relay(&job);
    let client = job.connect_to(&relay.url());
    let go = job.dir().join("go");
    let source = format!(
        "{}\nprint('after')\nipengine_result = 40 + 2\nipengine_result",
        wait_for(&go)
    );
    let counter = client.begin(&[0, 1], &source);
    client.wait_output(counter, 1, "here");
    relay.cut();
    relay.wait_connections(2);
    std::fs::write(&go, "").expect("a file");
    for arrived in client.finish(counter) {
        assert_eq!(shown(&arrived), "42");
    }
    assert_eq!(
        client.stdout(counter, 0),
        "here\nafter\n",
        "nothing is lost and nothing comes twice"
    );
    client.must(&[0, 1], "1");
}

#[test]
fn one_whose_network_fails_again_and_again() {
    let job = Launch::plain(1).start();
    let relay = relay(&job);
    let client = job.connect_to(&relay.url());
    client.must(&[0], "ran = []");
    let mut counters = Vec::new();
    for round in 0..10 {
        counters.extend(
            (0..20).map(|i| client.begin(&[0], &format!("ran.append({round} * 20 + {i})\nprint({i})"))),
        );
        relay.cut();
        relay.wait_connections(round + 2);
    }
    for (at, counter) in counters.iter().enumerate() {
        assert!(is_done(&client.finish(*counter)[0]), "instruction {at}");
        assert_eq!(client.stdout(*counter, 0), format!("{}\n", at % 20));
    }
    assert_eq!(
        client.value(0, "ran == list(range(200))"),
        json!(true),
        "each ran once, in order"
    );
    // Its farewell has to pass the relay before that ends, or the gateway would wait for it to come back.
    drop(client);
    let other = job.connect();
    until("the gateway to hear the farewell", || {
        (other.status_now().clients.len() == 1).then_some(())
    });
}

#[test]
fn over_tls_and_over_the_unix_socket() {
    let job = Launch::plain(2).start();
    let record = job.record();
    assert!(!record.urls.is_empty());
    let unix = job.connect_to(&format!("unix:{}", record.unix.expect("a Unix socket")));
    unix.must(&[0, 1], "x = 'by unix'");
    for url in &record.urls {
        assert!(url.starts_with("wss://"), "{url}");
        let tls = job.connect_to(url);
        assert_eq!(tls.info().expect("open").address, *url);
        assert_eq!(tls.value(1, "x"), json!("by unix"));
        let counter = tls.begin(&[0, 1], "print('over tls')");
        tls.finish(counter);
        assert_eq!(tls.stdout(counter, 1), "over tls\n");
    }
}

#[test]
fn listening_on_one_address_only() {
    let job = Launch::plain(1).option("--listen", "127.0.0.1:0").start();
    let urls = job.record().urls;
    assert_eq!(urls.len(), 1);
    assert!(urls[0].starts_with("wss://127.0.0.1:"), "{urls:?}");
    assert_eq!(job.connect_to(&urls[0]).value(0, "1 + 1"), json!(2));
}

#[test]
fn several_see_each_other() {
    let job = Launch::plain(1).start();
    let clients = [job.connect(), job.connect(), job.connect()];
    assert_eq!(clients[0].status_now().clients.len(), 3);
    clients[0].must(&[0], "shared = 1");
    assert_eq!(clients[2].value(0, "shared"), json!(1));
    let info = clients[1].info().expect("open");
    assert_eq!(info.engines.len(), 1);
    assert_eq!(info.engines[0].id, EngineId(0));
    let pids: Vec<i32> = job.processes().iter().map(|process| process.pid).collect();
    assert!(pids.contains(&i32::try_from(info.engines[0].pid).expect("a process id")));
}
