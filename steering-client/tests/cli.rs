//! The `ipsteer` program against a gateway that the test plays: what it prints and its exit codes.

mod gateway;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use gateway::{FakeGateway, generous};
use ipengine_protocol::event::InterruptReport;
use ipengine_protocol::outcome::LossKind;
use ipengine_protocol::{
    Answer, ClientId, EngineId, Event, InstructionId, InterruptState, InterruptTarget, LossCause, Outcome,
    OutputName, PullFormat, RemoteException, Request, Submit, Targets, Timing, ValueHead, ValueKind, Work,
};

/// A started `ipsteer` whose output is read at the end.
struct Program {
    child: Child,
}

struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Program {
    fn start(gateway: &FakeGateway, args: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_ipsteer"))
            .args(args)
            .env("IPSTEER_DIR", gateway.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ipsteer starts");
        Self { child }
    }

    fn finish(mut self) -> Finished {
        drop(self.child.stdin.take());
        let mut stdout = String::new();
        let mut stderr = String::new();
        let (mut out, mut err) = (self.child.stdout.take(), self.child.stderr.take());
        std::thread::scope(|scope| {
            scope.spawn(|| out.as_mut().map(|out| out.read_to_string(&mut stdout)));
            scope.spawn(|| err.as_mut().map(|err| err.read_to_string(&mut stderr)));
        });
        let code = self.child.wait().expect("it ends").code();
        Finished { code, stdout, stderr }
    }
}

impl Finished {
    #[track_caller]
    fn expect(&self, code: i32, stdout: &str) {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (Some(code), stdout),
            "stderr: {}",
            self.stderr
        );
    }
}

/// Plays the gateway's side of the program's start.
fn accept(gateway: &mut FakeGateway) -> ClientId {
    loop {
        if let gateway::Heard::Request(Request::Open { client, .. }, _) = gateway.hear() {
            gateway.welcome(0, generous());
            return client;
        }
    }
}

fn take_submit(gateway: &mut FakeGateway) -> (Submit, Vec<Bytes>) {
    match gateway.request() {
        (Request::Submit(submit), blobs) => {
            gateway.say(
                Event::Accepted {
                    up_to: submit.counter,
                },
                Vec::new(),
            );
            (submit, blobs)
        }
        other => panic!("expected Submit, heard {other:?}"),
    }
}

fn finish(gateway: &mut FakeGateway, counter: u64, rank: u32, outcome: Outcome, blobs: Vec<Bytes>) {
    let timing = Timing {
        started: 1,
        completed: 2,
    };
    gateway.say(
        Event::Finished {
            counter,
            engine: EngineId(rank),
            outcome,
            timing,
        },
        blobs,
    );
}

fn value(kind: ValueKind) -> Outcome {
    Outcome::Done(ValueHead { kind, blobs: 1 })
}

fn reply(text: &str) -> Vec<Bytes> {
    vec![format!(r#"{{"execution_count": 1, "data": {{"text/plain": "{text}"}}, "metadata": {{}}}}"#).into()]
}

fn raised(rank: u32, message: &str) -> Outcome {
    let mut exception = RemoteException::of_runtime("ValueError", message, rank, "here");
    exception.traceback = format!("Traceback (most recent call last):\n  cell 1\nValueError: {message}");
    Outcome::Raised(Box::new(exception))
}

#[test]
fn exec_shows_output_and_results_with_their_origin() {
    let mut gateway = FakeGateway::unix();
    let program = Program::start(&gateway, &["exec", "-t", "::2", "1 + 1"]);
    let client = accept(&mut gateway);
    let (submit, _) = take_submit(&mut gateway);
    assert_eq!(submit.targets, Targets::All(vec![EngineId(0), EngineId(2)]));
    assert!(matches!(&submit.work, Work::Execute { code, silent: false, .. } if code == "1 + 1"));
    for (piece, name) in [
        ("a\nb", OutputName::Stdout),
        ("c\n", OutputName::Stdout),
        ("e\n", OutputName::Stderr),
    ] {
        let id = Some(InstructionId { client, counter: 1 });
        let stream = Event::Stream {
            id,
            engine: EngineId(2),
            name,
            omitted: 0,
        };
        gateway.say(stream, vec![Bytes::from_static(piece.as_bytes())]);
    }
    finish(&mut gateway, 1, 0, value(ValueKind::ExecuteReply), reply("2"));
    finish(&mut gateway, 1, 2, value(ValueKind::ExecuteReply), reply("2"));
    let finished = program.finish();
    finished.expect(0, "[stdout:2] a\n[stdout:2] bc\n[Out:0] 2\n[Out:2] 2\n");
    assert_eq!(finished.stderr, "[stderr:2] e\n");
}

#[test]
fn equal_errors_are_told_once_and_the_first_at_once() {
    let mut gateway = FakeGateway::unix();
    let mut program = Program::start(&gateway, &["exec", "f()"]);
    accept(&mut gateway);
    take_submit(&mut gateway);
    finish(&mut gateway, 1, 1, raised(1, "bad"), Vec::new());
    let mut stderr = BufReader::new(program.child.stderr.take().expect("a pipe"));
    let mut first = String::new();
    stderr
        .read_line(&mut first)
        .expect("a line while others still run");
    assert_eq!(first, "rank 1: ValueError: bad (still running: 0, 2, 3)\n");
    for rank in [0, 2] {
        finish(&mut gateway, 1, rank, raised(rank, "bad"), Vec::new());
    }
    finish(&mut gateway, 1, 3, raised(3, "worse"), Vec::new());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("the rest");
    program.finish().expect(1, "");
    assert_eq!(rest.matches("Traceback").count(), 2, "{rest}");
    assert!(
        rest.contains("ranks 0-2: ValueError: bad\n") && rest.contains("rank 3: ValueError: worse\n"),
        "{rest}"
    );
}

#[test]
fn a_lost_engine_and_a_passed_limit_have_exit_codes_of_their_own() {
    let mut gateway = FakeGateway::unix();
    let program = Program::start(&gateway, &["exec", "-t", "0", "x"]);
    accept(&mut gateway);
    take_submit(&mut gateway);
    let cause = LossCause {
        engine: 0,
        host: "h".into(),
        kind: LossKind::Signal(11),
        detail: String::new(),
    };
    finish(&mut gateway, 1, 0, Outcome::Lost(cause), Vec::new());
    let finished = program.finish();
    finished.expect(4, "");
    assert!(finished.stderr.contains("SIGSEGV"), "{}", finished.stderr);

    let program = Program::start(&gateway, &["exec", "--timeout", "0.2", "x"]);
    accept(&mut gateway);
    take_submit(&mut gateway);
    let finished = program.finish();
    finished.expect(5, "");
    assert!(
        finished.stderr.contains("still running on ranks 0-3"),
        "{}",
        finished.stderr
    );
}

#[test]
fn ctrl_c_interrupts_the_instruction_and_tells_each_rank() {
    let mut gateway = FakeGateway::unix();
    let program = Program::start(&gateway, &["exec", "-t", "0,1", "while True: pass"]);
    accept(&mut gateway);
    take_submit(&mut gateway);
    let pid = nix::unistd::Pid::from_raw(program.child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let (Request::Interrupt { request, target }, _) = gateway.request() else {
        panic!("expected an interrupt")
    };
    assert_eq!(target, InterruptTarget::Counters(vec![1]));
    let report = |rank, state| InterruptReport {
        engine: EngineId(rank),
        state,
        detail: String::new(),
    };
    let reports = vec![
        report(0, InterruptState::Interrupted),
        report(1, InterruptState::Done),
    ];
    gateway.say_unnumbered(Event::Answer {
        request,
        answer: Answer::Interrupt(reports),
    });
    let exception = RemoteException::of_runtime("KeyboardInterrupt", "", 0, "h");
    finish(
        &mut gateway,
        1,
        0,
        Outcome::Interrupted(Box::new(exception)),
        Vec::new(),
    );
    finish(&mut gateway, 1, 1, value(ValueKind::ExecuteReply), reply("1"));
    let finished = program.finish();
    finished.expect(130, "[Out:1] 1\n");
    for line in [
        "rank 0: interrupted\n",
        "rank 1: done\n",
        "rank 0: KeyboardInterrupt\n",
    ] {
        assert!(finished.stderr.contains(line), "{line}: {}", finished.stderr);
    }
}

#[test]
fn push_sends_values_and_pull_prints_and_saves_them() {
    let mut gateway = FakeGateway::unix();
    let program = Program::start(&gateway, &["push", "x=1", "y:=[2]"]);
    accept(&mut gateway);
    let (submit, blobs) = take_submit(&mut gateway);
    assert!(matches!(&submit.work, Work::Push { names, .. } if names == &["x", "y"]));
    assert_eq!(blobs, [Bytes::from_static(b"1"), Bytes::from_static(b"[2]")]);
    (0..4).for_each(|rank| {
        finish(
            &mut gateway,
            1,
            rank,
            Outcome::Done(ValueHead::null()),
            Vec::new(),
        )
    });
    program.finish().expect(0, "");

    let file = gateway.dir.path().join("x.npy");
    let path = file.to_str().expect("text");
    let program = Program::start(&gateway, &["pull", "x", "-t", "0,1", "-o", path]);
    accept(&mut gateway);
    let (submit, _) = take_submit(&mut gateway);
    assert!(matches!(
        &submit.work,
        Work::Pull {
            format: PullFormat::Npy,
            single: true,
            ..
        }
    ));
    for rank in [0, 1] {
        finish(
            &mut gateway,
            1,
            rank,
            value(ValueKind::Npy),
            vec![Bytes::from(vec![rank as u8; 3])],
        );
    }
    program.finish().expect(0, "");
    assert_eq!(
        std::fs::read(gateway.dir.path().join("x.1.npy")).expect("saved"),
        [1, 1, 1]
    );

    let program = Program::start(&gateway, &["--json", "pull", "x", "-t", "-1"]);
    accept(&mut gateway);
    take_submit(&mut gateway);
    finish(
        &mut gateway,
        1,
        3,
        value(ValueKind::Json),
        vec![Bytes::from_static(b"[1.5]")],
    );
    program.finish().expect(0, "{\"3\":[1.5]}\n");
}

#[test]
fn the_prompt_sends_whole_cells_and_changes_its_targets() {
    let mut gateway = FakeGateway::unix();
    let mut program = Program::start(&gateway, &["repl"]);
    let input = "%targets 1\nfor i in range(2):\n    i\n\n%targets\n";
    program
        .child
        .stdin
        .as_mut()
        .expect("a pipe")
        .write_all(input.as_bytes())
        .expect("written");
    accept(&mut gateway);
    let (submit, _) = take_submit(&mut gateway);
    assert_eq!(submit.targets, Targets::All(vec![EngineId(1)]));
    assert!(
        matches!(&submit.work, Work::Execute { code, .. } if code.trim_end() == "for i in range(2):\n    i")
    );
    finish(&mut gateway, 1, 1, value(ValueKind::ExecuteReply), reply("7"));
    program.finish().expect(0, "[Out:1] 7\n1: 1\n");
}

#[test]
fn json_is_one_object_per_line() {
    let mut gateway = FakeGateway::unix();
    let program = Program::start(&gateway, &["--json", "exec", "-t", "0", "f()"]);
    accept(&mut gateway);
    take_submit(&mut gateway);
    finish(&mut gateway, 1, 0, raised(0, "bad"), Vec::new());
    let finished = program.finish();
    assert_eq!(finished.code, Some(1));
    let object: serde_json::Value = serde_json::from_str(&finished.stdout).expect("one JSON object");
    assert_eq!(
        (&object["type"], &object["status"]),
        (&"outcome".into(), &"error".into())
    );
    assert_eq!(object["error"]["message"], "bad");
}

#[test]
fn a_closed_pipe_is_quiet() {
    let mut gateway = FakeGateway::unix();
    let mut program = Program::start(&gateway, &["exec", "-t", "0", "x"]);
    drop(program.child.stdout.take());
    accept(&mut gateway);
    take_submit(&mut gateway);
    finish(&mut gateway, 1, 0, value(ValueKind::ExecuteReply), reply("2"));
    let finished = program.finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
}

#[test]
fn wrong_usage_and_missing_clusters_have_exit_codes_of_their_own() {
    let empty = tempfile::tempdir().expect("a directory");
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ipsteer"))
            .args(args)
            .env("IPSTEER_DIR", empty.path())
            .output()
            .expect("ipsteer runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for args in [
        &["exec"][..],
        &["nonsense"],
        &["push", "x"],
        &["run", "no-such-file.py"],
        &["--timeout", "x", "list"],
    ] {
        assert_eq!(run(args).0, Some(2), "{args:?}");
    }
    let (code, text) = run(&["status"]);
    assert_eq!(code, Some(3));
    assert!(
        text.contains("no cluster") && text.contains("ipsteer start"),
        "{text}"
    );
    assert_eq!(run(&["--cluster", "none", "status"]).0, Some(3));
    assert_eq!(run(&["list"]).0, Some(0));
}

#[test]
fn several_clusters_alive_ask_for_a_name() {
    let mut gateway = FakeGateway::unix();
    gateway.record.cluster = "second".to_owned();
    std::fs::copy(gateway.file(), gateway.dir.path().join("second.json")).expect("copied");
    let program = Program::start(&gateway, &["status"]);
    let finished = program.finish();
    finished.expect(3, "");
    assert!(
        finished.stderr.contains("several clusters are alive"),
        "{}",
        finished.stderr
    );
    let program = Program::start(&gateway, &["list", "--json"]);
    let finished = program.finish();
    let list: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    assert!(
        list.as_array()
            .expect("a list")
            .iter()
            .all(|cluster| cluster["state"] == "alive"),
        "{list}"
    );
}

#[test]
fn a_failing_start_shows_the_end_of_the_log() {
    let gateway = FakeGateway::unix();
    let script = gateway.dir.path().join("engine");
    std::fs::write(&script, "#!/bin/sh\necho \"no interpreter found\" >&2\nexit 7\n").expect("written");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("permissions");
    let engine = script.to_str().expect("text");
    let args = [
        "start",
        "-n",
        "2",
        "--cluster",
        "new",
        "--ipengine",
        engine,
        "--mpiexec",
        "true",
    ];
    let finished = Program::start(&gateway, &args).finish();
    finished.expect(3, "");
    assert!(finished.stderr.contains("exit status: 7"), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("no interpreter found"),
        "{}",
        finished.stderr
    );
    let args = ["start", "-n", "2", "--cluster", "fake", "--ipengine", engine];
    let mut gateway = gateway;
    let program = Program::start(&gateway, &args);
    accept(&mut gateway);
    let finished = program.finish();
    finished.expect(2, "");
    assert!(finished.stderr.contains("alive already"), "{}", finished.stderr);
}

#[test]
fn ctrl_c_stops_a_start_and_the_launcher() {
    let gateway = FakeGateway::unix();
    let dir = gateway.dir.path();
    let (begun, ended) = (dir.join("begun"), dir.join("ended"));
    for pipe in [&begun, &ended] {
        nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    }
    let script = dir.join("engine");
    let text = format!(
        "#!/bin/sh\ntrap 'echo TERM > {}; exit 0' TERM\necho up > {}\nwhile :; do sleep 0.05; done\n",
        ended.display(),
        begun.display()
    );
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("permissions");
    let engine = script.to_str().expect("text");
    let args = ["start", "-n", "1", "--cluster", "new", "--timeout", "20"];
    let program = Program::start(
        &gateway,
        &[&args[..], &["--ipengine", engine, "--mpiexec", "true"]].concat(),
    );
    assert_eq!(std::fs::read_to_string(&begun).expect("it begins"), "up\n");
    let pid = nix::unistd::Pid::from_raw(program.child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    assert_eq!(std::fs::read_to_string(&ended).expect("it ends"), "TERM\n");
    let finished = program.finish();
    finished.expect(130, "");
    assert!(
        finished.stderr.contains("the start was stopped"),
        "{}",
        finished.stderr
    );
}
