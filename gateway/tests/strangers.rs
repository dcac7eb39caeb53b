//! Who does not belong here: wrong token, wrong version, silence, garbage, too much.

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use ipengine_protocol::frame::MAX_FRAME_LEN;
use ipengine_protocol::handshake::{HandshakeError, Role, client_hello};
use ipengine_protocol::{Assembler, ClientId, EngineId, Incoming, Request, Submit, Targets, ToEngine, Work};
use support::client::{Client, Stream, Web, close_frame, close_reason, prove, receive_binary, upgrade};
use support::engine::{self, Engine};
use support::{Gateway, random, secret, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::Message as WebMessage;

async fn local(gateway: &Gateway, door: &str) -> Box<dyn Stream> {
    Box::new(UnixStream::connect(gateway.path(door)).await.unwrap())
}

async fn web(gateway: &Gateway) -> Web {
    upgrade(local(gateway, "client").await).await
}

/// Shows that the gateway still serves.
async fn still_serves(gateway: &Gateway) {
    let mut engine = Engine::connect(gateway, 0, 1).await;
    let mut client = gateway.client().await;
    client.submit(&[0]).await;
    engine.run_and_finish(1).await;
    assert_eq!(client.outcome().await.0, 1);
}

fn unknown_session() -> (u16, String) {
    let reason = "this gateway does not know the session (it was restarted, or the client was away too long)";
    (4001, reason.to_owned())
}

async fn hears_the_end(stream: &mut dyn Stream) {
    assert_eq!(last_bytes(stream).await, b"");
}

async fn last_bytes(stream: &mut dyn Stream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = within("the end of the connection", stream.read_to_end(&mut rest)).await;
    rest
}

/// The order to stop, with this reason, and nothing behind it.
fn assert_told_to_stop(bytes: &[u8], reason: &str) {
    let frame = Bytes::copy_from_slice(&bytes[4..]);
    let Incoming::Message(message) = Assembler::new(u64::MAX).take(frame).unwrap() else {
        panic!("no whole message in {bytes:?}");
    };
    let stop: ToEngine = message.decode().unwrap();
    assert!(
        matches!(&stop, ToEngine::Stop { reason: told } if told == reason),
        "{stop:?}"
    );
}

#[tokio::test]
async fn a_gateway_with_another_token_is_not_given_a_proof() {
    let gateway = Gateway::start(1).await;
    let mut web = web(&gateway).await;
    assert_eq!(
        prove(&mut web, Role::Client, secret(), &[]).await,
        Err(HandshakeError::ServerProof)
    );
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_client_without_the_token_is_refused() {
    let gateway = Gateway::start(1).await;
    let mut web = web(&gateway).await;
    web.send(WebMessage::Binary(
        client_hello(Role::Client, 1, 1, random()).to_vec().into(),
    ))
    .await
    .unwrap();
    receive_binary(&mut web).await.unwrap();
    web.send(WebMessage::Binary(vec![0; 32].into())).await.unwrap();
    assert_eq!(receive_binary(&mut web).await.unwrap(), &[0][..]);
    assert_eq!(close_reason(&mut web).await, "the token was refused");
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_handshake_that_was_relayed_over_another_tls_channel_is_refused() {
    let gateway = Gateway::start(1).await;
    // The binding of another channel to the same gateway: what an honest client behind a relay would use.
    let (_other, binding) = gateway.tls(b"").await;
    let (stream, own) = gateway.tls(b"").await;
    assert_ne!(binding, own);
    let mut web = upgrade(Box::new(stream)).await;
    let refused = prove(&mut web, Role::Client, gateway.client_secret.clone(), &binding).await;
    assert_eq!(refused, Err(HandshakeError::ServerProof));
    still_serves(&gateway).await;
}

#[tokio::test]
async fn an_engine_secret_opens_no_client_door_and_the_other_way_round() {
    let gateway = Gateway::start(1).await;
    let mut web = web(&gateway).await;
    let refused = prove(&mut web, Role::Engine, gateway.engine_secret.clone(), &[]).await;
    assert_eq!(refused, Err(HandshakeError::NotOurs));
    let mut link = local(&gateway, "engine").await;
    let refused = engine::prove(&mut *link, Role::Client, gateway.client_secret.clone(), &[]).await;
    assert_eq!(refused, Err(HandshakeError::NotOurs));
    still_serves(&gateway).await;
}

#[tokio::test]
async fn other_versions_are_told_which_side_to_update() {
    let gateway = Gateway::start(1).await;
    for (oldest, newest) in [(0, 0), (7, 9)] {
        let mut web = web(&gateway).await;
        let hello = client_hello(Role::Client, oldest, newest, random());
        web.send(WebMessage::Binary(hello.to_vec().into())).await.unwrap();
        let answer = receive_binary(&mut web).await.unwrap();
        assert_eq!(answer[8], 1, "status: no version in common");
        let reason = close_reason(&mut web).await;
        assert!(reason.starts_with("protocol versions do not meet"), "{reason}");
    }
    still_serves(&gateway).await;
}

#[tokio::test]
async fn silence_is_cut_off_on_every_door() {
    let limit = Duration::from_millis(50);
    let gateway = Gateway::start_with(1, false, |_, limits| limits.greeting = limit).await;
    let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
    hears_the_end(&mut tcp).await;
    hears_the_end(&mut *local(&gateway, "client").await).await;
    hears_the_end(&mut *local(&gateway, "engine").await).await;
    let (mut after_tls, _) = gateway.tls(b"").await;
    hears_the_end(&mut after_tls).await;
    let mut upgraded = web(&gateway).await;
    assert_eq!(receive_binary(&mut upgraded).await, None);
    let mut proved = web(&gateway).await;
    prove(&mut proved, Role::Client, gateway.client_secret.clone(), &[])
        .await
        .unwrap();
    assert_eq!(receive_binary(&mut proved).await, None);
}

#[tokio::test]
async fn more_strangers_than_places_wait_and_are_served() {
    let gateway = Gateway::start_with(1, false, |_, limits| {
        limits.unproved = 2;
        limits.greeting = Duration::from_millis(100);
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(local(&gateway, "client").await);
    }
    still_serves(&gateway).await;
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let gateway = Gateway::start(1).await;
    for door in ["client", "engine"] {
        let mut stream = local(&gateway, door).await;
        stream.write_all(&[0xff; 200]).await.unwrap();
        let mut rest = Vec::new();
        // An HTTP error may come before the end; a reset is an end too.
        let _ = within("the end", stream.read_to_end(&mut rest)).await;
    }
    let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
    tcp.write_all(&[0; 200]).await.unwrap();
    let _ = within("the end", tcp.read_to_end(&mut Vec::new())).await;
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_large_message_before_the_proof_is_refused() {
    let gateway = Gateway::start(1).await;
    let mut web = web(&gateway).await;
    // The gateway may hang up while this is written.
    let _ = web.send(WebMessage::Binary(vec![0; 1 << 20].into())).await;
    assert_eq!(receive_binary(&mut web).await, None);
    still_serves(&gateway).await;
}

#[tokio::test]
async fn text_and_unknown_frames_end_a_proved_connection_with_a_reason() {
    let gateway = Gateway::start(1).await;
    let cases = [
        (
            WebMessage::Text("hello".into()),
            "text message, but only binary ones are understood",
        ),
        (WebMessage::Binary(vec![9].into()), "unknown frame kind 9"),
        (
            WebMessage::Binary(vec![0, 0, 0, 0, 0].into()),
            "frame is truncated: 4 bytes announced, 0 present",
        ),
    ];
    for (message, expected) in cases {
        let mut client = gateway.client().await;
        client.web.send(message).await.unwrap();
        assert_eq!(close_reason(&mut client.web).await, expected);
    }
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_length_over_the_limit_ends_a_link_before_memory_is_taken() {
    let gateway = Gateway::start(1).await;
    let mut link = local(&gateway, "engine").await;
    engine::prove(&mut *link, Role::Engine, gateway.engine_secret.clone(), &[])
        .await
        .unwrap();
    link.write_all(&(MAX_FRAME_LEN as u32 + 1).to_le_bytes())
        .await
        .unwrap();
    hears_the_end(&mut *link).await;
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_conversation_begins_with_open_and_has_only_one() {
    let gateway = Gateway::start(1).await;
    let mut first = web(&gateway).await;
    prove(&mut first, Role::Client, gateway.client_secret.clone(), &[])
        .await
        .unwrap();
    let message = ipengine_protocol::Message::bare(&Request::Status { request: 1 });
    let frame = ipengine_protocol::frame::frames(&message, 1).next().unwrap();
    first.send(WebMessage::Binary(frame.into_bytes())).await.unwrap();
    assert_eq!(
        close_reason(&mut first).await,
        "conversation does not begin with its opening message"
    );
    let mut client = gateway.client().await;
    client.open(0).await;
    assert_eq!(close_reason(&mut client.web).await, "opening message came twice");
}

#[tokio::test]
async fn a_client_of_another_gateway_is_told_so() {
    let gateway = Gateway::start(1).await;
    let mut web = web(&gateway).await;
    prove(&mut web, Role::Client, gateway.client_secret.clone(), &[])
        .await
        .unwrap();
    let open = Request::Open {
        client: ClientId([3; 16]),
        user: String::new(),
        software: String::new(),
        python: None,
        events_seen: 5,
    };
    let message = ipengine_protocol::Message::bare(&open);
    let frame = ipengine_protocol::frame::frames(&message, 1).next().unwrap();
    web.send(WebMessage::Binary(frame.into_bytes())).await.unwrap();
    assert_eq!(close_frame(&mut web).await, Some(unknown_session()));
}

#[tokio::test]
async fn a_client_that_goes_on_where_this_gateway_never_began_is_told_so() {
    let gateway = Gateway::start(1).await;
    let mut client = gateway.client().await;
    let submit = Submit {
        counter: 3,
        targets: Targets::All(vec![EngineId(0)]),
        work: Work::Clear,
        each: None,
        label: None,
    };
    client.send(&Request::Submit(submit), vec![]).await;
    assert_eq!(close_frame(&mut client.web).await, Some(unknown_session()));
}

#[tokio::test]
async fn a_new_connection_replaces_the_old_one() {
    let gateway = Gateway::start(1).await;
    let mut old = gateway.client().await;
    let _new = old.again(&gateway, 0).await;
    assert_eq!(close_reason(&mut old.web).await, "replaced by a newer connection");
}

#[tokio::test]
async fn a_client_that_gives_no_sign_of_life_is_cut_off() {
    let gateway =
        Gateway::start_with(1, false, |_, limits| limits.heartbeat = Duration::from_millis(50)).await;
    let mut silent: Client = gateway.client().await;
    // Pongs are only sent by reading: this one does not.
    let stream = silent.web.get_mut();
    let mut rest = Vec::new();
    within("the end of the connection", stream.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("no sign of life"));
}

#[tokio::test]
async fn an_engine_of_another_world_is_turned_away() {
    let gateway = Gateway::start(1).await;
    for (rank, size) in [(0, 2), (1, 1)] {
        let mut link = local(&gateway, "engine").await;
        engine::prove(&mut *link, Role::Engine, gateway.engine_secret.clone(), &[])
            .await
            .unwrap();
        engine::say_hello(&mut *link, rank, size).await;
        // Else it would come again and again.
        let reason = format!("engine {rank} of {size} does not belong to this world");
        assert_told_to_stop(&last_bytes(&mut *link).await, &reason);
    }
    still_serves(&gateway).await;
}
