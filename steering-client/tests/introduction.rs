//! Who may talk to whom: tokens, certificates, versions and connection files.

mod gateway;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use gateway::{FakeGateway, Heard, Introduction, finish, generous};
use ipengine_protocol::access::Ended;
use ipsteer::client::Options;
use ipsteer::{Client, Error, Exit, Which};

fn refusal(gateway: &FakeGateway) -> Error {
    Client::connect(gateway.options()).expect_err("refused")
}

#[test]
fn a_wrong_token_is_refused_before_ours_is_shown() {
    for mut gateway in [FakeGateway::unix(), FakeGateway::tls()] {
        gateway.record.token = Some("ab".repeat(32));
        gateway.write_file();
        let error = refusal(&gateway);
        assert!(error.to_string().contains("does not hold the token"), "{error}");
        assert_eq!(Exit::from(&error), Exit::NoCluster);
        assert!(
            matches!(gateway.hear(), Heard::Refused(_)),
            "the client gave no proof"
        );
    }
}

#[test]
fn another_certificate_is_refused() {
    let mut gateway = FakeGateway::tls();
    gateway.record.fingerprint = "cd".repeat(32);
    gateway.write_file();
    let error = refusal(&gateway);
    assert!(error.to_string().contains("another certificate"), "{error}");
}

#[test]
fn a_version_of_the_future_is_refused_in_words() {
    let gateway = FakeGateway::start(false, Introduction::OfTheFuture);
    let text = refusal(&gateway).to_string();
    assert!(
        text.contains("here 1 to 1, there 99 to 99") && text.contains("update this side"),
        "{text}"
    );
}

#[test]
fn a_file_open_to_others_is_refused() {
    let gateway = FakeGateway::unix();
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(gateway.file(), fs::Permissions::from_mode(mode)).expect("permissions");
        let error = refusal(&gateway);
        assert!(
            matches!(error, Error::Permissions { mode: found, .. } if found == mode),
            "{error}"
        );
        assert!(error.to_string().contains("open to others"), "{error}");
    }
}

#[test]
fn files_that_lead_nowhere_say_why() {
    let mut gateway = FakeGateway::unix();
    fs::write(gateway.file(), b"{").expect("written");
    assert!(matches!(refusal(&gateway), Error::ParseFile { .. }));
    gateway.record.token = Some("short".to_owned());
    gateway.write_file();
    assert!(matches!(
        refusal(&gateway),
        Error::IncompleteFile { field: "token", .. }
    ));
    gateway.record.ended = Some(Ended {
        at: 1,
        reason: "walltime".to_owned(),
    });
    gateway.write_file();
    let error = refusal(&gateway);
    assert!(
        matches!(&error, Error::Ended { reason, .. } if reason == "walltime"),
        "{error}"
    );
    fs::remove_file(gateway.file()).expect("removed");
    assert!(matches!(refusal(&gateway), Error::ReadFile { .. }));
}

#[test]
fn a_socket_that_nobody_holds_is_unreachable() {
    let mut gateway = FakeGateway::unix();
    let dead = gateway.dir.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket"));
    gateway.record.unix = Some(dead.to_string_lossy().into_owned());
    gateway.write_file();
    let error = refusal(&gateway);
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn the_token_of_a_file_serves_for_an_address_given_by_hand() {
    let mut gateway = FakeGateway::tls();
    let url = std::mem::take(&mut gateway.record.urls).remove(0);
    gateway.record.urls = vec!["wss://127.0.0.1:1/".to_owned()];
    gateway.write_file();
    let which = Which {
        file: Some(gateway.file()),
        url: Some(url),
        cluster: None,
    };
    let connecting = Client::start(Options {
        which,
        ..Options::default()
    })
    .expect("a thread");
    gateway.open(0, generous());
    assert_eq!(finish(connecting).expect("a session").size().expect("open"), 4);
}

#[test]
fn a_gateway_that_says_nothing_is_not_waited_for() {
    let gateway = FakeGateway::unix();
    let options = Options {
        timeout: Duration::from_millis(200),
        ..gateway.options()
    };
    let error = Client::connect(options).expect_err("no Welcome");
    assert!(matches!(error, Error::ConnectTimeout { .. }), "{error}");
}

#[test]
fn what_is_no_address_is_refused() {
    let gateway = FakeGateway::unix();
    for text in ["http://h:1/", "wss://h/", "wss://:1/", "unix:relative", "h:1"] {
        let which = Which {
            url: Some(text.to_owned()),
            ..gateway.options().which
        };
        let error = Client::connect(Options {
            which,
            ..Options::default()
        })
        .expect_err("refused");
        assert!(
            matches!(&error, Error::Address(named) if named == text),
            "{error}"
        );
        assert_eq!(Exit::from(&error), Exit::Usage);
    }
}
