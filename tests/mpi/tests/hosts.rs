//! Engines over several hosts: how they find each other, and what a client elsewhere sees of them.

use ipengine_tests::launch::engine_program;
use ipengine_tests::mpi::launcher;
use ipengine_tests::{Hosts, Mpi};

#[test]
fn two_ranks_on_each_of_two_hosts_are_steered_from_a_third() {
    let Some(hosts) = Hosts::of(2).start() else { return };
    let engine = engine_program().display().to_string();
    let launcher = launcher();
    let words = [
        &[&*launcher][..],
        Mpi::under_test().hosts,
        &["h1:2,h2:2", "-n", "4", &engine, "--cluster", "two"],
    ];
    let mut job = hosts.spawn("h1", &words.concat());
    job.wait_output("two.json");
    hosts.run("laptop", &["scp", "-q", "head:.ipsteer/two.json", "."]);
    let ipsteer = |words: &[&str]| {
        let all: Vec<&str> = ["ipsteer", "--connect", "two.json"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        hosts.run("laptop", &all)
    };
    let status = ipsteer(&["status"]);
    assert!(status.contains("h1") && status.contains("h2"), "{status}");
    ipsteer(&["exec", "import socket, ipengine"]);
    let said = ipsteer(&[
        "exec",
        "print(ipengine.rank, socket.gethostname(), ipengine.comm.allreduce(1))",
    ]);
    for line in ["0 h1 4", "1 h1 4", "2 h2 4", "3 h2 4"] {
        assert!(said.contains(line), "{said}");
    }
    ipsteer(&["stop"]);
    assert!(job.wait().success());
    hosts.wait_idle();
}
