//! The handshake between honest sides, and against every kind of stranger.

use ipengine_protocol::VERSION;
use ipengine_protocol::handshake::{
    CLIENT_HELLO_LEN, ClientSide, HandshakeError, PROOF_LEN, Role, SERVER_HELLO_LEN, Secret, ServerSide,
    client_hello,
};
use proptest::prelude::*;

const BINDING: &[u8] = b"the exporter of this channel";

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

fn client(role: Role, byte: u8, binding: &[u8]) -> ClientSide {
    ClientSide::new(role, secret(byte), binding, [1; 32])
}

/// A gateway's door for clients, with secret 1.
fn server(hello: &[u8], binding: &[u8]) -> Result<ServerSide, HandshakeError> {
    let secret_of = |role| (role == Role::Client).then(|| secret(1));
    ServerSide::on_client_hello(hello, secret_of, binding, [2; 32]).map_err(|refusal| refusal.error)
}

#[test]
fn both_sides_with_the_secret_agree() {
    let client = client(Role::Client, 1, BINDING);
    let server = server(&client.hello(), BINDING).unwrap();
    let (proof, version) = client.on_server_hello(&server.answer()).unwrap();
    assert_eq!(server.on_proof(&proof), Ok((Role::Client, VERSION)));
    assert_eq!(version, VERSION);
    assert_eq!(client.on_verdict(&[1]), Ok(()));
}

#[test]
fn a_client_with_another_token_stops_before_it_proves_anything() {
    let client = client(Role::Client, 9, BINDING);
    let server = server(&client.hello(), BINDING).unwrap();
    assert_eq!(
        client.on_server_hello(&server.answer()),
        Err(HandshakeError::ServerProof)
    );
}

#[test]
fn a_wrong_proof_is_refused_whatever_its_length() {
    let server = server(&client(Role::Client, 1, BINDING).hello(), BINDING).unwrap();
    for proof in [&[0; 32][..], &[0; 31], &[0; 33], &[]] {
        assert_eq!(server.on_proof(proof), Err(HandshakeError::ClientProof));
    }
}

#[test]
fn the_servers_own_proof_mirrored_is_refused() {
    let server = server(&client(Role::Client, 1, BINDING).hello(), BINDING).unwrap();
    let mirrored = &server.answer()[SERVER_HELLO_LEN - PROOF_LEN..];
    assert_eq!(server.on_proof(mirrored), Err(HandshakeError::ClientProof));
}

#[test]
fn a_proof_of_another_conversation_is_refused() {
    let first = client(Role::Client, 1, BINDING);
    let (old, _) = first
        .on_server_hello(&server(&first.hello(), BINDING).unwrap().answer())
        .unwrap();
    let second = ClientSide::new(Role::Client, secret(1), BINDING, [3; 32]);
    assert_eq!(
        server(&second.hello(), BINDING).unwrap().on_proof(&old),
        Err(HandshakeError::ClientProof)
    );
}

#[test]
fn a_relay_between_two_channels_fails_on_both_sides() {
    let client = client(Role::Client, 1, b"channel to the relay");
    let server = server(&client.hello(), b"channel of the relay").unwrap();
    assert_eq!(
        client.on_server_hello(&server.answer()),
        Err(HandshakeError::ServerProof)
    );
    // A relay that could make the client go on would still be refused.
    let honest = ServerSide::on_client_hello(
        &client.hello(),
        |_| Some(secret(1)),
        b"channel to the relay",
        [2; 32],
    );
    let (proof, _) = client.on_server_hello(&honest.unwrap().answer()).unwrap();
    assert_eq!(server.on_proof(&proof), Err(HandshakeError::ClientProof));
}

#[test]
fn the_wrong_role_is_a_stranger_without_an_answer() {
    let hello = client(Role::Engine, 1, BINDING).hello();
    let secret_of = |role| (role == Role::Client).then(|| secret(1));
    let refusal = ServerSide::on_client_hello(&hello, secret_of, BINDING, [2; 32]).unwrap_err();
    assert_eq!((refusal.error, refusal.answer), (HandshakeError::NotOurs, None));
    let mut unknown = hello;
    unknown[8] = 77;
    assert_eq!(server(&unknown, BINDING).unwrap_err(), HandshakeError::NotOurs);
}

#[test]
fn a_role_changed_on_the_way_breaks_the_proof() {
    let client = client(Role::Engine, 1, BINDING);
    let mut hello = client.hello();
    hello[8] = Role::Client as u8;
    let server = server(&hello, BINDING).unwrap();
    assert_eq!(
        client.on_server_hello(&server.answer()),
        Err(HandshakeError::ServerProof)
    );
}

#[test]
fn older_and_newer_clients_are_told_which_side_to_update() {
    for (oldest, newest, remedy) in [
        (VERSION + 1, VERSION + 2, "update this side"),
        (0, 0, "update the other side"),
    ] {
        let hello = client_hello(Role::Client, oldest, newest, [1; 32]);
        let refusal = ServerSide::on_client_hello(&hello, |_| Some(secret(1)), BINDING, [2; 32]).unwrap_err();
        let HandshakeError::Version {
            theirs_oldest,
            theirs,
            remedy: said,
            ..
        } = refusal.error
        else {
            panic!("{:?}", refusal.error)
        };
        assert_eq!((theirs_oldest, theirs, said), (oldest, newest, remedy));
        let answer = refusal.answer.expect("another version is answered in words");
        let error = client(Role::Client, 1, BINDING)
            .on_server_hello(&answer)
            .unwrap_err();
        assert!(matches!(error, HandshakeError::Version { .. }), "{error}");
    }
}

#[test]
fn a_newer_client_that_still_speaks_ours_gets_ours() {
    let hello = client_hello(Role::Client, VERSION, VERSION + 5, [1; 32]);
    let answer = server(&hello, BINDING).unwrap().answer();
    assert_eq!(u16::from_le_bytes([answer[10], answer[11]]), VERSION);
}

#[test]
fn a_gateway_of_other_versions_is_named_with_what_to_do() {
    for (oldest, newest, remedy) in [
        (VERSION + 1, VERSION + 2, "update this side"),
        (0, 0, "update the other side"),
    ] {
        let mut answer = [0; SERVER_HELLO_LEN];
        answer[..8].copy_from_slice(b"IPENGMPI");
        answer[8] = 1;
        answer[12..14].copy_from_slice(&u16::to_le_bytes(oldest));
        answer[14..16].copy_from_slice(&u16::to_le_bytes(newest));
        let error = client(Role::Client, 1, BINDING)
            .on_server_hello(&answer)
            .unwrap_err();
        let HandshakeError::Version {
            theirs, remedy: said, ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((theirs, said), (newest, remedy));
    }
}

#[test]
fn hellos_of_another_length_or_beginning_are_not_ours() {
    let hello = client(Role::Client, 1, BINDING).hello();
    for length in (0..CLIENT_HELLO_LEN).chain([CLIENT_HELLO_LEN + 1]) {
        let bytes: Vec<u8> = hello.iter().copied().chain([0]).take(length).collect();
        assert_eq!(server(&bytes, BINDING).unwrap_err(), HandshakeError::NotOurs);
    }
    assert_eq!(
        server(b"GET / HTTP/1.1\r\nHost: localhost:8888\r\nAccept: ", BINDING).unwrap_err(),
        HandshakeError::NotOurs
    );
    let client = client(Role::Client, 1, BINDING);
    assert_eq!(
        client.on_server_hello(b"HTTP/1.1 400 Bad Request"),
        Err(HandshakeError::NotOurs)
    );
    assert_eq!(
        client.on_server_hello(&[7; SERVER_HELLO_LEN]),
        Err(HandshakeError::NotOurs)
    );
}

#[test]
fn anything_but_one_is_a_refusal() {
    let client = client(Role::Client, 1, BINDING);
    for verdict in [&[0][..], &[2], &[], &[1, 1]] {
        assert_eq!(client.on_verdict(verdict), Err(HandshakeError::ClientProof));
    }
}

#[test]
fn secrets_are_not_printed() {
    let printed = format!("{:?} {:?}", secret(0xab), client(Role::Client, 0xab, BINDING));
    assert!(!printed.contains("abab") && !printed.contains("171"), "{printed}");
}

proptest! {
    #[test]
    fn one_bit_changed_anywhere_in_the_answer_is_noticed(bit in 0..SERVER_HELLO_LEN * 8) {
        let client = client(Role::Client, 1, BINDING);
        let mut answer = server(&client.hello(), BINDING).unwrap().answer();
        answer[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(client.on_server_hello(&answer).is_err());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(server(&bytes, BINDING).is_err());
        prop_assert!(client(Role::Client, 1, BINDING).on_server_hello(&bytes).is_err());
    }
}
