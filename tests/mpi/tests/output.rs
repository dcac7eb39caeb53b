//! What engines write: from Python, C and children, live, in order, before the outcome, each with its instruction.

use ipengine_protocol::{Event, OutputName};
use ipengine_tests::raw::RawClient;
use ipengine_tests::session::code;
use ipengine_tests::{Launch, Session};
use ipsteer::pending::OutputKind;

/// Runs on engine 0 and returns what it had written when its outcome was there.
fn written(client: &Session, source: &str) -> String {
    let counter = client.begin(&[0], source);
    let arrived = client.finish(counter);
    assert!(arrived[0].outcome.is_done(), "{:?}", arrived[0].outcome);
    client.stdout(counter, 0)
}

#[test]
fn every_way_of_writing_in_one_order() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    client.must(
        &[0],
        "import ctypes, os, subprocess, sys\nlibc = ctypes.CDLL(None)",
    );
    let source = "\
print('python')
libc.printf(b'c %d\\n', 2)
os.write(1, b'descriptor\\n')
os.system('echo shell')
subprocess.run(['echo', 'child'])
sys.stdout.write('no newline')
print()
";
    assert_eq!(
        written(&client, source),
        "python\nc 2\ndescriptor\nshell\nchild\nno newline\n"
    );
}

#[test]
fn what_c_holds_back_comes_with_its_instruction() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    client.must(&[0], "import ctypes\nlibc = ctypes.CDLL(None)");
    assert_eq!(written(&client, "libc.printf(b'half a line')"), "half a line");
    assert_eq!(written(&client, "1"), "");
}

#[test]
fn shell_escapes_and_magics() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    assert_eq!(written(&client, "!echo from the shell"), "from the shell\n");
    assert_eq!(written(&client, "a = !echo kept\nprint(a[0])"), "kept\n");
    assert!(written(&client, "%pwd\nprint('after a magic')").contains("after a magic"));
    // A child is no rank: launcher variables would make an MPI program in it believe so.
    assert_eq!(
        written(
            &client,
            "!env | grep -c -E '^(OMPI_COMM|PMIX_RANK|PMI_|HYD|MPI_LOCAL)' || true"
        ),
        "0\n"
    );
}

#[test]
fn errors_go_to_stderr() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let counter = client.begin(
        &[0],
        "import os, sys\nprint('out')\nprint('err', file=sys.stderr)\nos.write(2, b'raw\\n')",
    );
    client.finish(counter);
    assert_eq!(client.stdout(counter, 0), "out\n");
    assert_eq!(client.stream(counter, 0, OutputName::Stderr), "err\nraw\n");
}

#[test]
fn each_piece_belongs_to_its_instruction() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine, os");
    let print = |i: u32| format!("print({i}, ipengine.rank)\nos.write(1, b'x{i}\\n')");
    let counters: Vec<u64> = (0..200).map(|i| client.begin(&[0, 1], &print(i))).collect();
    for (i, counter) in (0..).zip(counters) {
        client.finish(counter);
        for engine in [0, 1] {
            assert_eq!(client.stdout(counter, engine), format!("{i} {engine}\nx{i}\n"));
        }
    }
}

#[test]
fn output_is_live() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let go = job.dir().join("go");
    let source = format!(
        "import os, time\nprint('first')\nwhile not os.path.exists({go:?}): time.sleep(0.005)\nprint('second')"
    );
    let counter = client.begin(&[0], &source);
    // Only what is seen while it runs lets it end.
    client.wait_output(counter, 0, "first");
    assert!(!client.finished(counter).expect("known"));
    std::fs::write(&go, "").expect("a file");
    client.finish(counter);
    assert_eq!(client.stdout(counter, 0), "first\nsecond\n");
}

#[test]
fn over_the_bound_it_is_cut_and_counted() {
    let job = Launch::plain(1).start();
    let mut raw = RawClient::over_unix(&job);
    raw.open(&job);
    let lines = 400_000;
    let counter = raw.submit(
        &[0],
        code(&format!("for i in range({lines}): print(f'{{i:07}}')")),
    );
    let (mut shown, mut omitted, mut last) = (0, 0, Vec::new());
    let ended = raw.event(|event, blobs| match event {
        Event::Stream {
            name: OutputName::Stdout,
            omitted: left_out,
            ..
        } => {
            shown += blobs[0].len() as u64;
            omitted += left_out;
            last = blobs[0].to_vec();
            None
        }
        Event::Finished { counter: ended, .. } => (*ended == counter).then_some(()),
        _ => None,
    });
    ended.expect("the connection lives");
    assert_eq!(shown + omitted, lines * 8, "shown {shown}, left out {omitted}");
    assert!(omitted > 0, "the bound did not bite");
    assert!(
        last.ends_with(format!("{:07}\n", lines - 1).as_bytes()),
        "the end is shown"
    );
    // The next instruction is heard again, whatever the one before it wrote.
    let counter = raw.submit(&[0], code("print('hello again')"));
    let mut heard = Vec::new();
    let ended = raw.event(|event, blobs| match event {
        Event::Stream { .. } => {
            heard.extend_from_slice(&blobs[0]);
            None
        }
        Event::Finished { counter: ended, .. } => (*ended == counter).then_some(()),
        _ => None,
    });
    ended.expect("the connection lives");
    assert_eq!(String::from_utf8_lossy(&heard), "hello again\n");
    // The file has it all.
    let file = std::fs::metadata(job.logs().join("rank-0000.out")).expect("the file");
    assert_eq!(file.len(), lines * 8 + 12);
}

#[test]
fn a_cut_is_marked_for_people() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let text = written(&client, "print('y' * 5_000_000)");
    assert!(text.contains("left out]"), "no mark in {} bytes", text.len());
    assert!(text.len() < 4_000_000);
}

#[test]
fn characters_survive_the_pieces() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let text = written(
        &client,
        "import sys\nfor i in range(300): sys.stdout.write('äöü€𝄞' * 50); sys.stdout.flush()",
    );
    assert_eq!(text, "äöü€𝄞".repeat(15_000));
}

#[test]
fn bytes_that_are_no_text() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    assert_eq!(
        written(&client, "import os\nn = os.write(1, b'a\\xff\\x00b\\n')"),
        "a\u{fffd}\u{0}b\n"
    );
}

#[test]
fn displays_are_jupyters_messages() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let source = "\
from IPython.display import display, HTML
print('before')
display(HTML('<b>x</b>'))
print('after')
6 * 7
";
    let counter = client.begin(&[0], source);
    client.finish(counter);
    let outputs = client.outputs(counter, 0).expect("known");
    let kinds: Vec<&str> = outputs.iter().map(|output| output.kind.as_str()).collect();
    assert_eq!(kinds, ["stdout", "display_data", "stdout", "execute_result"]);
    assert!(outputs[1].text.contains("<b>x</b>"));
    assert!(outputs[3].text.contains("42"));
    assert!(matches!(outputs[2].kind, OutputKind::Stream(OutputName::Stdout)));
}

#[test]
fn there_is_no_keyboard() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let arrived = client.run(&[0], "input('name? ')");
    assert!(!arrived[0].outcome.is_done());
    client.must(&[0], "1");
}

#[test]
fn a_child_left_behind_does_not_hold_the_instruction() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let go = job.dir().join("go");
    let source = format!(
        "import subprocess\nchild = subprocess.Popen(['sh', '-c', 'until test -e {0}; do sleep 0.01; done; echo late'])",
        go.display()
    );
    assert_eq!(written(&client, &source), "");
    std::fs::write(&go, "").expect("a file");
    assert_eq!(written(&client, "code = child.wait()"), "late\n");
}
