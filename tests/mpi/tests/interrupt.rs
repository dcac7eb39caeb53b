//! Interrupts: what they reach, what they never hit, and what is said of them.

use ipengine_protocol::{InterruptState, InterruptTarget, Outcome};
use ipengine_tests::outcome::{interrupted, is_done, shown};
use ipengine_tests::{LIMIT, Launch, until};
use serde_json::json;

/// Starts `source` on engine 0, waits until it says that it is there, interrupts it.
fn interrupt_running(source: &str) {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let counter = client.begin(&[0], source);
    client.wait_output(counter, 0, "here");
    let reports = client.interrupt_counters(&[counter]);
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].state, InterruptState::Interrupted, "{reports:?}");
    let arrived = client.finish(counter);
    let error = interrupted(&arrived[0]);
    assert_eq!(error.type_name, "KeyboardInterrupt");
    assert!(
        !error.frames.is_empty(),
        "no frame of the user: {}",
        error.traceback
    );
    client.must(&[0], "1");
}

#[test]
fn a_python_loop() {
    interrupt_running("print('here')\nwhile True:\n    pass");
}

#[test]
fn a_sleep() {
    interrupt_running("import time\nprint('here')\ntime.sleep(10_000)");
}

#[test]
fn a_blocking_read() {
    interrupt_running("import os\nr, w = os.pipe()\nprint('here')\nos.read(r, 1)");
}

#[test]
fn a_wait_for_a_child() {
    // `subprocess.run` would leave the child behind if the interrupt came before it knew of it.
    interrupt_running(
        "import subprocess\nchild = subprocess.Popen(['sleep', '10000'])\n\
         try:\n    print('here')\n    child.wait()\nfinally:\n    child.kill()\n    child.wait()",
    );
}

#[test]
fn a_lock_that_nobody_gives_back() {
    interrupt_running(
        "import threading\nlock = threading.Lock()\nlock.acquire()\nprint('here')\nlock.acquire()",
    );
}

#[test]
fn a_function_that_was_applied() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    let (work, blobs) = ipengine_tests::pickle::apply("def f():\n    print('here')\n    while True: pass");
    let counter = client.send(&[0, 1], work, blobs);
    [0, 1]
        .iter()
        .for_each(|engine| client.wait_output(counter, *engine, "here"));
    let reports = client.interrupt_engines(&[1]);
    assert_eq!(
        (reports[0].engine.0, reports[0].state),
        (1, InterruptState::Interrupted)
    );
    assert!(
        !client.finished(counter).expect("known"),
        "engine 0 was not meant"
    );
    client.interrupt_counters(&[counter]);
    client
        .finish(counter)
        .iter()
        .for_each(|one| assert_eq!(interrupted(one).type_name, "KeyboardInterrupt"));
}

#[test]
fn an_instruction_that_has_not_begun() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let busy = client.begin(&[0], "import time\nprint('here')\nwhile True: time.sleep(0.01)");
    client.wait_output(busy, 0, "here");
    let queued = client.begin(&[0], "touched = True");
    let after = client.begin(&[0], "'touched' in globals()");
    // Its answer leaves the gateway after the instructions have come.
    client.status_now();
    let reports = client.interrupt_counters(&[queued]);
    assert!(
        matches!(
            reports[0].state,
            InterruptState::Queued | InterruptState::Interrupted
        ),
        "{reports:?}"
    );
    assert!(
        !client.finished(busy).expect("known"),
        "only the queued one was meant"
    );
    client.interrupt_counters(&[busy]);
    let arrived = client.finish(queued);
    assert!(
        matches!(
            arrived[0].outcome,
            Outcome::Interrupted(_) | Outcome::Aborted { .. }
        ),
        "{:?}",
        arrived[0]
    );
    assert_eq!(shown(&client.finish(after)[0]), "False");
}

/// A request travels faster than the instruction that it is about.
#[test]
fn an_instruction_that_has_not_arrived() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    for round in 0..50 {
        let source = format!("import time\nwhile True: time.sleep(0.01)  # {round}");
        let victim = client.begin(&[1, 0], &source);
        client.interrupt_counters(&[victim]);
        for arrived in client.finish(victim) {
            assert_eq!(interrupted(&arrived).type_name, "KeyboardInterrupt");
        }
    }
    client.must(&[0, 1], "1");
}

#[test]
fn an_engine_that_does_nothing() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    let reports = client.interrupt_engines(&[0, 1]);
    assert_eq!(reports.len(), 2);
    assert!(
        reports.iter().all(|report| report.state == InterruptState::Idle),
        "{reports:?}"
    );
    let counter = client.begin(&[0], "1");
    client.finish(counter);
    let reports = client.interrupt_counters(&[counter]);
    assert!(
        reports.iter().all(|report| report.state == InterruptState::Done),
        "{reports:?}"
    );
    client.must(&[0, 1], "1");
}

#[test]
fn code_that_catches_it_goes_on() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    let source = "\
import time
print('here')
try:
    while True: time.sleep(0.01)
except KeyboardInterrupt:
    caught = True
'went on'
";
    let counter = client.begin(&[0], source);
    client.wait_output(counter, 0, "here");
    client.interrupt_counters(&[counter]);
    assert_eq!(shown(&client.finish(counter)[0]), "'went on'");
}

#[test]
fn code_that_does_not_return_to_python_is_reported_as_pending() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    // A C mutex is not given up for a signal; a Python thread unlocks it when the test says so.
    let go = job.dir().join("go");
    let source = format!(
        "\
import ctypes, os, threading, time
libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(128)
libc.pthread_mutex_lock(mutex)
def release():
    while not os.path.exists({go:?}): time.sleep(0.005)
    libc.pthread_mutex_unlock(mutex)
threading.Thread(target=release).start()
print('here')
libc.pthread_mutex_lock(mutex)
time.sleep(10_000)
"
    );
    let counter = client.begin(&[0], &source);
    client.wait_output(counter, 0, "here");
    let reports = client.interrupt_counters(&[counter]);
    assert_eq!(reports[0].state, InterruptState::Pending, "{reports:?}");
    // It can be asked what it does all the while.
    assert_eq!(client.status_now().engines[0].state, "busy");
    std::fs::write(&go, "").expect("a file");
    assert_eq!(
        interrupted(&client.finish(counter)[0]).type_name,
        "KeyboardInterrupt"
    );
}

#[test]
fn never_the_next_instruction() {
    let job = Launch::plain(1).start();
    let client = job.connect();
    client.must(&[0], "ran = 0");
    let mut hit = 0;
    for i in 0..400 {
        // Lengths around the time that an interrupt takes to arrive, so that it comes before, in and after.
        let victim = client.begin(&[0], &format!("for _ in range({}): pass", (i % 40) * 500));
        // Every other request leaves after its instruction has; the others may overtake it.
        if i % 2 == 0 {
            client.status_now();
        }
        let question = client
            .interrupt(InterruptTarget::Counters(vec![victim]))
            .expect("asked");
        let bystander = client.begin(&[0], "ran += 1");
        let report = question.wait(Some(LIMIT)).expect("answered").expect("in time");
        let ended = client.finish(victim);
        assert!(
            !matches!(ended[0].outcome, Outcome::Raised(_) | Outcome::Lost(_)),
            "{:?} {report:?}",
            ended[0]
        );
        hit += u32::from(!is_done(&ended[0]));
        let next = client.finish(bystander);
        assert!(
            is_done(&next[0]),
            "round {i}: the next instruction was hit: {:?} after {report:?}",
            next[0]
        );
    }
    assert_eq!(client.value(0, "ran"), json!(400));
    assert!(hit > 0, "no interrupt ever came in time");
}

#[test]
fn while_waiting_for_a_busy_partner() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    client.must(&[0, 1], "import ipengine");
    let go = job.dir().join("go");
    let busy = client.begin(
        &[0],
        &format!("import os, time\nprint('here')\nwhile not os.path.exists({go:?}): time.sleep(0.005)"),
    );
    client.wait_output(busy, 0, "here");
    let together = client.begin(&[0, 1], "print('asking')\nipengine.comm.barrier()");
    client.wait_output(together, 1, "asking");
    let reports = client.interrupt_engines(&[1]);
    assert_eq!(reports[0].state, InterruptState::Interrupted, "{reports:?}");
    std::fs::write(&go, "").expect("a file");
    let arrived = client.finish(together);
    assert_eq!(interrupted(&arrived[1]).type_name, "KeyboardInterrupt");
    assert!(
        matches!(arrived[0].outcome, Outcome::Raised(_)),
        "{:?}",
        arrived[0].outcome
    );
    let both = client.must(&[0, 1], "ipengine.comm.allreduce(1)");
    assert!(both.iter().all(|one| shown(one) == "2"));
}

#[test]
fn a_collective_of_the_users_own_is_no_prison_for_the_gateway() {
    let job = Launch::plain(2).start();
    let client = job.connect();
    let stuck = client.begin(
        &[1],
        "from mpi4py import MPI\nprint('here')\nMPI.COMM_WORLD.barrier()",
    );
    client.wait_output(stuck, 1, "here");
    let status = until("the status", || Some(client.status_now()));
    assert_eq!(
        (status.engines[1].state.as_str(), status.engines[0].state.as_str()),
        ("busy", "idle")
    );
    // What frees it is the partner.
    client.must(&[0], "from mpi4py import MPI\nMPI.COMM_WORLD.barrier()");
    assert!(is_done(&client.finish(stuck)[0]));
}
