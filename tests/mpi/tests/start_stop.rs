//! Start and end of jobs, in both ways: what a user runs, what is left afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ipengine_protocol::Outcome;
use ipengine_tests::outcome::shown;
use ipengine_tests::raw::RawClient;
use ipengine_tests::session::code;
use ipengine_tests::{Launch, Mpi, MpiJob, processes, until};
use nix::sys::signal::Signal;
use serde_json::json;

/// Every engine answers with its rank and the size of a world that MPI made.
fn check_world(job: &MpiJob) {
    let client = job.connect();
    let size = job.size();
    client.must(&job.all(), "import ipengine\nfrom mpi4py import MPI");
    for rank in 0..size {
        let ours = client.value(rank, "[ipengine.rank, ipengine.size, ipengine.engine_id]");
        assert_eq!(ours, json!([rank, size, rank]));
        let theirs = client.value(rank, "[MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size]");
        assert_eq!(theirs, json!([rank, size]));
    }
    let sum = client.must(&job.all(), "MPI.COMM_WORLD.allreduce(1)");
    assert!(
        sum.iter()
            .all(|one| ipengine_tests::outcome::shown(one) == size.to_string())
    );
}

fn check_banner(job: &MpiJob) {
    let text = ipengine_tests::until("the banner", || {
        Some(job.text()).filter(|text| text.contains(".json"))
    });
    let token = job.record().token.expect("a token");
    assert!(!text.contains(&token), "the token is printed: {text}");
    for wanted in [
        "cluster     test",
        "Python      3.",
        Mpi::under_test().version,
        &job.access_file().display().to_string(),
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing in {text}");
    }
}

fn start_and_stop(launch: Launch) {
    let mut job = launch.start();
    check_world(&job);
    check_banner(&job);
    let mode = fs::metadata(job.access_file())
        .expect("the connection file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    job.stop();
    let reason = job.record().ended.expect("a post-mortem").reason;
    assert!(reason.contains("the test is over"), "{reason}");
}

#[test]
fn plain_of_one_engine() {
    start_and_stop(Launch::plain(1));
}

#[test]
fn plain_of_two_engines() {
    start_and_stop(Launch::plain(2));
}

#[test]
fn plain_of_four_engines() {
    start_and_stop(Launch::plain(4));
}

#[test]
fn resident_of_one_engine() {
    start_and_stop(Launch::resident(1));
}

#[test]
fn resident_of_two_engines() {
    start_and_stop(Launch::resident(2));
}

#[test]
fn resident_of_four_engines() {
    start_and_stop(Launch::resident(4));
}

#[test]
fn without_a_launcher() {
    start_and_stop(Launch::plain(1).without_mpiexec());
}

/// Open MPI's mpiexec makes TERM of INT for its ranks.
fn names_signal(reason: &str) -> bool {
    reason.contains("SIGTERM") || reason.contains("SIGINT")
}

/// The launcher is told to end while every engine is busy: outcomes, post-mortem, and nothing left.
fn signalled(launch: Launch, signal: Signal) {
    let mut job = launch.start();
    let client = job.connect();
    let counter = client.begin(
        &job.all(),
        "import time\nprint('here', flush=True)\nwhile True: time.sleep(0.01)",
    );
    job.all()
        .iter()
        .for_each(|engine| client.wait_output(counter, *engine, "here"));
    job.signal(signal);
    for arrived in client.finish(counter) {
        let ended = matches!(arrived.outcome, Outcome::Interrupted(_) | Outcome::Lost(_));
        assert!(ended, "{:?}", arrived.outcome);
    }
    let heard = client.wait_ended();
    assert!(names_signal(&heard), "clients hear {heard:?}");
    let status = job.wait_exit();
    assert_ne!(
        status.code(),
        None,
        "the launcher itself ends in good order: {status}"
    );
    drop(client);
    job.wait_gone();
    job.check_files();
    let written = job.wait_post_mortem();
    assert_eq!(written, heard);
}

#[test]
fn plain_ends_by_term() {
    signalled(Launch::plain(2), Signal::SIGTERM);
}

#[test]
fn plain_ends_by_int() {
    signalled(Launch::plain(2), Signal::SIGINT);
}

/// No interrupt reaches a rank in a blocked MPI call, and MPICH's mpiexec passes signals on and kills nobody: what ends
/// the job is the engines' own deadline.
#[test]
fn plain_ends_by_term_out_of_a_blocked_call() {
    let mut job = Launch::plain(2).start();
    let client = job.connect();
    let source = "from mpi4py import MPI\nprint('here', flush=True)\nMPI.COMM_WORLD.recv(tag=99)";
    let stuck = client.begin(&[0, 1], source);
    [0, 1]
        .iter()
        .for_each(|engine| client.wait_output(stuck, *engine, "here"));
    job.signal(Signal::SIGTERM);
    assert!(client.finish(stuck).iter().all(|one| !one.outcome.is_done()));
    assert!(names_signal(&client.wait_ended()));
    job.wait_exit();
    drop(client);
    job.wait_gone();
    job.check_files();
}

#[test]
fn resident_ends_by_term() {
    signalled(Launch::resident(2), Signal::SIGTERM);
}

#[test]
fn resident_ends_by_int() {
    signalled(Launch::resident(2), Signal::SIGINT);
}

/// A batch system kills what it started and nothing else: what is left has to notice.
#[test]
fn plain_ends_when_mpiexec_is_killed() {
    let mut job = Launch::plain(2).start();
    let client = job.connect();
    let counter = client.begin(
        &[0, 1],
        "import time\nprint('here', flush=True)\nwhile True: time.sleep(0.01)",
    );
    client.wait_output(counter, 0, "here");
    job.signal(Signal::SIGKILL);
    job.wait_exit();
    assert!(client.finish(counter).iter().all(|one| !one.outcome.is_done()));
    client.wait_ended();
    drop(client);
    job.wait_gone();
    job.check_files();
}

/// The launcher must not go on with nobody to read it.
#[test]
fn resident_ends_when_serve_is_killed() {
    let mut job = Launch::resident(2).start();
    let client = job.connect();
    let counter = client.begin(
        &[0, 1],
        "import time\nprint('here', flush=True)\nwhile True: time.sleep(0.01)",
    );
    client.wait_output(counter, 0, "here");
    job.signal(Signal::SIGKILL);
    job.wait_exit();
    assert!(client.finish(counter).iter().all(|one| !one.outcome.is_done()));
    client.wait_ended();
    drop(client);
    job.wait_gone();
}

/// Engines keep their namespaces and come back to a gateway that was started again under the same file.
fn gateway_killed(launch: Launch) {
    let mut job = launch.start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine; kept = ipengine.rank + 40");
    drop(client);
    let first = job.record();
    let pid = i32::try_from(first.gateway_pid).expect("a process id");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    let again = until("another gateway", || {
        Some(job.record()).filter(|now| now.gateway_pid != first.gateway_pid)
    });
    assert_eq!(
        (again.token, again.urls, again.fingerprint),
        (first.token, first.urls, first.fingerprint)
    );
    let client = job.connect();
    let kept: Vec<String> = client
        .must(&[0, 1], "kept, ipengine.comm.allreduce(1)")
        .iter()
        .map(|one| shown(one))
        .collect();
    assert_eq!(kept, ["(40, 2)", "(41, 2)"]);
    drop(client);
    job.stop();
}

#[test]
fn plain_survives_its_gateway() {
    gateway_killed(Launch::plain(2));
}

#[test]
fn resident_survives_its_gateway() {
    gateway_killed(Launch::resident(2));
}

#[test]
fn a_busy_world_stops_at_a_clients_word() {
    let mut job = Launch::plain(2).start();
    let client = job.connect();
    let busy = client.begin(
        &[0, 1],
        "import time\nprint('here', flush=True)\nwhile True: time.sleep(0.01)",
    );
    let queued = client.begin(&[0, 1], "x = 1");
    client.wait_output(busy, 1, "here");
    job.stop();
    assert!(
        client
            .finish(busy)
            .iter()
            .all(|one| matches!(one.outcome, Outcome::Interrupted(_)))
    );
    for arrived in client.finish(queued) {
        assert!(!arrived.outcome.is_done(), "{:?}", arrived.outcome);
    }
}

/// A launcher that waited for everybody who holds its pipes would wait for the gateway, and the batch job with it.
#[test]
fn mpiexec_returns_while_the_gateway_lingers() {
    let mut job = Launch::plain(2).option("--linger", "300").start();
    let gateway = i32::try_from(job.record().gateway_pid).expect("a process id");
    let mut away = RawClient::over_unix(&job);
    away.open(&job);
    away.submit(&[0, 1], code("'a result to fetch'"));
    drop(away);
    let client = job.connect();
    client.must(&[0, 1], "1");
    client.shutdown();
    let status = job.wait_exit();
    assert!(status.success(), "the launcher returns {status}");
    let alive: Vec<i32> = job.processes().iter().map(|process| process.pid).collect();
    assert!(
        alive.contains(&gateway),
        "the gateway keeps the result: {alive:?}"
    );
    drop(client);
    processes::signal(gateway, Signal::SIGTERM);
    job.wait_gone();
    job.check_files();
}

#[test]
fn the_same_name_may_be_used_again() {
    let mut first = Launch::plain(1).start();
    first.stop();
    let mut second = Launch::plain(1).beside(&first).start();
    second.connect().must(&[0], "1 + 1");
    second.stop();
}

#[test]
fn every_rank_has_its_log() {
    let mut job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine\nprint('I am', ipengine.rank)");
    let question = client.logs(ipengine_protocol::EngineId(1), 1000).expect("asked");
    let logs = question
        .wait(Some(ipengine_tests::LIMIT))
        .expect("answered")
        .expect("in time");
    assert!(
        String::from_utf8_lossy(&logs.stdout).contains("I am 1"),
        "{logs:?}"
    );
    let file = fs::read_to_string(&logs.stdout_path).expect("the file is on this host");
    assert!(file.contains("I am 1") && !file.contains("I am 0"));
    drop(client);
    job.stop();
}
