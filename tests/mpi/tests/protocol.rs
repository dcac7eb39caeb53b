//! Those who misbehave at the gateway's doors: they are turned away, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use ipengine_protocol::handshake::{self, HandshakeError, Role, Secret};
use ipengine_protocol::{Message, Request};
use ipengine_tests::raw::{RawClient, nonce, opening, other_version_at, secret, tcp_address, unix};
use ipengine_tests::session::options;
use ipengine_tests::tls::man_in_the_middle;
use ipengine_tests::{LIMIT, Launch, MpiJob};

/// The cluster serves others as if nothing had happened.
fn unharmed(job: &MpiJob) {
    let client = job.connect();
    client.must(&job.all(), "1 + 1");
    assert_eq!(
        client.status_now().clients.len(),
        1,
        "a stranger counts as a client"
    );
}

fn wrong_secret() -> Secret {
    Secret::new(nonce())
}

#[test]
fn a_wrong_token() {
    let job = Launch::plain(1).start();
    for mut raw in [RawClient::over_unix(&job), RawClient::over_tls(tcp_address(&job))] {
        // A client of ours sees first that the gateway holds another one.
        assert_eq!(raw.prove(wrong_secret()), Err(HandshakeError::ServerProof));
    }
    for mut raw in [RawClient::over_unix(&job), RawClient::over_tls(tcp_address(&job))] {
        // One that does not care is turned away.
        assert_eq!(raw.prove_blindly(&wrong_secret()).as_deref(), Ok(&[0][..]));
        assert!(raw.hung_up().contains("token"));
    }
    unharmed(&job);
}

#[test]
fn a_connection_file_with_another_token() {
    let job = Launch::plain(1).start();
    let mut record = job.record();
    record.token = Some(wrong_secret().to_hex());
    let path = job.dir().join("forged.json");
    std::fs::copy(job.access_file(), &path).expect("a copy with the same mode");
    std::fs::write(&path, serde_json::to_vec(&record).expect("plain data")).expect("the forged file");
    let error = ipsteer::Client::connect(options(&path, None))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("does not hold the token"), "{error}");
    assert!(
        !error.contains(record.token.as_deref().expect("set above")),
        "a secret in an error text"
    );
    unharmed(&job);
}

#[test]
fn older_and_newer_versions() {
    let job = Launch::plain(1).start();
    let ours = ipengine_protocol::VERSION;
    for (oldest, newest) in [(0, 0), (ours + 1, ours + 3)] {
        let mut raw = RawClient::over_unix(&job);
        raw.send(handshake::client_hello(Role::Client, oldest, newest, nonce()).to_vec());
        let answer = raw.receive().expect("an answer that any version can read");
        assert_eq!(answer.len(), handshake::SERVER_HELLO_LEN);
        let word = |at: usize| u16::from_le_bytes([answer[at], answer[at + 1]]);
        assert_eq!(
            (answer[8], word(12), word(14)),
            (1, ipengine_protocol::OLDEST_VERSION, ours)
        );
        let reason = raw.hung_up();
        assert!(reason.contains("protocol versions do not meet"), "{reason}");
    }
    // A newer client that still speaks ours is welcome.
    let mut raw = RawClient::over_unix(&job);
    raw.send(handshake::client_hello(Role::Client, ours, ours + 1, nonce()).to_vec());
    assert_eq!(raw.receive().expect("an answer")[8], 0);
    drop(raw);
    unharmed(&job);
}

#[test]
fn a_gateway_of_another_version() {
    let job = Launch::plain(1).start();
    let ours = ipengine_protocol::VERSION;
    for (oldest, newest, wanted) in [
        (ours + 1, ours + 2, "update this side"),
        (0, 0, "update the other side"),
    ] {
        let path = job.dir().join(format!("other-{newest}.sock"));
        other_version_at(&path, oldest, newest);
        let url = format!("unix:{}", path.display());
        let error = ipsteer::Client::connect(options(&job.access_file(), Some(&url))).expect_err("refused");
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn a_relayed_handshake() {
    let job = Launch::plain(1).start();
    // Our client looks at the certificate.
    let port = man_in_the_middle(tcp_address(&job)).port();
    let url = format!("wss://127.0.0.1:{port}/");
    let error = ipsteer::Client::connect(options(&job.access_file(), Some(&url))).expect_err("refused");
    assert!(error.to_string().contains("another certificate"), "{error}");
    // One that does not would see that the proof is for another channel.
    let mut raw = RawClient::over_tls(man_in_the_middle(tcp_address(&job)));
    assert_eq!(raw.prove(secret(&job)), Err(HandshakeError::ServerProof));
    // And one that does not even look at that is turned away by the gateway.
    let mut raw = RawClient::over_tls(man_in_the_middle(tcp_address(&job)));
    assert_eq!(raw.prove_blindly(&secret(&job)).as_deref(), Ok(&[0][..]));
    // The same without the man is right: it is the relay that fails.
    let mut raw = RawClient::over_tls(tcp_address(&job));
    assert_eq!(raw.prove_blindly(&secret(&job)).as_deref(), Ok(&[1][..]));
    drop(raw);
    unharmed(&job);
}

#[test]
fn an_engines_role_at_the_clients_door() {
    let job = Launch::plain(1).start();
    let mut raw = RawClient::over_unix(&job);
    raw.send(handshake::client_hello(Role::Engine, 1, 1, nonce()).to_vec());
    raw.hung_up();
    unharmed(&job);
}

#[test]
fn a_client_at_the_engines_door() {
    let job = Launch::plain(1).start();
    let socket = job
        .record()
        .unix
        .expect("a socket")
        .replace("client.sock", "engine.sock");
    let mut stream = UnixStream::connect(socket).expect("the engines' socket");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream
        .write_all(&handshake::client_hello(Role::Client, 1, 1, nonce()))
        .expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    unharmed(&job);
}

/// After a rightful handshake: bytes that are no message end that connection alone.
#[test]
fn frames_that_are_none() {
    let job = Launch::plain(1).start();
    let head = |length: u32| [&[0, 0, 0, 0, 0][..], &length.to_le_bytes(), &0_u32.to_le_bytes()].concat();
    let parts = |count: u32| [&[0, 0, 0, 0, 0][..], &0_u32.to_le_bytes(), &count.to_le_bytes()].concat();
    let mut big_part = parts(1);
    big_part.extend(u64::MAX.to_le_bytes());
    let whole = Message::bare(&Request::Status { request: 1 });
    let frame = ipengine_protocol::frame::frames(&whole, 1)
        .next()
        .expect("one frame")
        .into_bytes();
    let cases: [(&str, Vec<u8>); 9] = [
        ("empty", Vec::new()),
        ("unknown kind", vec![9, 1, 2, 3]),
        ("garbage", (0..200_u8).rev().collect()),
        ("oversized head", head(u32::MAX)),
        ("too many parts", parts(u32::MAX)),
        ("oversized part", big_part),
        ("truncated", frame[..frame.len() - 1].to_vec()),
        ("trailing", [&frame[..], &[0]].concat()),
        (
            "a transfer of which nothing came",
            [&[0, 7, 0, 0, 0][..], &frame[5..]].concat(),
        ),
    ];
    for (name, bytes) in cases {
        let mut raw = RawClient::over_unix(&job);
        raw.open(&job);
        raw.send(bytes);
        if name == "a transfer of which nothing came" {
            // Nothing is what its parts add up to.
            let answered =
                raw.event(|event, _| matches!(event, ipengine_protocol::Event::Answer { .. }).then_some(()));
            answered.expect("a status has no parts");
            continue;
        }
        let reason = raw.hung_up();
        assert!(!reason.is_empty(), "{name}: no reason");
    }
    unharmed(&job);
}

#[test]
fn a_message_that_is_larger_than_any() {
    let job = Launch::plain(1).start();
    let mut raw = RawClient::over_unix(&job);
    raw.open(&job);
    raw.send(vec![0; ipengine_protocol::frame::MAX_FRAME_LEN + 1]);
    raw.hung_up();
    // Before the handshake much less is too much.
    let mut raw = RawClient::over_unix(&job);
    raw.send(vec![0; 1000]);
    raw.hung_up();
    unharmed(&job);
}

#[test]
fn conversations_that_begin_wrongly() {
    let job = Launch::plain(1).start();
    let mut raw = RawClient::over_unix(&job);
    raw.prove(secret(&job)).expect("the token is right");
    raw.request(&Request::Status { request: 1 }, Vec::new());
    assert!(raw.hung_up().contains("opening message"));
    let mut raw = RawClient::over_unix(&job);
    raw.open(&job);
    raw.request(&opening([7; 16]), Vec::new());
    assert!(raw.hung_up().contains("twice"));
    let mut raw = RawClient::over_unix(&job);
    raw.open(&job);
    raw.send_text("hello");
    assert!(raw.hung_up().contains("text"));
    unharmed(&job);
}

#[test]
fn silence() {
    let job = Launch::plain(1).start();
    let silent = || -> Vec<Box<dyn Read>> {
        let tcp = TcpStream::connect(tcp_address(&job)).expect("the port");
        tcp.set_read_timeout(Some(LIMIT)).expect("a limit");
        vec![Box::new(unix(&job)), Box::new(tcp)]
    };
    let mut connections = silent();
    // While they hold their places, others are served.
    unharmed(&job);
    for connection in &mut connections {
        let mut bytes = Vec::new();
        // Closed or reset: it ends, within the test's own limit.
        if let Err(error) = connection.read_to_end(&mut bytes) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    // Silence after the upgrade is no better.
    RawClient::over_unix(&job).hung_up();
    unharmed(&job);
}

#[test]
fn noise_before_anything() {
    let job = Launch::plain(1).start();
    for noise in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        &[0; 500],
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\xff\xff",
    ] {
        let mut stream = unix(&job);
        // How it is turned away does not matter, only that it is.
        let _ = stream.write_all(noise);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let mut tcp = TcpStream::connect(tcp_address(&job)).expect("the port");
        tcp.set_read_timeout(Some(LIMIT)).expect("a limit");
        let _ = tcp.write_all(noise);
        let mut bytes = Vec::new();
        let _ = tcp.read_to_end(&mut bytes);
    }
    unharmed(&job);
}

#[test]
fn secrets_stay_where_they_belong() {
    let job = Launch::plain(2).start();
    let token = job.record().token.expect("a token");
    let client = job.connect();
    client.must(&[0, 1], "import os");
    for process in job.processes() {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
            assert!(
                !String::from_utf8_lossy(&bytes).contains(&token),
                "{process:?}: {file}"
            );
        }
    }
    for entry in std::fs::read_dir(job.logs()).expect("logs").flatten() {
        let text = String::from_utf8_lossy(&std::fs::read(entry.path()).expect("a log")).into_owned();
        assert!(!text.contains(&token), "{:?}", entry.path());
    }
}
