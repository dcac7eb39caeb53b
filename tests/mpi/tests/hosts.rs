//! Engines over several hosts: how they find each other, what moves between them, and what a laptop sees of them.

use std::fs;

use ipengine_protocol::AccessRecord;
use ipengine_tests::Hosts;
use ipengine_tests::hosts::Spread;
use ipengine_tests::launch::venv_python;

/// Open MPI itself must be told on hosts with decoys.
const OVER_ETH0: [&str; 10] = [
    "--mca",
    "btl_tcp_if_include",
    "10.77.0.0/24",
    "--mca",
    "oob_tcp_if_include",
    "10.77.0.0/24",
    "--host",
    "h1:2,h2:2",
    "-n",
    "4",
];

fn record(hosts: &Hosts) -> AccessRecord {
    let text = fs::read(hosts.home("h1").join(".ipsteer/two.json")).expect("the connection file");
    serde_json::from_slice(&text).expect("a record")
}

#[test]
fn two_ranks_on_each_of_two_hosts_are_steered_from_a_third() {
    let Some(hosts) = Hosts::of(2).start() else {
        return;
    };
    let world = Spread::over(&hosts).start();
    let status = world.ipsteer(&["status"]);
    assert!(status.contains("h1") && status.contains("h2"), "{status}");
    let said = world.ipsteer(&[
        "exec",
        "import socket, ipengine; print(ipengine.rank, socket.gethostname(), ipengine.comm.allreduce(1))",
    ]);
    for line in ["0 h1 4", "1 h1 4", "2 h2 4", "3 h2 4"] {
        assert!(said.contains(line), "{said}");
    }
    world.stop();
}

const DATA: &str = "
import numpy as np
rc[:].push({'a': np.arange(1000), 'big': np.ones(1 << 21)}, block=True)
assert [float(x) for x in rc[:].apply_sync(lambda: big.sum())] == [2.0 ** 21] * 4
back = rc[3].pull('a', block=True)
assert back.flags.writeable and back.sum() == 499500
rc[:].scatter('part', np.arange(16), block=True)
assert list(rc[:].gather('part', block=True)) == list(range(16))
def total():
    import numpy as np
    from mpi4py import MPI
    out = np.empty_like(big)
    MPI.COMM_WORLD.Allreduce(big, out)
    return float(out[0])
assert rc[:].apply_sync(total) == [4.0] * 4
def ring():
    import ipengine, socket
    comm = ipengine.comm
    got = comm.sendrecv(socket.gethostname(), dest=(comm.rank + 1) % comm.size, source=(comm.rank - 1) % comm.size)
    return comm.rank, comm.size, ipengine.engine_id, got
assert rc[[0, 3]].apply_sync(ring) == [(0, 2, 0, 'h2'), (1, 2, 3, 'h1')]
assert rc[[2, 1]].apply_sync(ring) == [(0, 2, 2, 'h1'), (1, 2, 1, 'h2')]
print('all moved')
";

#[test]
fn data_and_collectives_cross_hosts() {
    let Some(hosts) = Hosts::of(2).start() else {
        return;
    };
    let world = Spread::over(&hosts).start();
    assert_eq!(world.python(DATA).trim(), "all moved");
    world.stop();
}

/// Addresses that lead nowhere, an address that every host has, a name that means this host alone, and a default route into
/// the dark, which makes the wrong addresses silent instead of refused.
fn make_decoys(hosts: &Hosts) {
    for host in ["h1", "h2", "laptop"] {
        let bridge = "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up";
        hosts.administer(host, bridge);
        hosts.administer(host, "ip route add default via 10.77.0.253");
    }
    let far = "ip link add far0 type bridge && ip addr add 10.1.0.1/16 dev far0 && ip link set far0 up";
    hosts.administer("h1", far);
    for host in ["h1", "h2"] {
        let own = hosts.dir().join("etc").join(format!("hosts.{host}"));
        let others = if host == "h1" {
            "10.77.0.2 h2"
        } else {
            "10.77.0.1 h1"
        };
        let table = format!("127.0.0.1 localhost\n127.0.1.1 {host}\n{others}\n10.77.0.254 head\n");
        fs::write(&own, table).expect("a hosts file");
        hosts.administer(host, &format!("mount --bind {} /etc/hosts", own.display()));
    }
}

#[test]
fn decoy_addresses_lead_nobody_astray() {
    let Some(hosts) = Hosts::of(2).open_mpi().start() else {
        return;
    };
    make_decoys(&hosts);
    let world = Spread::over(&hosts).mpiexec(&OVER_ETH0).start();
    let urls = record(&hosts).urls;
    for wanted in ["10.77.0.1", "10.1.0.1", "172.17.0.1"] {
        assert!(urls.iter().any(|url| url.contains(wanted)), "{urls:?}");
    }
    let said = world.ipsteer(&["exec", "import ipengine; print(ipengine.comm.allreduce(1))"]);
    assert_eq!(said.matches('4').count(), 4, "{said}");
    world.stop();

    let world = Spread::over(&hosts)
        .mpiexec(&OVER_ETH0)
        .options(&["--interface", "eth0"])
        .start();
    let urls = record(&hosts).urls;
    assert!(
        urls.iter().all(|url| url.contains("10.77.0.1")) && !urls.is_empty(),
        "{urls:?}"
    );
    world.stop();
}

#[test]
fn an_interface_that_is_not_there_is_named_with_those_that_are() {
    let Some(hosts) = Hosts::of(1).start() else {
        return;
    };
    let mut job = Spread::over(&hosts)
        .mpiexec(&["-n", "1"])
        .options(&["--interface", "ib7"])
        .spawn();
    assert!(!job.wait().success());
    let words = job.stderr();
    assert!(words.contains("ib7") && words.contains("eth0"), "{words}");
}

#[test]
fn the_port_may_come_from_a_range() {
    let Some(hosts) = Hosts::of(1).start() else {
        return;
    };
    let range = ["--listen", "0.0.0.0:7100-7101"];
    let python = venv_python().display().to_string();
    let hold = "import socket, signal\ns = socket.create_server(('0.0.0.0', 7100))\nprint('taken', flush=True)\nsignal.pause()";
    let mut holder = hosts.spawn("h1", &[&python, "-c", hold]);
    holder.wait_output("taken");
    let world = Spread::over(&hosts).mpiexec(&["-n", "1"]).options(&range).start();
    let urls = record(&hosts).urls;
    assert!(urls.iter().all(|url| url.ends_with(":7101/")), "{urls:?}");
    let mut second = hosts.spawn("h1", &["ipengine-mpi", "--cluster", "late", range[0], range[1]]);
    assert!(!second.wait().success());
    let words = second.stderr();
    assert!(words.contains("7100-7101"), "{words}");
    drop(holder);
    world.stop();
}

/// The launcher hands on few variables to other hosts; rank 0 tells the others.
#[test]
fn the_python_path_reaches_every_host() {
    let Some(hosts) = Hosts::of(2).start() else {
        return;
    };
    let modules = hosts.home("h1").join("modules");
    fs::create_dir(&modules).expect("a directory");
    fs::write(modules.join("only_there.py"), "word = 'found'").expect("a module");
    let path = modules.display().to_string();
    for spread in [Spread::over(&hosts), Spread::over(&hosts).resident().from("head")] {
        let world = spread.env("PYTHONPATH", &path).start();
        let said = world.ipsteer(&["exec", "import only_there; print(only_there.word)"]);
        assert_eq!(said.matches("found").count(), 4, "{said}");
        world.stop();
    }
}

#[test]
fn serve_may_run_where_no_rank_does() {
    let Some(hosts) = Hosts::of(2).start() else {
        return;
    };
    let world = Spread::over(&hosts).resident().from("head").start();
    let said = world.ipsteer(&[
        "exec",
        "import ipengine, sys; print(ipengine.comm.allreduce(1), sys.prefix)",
    ]);
    let wanted = format!(
        "4 {}",
        venv_python().ancestors().nth(2).expect("…/bin/python").display()
    );
    assert_eq!(said.matches(&wanted).count(), 4, "{said}");
    assert_eq!(record(&hosts).host, "head");
    world.stop();
}

fn logs_elsewhere(hosts: &Hosts, hide: &str) {
    let scratch = hosts.dir().join("scratch");
    fs::create_dir(&scratch).expect("a directory beside the home directory");
    hosts.administer("h2", hide);
    let mut world = Spread::over(hosts).within(scratch.clone()).start();
    let elsewhere = scratch.join(".ipsteer/runs/two/logs");
    world.launcher.wait_output(&format!(
        "the output of rank 3 on h2 goes to {}",
        elsewhere.display()
    ));
    let said = world.ipsteer(&["exec", "import ipengine; print('I am', ipengine.rank)"]);
    assert!(said.contains("I am 3"), "{said}");
    let logs = world.ipsteer(&["logs"]);
    assert!(logs.contains(&elsewhere.display().to_string()), "{logs}");
    let at_home = hosts.home("h1").join(".ipsteer/runs/two/logs");
    for (dir, rank) in [(&at_home, 0), (&at_home, 1), (&elsewhere, 2), (&elsewhere, 3)] {
        let text = fs::read_to_string(dir.join(format!("rank-000{rank}.out"))).expect("the rank's file");
        assert!(text.contains(&format!("I am {rank}")), "{text}");
    }
    world.stop();
}

#[test]
fn ranks_whose_home_is_read_only_write_elsewhere_and_say_where() {
    let Some(hosts) = Hosts::of(2).start() else {
        return;
    };
    let home = hosts.home("h2");
    let home = home.display();
    logs_elsewhere(
        &hosts,
        &format!("mount --bind {home} {home} && mount -o remount,bind,ro {home}"),
    );
}

#[test]
fn ranks_whose_home_is_not_there_write_elsewhere_and_say_where() {
    let Some(hosts) = Hosts::of(2).start() else {
        return;
    };
    let home = hosts.home("h2").display().to_string();
    logs_elsewhere(&hosts, &format!("mount -t tmpfs none {home}"));
}

#[test]
fn without_a_writable_home_the_cluster_lives_where_it_was_submitted() {
    let Some(hosts) = Hosts::of(2).start() else {
        return;
    };
    let scratch = hosts.dir().join("scratch");
    fs::create_dir(&scratch).expect("a directory beside the home directory");
    let home = hosts.home("h1").display().to_string();
    for host in ["h1", "h2"] {
        hosts.administer(
            host,
            &format!("mount --bind {home} {home} && mount -o remount,bind,ro {home}"),
        );
    }
    let world = Spread::over(&hosts).within(scratch.clone()).start();
    let banner = world.launcher.stdout();
    assert!(
        banner.contains(&scratch.join(".ipsteer/two.json").display().to_string()),
        "{banner}"
    );
    let said = world.ipsteer(&["exec", "print('here')"]);
    assert_eq!(said.matches("here").count(), 4, "{said}");
    world.stop();
}
