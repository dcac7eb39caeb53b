//! `ipengine.comm`: a communicator of exactly the targets, and no hang by our own hand.

use std::sync::Arc;

use ipengine_tests::outcome::{is_done, json, raised, shown};
use ipengine_tests::{Launch, Session};
use ipsteer::pending::Arrived;
use serde_json::json;

fn all_show(arrived: &[Arc<Arrived>], wanted: &str) {
    for one in arrived {
        assert_eq!(shown(one), wanted, "engine {}", one.engine);
    }
}

fn check_sum(client: &Session, targets: &[u32]) {
    all_show(
        &client.must(targets, "ipengine.comm.allreduce(1)"),
        &targets.len().to_string(),
    );
}

#[test]
fn rank_i_is_the_ith_target() {
    let job = Launch::plain(4).start();
    let client = job.connect();
    client.must(&[0, 1, 2, 3], "import ipengine");
    for targets in [&[3, 1, 2][..], &[1, 3, 2], &[2, 0], &[0, 1, 2, 3], &[2]] {
        let arrived = client.must(targets, "ipengine.comm.allgather(ipengine.rank)");
        all_show(&arrived, &format!("{targets:?}"));
        let ranks = client.must(targets, "ipengine.comm.rank");
        for (rank, one) in ranks.iter().enumerate() {
            assert_eq!(shown(one), rank.to_string());
        }
    }
}

#[test]
fn a_busy_engine_beside_an_idle_one() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine");
    let go = job.dir().join("go");
    let busy = client.begin(
        &[0],
        &format!("import os, time\nprint('here')\nwhile not os.path.exists({go:?}): time.sleep(0.005)"),
    );
    client.wait_output(busy, 0, "here");
    let together = client.begin(
        &[0, 1],
        "print('asking')\nipengine.comm.allreduce(ipengine.rank + 1)",
    );
    client.wait_output(together, 1, "asking");
    // The waiting engine sleeps: it can be asked, and it uses no processor time.
    let before = client.status_now().engines[1].cpu;
    let (mut asked, mut after) = (0, before);
    while asked < 50 {
        after = client.status_now().engines[1].cpu;
        asked += 1;
    }
    let used = after - before;
    assert!(
        used < 500_000_000,
        "it spins: {used} ns of processor time while it waits"
    );
    std::fs::write(&go, "").expect("a file");
    all_show(&client.finish(together), "3");
    assert!(is_done(&client.finish(busy)[0]));
}

#[test]
fn a_target_that_ends_without_it() {
    let job = Launch::plain(3).start();
    let client = job.connect();
    client.must(&[0, 1, 2], "import ipengine");
    let arrived = client.run(&[0, 1, 2], "if ipengine.rank != 1:\n    ipengine.comm.barrier()");
    assert!(is_done(&arrived[1]));
    for one in [&arrived[0], &arrived[2]] {
        assert!(raised(one).message.contains("1"), "{:?}", raised(one).message);
        assert!(raised(one).message.contains("ipengine.comm"));
    }
    check_sum(&client, &[0, 1, 2]);
}

#[test]
fn a_target_that_raises_before_it() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine");
    let arrived = client.run(
        &[0, 1],
        "if ipengine.rank == 0:\n    1 / 0\nipengine.comm.barrier()",
    );
    assert_eq!(raised(&arrived[0]).type_name, "ZeroDivisionError");
    assert!(raised(&arrived[1]).message.contains("ipengine.comm"));
    check_sum(&client, &[0, 1]);
}

/// The same when the communicator was made long before: the promise is one per instruction.
#[test]
fn a_target_that_ends_without_the_cached_one() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine");
    check_sum(&client, &[0, 1]);
    let arrived = client.run(
        &[0, 1],
        "if ipengine.rank == 0:\n    1 / 0\nipengine.comm.barrier()",
    );
    assert_eq!(raised(&arrived[0]).type_name, "ZeroDivisionError");
    assert!(raised(&arrived[1]).message.contains("ipengine.comm"));
    check_sum(&client, &[0, 1]);
}

#[test]
fn it_is_made_once_for_each_ordered_set() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine");
    let handle = |targets: &[u32]| -> Vec<String> {
        client
            .must(targets, "ipengine.comm.handle")
            .iter()
            .map(|one| shown(one))
            .collect()
    };
    let first = handle(&[0, 1]);
    assert_eq!(handle(&[0, 1]), first);
    assert_ne!(handle(&[1, 0]), [first[1].clone(), first[0].clone()]);
    assert_eq!(handle(&[0, 1]), first);
}

#[test]
fn reset_makes_a_new_one() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine\nold = ipengine.comm");
    client.must(&[0, 1], "ipengine.reset_comm()\nnew = ipengine.comm");
    all_show(&client.must(&[0, 1], "old == new"), "False");
    check_sum(&client, &[0, 1]);
    // A message left in the old one is not met in the new one.
    client.must(&[0], "ipengine.comm");
    client.must(
        &[0, 1],
        "if ipengine.rank == 0: ipengine.comm.send('stale', 1)\nelse: ipengine.comm",
    );
    client.must(&[0, 1], "ipengine.reset_comm()\nfound = ipengine.comm.iprobe()");
    assert_eq!(client.value(1, "found"), json!(false));
}

/// A rank that replaces it while the others do not must not leave anybody in MPI.
#[test]
fn a_reset_on_one_rank_only() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine");
    check_sum(&client, &[0, 1]);
    client.run(
        &[0, 1],
        "if ipengine.rank == 0: ipengine.reset_comm()\nipengine.comm.allreduce(1)",
    );
    client.must(&[0, 1], "ipengine.reset_comm()");
    check_sum(&client, &[0, 1]);
}

#[test]
fn outside_of_the_main_thread_it_says_so() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let source = "\
import ipengine, threading
said = []
def use():
    try: ipengine.comm
    except Exception as error: said.append(str(error))
thread = threading.Thread(target=use)
thread.start()
thread.join()
";
    client.must(&[0], source);
    assert!(
        client
            .value(0, "said[0]")
            .as_str()
            .expect("text")
            .contains("main thread")
    );
}

#[test]
fn arrays_move_between_engines() {
    let job = Launch::plain(4).start();
    let client = job.connect();
    let source = "\
import ipengine, numpy
part = numpy.full(1_000_000, float(ipengine.comm.rank))
total = numpy.empty_like(part)
ipengine.comm.Allreduce(part, total)
float(total.min()), float(total.max())
";
    all_show(&client.must(&[0, 1, 2, 3], source), "(6.0, 6.0)");
}

/// A large message that nobody waits for completes while its sender is idle.
#[test]
fn an_isend_completes_behind_an_idle_engine() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(
        &[0, 1],
        "import ipengine, numpy\nfrom mpi4py import MPI\nbig = numpy.ones(4_000_000)",
    );
    client.must(&[0], "request = MPI.COMM_WORLD.Isend(big, 1)");
    client.must(&[1], "MPI.COMM_WORLD.Recv(big, 0)");
    let arrived = client.must(&[0], "request.Wait()\n1");
    assert!(json(&arrived[0])["data"].is_object());
}

/// The bound is below what the poorest MPI has, so that it is always the engine that refuses, in words.
#[test]
fn as_many_as_one_process_may_make() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    let source = "\
import ipengine
sums = []
def again(rounds):
    for _ in range(rounds):
        ipengine.reset_comm()
        sums.append(ipengine.comm.allreduce(1))
";
    client.must(&[0, 1], source);
    for _ in 0..10 {
        client.must(&[0, 1], "again(100)");
    }
    all_show(&client.must(&[0, 1], "sums == [2] * 1000"), "True");
    for one in &client.run(&[0, 1], "again(1)") {
        let said = &raised(one).message;
        assert!(said.contains("1000 communicators"), "{said}");
    }
    all_show(
        &client.must(&[0, 1], "from mpi4py import MPI\nMPI.COMM_WORLD.allreduce(1)"),
        "2",
    );
}

/// `MPI_THREAD_MULTIPLE` is what an engine asks for: user threads may all be in MPI at once.
#[test]
fn threads_of_the_user_in_mpi_at_once() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    let source = "\
import threading
from mpi4py import MPI
assert MPI.Query_thread() == MPI.THREAD_MULTIPLE
comms = [MPI.COMM_WORLD.Dup() for _ in range(4)]
sums = [0] * 4
def work(i):
    for _ in range(200): sums[i] += comms[i].allreduce(1)
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for comm in comms: comm.Free()
sums
";
    all_show(&client.must(&[0, 1], source), "[400, 400, 400, 400]");
}
