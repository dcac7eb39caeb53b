//! Faults over several hosts: what the client hears, and that nothing is left on any of them.

use std::fs;
use std::time::{Duration, Instant};

use ipengine_tests::Hosts;
use ipengine_tests::hosts::{Running, Spread, World};
use ipengine_tests::launch::engine_program;
use ipengine_tests::processes::{Process, signal};
use ipengine_tests::waiting::until_within;
use nix::sys::signal::Signal;

/// An instruction that does not end by itself.
const ENDLESS: &str = "import time\nprint('it has', 'begun', flush=True)\ntime.sleep(1000)";
/// `ipsteer`'s exit code when an engine or the cluster was lost.
const LOST: i32 = 4;
/// Engines on a host that was cut off need all of: the link's silence, the wait for the gateway, the forced end.
const CUT_OFF: Duration = Duration::from_secs(75);

const WATCHFUL: [&str; 13] = [
    "--mca",
    "oob_tcp_keepalive_time",
    "4",
    "--mca",
    "oob_tcp_keepalive_intvl",
    "1",
    "--mca",
    "oob_tcp_keepalive_probes",
    "3",
    "--host",
    "h1:2,h2:2",
    "-n",
    "4",
];

/// A client on the laptop that waits for something that does not end.
fn wait_for_ever(world: &World<'_>) -> Running {
    let mut client = world.begin(&["exec", ENDLESS]);
    client.wait_output("it has begun");
    client
}

/// The client's words, once it has heard.
fn heard(mut client: Running, what: &str, since: Instant) -> String {
    let status = client.wait();
    let words = client.stdout() + &client.stderr();
    println!(
        "{what}: the client hears after {:.1} s:\n{words}",
        since.elapsed().as_secs_f64()
    );
    assert_eq!(status.code(), Some(LOST), "{words}");
    words
}

/// Waits until nothing but the hosts' daemons lives.
fn wait_gone(hosts: &Hosts, since: Instant) {
    let gone = until_within(CUT_OFF, || hosts.processes().is_empty().then_some(()));
    assert!(gone.is_some(), "these are left: {:#?}", hosts.processes());
    println!("nothing is left after {:.1} s", since.elapsed().as_secs_f64());
}

/// In plain mode with what `serve` would tell Open MPI by itself.
fn spread(hosts: &Hosts, resident: bool) -> Spread<'_> {
    let spread = Spread::over(hosts).options(&["--linger", "1"]);
    if resident {
        spread.resident()
    } else {
        spread.mpiexec(&WATCHFUL)
    }
}

fn engines_on(hosts: &Hosts, host: &str) -> Vec<Process> {
    let program = engine_program().display().to_string();
    let mut processes = hosts.processes_on(host);
    processes.retain(|one| one.command.split(' ').next() == Some(&program));
    processes
}

fn kill_a_remote_rank(resident: bool) {
    let Some(hosts) = Hosts::of(2).open_mpi().start() else {
        return;
    };
    let mut world = spread(&hosts, resident).start();
    let client = wait_for_ever(&world);
    let engine = engines_on(&hosts, "h2").remove(0);
    let since = Instant::now();
    signal(engine.pid, Signal::SIGKILL);
    let words = heard(client, "a rank is killed", since);
    assert!(words.contains("h2"), "{words}");
    if resident {
        assert!(words.contains("signal 9"), "{words}");
    }
    assert!(!world.launcher.wait().success());
    wait_gone(&hosts, since);
}

#[test]
fn a_killed_remote_rank_is_reported_in_plain_mode() {
    kill_a_remote_rank(false);
}

#[test]
fn a_killed_remote_rank_is_reported_in_resident_mode() {
    kill_a_remote_rank(true);
}

fn end_a_remote_rank(resident: bool, last: &str, wanted: &[&str]) {
    let Some(hosts) = Hosts::of(2).open_mpi().start() else {
        return;
    };
    let mut world = spread(&hosts, resident).start();
    let client = world.begin(&["exec", "-t", "3", &format!("print('the last', 'line')\n{last}")]);
    let since = Instant::now();
    let words = heard(client, last, since);
    for word in ["the last line", "h2"].iter().chain(wanted) {
        assert!(words.contains(word), "{word:?} is missing in {words}");
    }
    assert!(!world.launcher.wait().success());
    wait_gone(&hosts, since);
}

#[test]
fn a_remote_segfault_is_told_with_its_last_words() {
    end_a_remote_rank(false, "import ctypes; ctypes.string_at(0)", &["SIGSEGV"]);
}

#[test]
fn a_remote_exit_is_told_with_its_code() {
    end_a_remote_rank(true, "import os; os._exit(3)", &["3"]);
}

fn lose_a_host(resident: bool, lose: impl Fn(&Hosts)) -> Option<String> {
    let hosts = Hosts::of(2).open_mpi().start()?;
    let world = spread(&hosts, resident).start();
    let client = wait_for_ever(&world);
    let since = Instant::now();
    lose(&hosts);
    let words = heard(client, "a host is lost", since);
    assert!(words.contains("h2"), "{words}");
    wait_gone(&hosts, since);
    Some(words)
}

#[test]
fn a_killed_host_is_reported_in_plain_mode() {
    lose_a_host(false, |hosts| hosts.kill("h2"));
}

#[test]
fn a_killed_host_is_reported_in_resident_mode() {
    lose_a_host(true, |hosts| hosts.kill("h2"));
}

#[test]
fn a_cut_host_is_reported_in_plain_mode() {
    lose_a_host(false, |hosts| hosts.cut("h2"));
}

#[test]
fn a_cut_host_is_reported_in_resident_mode() {
    lose_a_host(true, |hosts| hosts.cut("h2"));
}

/// Without the launcher's own look at the network, which would be quicker.
#[test]
fn engines_without_their_gateway_end_and_say_why() {
    let Some(hosts) = Hosts::of(2).open_mpi().start() else {
        return;
    };
    let world = spread(&hosts, false)
        .mpiexec(&["--host", "h1:2,h2:2", "-n", "4"])
        .start();
    drop(wait_for_ever(&world));
    let since = Instant::now();
    hosts.cut("h1");
    let ended = until_within(CUT_OFF, || engines_on(&hosts, "h2").is_empty().then_some(()));
    assert!(ended.is_some(), "these are left: {:#?}", hosts.processes_on("h2"));
    println!(
        "the engines of h2 have ended after {:.1} s",
        since.elapsed().as_secs_f64()
    );
    for rank in [2, 3] {
        let file = hosts
            .home("h2")
            .join(format!(".ipsteer/runs/two/logs/rank-000{rank}.err"));
        let words = fs::read_to_string(file).expect("the rank's file");
        assert!(words.contains("no link to the gateway for"), "{words}");
    }
    // Open MPI's daemons wait for each other still, for as long as the kernel repeats what it could not send.
    drop(world);
    hosts.kill("h1");
    hosts.kill("h2");
}
