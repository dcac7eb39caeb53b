//! `ipengine-mpi serve` and its launcher: what it says reaches whoever asks, and what it returns is returned.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ipengine_tests::{Launch, Mpi, MpiJob, mpi, processes, skipped, until};
use nix::sys::signal::Signal;

/// More ranks than any machine that runs tests has cores.
const TOO_MANY: u32 = 1000;

#[test]
fn too_few_slots() {
    let Some(words) = Mpi::under_test().too_few_slots else {
        skipped(&format!("{} counts no slots", Mpi::under_test().name));
        return;
    };
    let mut job = Launch::resident(TOO_MANY).launcher(vec![mpi::launcher()]).spawn();
    let status = job.wait_exit();
    let reason = job.wait_post_mortem();
    assert!(reason.starts_with("the world did not start: "), "{reason}");
    for text in [&reason, &job.text()] {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(status.code(), Some(1), "{}", job.text());
    job.wait_gone();
    job.check_files();
}

/// A program that takes the launcher's place.
fn launcher(launch: &Launch, script: &str) -> PathBuf {
    let path = launch.dir().join("launcher");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    path
}

fn ended_by(script: &str) -> (Option<i32>, String) {
    let launch = Launch::resident(1);
    let program = launcher(&launch, script).display().to_string();
    let mut job = launch.launcher(vec![program]).spawn();
    let status = job.wait_exit();
    let reason = job.wait_post_mortem();
    job.wait_gone();
    job.check_files();
    (status.code(), reason)
}

#[test]
fn the_launchers_exit_code_is_returned() {
    for code in [1, 77, 255] {
        let (returned, reason) = ended_by(&format!("echo 'why: {code}' >&2; exit {code}"));
        assert_eq!(returned, Some(code));
        assert!(
            reason.contains(&format!("exit code {code}")) && reason.contains(&format!("why: {code}")),
            "{reason}"
        );
    }
}

#[test]
fn a_launcher_that_succeeds_without_engines_did_not_start_a_world() {
    let (returned, reason) = ended_by("exit 0");
    assert_eq!(returned, Some(0));
    assert!(reason.starts_with("the world did not start: "), "{reason}");
}

#[test]
fn a_launcher_that_is_killed_is_told_as_shells_do() {
    let (returned, reason) = ended_by("kill -KILL $$");
    assert_eq!(returned, Some(128 + 9));
    assert!(reason.contains("signal 9"), "{reason}");
}

/// A death's exit code goes through the real launcher, too.
#[test]
fn a_ranks_exit_code_is_returned() {
    let mut job = Launch::resident(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import os");
    client.begin(&[1], "os._exit(3)");
    client.wait_ended();
    drop(client);
    assert_eq!(job.wait_exit().code(), Some(3), "{}", job.text());
}

/// A job whose launcher waits for the file `go` and then runs `script`, and its gateway, which stands still.
fn with_a_gateway_that_stands_still(script: &str) -> (MpiJob, i32) {
    let launch = Launch::resident(1);
    let [up, go] = ["up", "go"].map(|name| launch.dir().join(name));
    let script = format!("touch {up:?}; until [ -e {go:?} ]; do sleep 0.01; done; {script}");
    let program = launcher(&launch, &script).display().to_string();
    let job = launch.launcher(vec![program]).spawn();
    until("the launcher", || up.exists().then_some(()));
    let is_gateway = |process: &&processes::Process| process.command.contains("internal-gateway");
    let gateway = job.processes().iter().find(is_gateway).expect("a gateway").pid;
    processes::signal(gateway, Signal::SIGSTOP);
    fs::write(go, "").expect("a file");
    (job, gateway)
}

/// What a launcher writes must not be held up by a gateway that stands still, nor its end.
#[test]
fn a_gateway_that_stands_still_holds_no_launcher_up() {
    // More than any pipe holds.
    let line = "x".repeat(3000);
    let much = format!("yes {line} | head -n 1000 >&2; touch \"$IPSTEER_DIR/done\"; exit 5");
    let (mut job, gateway) = with_a_gateway_that_stands_still(&much);
    let done = job.dir().join("done");
    until("the launcher to end", || done.exists().then_some(()));
    processes::signal(gateway, Signal::SIGCONT);
    assert_eq!(job.wait_exit().code(), Some(5));
    assert!(job.wait_post_mortem().contains("exit code 5"));
    job.wait_gone();
}

/// Who wants the end gets it: the gateway is replaced by one that listens.
#[test]
fn a_gateway_that_stands_still_does_not_keep_the_allocation() {
    let (mut job, _) = with_a_gateway_that_stands_still("exit 5");
    let status = until("serve to return", || {
        job.signal(Signal::SIGTERM);
        job.poll_exit()
    });
    assert_eq!(status.code(), Some(5), "{}", job.text());
    // The other one does not know that there was a world, and does not say that there was none.
    let reason = job.wait_post_mortem();
    assert!(!reason.contains("did not start"), "{reason}");
    job.wait_gone();
}
