//! A rank dies mid-instruction: everybody learns why, every outstanding instruction ends, the launcher returns.

use std::path::Path;

use ipengine_protocol::LossCause;
use ipengine_protocol::outcome::LossKind;
use ipengine_tests::outcome::{is_done, lost, shown};
use ipengine_tests::{Launch, Session, until};

const PREPARE: &str = "\
import ctypes, ipengine, os, signal, time
libc = ctypes.CDLL(None)
def gate(go):
    while not os.path.exists(go): time.sleep(0.005)
";

/// What engine 1 does in its last moments, once the test says so.
fn last_act(go: &Path, act: &str) -> String {
    format!("print('last words'); gate({go:?})\n{act}")
}

/// Checks one death in all its consequences and returns the cause that clients were told.
fn death(launch: Launch, act: &str) -> LossCause {
    let mut job = launch.start();
    let (mine, other) = (job.connect(), job.connect());
    mine.must(&[0, 1], PREPARE);
    let kept = mine.begin(&[0], "'a result from before'");
    mine.finish(kept);
    let busy = other.begin(&[0], "print('here')\nwhile True: time.sleep(0.01)");
    other.wait_output(busy, 0, "here");
    let go = job.dir().join("go");
    let fatal = mine.begin(&[1], &last_act(&go, act));
    mine.wait_output(fatal, 1, "last words");
    let queued_behind = mine.begin(&[1, 0], "1");
    let queued_of_other = other.begin(&[0], "1");
    let task_of_other = other.begin(&[1], "1");
    until("all to have come", || {
        let engines = mine.status_now().engines;
        (engines[0].queued >= 2 && engines[1].queued >= 2).then_some(())
    });
    std::fs::write(&go, "").expect("a file");
    let cause = lost(&mine.finish(fatal)[0]).clone();
    assert_eq!(cause.engine, 1, "{cause}");
    assert_eq!(mine.stdout(fatal, 1), "last words\n", "its last words are heard");
    for (client, counter) in [
        (&mine, queued_behind),
        (&other, busy),
        (&other, queued_of_other),
        (&other, task_of_other),
    ] {
        check_lost(client, counter, &cause);
    }
    let reasons = [mine.wait_ended(), other.wait_ended()];
    assert_eq!(reasons[0], reasons[1]);
    let status = job.wait_exit();
    assert!(!status.success(), "the launcher returns {status} after a death");
    // What was there before is still there: finished results survive the world.
    assert_eq!(shown(&mine.finish(kept)[0]), "'a result from before'");
    assert!(is_done(&mine.finish(kept)[0]));
    drop((mine, other));
    job.wait_gone();
    job.check_files();
    assert_eq!(job.wait_post_mortem(), reasons[0]);
    assert!(reasons[0].contains("engine 1"), "{}", reasons[0]);
    cause
}

/// The others' instructions end as lost too, with engine 1 as the cause.
fn check_lost(client: &Session, counter: u64, cause: &LossCause) {
    for arrived in client.finish(counter) {
        let theirs = lost(&arrived);
        assert_eq!(
            (theirs.engine, theirs.kind),
            (cause.engine, cause.kind),
            "{theirs}"
        );
    }
}

#[test]
fn by_os_exit() {
    let cause = death(Launch::plain(2), "os._exit(3)");
    assert_eq!(cause.kind, LossKind::Exit(3), "{cause}");
    assert!(cause.detail.contains("print('last words')"), "{cause}");
}

#[test]
fn by_exit_of_a_c_library() {
    assert_eq!(death(Launch::plain(2), "libc.exit(4)").kind, LossKind::Exit(4));
}

#[test]
fn by_a_signal_to_itself() {
    let cause = death(
        Launch::plain(2),
        "os.kill(os.getpid(), signal.SIGSEGV)\ntime.sleep(100)",
    );
    assert_eq!(cause.kind, LossKind::Signal(11), "{cause}");
}

#[test]
fn by_a_null_pointer_in_c() {
    let source = "def innermost():\n    ctypes.string_at(0)\ninnermost()";
    let cause = death(Launch::plain(2), source);
    assert_eq!(cause.kind, LossKind::Signal(11), "{cause}");
    assert!(
        cause.detail.contains("line 3 in innermost") && cause.detail.contains("in string_at"),
        "the source line is told: {cause}"
    );
}

#[test]
fn by_abort_of_a_c_library() {
    assert_eq!(death(Launch::plain(2), "libc.abort()").kind, LossKind::Signal(6));
}

#[test]
fn by_kill() {
    let cause = death(
        Launch::plain(2),
        "os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(100)",
    );
    assert_eq!(cause.kind, LossKind::LinkClosed, "{cause}");
    assert!(cause.to_string().contains("SIGKILL"), "{cause}");
}

#[test]
fn by_mpi_abort() {
    let cause = death(
        Launch::plain(2),
        "from mpi4py import MPI\nMPI.COMM_WORLD.Abort(7)",
    );
    assert_eq!(cause.kind, LossKind::Abort(7), "{cause}");
}

#[test]
fn by_an_mpi_error_that_is_fatal() {
    let source = "from mpi4py import MPI\nMPI.COMM_WORLD.Set_errhandler(MPI.ERRORS_ARE_FATAL)\n\
                  assert MPI.COMM_WORLD.Get_errhandler() == MPI.ERRORS_ARE_FATAL\nMPI.COMM_WORLD.send(1, 99)";
    let cause = death(Launch::plain(2), source);
    assert!(matches!(cause.kind, LossKind::Abort(_)), "{cause}");
}

#[test]
fn resident_by_os_exit() {
    assert_eq!(death(Launch::resident(2), "os._exit(3)").kind, LossKind::Exit(3));
}

#[test]
fn resident_by_a_null_pointer_in_c() {
    let cause = death(Launch::resident(2), "ctypes.string_at(0)");
    assert_eq!(cause.kind, LossKind::Signal(11), "{cause}");
}

/// A killed process says nothing; its launcher does.
#[test]
fn resident_by_kill() {
    let cause = death(
        Launch::resident(2),
        "os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(100)",
    );
    assert!(
        cause.to_string().contains("signal 9"),
        "the launcher's words are missing: {cause}"
    );
}

#[test]
fn resident_by_mpi_abort() {
    let cause = death(
        Launch::resident(2),
        "from mpi4py import MPI\nMPI.COMM_WORLD.Abort(7)",
    );
    assert_eq!(cause.kind, LossKind::Abort(7), "{cause}");
}

#[test]
fn rank_0_dies_as_others_do() {
    let mut job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], PREPARE);
    let waiting = client.begin(&[1], "print('here')\nwhile True: time.sleep(0.01)");
    client.wait_output(waiting, 1, "here");
    let fatal = client.begin(&[0], "ctypes.string_at(0)");
    assert_eq!(lost(&client.finish(fatal)[0]).kind, LossKind::Signal(11));
    assert_eq!(lost(&client.finish(waiting)[0]).engine, 0);
    assert!(!job.wait_exit().success());
    drop(client);
    job.wait_gone();
    job.check_files();
}

#[test]
fn one_engine_alone() {
    let mut job = Launch::plain(1).start();
    let client = job.connect();
    let fatal = client.begin(&[0], "import os\nos._exit(9)");
    assert_eq!(lost(&client.finish(fatal)[0]).kind, LossKind::Exit(9));
    assert_eq!(job.wait_exit().code(), Some(9));
    drop(client);
    job.wait_gone();
}

/// Death between instructions, by a thread that the user left behind.
#[test]
fn while_idle() {
    let mut job = Launch::plain(2).start();
    let client = job.connect();
    let go = job.dir().join("go");
    let source = format!(
        "import os, threading, time\ndef die():\n    while not os.path.exists({go:?}): time.sleep(0.005)\n    os._exit(5)\n\
         threading.Thread(target=die).start()"
    );
    client.must(&[1], &source);
    std::fs::write(&go, "").expect("a file");
    let reason = client.wait_ended();
    assert!(
        reason.contains("engine 1") && reason.contains("exit code 5"),
        "{reason}"
    );
    assert!(!job.wait_exit().success());
    drop(client);
    job.wait_gone();
}

/// A client that connects only after the death finds the cause, as long as somebody else keeps the gateway.
#[test]
fn a_late_client_reads_the_post_mortem() {
    let mut job = Launch::plain(1).start();
    let client = job.connect();
    let access_file = job.access_file();
    let fatal = client.begin(&[0], "import os\nos._exit(9)");
    client.finish(fatal);
    assert!(job.wait_post_mortem().contains("exit code 9"));
    let options = ipengine_tests::session::options(&access_file, None);
    let error = ipsteer::Client::connect(options).expect_err("the cluster has ended");
    assert!(error.to_string().contains("exit code 9"), "{error}");
    job.wait_exit();
    drop(client);
    job.wait_gone();
}

/// Forked children of user code are no engines: their end is nobody's death.
#[test]
fn children_may_die() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], PREPARE);
    for act in [
        "os._exit(3)",
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "os.abort()",
    ] {
        let source = format!("pid = os.fork()\nif pid == 0:\n    {act}\nos.waitpid(pid, 0)[1]");
        let arrived = client.must(&[0, 1], &source);
        assert!(arrived.iter().all(|one| shown(one) != "0"), "{act}");
    }
    let source = "\
import multiprocessing
with multiprocessing.get_context('fork').Pool(2) as pool:
    squares = pool.map(abs, [-1, -2])
";
    client.must(&[0], source);
    // Nor does a child swallow the signals that an engine answers.
    for (number, ending) in [("SIGTERM", "-15"), ("SIGINT", "7")] {
        let source = format!(
            "read, write = os.pipe()\npid = os.fork()\nif pid == 0:\n    try:\n        os.write(write, b'!')\n        \
             time.sleep(1000)\n    except KeyboardInterrupt:\n        os._exit(7)\nos.read(read, 1)\n\
             os.kill(pid, signal.{number})\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
        );
        let arrived = client.must(&[0, 1], &source);
        assert!(arrived.iter().all(|one| shown(one) == ending), "{number}");
    }
    let alive = until("the status", || Some(client.status_now()));
    assert!(
        alive.engines.iter().all(|engine| engine.state == "idle"),
        "{alive:?}"
    );
    assert!(
        client
            .wait_end(Some(std::time::Duration::ZERO))
            .expect("open")
            .is_none()
    );
}
