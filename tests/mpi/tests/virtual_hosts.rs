//! The virtual hosts themselves: what they share and do not share, and that nothing of them is left, whatever ends them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use ipengine_tests::hosts::living_of;
use ipengine_tests::launch::root;
use ipengine_tests::{Hosts, skipped, until};

/// The directory of a runner's hosts, on its standard output after this.
const SIGN: &str = "the hosts are in ";

#[test]
fn each_host_is_a_machine_of_its_own() {
    let Some(hosts) = Hosts::of(2).start() else { return };
    println!("two hosts are ready after {:?}", hosts.ready_after());
    for host in ["head", "laptop", "h1", "h2"] {
        assert_eq!(hosts.run(host, &["hostname"]).trim(), host);
        hosts.run(
            host,
            &["touch", &format!("/tmp/{host}"), &format!("/dev/shm/{host}")],
        );
        assert_eq!(hosts.run(host, &["ls", "/dev/shm"]).trim(), host);
        assert!(hosts.tmp(host).join(host).exists());
    }
    let name_over_ssh = |from: &str, to: &str| hosts.run(from, &["ssh", to, "hostname"]);
    assert_eq!(name_over_ssh("h1", "h2").trim(), "h2");
    assert_eq!(name_over_ssh("laptop", "head").trim(), "head");
    hosts.run("h1", &["touch", "from-h1"]);
    assert_eq!(hosts.run("h2", &["ls"]).trim(), "from-h1");
    assert_eq!(hosts.run("laptop", &["ls"]).trim(), "");
}

#[test]
fn a_process_that_stays_is_seen_and_ends_with_its_host() {
    let Some(hosts) = Hosts::of(1).start() else { return };
    hosts.run("h1", &["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"]);
    let left = until("the process to be alone", || {
        let left = hosts.processes_on("h1");
        (left.len() == 1 && left[0].command == "sleep 1000").then_some(left)
    });
    assert!(hosts.processes_on("head").is_empty());
    hosts.kill("h1");
    assert!(!Path::new(&format!("/proc/{}", left[0].pid)).exists());
}

#[test]
fn a_cut_cable_says_nothing() {
    let Some(hosts) = Hosts::of(2).start() else { return };
    hosts.cut("h2");
    let reached = hosts
        .spawn("h1", &["ssh", "-o", "ConnectTimeout=1", "h2", "true"])
        .wait();
    assert!(!reached.success());
    hosts.mend("h2");
    hosts.run("h1", &["ssh", "h2", "true"]);
}

/// Detaches a program as far as it goes, and waits until it is so.
const LEAVE: &str = r#"setsid sleep $1 </dev/null >/dev/null 2>&1 &
until [ "$(ps -o comm= -p $!)" = sleep ]; do sleep 0.01; done"#;

#[test]
fn what_a_job_leaves_behind_is_ended_and_logged() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let leave = hosts.dir().join("leave");
    std::fs::write(&leave, LEAVE).expect("a script");
    let leave = leave.display();
    let line = format!("sh {leave} 1001 && srun -N 2 -n 2 sh {leave} 1002");
    hosts.run("head", &["sbatch", "--wait", "-N", "2", "--wrap", &line]);
    hosts.wait_idle();
    let log = hosts.killed_by_slurm();
    let mut killed: Vec<&str> = log.lines().collect();
    killed.sort_unstable();
    assert_eq!(
        killed,
        ["h1 job sleep 1001", "h1 step sleep 1002", "h2 step sleep 1002"]
    );
}

/// Where root runs the tests, all others say nothing of an ordinary user; else they show it themselves.
#[test]
fn an_ordinary_user_can_have_them() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::Builder::new().prefix("ipt").tempdir_in("/tmp");
    let dir = dir.expect("a private directory");
    let nobody = nix::unistd::User::from_name("nobody");
    let nobody = nobody.ok().flatten().expect("every system has it");
    nix::unistd::chown(dir.path(), Some(nobody.uid), Some(nobody.gid)).expect("root may");
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", nobody.uid))
            .arg(format!("--regid={}", nobody.gid))
            .args(["--clear-groups", "--"])
            .args(words)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            )
            .current_dir(dir.path());
        command
    };
    let script = root().join("tests/mpi/hosts/cluster.sh").display().to_string();
    let able = format!("test -x {script} && unshare --user --map-current-user --net --mount true");
    if !as_nobody(&["sh", "-c", &able])
        .status()
        .is_ok_and(|status| status.success())
    {
        skipped("an ordinary user may not make namespaces here, or not read this source tree");
        return;
    }
    let path = dir.path().display().to_string();
    let mut hosts = as_nobody(&[&script, &path, "2", "slurm"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("setpriv is there");
    let mut orders = hosts.stdin.take().expect("piped above");
    let mut answers = BufReader::new(hosts.stdout.take().expect("piped above")).lines();
    let log = || std::fs::read_to_string(dir.path().join("cluster.log")).unwrap_or_default();
    let mut answer = || answers.next().and_then(Result::ok).unwrap_or_default();
    assert_eq!(answer(), "ready", "{}", log());
    for order in [
        format!("laptop test $(id -u) = {}", nobody.uid),
        format!("head cd {path} && SLURM_CONF={path}/slurm/slurm.conf srun -N 2 hostname"),
    ] {
        writeln!(orders, "{order}").expect("the hosts listen");
        assert_eq!(answer(), "0", "{order}: {}", log());
    }
    drop(orders);
    assert!(hosts.wait().expect("a child").success());
    until("the last process to end", || {
        living_of(dir.path()).is_empty().then_some(())
    });
}

/// Not a test by itself: the runner that [`nothing_is_left_of_a_killed_runner`] kills.
#[test]
#[ignore = "run by another test, to be killed"]
fn runner() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let _sleeper = hosts.spawn("h1", &["sh", "-c", "setsid sleep 1000 & srun -N2 sleep 1000"]);
    until("the job's processes", || {
        (hosts.processes_on("h2").len() == 1).then_some(())
    });
    println!("{SIGN}{}", hosts.dir().display());
    std::thread::park();
}

#[test]
fn nothing_is_left_of_a_killed_runner() {
    let mut runner = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "runner", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second runner");
    let lines = BufReader::new(runner.stdout.take().expect("piped above")).lines();
    let sign = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once(SIGN).map(|(_, dir)| dir.to_owned()));
    let Some(dir) = sign else {
        // It has printed why.
        runner.wait().expect("it has ended");
        return;
    };
    let dir = Path::new(&dir);
    assert!(living_of(dir).len() > 4, "{:?}", living_of(dir));
    runner
        .kill()
        .and_then(|()| runner.wait())
        .expect("the runner is killed");
    until("the last process to end", || {
        living_of(dir).is_empty().then_some(())
    });
    std::fs::remove_dir_all(dir).expect("its directory is free");
}
