//! One total order: clients that send collectives to overlapping sets never deadlock each other.

use std::thread;

use ipengine_tests::outcome::shown;
use ipengine_tests::{LIMIT, Launch, MpiJob};

const ROUNDS: usize = 60;

/// One user in a loop: collectives on changing sets, several under way at once.
fn user(job: &Connector, sets: &[&[u32]], seed: usize) {
    let client = ipengine_tests::Session::open(&job.0, None);
    let sent: Vec<(u64, usize)> = (0..ROUNDS)
        .map(|round| {
            let set = sets[(round + seed) % sets.len()];
            (
                client.begin(set, &format!("ipengine.comm.allreduce({seed} * 1000 + {round})")),
                set.len(),
            )
        })
        .collect();
    for (round, (counter, size)) in sent.into_iter().enumerate() {
        let wanted = (size * (seed * 1000 + round)).to_string();
        for arrived in client.finish(counter) {
            assert_eq!(
                shown(&arrived),
                wanted,
                "user {seed}, round {round}, engine {}",
                arrived.engine
            );
        }
    }
}

/// What a thread needs to connect.
struct Connector(std::path::PathBuf);

fn prepare(job: &MpiJob) -> Connector {
    job.connect().must(&job.all(), "import ipengine");
    Connector(job.access_file())
}

#[test]
fn two_clients_on_overlapping_sets() {
    let job = Launch::plain(4).start();
    let connector = prepare(&job);
    thread::scope(|scope| {
        scope.spawn(|| user(&connector, &[&[0, 1, 2], &[2, 1], &[0, 1, 2, 3]], 1));
        scope.spawn(|| user(&connector, &[&[3, 2, 1], &[1, 2], &[3, 0]], 2));
    });
}

#[test]
fn four_clients_on_the_same_two_engines() {
    let job = Launch::plain(2).start();
    let connector = prepare(&job);
    thread::scope(|scope| {
        for seed in 1..=4 {
            let connector = &connector;
            scope.spawn(move || user(connector, &[&[0, 1], &[1, 0]], seed));
        }
    });
}

/// Engines agree on the order in which the instructions of all clients ran.
#[test]
fn engines_see_one_order() {
    let job = Launch::plain(3).start();
    let connector = prepare(&job);
    job.connect().must(&[0, 1, 2], "seen = []");
    thread::scope(|scope| {
        for seed in 1..=3 {
            let connector = &connector;
            scope.spawn(move || {
                let client = ipengine_tests::Session::open(&connector.0, None);
                let counters: Vec<u64> = (0..ROUNDS)
                    .map(|round| {
                        client.begin(
                            &[seed % 3, (seed + 1) % 3],
                            &format!("seen.append(({seed}, {round}))"),
                        )
                    })
                    .collect();
                assert!(
                    client
                        .wait(&counters, Some(LIMIT), false)
                        .expect("the session lives")
                );
            });
        }
    });
    let client = job.connect();
    let seen = |engine| client.value(engine, "seen");
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let (mine, theirs) = (seen(a), seen(b));
        let (mine, theirs) = (
            mine.as_array().expect("a list"),
            theirs.as_array().expect("a list"),
        );
        let common = |these: &[serde_json::Value], those: &[serde_json::Value]| -> Vec<serde_json::Value> {
            these.iter().filter(|one| those.contains(one)).cloned().collect()
        };
        let both = common(mine, theirs);
        assert_eq!(both.len(), ROUNDS, "one client sends to both engines {a} and {b}");
        assert_eq!(both, common(theirs, mine));
    }
}
