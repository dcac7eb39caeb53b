//! Whatever is sent arrives: messages through frames, chunks and back; heads through the codec; exceptions as JSON.

use bytes::Bytes;
use ipengine_protocol::exception::{ExceptionArgument, ExceptionFrame};
use ipengine_protocol::frame::{self, CHUNK_LEN};
use ipengine_protocol::handshake::Secret;
use ipengine_protocol::outcome::LossKind;
use ipengine_protocol::{
    Assembler, ClientId, EngineId, Event, EventEnvelope, Incoming, InstructionId, LossCause, Message, Order,
    Outcome, OutputName, PullFormat, PythonVersion, RemoteException, Request, Submit, Targets, Timing,
    ToEngine, ValueHead, ValueKind, Work,
};
use proptest::prelude::*;

/// Sends over one connection and reads it back.
fn through_frames(messages: &[Message]) -> Vec<Message> {
    let mut assembler = Assembler::new(u64::MAX);
    let mut found = Vec::new();
    for (number, message) in messages.iter().enumerate() {
        for frame in frame::frames(message, number as u32 + 1) {
            if let Incoming::Message(message) = assembler.take(frame.into_bytes()).unwrap() {
                found.push(message);
            }
        }
    }
    found
}

fn message(head: &[u8], blob_lens: &[usize]) -> Message {
    let blobs = blob_lens
        .iter()
        .enumerate()
        .map(|(at, len)| Bytes::from(vec![at as u8; *len]))
        .collect();
    Message {
        head: Bytes::copy_from_slice(head),
        blobs,
    }
}

#[test]
fn parts_around_the_chunk_length_arrive_whole() {
    let lens = [
        0,
        1,
        CHUNK_LEN - 1,
        CHUNK_LEN,
        CHUNK_LEN + 1,
        2 * CHUNK_LEN,
        3 * CHUNK_LEN + 7,
    ];
    for len in lens {
        for blobs in [vec![len], vec![0, len, 0], vec![len, 1, len]] {
            let sent = message(b"head", &blobs);
            assert_eq!(through_frames(std::slice::from_ref(&sent)), [sent]);
        }
    }
}

#[test]
fn no_frame_of_bulk_is_longer_than_a_chunk_and_its_head() {
    let sent = message(b"head", &[10 * CHUNK_LEN + 3, 5]);
    let frames: Vec<_> = frame::frames(&sent, 7).collect();
    assert_eq!(frames.len(), 12);
    assert!(frames.iter().all(|frame| frame.len() <= CHUNK_LEN + 64));
}

#[test]
fn messages_overtake_between_the_chunks_of_another() {
    let (bulk, small) = (message(b"bulk", &[3 * CHUNK_LEN]), message(b"small", &[1]));
    let mut assembler = Assembler::new(u64::MAX);
    let mut order = Vec::new();
    let mut chunks: Vec<_> = frame::frames(&bulk, 1).collect();
    chunks.splice(1..1, frame::frames(&small, 2));
    for frame in chunks {
        if let Incoming::Message(found) = assembler.take(frame.into_bytes()).unwrap() {
            order.push(found);
        }
    }
    assert_eq!(order, [small, bulk]);
}

#[test]
fn a_prefixed_frame_is_its_length_and_its_bytes() {
    let frame = frame::frames(&message(b"head", &[3]), 1).next().unwrap();
    let mut out = bytes::BytesMut::new();
    frame.append_prefixed(&mut out);
    let prefix = u32::from_le_bytes(out[..4].try_into().unwrap());
    assert_eq!(frame::check_prefix(prefix).unwrap(), frame.len());
    assert_eq!(out[4..], frame.into_bytes()[..]);
}

#[test]
fn blobs_are_not_copied_into_messages() {
    let blob = Bytes::from(vec![1; 100]);
    let sent = Message::new(&1u8, vec![blob.clone()]);
    assert_eq!(sent.clone().blobs[0].as_ptr(), blob.as_ptr());
    let frame = frame::frames(&sent, 1).next().unwrap();
    assert_eq!(frame.pieces()[1].as_ptr(), blob.as_ptr());
}

fn exception(depth: u32) -> BoxedStrategy<RemoteException> {
    let json = prop_oneof![
        Just(None),
        Just(Some("null".to_owned())),
        Just(Some("[1,\"a\"]".to_owned()))
    ];
    let argument = (".{0,8}", json).prop_map(|(repr, json)| ExceptionArgument { repr, json });
    let frame =
        (".{0,8}", any::<u32>(), any::<Option<u32>>()).prop_map(|(file, line, column)| ExceptionFrame {
            file,
            line,
            column,
            ..ExceptionFrame::default()
        });
    let cause = if depth == 0 {
        Just(None).boxed()
    } else {
        prop::option::of(exception(depth - 1).prop_map(Box::new)).boxed()
    };
    let lists = (
        prop::collection::vec(argument.clone(), 0..3),
        prop::collection::vec(frame, 0..3),
    );
    (
        ".{0,8}",
        ".{0,20}",
        lists,
        prop::option::of(argument),
        cause.clone(),
        cause,
        any::<bool>(),
    )
        .prop_map(
            |(type_name, message, (args, frames), attribute, cause, context, suppress_context)| {
                let attributes = attribute
                    .into_iter()
                    .map(|value| ("errno".to_owned(), value))
                    .collect();
                RemoteException {
                    type_name,
                    message,
                    args,
                    attributes,
                    frames,
                    cause,
                    context,
                    suppress_context,
                    ..RemoteException::default()
                }
            },
        )
        .boxed()
}

fn work() -> impl Strategy<Value = Work> {
    let kind = prop_oneof![
        Just(ValueKind::Null),
        (".{0,5}", prop::collection::vec(any::<u64>(), 0..4), any::<bool>()).prop_map(
            |(dtype, shape, fortran_order)| ValueKind::Ndarray {
                dtype,
                shape,
                fortran_order
            }
        ),
        any::<bool>().prop_map(|by_value| ValueKind::Pickle {
            python: PythonVersion(3, 11, 7),
            by_value
        }),
    ];
    let value = (kind, any::<u32>()).prop_map(|(kind, blobs)| ValueHead { kind, blobs });
    prop_oneof![
        (
            ".{0,40}",
            any::<Option<u8>>(),
            any::<bool>(),
            prop::collection::vec((".{0,3}", ".{0,9}"), 0..3)
        )
            .prop_map(|(code, filename, silent, user_expressions)| Work::Execute {
                code,
                filename: filename.map(|number| number.to_string()),
                silent,
                store_history: !silent,
                user_expressions,
            }),
        prop::collection::vec((".{0,5}", value), 0..4).prop_map(|pairs| {
            let (names, values) = pairs.into_iter().unzip();
            Work::Push { names, values }
        }),
        (prop::collection::vec(".{0,5}", 0..4), any::<bool>()).prop_map(|(names, single)| Work::Pull {
            names,
            format: PullFormat::Npy,
            single
        }),
        Just(Work::Clear),
    ]
}

fn targets() -> impl Strategy<Value = Targets> {
    (
        prop::collection::vec(any::<u32>().prop_map(EngineId), 0..5),
        any::<bool>(),
    )
        .prop_map(|(engines, all)| {
            if all {
                Targets::All(engines)
            } else {
                Targets::OneOf(engines)
            }
        })
}

proptest! {
    #[test]
    fn any_messages_arrive_in_order(
        messages in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..50),
            prop::collection::vec(0..3000usize, 0..6)), 1..8),
    ) {
        let sent: Vec<Message> = messages.iter().map(|(head, lens)| message(head, lens)).collect();
        prop_assert_eq!(through_frames(&sent), sent);
    }

    #[test]
    fn submits_and_runs_keep_every_field(
        counter: u64, targets in targets(), work in work(), each: Option<Vec<u32>>, label: Option<String>,
    ) {
        let id = InstructionId { client: ClientId([9; 16]), counter };
        let run = ToEngine::Run { order: Order(counter), id, targets: targets.engines().to_vec(), work: work.clone(), comm_suspect: None };
        prop_assert_eq!(Message::bare(&run).decode::<ToEngine>().unwrap(), run);
        let request = Request::Submit(Submit { counter, targets, work, each, label });
        prop_assert_eq!(Message::bare(&request).decode::<Request>().unwrap(), request);
    }

    #[test]
    fn exceptions_keep_every_field_on_the_wire_and_in_json(exception in exception(2), number: u64) {
        let event = Event::Finished {
            counter: number,
            engine: EngineId(3),
            outcome: Outcome::Raised(Box::new(exception.clone())),
            timing: Timing { started: 1, completed: 2 },
        };
        let envelope = EventEnvelope { number, event };
        prop_assert_eq!(Message::bare(&envelope).decode::<EventEnvelope>().unwrap(), envelope);
        let json = serde_json::to_string(&exception).unwrap();
        prop_assert_eq!(serde_json::from_str::<RemoteException>(&json).unwrap(), exception);
    }

    #[test]
    fn output_and_loss_keep_every_field(omitted: u64, code: i32, detail: String) {
        let id = Some(InstructionId { client: ClientId([1; 16]), counter: omitted });
        let stream = Event::Stream { id, engine: EngineId(1), name: OutputName::Stderr, omitted };
        let cause = LossCause { engine: 1, host: "node1".to_owned(), kind: LossKind::Exit(code), detail };
        for event in [stream, Event::EngineLost { engine: EngineId(1), cause }] {
            let envelope = EventEnvelope { number: 1, event };
            prop_assert_eq!(Message::bare(&envelope).decode::<EventEnvelope>().unwrap(), envelope);
        }
    }

    #[test]
    fn secrets_survive_hexadecimal(bytes: [u8; 32]) {
        let secret = Secret::new(bytes);
        prop_assert_eq!(Secret::from_hex(&secret.to_hex()), Some(secret));
    }
}

#[test]
fn only_sixty_four_hexadecimal_digits_are_a_secret() {
    for text in [
        "",
        "00",
        &"0".repeat(63),
        &"0".repeat(65),
        &"g".repeat(64),
        &"+f".repeat(32),
        &"é".repeat(32),
    ] {
        assert_eq!(Secret::from_hex(text), None, "{text}");
    }
}
