//! Bytes that are not messages are refused, whatever they claim, before memory is taken for the claim.

use bytes::Bytes;
use ipengine_protocol::exception::{MAX_CHAIN, RemoteException};
use ipengine_protocol::frame::{self, CHUNK_LEN, MAX_BLOBS, MAX_FRAME_LEN};
use ipengine_protocol::{
    Assembler, DecodeError, EventEnvelope, FromEngineEnvelope, Message, Request, ToEngine,
};
use proptest::prelude::*;

fn take(bytes: &[u8]) -> Result<frame::Incoming, DecodeError> {
    Assembler::new(u64::MAX).take(Bytes::copy_from_slice(bytes))
}

/// A message frame as its fields say.
fn message_frame(transfer: u32, head_len: u32, count: u32, lens: &[u64], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(transfer.to_le_bytes());
    bytes.extend(head_len.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    lens.iter().for_each(|len| bytes.extend(len.to_le_bytes()));
    bytes.extend(rest);
    bytes
}

fn chunk(transfer: u32, payload: &[u8]) -> Bytes {
    let mut bytes = vec![1];
    bytes.extend(transfer.to_le_bytes());
    bytes.extend(payload);
    bytes.into()
}

fn whole() -> Bytes {
    let message = Message::new(
        &Request::Status { request: 7 },
        vec![Bytes::from_static(b"abc"), Bytes::from_static(b"d")],
    );
    frame::frames(&message, 1).next().unwrap().into_bytes()
}

#[test]
fn a_frame_cut_short_anywhere_is_truncated() {
    let whole = whole();
    for length in 0..whole.len() {
        let found = take(&whole[..length]);
        assert!(
            matches!(found, Err(DecodeError::Truncated { .. })),
            "cut at {length}: {found:?}"
        );
    }
    assert!(take(&whole).is_ok());
}

#[test]
fn bytes_after_the_message_are_trailing() {
    let mut bytes = whole().to_vec();
    bytes.push(0);
    assert!(matches!(take(&bytes), Err(DecodeError::Trailing(1))));
}

#[test]
fn unknown_kinds_are_refused() {
    for kind in 2..=255 {
        assert!(matches!(take(&[kind, 0, 0]), Err(DecodeError::UnknownKind(found)) if found == kind));
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let too_long = |bytes: &[u8]| matches!(take(bytes), Err(DecodeError::TooLong { .. }));
    let truncated = |bytes: &[u8]| matches!(take(bytes), Err(DecodeError::Truncated { .. }));
    assert!(
        too_long(&message_frame(0, u32::MAX, 0, &[], b"")),
        "head over the limit"
    );
    assert!(
        truncated(&message_frame(0, 1 << 20, 0, &[], b"short")),
        "head over what is there"
    );
    assert!(
        too_long(&message_frame(0, 0, MAX_BLOBS + 1, &[], b"")),
        "parts over the limit"
    );
    assert!(
        truncated(&message_frame(0, 0, MAX_BLOBS, &[1], b"x")),
        "parts over what is there"
    );
    assert!(
        too_long(&message_frame(0, 0, 1, &[u64::MAX], b"x")),
        "a part over the limit"
    );
    assert!(
        too_long(&message_frame(0, 0, 2, &[u64::MAX, 2], b"x")),
        "a sum that overflows"
    );
    assert!(
        truncated(&message_frame(0, 0, 1, &[100], b"x")),
        "a part over what is there"
    );
}

#[test]
fn a_frame_over_the_limit_is_refused_unread() {
    assert!(frame::check_prefix(MAX_FRAME_LEN as u32).is_ok());
    assert!(matches!(
        frame::check_prefix(MAX_FRAME_LEN as u32 + 1),
        Err(DecodeError::TooLong { .. })
    ));
    assert!(matches!(
        frame::check_prefix(u32::MAX),
        Err(DecodeError::TooLong { .. })
    ));
    let zeros = Bytes::from(vec![0; MAX_FRAME_LEN + 1]);
    assert!(matches!(
        Assembler::new(u64::MAX).take(zeros),
        Err(DecodeError::TooLong { what: "frame", .. })
    ));
}

#[test]
fn transfers_must_add_up() {
    let announce = |len: u64| Bytes::from(message_frame(5, 0, 1, &[len], b""));
    let after = |chunks: &[&[u8]], len: u64| {
        let mut assembler = Assembler::new(u64::MAX);
        chunks
            .iter()
            .for_each(|bytes| drop(assembler.take(chunk(5, bytes)).unwrap()));
        assembler.take(announce(len))
    };
    assert!(after(&[b"abc", b"de"], 5).is_ok());
    assert!(matches!(
        after(&[b"abc"], 5),
        Err(DecodeError::Transfer {
            transfer: 5,
            needed: 5,
            present: 3
        })
    ));
    assert!(matches!(
        after(&[b"abcdef"], 5),
        Err(DecodeError::Transfer {
            needed: 5,
            present: 6,
            ..
        })
    ));
    assert!(matches!(
        after(&[], 5),
        Err(DecodeError::Transfer {
            needed: 5,
            present: 0,
            ..
        })
    ));
}

#[test]
fn a_transfer_can_be_used_once() {
    let mut assembler = Assembler::new(u64::MAX);
    assembler.take(chunk(5, b"abc")).unwrap();
    let announce = Bytes::from(message_frame(5, 0, 1, &[3], b""));
    assembler.take(announce.clone()).unwrap();
    assert!(matches!(
        assembler.take(announce),
        Err(DecodeError::Transfer { present: 0, .. })
    ));
}

#[test]
fn payload_beside_a_transfer_is_trailing() {
    let mut assembler = Assembler::new(u64::MAX);
    assembler.take(chunk(5, b"abc")).unwrap();
    let found = assembler.take(Bytes::from(message_frame(5, 0, 1, &[3], b"abc")));
    assert!(matches!(found, Err(DecodeError::Trailing(3))), "{found:?}");
}

#[test]
fn chunks_and_transfers_are_bounded() {
    let mut assembler = Assembler::new(10);
    assembler.take(chunk(1, b"12345678")).unwrap();
    assert!(matches!(
        assembler.take(chunk(2, b"90a")),
        Err(DecodeError::TooLong { what: "payload", .. })
    ));
    let long = vec![0; CHUNK_LEN + 1];
    let found = Assembler::new(u64::MAX).take(chunk(1, &long));
    assert!(matches!(found, Err(DecodeError::TooLong { what: "chunk", .. })));
    let mut assembler = Assembler::new(u64::MAX);
    let refused = (1..=2000u32)
        .map(|transfer| assembler.take(chunk(transfer, b"")))
        .find_map(Result::err);
    assert!(matches!(
        refused,
        Some(DecodeError::TooLong {
            what: "number of transfers",
            limit: 1024,
            ..
        })
    ));
}

#[test]
fn a_chunk_says_what_is_held() {
    let mut assembler = Assembler::new(u64::MAX);
    assert_eq!(
        assembler.take(chunk(1, b"abc")).unwrap(),
        frame::Incoming::Chunk { held: 3 }
    );
    assert_eq!(
        assembler.take(chunk(2, b"de")).unwrap(),
        frame::Incoming::Chunk { held: 5 }
    );
    assembler
        .take(Bytes::from(message_frame(1, 0, 1, &[3], b"")))
        .unwrap();
    assert_eq!(
        assembler.take(chunk(2, b"")).unwrap(),
        frame::Incoming::Chunk { held: 2 }
    );
}

#[test]
fn a_head_of_another_direction_or_with_more_behind_is_refused() {
    let mut head = Message::bare(&Request::Status { request: 7 }).head.to_vec();
    head.push(0);
    let message = Message {
        head: head.into(),
        blobs: vec![],
    };
    assert!(matches!(
        message.decode::<Request>(),
        Err(DecodeError::Trailing(1))
    ));
    let empty = Message {
        head: Bytes::new(),
        blobs: vec![],
    };
    assert!(matches!(empty.decode::<Request>(), Err(DecodeError::Head(_))));
    let unknown = Message {
        head: Bytes::from_static(&[250, 250]),
        blobs: vec![],
    };
    assert!(matches!(unknown.decode::<ToEngine>(), Err(DecodeError::Head(_))));
}

#[test]
fn a_head_whose_string_claims_gigabytes_is_refused() {
    // Request::Shutdown, then a string length of 2^40 in bincode's variable encoding.
    let mut head = Message::bare(&Request::Shutdown {
        reason: String::new(),
    })
    .head[..1]
        .to_vec();
    head.push(253);
    head.extend((1u64 << 40).to_le_bytes());
    let message = Message {
        head: head.into(),
        blobs: vec![],
    };
    assert!(matches!(message.decode::<Request>(), Err(DecodeError::Head(_))));
}

#[test]
fn a_chain_of_exceptions_over_the_limit_is_refused_and_the_next_one_is_read() {
    let chain = |length: u32| {
        (1..length).fold(RemoteException::default(), |cause, _| RemoteException {
            cause: Some(Box::new(cause)),
            ..RemoteException::default()
        })
    };
    let read = |length| Message::bare(&chain(length)).decode::<RemoteException>();
    assert_eq!(read(MAX_CHAIN).unwrap(), chain(MAX_CHAIN));
    assert!(matches!(read(MAX_CHAIN + 1), Err(DecodeError::Head(_))));
    assert!(matches!(read(500), Err(DecodeError::Head(_))));
    assert!(read(MAX_CHAIN).is_ok(), "a refusal leaves nothing behind");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5)) {
        let mut assembler = Assembler::new(1 << 20);
        for bytes in frames {
            if let Ok(frame::Incoming::Message(message)) = assembler.take(bytes.into()) {
                let _ = message.decode::<Request>();
            }
        }
    }

    #[test]
    fn changed_bytes_never_panic(at: prop::sample::Index, value: u8) {
        let mut bytes = whole().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(frame::Incoming::Message(message)) = take(&bytes) {
            let _ = message.decode::<Request>();
        }
    }

    #[test]
    fn random_heads_never_panic(head in prop::collection::vec(any::<u8>(), 0..300)) {
        let message = Message { head: head.into(), blobs: vec![] };
        let _ = message.decode::<Request>();
        let _ = message.decode::<ToEngine>();
        let _ = message.decode::<EventEnvelope>();
        let _ = message.decode::<FromEngineEnvelope>();
    }
}
