//! Instructions: what comes back, what goes wrong, and that an engine outlives every ordinary error.

use std::sync::Arc;

use bytes::Bytes;
use ipengine_protocol::{EngineId, Outcome, PullFormat, PythonVersion, Targets, ValueHead, ValueKind, Work};
use ipengine_tests::outcome::{is_done, json, raised, shown, text};
use ipengine_tests::raw::RawClient;
use ipengine_tests::session::code;
use ipengine_tests::{Launch, Session, pickle};
use ipsteer::Error;
use ipsteer::client::Instruction;
use ipsteer::pending::Arrived;
use serde_json::json;

fn push(client: &Session, targets: &[u32], name: &str, kind: ValueKind, blob: &[u8]) -> Vec<Arc<Arrived>> {
    let work = Work::Push {
        names: vec![name.to_owned()],
        values: vec![ValueHead { kind, blobs: 1 }],
    };
    client.finish(client.send(targets, work, vec![Bytes::copy_from_slice(blob)]))
}

fn apply(client: &Session, targets: &[u32], source: &str) -> Vec<Arc<Arrived>> {
    let (work, blobs) = pickle::apply(source);
    client.finish(client.send(targets, work, blobs))
}

#[test]
fn a_cell_shows_its_result_and_keeps_its_names() {
    let mut job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine\nx = 20 + ipengine.rank");
    let arrived = client.must(&[0, 1], "x + 1");
    assert_eq!(
        arrived.iter().map(|one| shown(one)).collect::<Vec<_>>(),
        ["21", "22"]
    );
    let count = json(&arrived[0])["execution_count"].as_u64().expect("a count");
    assert_eq!(shown(&client.must(&[0], "Out[_ih.index('x + 1')]")[0]), "21");
    let next = client.must(&[0], "None");
    assert_eq!(json(&next[0])["execution_count"], json!(count + 2));
    drop(client);
    job.stop();
}

#[test]
fn a_syntax_error_is_an_ordinary_error() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    for arrived in client.run(&[0, 1], "x = (\n") {
        assert_eq!(raised(&arrived).type_name, "SyntaxError");
    }
    client.must(&[0, 1], "x = 1");
}

#[test]
fn some_of_a_set_raise_and_the_others_do_not() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    let arrived = client.run(
        &[1, 0],
        "import ipengine\nexec('y = (' if ipengine.rank else 'y = 5')\ny",
    );
    assert_eq!(raised(&arrived[0]).type_name, "SyntaxError");
    assert_eq!(raised(&arrived[0]).rank, 1);
    assert_eq!(shown(&arrived[1]), "5");
    assert_eq!(client.value(0, "y"), json!(5));
}

#[test]
fn a_name_that_is_missing_on_some_ranks() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0], "only_here = [1, 2]");
    let arrived = client.pull(&[0, 1], "only_here", PullFormat::Json);
    assert_eq!(json(&arrived[0]), json!([1, 2]));
    let error = raised(&arrived[1]);
    assert_eq!((error.type_name.as_str(), error.rank), ("NameError", 1));
    assert!(error.message.contains("only_here"));
}

#[test]
fn sys_exit_ends_the_instruction_and_not_the_engine() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    for (source, wanted) in [
        ("import sys; sys.exit(3)", "3"),
        ("raise SystemExit('enough')", "enough"),
        ("exit()", ""),
    ] {
        let arrived = client.run(&[0], source);
        let error = raised(&arrived[0]);
        assert_eq!(error.type_name, "SystemExit", "{source}");
        assert!(error.message.contains(wanted), "{error:?}");
    }
    for arrived in apply(&client, &[0], "def f():\n    import sys\n    sys.exit(4)") {
        assert_eq!(raised(&arrived).type_name, "SystemExit");
    }
    client.must(&[0], "1");
}

#[test]
fn results_that_cannot_be_pickled() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let arrived = apply(
        &client,
        &[0],
        "def f():\n    import threading\n    return threading.Lock()",
    );
    let error = raised(&arrived[0]);
    assert!(error.message.contains("lock"), "{error:?}");
    let arrived = client.pull(&[0], "(x for x in [])", PullFormat::Pickle);
    assert!(raised(&arrived[0]).message.contains("generator"));
    let arrived = client.pull(&[0], "object()", PullFormat::Json);
    assert!(!raised(&arrived[0]).message.is_empty());
    client.must(&[0], "1");
}

#[test]
fn arguments_that_are_no_pickle() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let (work, _) = pickle::apply("def f(): pass");
    for garbage in [&b"garbage"[..], b"", b"\x80\x05."] {
        let arrived = client.finish(client.send(&[0], work.clone(), vec![Bytes::copy_from_slice(garbage)]));
        assert!(!raised(&arrived[0]).type_name.is_empty());
    }
    let arrived = client.finish(client.send(&[0], work, Vec::new()));
    assert!(!raised(&arrived[0]).type_name.is_empty());
    client.must(&[0], "1");
}

#[test]
fn functions_see_the_namespace_of_their_engine() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine\nbase = 100 * (ipengine.rank + 1)");
    let source = "def f(x, *, scale):\n    return base + scale * x\nargs = (2,)\nkwargs = {'scale': 3}";
    apply(&client, &[0, 1], source)
        .iter()
        .for_each(|one| assert!(is_done(one), "{:?}", one.outcome));
    client.must(&[0, 1], "def g(): return base");
    let keep = "def f():\n    global kept\n    kept = base + 1";
    apply(&client, &[0, 1], keep)
        .iter()
        .for_each(|one| assert!(is_done(one), "{:?}", one.outcome));
    assert_eq!(client.value(1, "kept"), json!(201));
}

#[test]
fn a_function_of_another_python_is_refused() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let (work, blobs) = pickle::apply("def f(): return 1");
    let Work::Apply {
        name,
        python: Some(PythonVersion(major, minor, micro)),
        ..
    } = work
    else {
        panic!("an apply with a version")
    };
    let other = Work::Apply {
        name,
        python: Some(PythonVersion(major, minor + 1, micro)),
        by_value: true,
    };
    let arrived = client.finish(client.send(&[0], other, blobs));
    let message = &raised(&arrived[0]).message;
    for version in [minor, minor + 1] {
        assert!(message.contains(&format!("{major}.{version}")), "{message}");
    }
    client.must(&[0], "1");
}

#[test]
fn errors_carry_what_python_would_print() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let source = "\
def inner(v):
    raise ValueError('bad', v)
try:
    inner(7)
except ValueError as error:
    error.add_note('look here')
    raise RuntimeError('outer') from error
";
    let arrived = client.run(&[0], source);
    let error = raised(&arrived[0]);
    assert_eq!(
        (error.type_name.as_str(), error.message.as_str()),
        ("RuntimeError", "outer")
    );
    let cause = error.cause.as_ref().expect("a cause");
    assert_eq!(cause.type_name, "ValueError");
    assert_eq!(cause.notes, ["look here"]);
    assert_eq!(cause.args[1].json.as_deref(), Some("7"));
    let innermost = cause.frames.last().expect("frames");
    assert_eq!((innermost.function.as_str(), innermost.line), ("inner", 2));
    assert_eq!(
        innermost.source.as_deref().map(str::trim),
        Some("raise ValueError('bad', v)")
    );
    for wanted in [
        "ValueError: ('bad', 7)",
        "look here",
        "RuntimeError: outer",
        "inner(7)",
    ] {
        assert!(
            error.traceback.contains(wanted),
            "{wanted} is missing in {}",
            error.traceback
        );
    }
    assert!(!error.traceback.contains("<ipengine>"), "{}", error.traceback);
}

#[test]
fn every_kind_of_value_arrives() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let cases: [(ValueKind, &[u8], &str); 5] = [
        (ValueKind::Json, b"{\"a\": [1, null]}", "{'a': [1, None]}"),
        (ValueKind::Text, "gr\u{fc}n".as_bytes(), "'gr\u{fc}n'"),
        (ValueKind::Bytes, b"\x00\xff", "b'\\x00\\xff'"),
        (ValueKind::Literal, b"(1, {2: 'x'})", "(1, {2: 'x'})"),
        (
            ValueKind::Ndarray {
                dtype: "<f8".to_owned(),
                shape: vec![1, 2],
                fortran_order: false,
            },
            &[0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 0, 64],
            "array([[1., 2.]])",
        ),
    ];
    for (kind, blob, wanted) in cases {
        let arrived = push(&client, &[0], "v", kind, blob);
        assert!(is_done(&arrived[0]), "{:?}", arrived[0].outcome);
        assert_eq!(text(&client.pull(&[0], "v", PullFormat::Repr)[0]), wanted);
    }
    assert_eq!(client.value(0, "v.sum()"), json!(3.0));
    client.must(&[0], "v[0, 0] = 5"); // received arrays are writable
}

#[test]
fn values_that_are_not_what_they_say() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let long = ValueKind::Ndarray {
        dtype: "<f8".to_owned(),
        shape: vec![1 << 40],
        fortran_order: false,
    };
    let cases: [(ValueKind, &[u8]); 5] = [
        (ValueKind::Json, b"{"),
        (ValueKind::Text, b"\xff"),
        (ValueKind::Literal, b"__import__('os')"),
        (long, b"12345678"),
        (
            ValueKind::Ndarray {
                dtype: "nonsense".to_owned(),
                shape: vec![1],
                fortran_order: false,
            },
            b"1",
        ),
    ];
    for (kind, blob) in cases {
        let name = format!("{kind:?}");
        let arrived = push(&client, &[0], "v", kind, blob);
        assert!(
            matches!(arrived[0].outcome, Outcome::Raised(_)),
            "{name}: {:?}",
            arrived[0].outcome
        );
    }
    client.must(&[0], "1");
}

#[test]
fn parts_for_each_target() {
    let job = Launch::plain(4).start();
    let client = job.connect();
    let targets = [3, 0, 2];
    let work = Work::Push {
        names: vec!["part".to_owned()],
        values: vec![ValueHead {
            kind: ValueKind::Text,
            blobs: 1,
        }],
    };
    let instruction = Instruction {
        targets: Targets::All(targets.map(EngineId).to_vec()),
        work,
        blobs: ["a", "b", "c"]
            .map(|part| Bytes::from_static(part.as_bytes()))
            .to_vec(),
        each: Some(vec![1, 1, 1]),
        label: None,
    };
    let counter = client.submit(instruction).expect("accepted");
    client
        .finish(counter)
        .iter()
        .for_each(|one| assert!(is_done(one)));
    for (engine, wanted) in targets.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(client.value(engine, "part"), json!(wanted));
    }
}

#[test]
fn bulk_travels_both_ways() {
    let job = Launch::plain(2).start();
    let unix = job.connect();
    let urls = job.record().urls;
    let tls = job.connect_to(&urls[0]);
    for client in [&unix, &tls] {
        let bytes: Vec<u8> = (0..9_000_001_u32).map(|at| (at % 251) as u8).collect();
        let kind = ValueKind::Ndarray {
            dtype: "|u1".to_owned(),
            shape: vec![9_000_001],
            fortran_order: false,
        };
        assert!(
            push(client, &[0, 1], "big", kind, &bytes)
                .iter()
                .all(|one| is_done(one))
        );
        let sum: u64 = bytes
            .iter()
            .zip(1..)
            .map(|(byte, at)| u64::from(*byte) * at)
            .sum();
        client.must(&[1], "import numpy");
        let there = client.value(
            1,
            "int((big.astype('u8') * numpy.arange(1, big.size + 1, dtype='u8')).sum())",
        );
        assert_eq!(there, json!(sum));
        let back = client.pull(&[0], "big", PullFormat::Pickle);
        assert!(is_done(&back[0]));
        assert!(
            back[0].blobs.iter().any(|blob| blob[..] == bytes[..]),
            "the buffer comes back out of band"
        );
    }
}

#[test]
fn a_thousand_instructions_run_in_the_order_in_which_they_were_sent() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "seen = []");
    let counters: Vec<u64> = (0..1000)
        .map(|i| client.begin(&[0, 1], &format!("seen.append({i})")))
        .collect();
    assert!(
        client
            .wait(&counters, Some(ipengine_tests::LIMIT), false)
            .expect("the session lives")
    );
    for engine in [0, 1] {
        assert_eq!(client.value(engine, "seen == list(range(1000))"), json!(true));
    }
}

#[test]
fn tasks_for_any_engine_spread_over_all() {
    let job = Launch::plain(4).start();
    let client = job.connect();
    client.must(&[0, 1, 2, 3], "import ipengine, os, time");
    // Each task waits for a file, so that no engine can take a second one before all have one.
    let go = job.dir().join("go");
    let source = format!(
        "print('here', flush=True)\nwhile not os.path.exists({go:?}): time.sleep(0.005)\nipengine.rank"
    );
    let counters: Vec<u64> = (0..4)
        .map(|_| {
            let targets = Targets::OneOf((0..4).map(EngineId).collect());
            let instruction = Instruction {
                targets,
                work: code(&source),
                blobs: Vec::new(),
                each: None,
                label: None,
            };
            client.submit(instruction).expect("accepted")
        })
        .collect();
    ipengine_tests::until("all engines to be busy", || {
        client
            .status_now()
            .engines
            .iter()
            .all(|engine| engine.state == "busy")
            .then_some(())
    });
    std::fs::write(&go, "").expect("a file");
    let mut ranks: Vec<String> = counters
        .iter()
        .map(|counter| shown(&client.finish(*counter)[0]))
        .collect();
    ranks.sort();
    assert_eq!(ranks, ["0", "1", "2", "3"]);
}

#[test]
fn clear_empties_the_namespace_and_keeps_the_engine() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    client.must(&[0], "x = 1");
    client
        .finish(client.send(&[0], Work::Clear, Vec::new()))
        .iter()
        .for_each(|one| assert!(is_done(one)));
    assert_eq!(raised(&client.run(&[0], "x")[0]).type_name, "NameError");
    client.must(&[0], "import ipengine; ipengine.rank");
}

#[test]
fn target_sets_that_make_no_sense() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    let submit = |targets: &[u32]| {
        let targets = Targets::All(targets.iter().copied().map(EngineId).collect());
        client.submit(Instruction {
            targets,
            work: code("1"),
            blobs: Vec::new(),
            each: None,
            label: None,
        })
    };
    assert!(matches!(submit(&[]), Err(Error::NoTargets)));
    assert!(matches!(
        submit(&[0, 2]),
        Err(Error::UnknownEngine { engine: 2, size: 2 })
    ));
    assert!(matches!(submit(&[1, 1]), Err(Error::RepeatedEngine(EngineId(1)))));
    // A client that does not check hears it from the gateway, and goes on.
    let mut raw = RawClient::over_unix(&job);
    raw.open(&job);
    for (targets, wanted) in [(&[][..], "empty"), (&[0, 7], "no engine 7"), (&[1, 1], "1")] {
        let counter = raw.submit(targets, code("1"));
        let reason = raw.rejection(counter);
        assert!(reason.contains(wanted), "{reason}");
    }
    let counter = raw.submit(&[1, 0], code("1"));
    assert!(raw.outcomes(counter, 2).iter().all(Outcome::is_done));
}
