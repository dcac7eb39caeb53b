//! The job scripts and tunnels of `scripts/`, on virtual hosts with a real Slurm and the look of PBS: submitted as they
//! are, steered from a laptop, and ended in every way that a batch system knows.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use ipengine_protocol::AccessRecord;
use ipengine_tests::hosts::Running;
use ipengine_tests::launch::{engine_program, root};
use ipengine_tests::waiting::until_within;
use ipengine_tests::{Hosts, until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Slurm looks for jobs whose time is over every 30 s.
const TIME_LIMIT: Duration = Duration::from_secs(80);

/// What a Python client on the laptop does with a world of four engines; `{file}` and `{url}` lead there.
const STEER: &str = r#"
import ipsteer
view = ipsteer.Client("{file}", url="{url}")[:]
def total(x):
    import ipengine
    return ipengine.comm.allreduce(x)
assert view.apply_sync(total, 1) == [4, 4, 4, 4]
view.push({"much": bytes(range(256)) * (1 << 18)}, block=True)
view.execute("seen = (len(much), much[-1], sum(much[:512]))", block=True)
assert view["seen"] == [(1 << 26, 255, 65280)] * 4
"#;

/// Runs on all engines until something ends it.
const BUSY: &str = "import time\nprint('engine is busy', flush=True)\nwhile True: time.sleep(0.01)";

fn script(name: &str) -> String {
    root().join("scripts").join(name).display().to_string()
}

/// A job of one of the job scripts.
struct Job<'h> {
    hosts: &'h Hosts,
    system: &'static str,
    id: String,
    submitted: Instant,
}

impl<'h> Job<'h> {
    fn sbatch(hosts: &'h Hosts, options: &[&str], arguments: &[&str]) -> Self {
        let script = script("slurm/ipengine.sbatch");
        let words = [&["sbatch", "--parsable"], options, &[&script], arguments].concat();
        Self::submit(hosts, "slurm", &words)
    }

    fn qsub(hosts: &'h Hosts) -> Self {
        let variables = environment();
        Self::submit(
            hosts,
            "pbs",
            &["qsub", "-v", &variables, &script("pbs/ipengine.pbs")],
        )
    }

    fn submit(hosts: &'h Hosts, system: &'static str, words: &[&str]) -> Self {
        let submitted = Instant::now();
        let id = hosts.run("head", words).trim().to_owned();
        Self {
            hosts,
            system,
            id,
            submitted,
        }
    }

    fn number(&self) -> &str {
        self.id.trim_end_matches(".head")
    }

    fn cluster(&self) -> String {
        format!("{}-{}", self.system, self.id)
    }

    fn record(&self) -> Option<AccessRecord> {
        let file = self
            .hosts
            .home("head")
            .join(format!(".ipsteer/{}.json", self.cluster()));
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// Waits until all engines are there.
    fn wait_ready(&self) {
        until("the engines of the job", || {
            assert!(self.lives(), "the job has ended: {}", self.hosts.report());
            self.record().filter(|record| record.token.is_some())
        });
    }

    /// What Slurm says of a field.
    fn field(&self, name: &str) -> String {
        let all = self
            .hosts
            .run("head", &["scontrol", "-o", "show", "job", self.number()]);
        let value = all
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name} in {all}")).to_owned()
    }

    fn lives(&self) -> bool {
        let state = self.field("JobState");
        ["PENDING", "RUNNING", "COMPLETING"].contains(&state.as_str())
    }

    /// Waits until the job is over and nothing of it is left; its state and exit code.
    fn wait_over(&self) -> (String, String) {
        until("the end of the job", || (!self.lives()).then_some(()));
        self.hosts.wait_idle();
        (self.field("JobState"), self.field("ExitCode"))
    }

    /// A shell command on the login node, for this job's cluster.
    fn ipsteer(&self, words: &[&str]) -> Running {
        let cluster = self.cluster();
        let all = [&["ipsteer", "--cluster", &cluster], words].concat();
        self.hosts.spawn("head", &all)
    }

    /// A client whose instruction keeps all four engines busy.
    fn busy(&self) -> Running {
        self.wait_ready();
        let client = self.ipsteer(&["exec", BUSY]);
        until("all engines to be busy", || {
            (client.stdout().matches("engine is busy").count() == 4).then_some(())
        });
        client
    }

    /// Where an engine is, and its process id there.
    fn engine(&self, rank: usize) -> (String, String) {
        let status: Value = serde_json::from_str(&self.ipsteer(&["--json", "status"]).must()).expect("JSON");
        let engine = &status["engines"][rank];
        let host = engine["host"].as_str().expect("a host").to_owned();
        (host, engine["pid"].to_string())
    }

    /// The post-mortem's reason.
    fn reason(&self) -> String {
        self.record()
            .and_then(|record| record.ended)
            .expect("a post-mortem")
            .reason
    }
}

/// What a job needs of the environment of the test, as `NAME=VALUE,…`.
fn environment() -> String {
    format!(
        "IPENGINE_MPI={},VIRTUAL_ENV={},OMPI_ALLOW_RUN_AS_ROOT=1,OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
        engine_program().display(),
        root().join(".venv").display()
    )
}

/// An open tunnel on the laptop.
struct Tunnel<'h> {
    hosts: &'h Hosts,
    process: Running,
    file: String,
    url: String,
}

impl<'h> Tunnel<'h> {
    /// Opens it.
    fn open(hosts: &'h Hosts, system: &str, job: &[&str]) -> Self {
        let script = script(&format!("{system}/tunnel.sh"));
        let words = [&[script.as_str(), "head"], job].concat();
        Self::read(hosts, hosts.spawn("laptop", &words))
    }

    /// Waits until it is open and reads what it asks to paste.
    fn read(hosts: &'h Hosts, mut process: Running) -> Self {
        process.wait_output("status\n");
        let text = process.stdout();
        let after = |word: &str| {
            let mut words = text.split_whitespace().skip_while(|found| *found != word);
            let found = words.nth(1);
            found.unwrap_or_else(|| panic!("no {word} in {text}")).to_owned()
        };
        let (file, url) = (after("--connect"), after("--url"));
        Self {
            hosts,
            process,
            file,
            url,
        }
    }

    fn ipsteer(&self, words: &[&str]) -> String {
        let way = ["ipsteer", "--connect", &self.file, "--url", &self.url];
        self.hosts.run("laptop", &[&way, words].concat())
    }

    /// Ctrl-C: the terminal sends INT to all that runs in it.
    fn close(mut self) {
        for process in self.hosts.processes_on("laptop") {
            ipengine_tests::processes::signal(process.pid, Signal::SIGINT);
        }
        assert_eq!(self.process.wait().code(), Some(130));
        // With a node behind the login node, ssh has a helper, which ends a moment later.
        until("the laptop to be idle", || {
            self.hosts.processes_on("laptop").is_empty().then_some(())
        });
    }
}

/// From the submission to the end in good order, all steering from the laptop.
fn steered(job: &Job, tunnel: &Tunnel) {
    let first = tunnel.ipsteer(&["exec", "import socket; print('on', socket.gethostname())"]);
    println!(
        "{}: {:?} from submit to first instruction",
        job.cluster(),
        job.submitted.elapsed()
    );
    for host in ["on h1", "on h2"] {
        assert_eq!(first.matches(host).count(), 2, "{first}");
    }
    let source = STEER
        .replace("{file}", &tunnel.file)
        .replace("{url}", &tunnel.url);
    job.hosts.python("laptop", &source);
    tunnel.ipsteer(&["stop"]);
}

fn check_good_end(job: &Job) {
    assert_eq!(job.wait_over(), ("COMPLETED".to_owned(), "0:0".to_owned()));
    assert!(job.reason().starts_with("stopped by "), "{}", job.reason());
    assert_eq!(job.hosts.killed_by_slurm(), "", "these did not end by themselves");
}

fn steer_through_slurm(options: &[&str]) {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, options, &[]);
    let tunnel = Tunnel::open(&hosts, "slurm", &[]);
    steered(&job, &tunnel);
    tunnel.close();
    check_good_end(&job);
}

#[test]
fn sbatch_unchanged() {
    steer_through_slurm(&[]);
}

#[test]
fn sbatch_with_srun() {
    steer_through_slurm(&["--export=ALL,IPENGINE_LAUNCH=srun"]);
}

#[test]
fn sbatch_without_the_submitters_environment() {
    steer_through_slurm(&[&format!("--export=NONE,{}", environment())]);
}

#[test]
fn sbatch_with_an_mpi_that_knows_no_slurm() {
    steer_through_slurm(&["--export=ALL,OMPI_MCA_plm=rsh,OMPI_MCA_ras=^slurm"]);
}

#[test]
fn qsub_unchanged() {
    let Some(hosts) = Hosts::of(2).pbs().start() else {
        return;
    };
    let job = Job::qsub(&hosts);
    let tunnel = Tunnel::open(&hosts, "pbs", &[]);
    steered(&job, &tunnel);
    tunnel.close();
    check_good_end(&job);
}

/// Puts a launcher into the home directory that leaves word in `called` and does as `mpiexec` does; its path.
fn own_launcher(hosts: &Hosts) -> String {
    let path = hosts.home("head").join("launcher");
    fs::write(&path, "#!/bin/sh\ntouch ~/called\nexec mpiexec \"$@\"\n").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    path.display().to_string()
}

/// The engines got the options, and the launcher started them.
fn check_own_launcher(hosts: &Hosts, tunnel: &Tunnel, size: usize) {
    let source = "import ipengine; from mpi4py import MPI
print('one of', ipengine.size, 'level', MPI.Query_thread() == MPI.THREAD_FUNNELED)";
    let said = tunnel.ipsteer(&["exec", source]);
    let line = format!("one of {size} level True");
    assert_eq!(said.matches(&line).count(), size, "{said}");
    assert!(hosts.home("head").join("called").exists());
}

#[test]
fn options_of_sbatch_and_of_the_script() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    // What ssh knows of the user on the login node holds for the nodes behind it.
    let mut entries = fs::OpenOptions::new()
        .append(true)
        .open(hosts.home("laptop").join(".ssh/config"))
        .expect("the laptop's ssh has a file");
    writeln!(entries, "Host h1\n    User stranger").expect("it can be written");
    let export = format!(
        "--export=ALL,MPIEXEC={},IPENGINE_OPTIONS=--thread-level funneled",
        own_launcher(&hosts)
    );
    let options = ["-N", "1", "--ntasks-per-node", "3", &export];
    // The login node does not reach this port: the tunnel has to end on the node itself.
    let job = Job::sbatch(
        &hosts,
        &options,
        &["--cluster", "mine", "--listen", "127.0.0.1:0"],
    );
    let tunnel = Tunnel::open(&hosts, "slurm", &["mine"]);
    check_own_launcher(&hosts, &tunnel, 3);
    tunnel.ipsteer(&["stop"]);
    tunnel.close();
    assert_eq!(job.wait_over().0, "COMPLETED");
}

#[test]
fn options_of_qsub() {
    let Some(hosts) = Hosts::of(2).pbs().start() else {
        return;
    };
    let variables = format!(
        "{},MPIEXEC={},IPENGINE_OPTIONS=--thread-level funneled,IPENGINE_SERVE=--cluster mine --linger 5",
        environment(),
        own_launcher(&hosts)
    );
    let script = script("pbs/ipengine.pbs");
    let job = Job::submit(&hosts, "pbs", &["qsub", "-v", &variables, &script]);
    let tunnel = Tunnel::open(&hosts, "pbs", &["mine"]);
    check_own_launcher(&hosts, &tunnel, 4);
    tunnel.ipsteer(&["stop"]);
    tunnel.close();
    assert_eq!(job.wait_over().0, "COMPLETED");
}

/// A tunnel script that does not get anywhere; what it says of that.
fn refused(hosts: &Hosts, job: &[&str]) -> String {
    let script = script("slurm/tunnel.sh");
    let words = [&[script.as_str(), "head"], job].concat();
    let mut tunnel = hosts.spawn("laptop", &words);
    assert!(!tunnel.wait().success(), "{}", tunnel.stdout());
    tunnel.stderr()
}

#[test]
fn a_tunnel_finds_a_cluster_with_a_name_of_its_own() {
    let Some(hosts) = Hosts::of(1).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &["-N", "1"], &["--cluster", "mine", "--linger", "0"]);
    for wanted in [vec![], vec![job.id.as_str()], vec!["mine"]] {
        let tunnel = Tunnel::open(&hosts, "slurm", &wanted);
        assert!(tunnel.file.ends_with("/mine.json"), "{}", tunnel.file);
        tunnel.ipsteer(&["status"]);
        tunnel.close();
    }
    let said = refused(&hosts, &["yours"]);
    let expected = format!("there is no yours: your newest job, {}, is mine", job.id);
    assert!(said.contains(&expected), "{said}");
    hosts.run("head", &["ipsteer", "--cluster", "mine", "stop"]);
    job.wait_over();
    for wanted in [job.id.as_str(), "mine"] {
        let said = refused(&hosts, &[wanted]);
        assert!(said.contains("is over, or not known here: stopped by"), "{said}");
    }
    // The next one of that name has yet to come: it is waited for.
    let next = Job::sbatch(
        &hosts,
        &["-N", "1", "--begin=now+1hour"],
        &["--cluster", "mine", "--linger", "0"],
    );
    let mut waiting = hosts.spawn("laptop", &[&script("slurm/tunnel.sh"), "head", "mine"]);
    waiting.wait_output(&format!("job {} is waiting", next.id));
    hosts.run("head", &["scancel", &next.id]);
    assert!(!waiting.wait().success());
    assert!(
        waiting.stderr().contains("no word in"),
        "the last one's reason is not this one's: {}",
        waiting.stderr()
    );
}

#[test]
fn a_job_without_the_program_says_so() {
    let Some(hosts) = Hosts::of(1).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &["-N", "1", "--export=NONE", "-o", "job.out"], &[]);
    assert_eq!(job.wait_over(), ("FAILED".to_owned(), "127:0".to_owned()));
    let said = fs::read_to_string(hosts.home("head").join("job.out")).expect("the job's output");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("set IPENGINE_MPI"), "{said}");
}

#[test]
fn srun_is_given_the_pmi_that_the_user_names() {
    let Some(hosts) = Hosts::of(1).slurm().start() else {
        return;
    };
    let export = "--export=ALL,IPENGINE_LAUNCH=srun,SLURM_MPI_TYPE=unheard_of";
    let job = Job::sbatch(&hosts, &["-N", "1", "-o", "job.out", export], &["--linger", "0"]);
    assert_eq!(job.wait_over().0, "FAILED");
    let said = fs::read_to_string(hosts.home("head").join("job.out")).expect("the job's output");
    assert!(
        said.contains("mpi/unheard_of") || said.contains("Invalid MPI type 'unheard_of'"),
        "{said}"
    );
}

#[test]
fn a_tunnel_waits_for_its_job_and_tells_when_it_is_over() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &["--begin=now+1hour"], &[]);
    let tunnel = script("slurm/tunnel.sh");
    let mut waiting = hosts.spawn("laptop", &[&tunnel, "head", &job.id]);
    waiting.wait_output("reason BeginTime, expected start 20");
    hosts.run(
        "head",
        &[
            "scontrol",
            "update",
            &format!("JobId={}", job.id),
            "StartTime=now",
        ],
    );
    let open = Tunnel::read(&hosts, waiting);
    assert!(open.ipsteer(&["stop"]).contains("has ended"));
    open.close();
    job.wait_over();
    let mut late = hosts.spawn("laptop", &[&tunnel, "head", &job.id]);
    assert!(!late.wait().success());
    assert!(
        late.stderr().contains("is over, or not known here: stopped by"),
        "{}",
        late.stderr()
    );
    let mut stranger = hosts.spawn("laptop", &[&tunnel, "head"]);
    assert!(!stranger.wait().success());
    assert!(
        stranger.stderr().contains("no job named ipengine"),
        "{}",
        stranger.stderr()
    );
}

#[test]
fn the_unix_socket_over_ssh() {
    let Some(hosts) = Hosts::of(1).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &["-N", "1"], &["--listen", "127.0.0.1:0"]);
    job.wait_ready();
    let record = job.record().expect("a connection file");
    let there = record.unix.expect("a socket");
    hosts.run(
        "laptop",
        &["scp", &format!("head:.ipsteer/{}.json", job.cluster()), "."],
    );
    let forward = format!("/tmp/steer.sock:{there}");
    let tunnel = hosts.spawn(
        "laptop",
        &["ssh", "-N", "-J", "head", "-L", &forward, &record.host],
    );
    let here = hosts.tmp("laptop").join("steer.sock");
    until("the socket on the laptop", || here.exists().then_some(()));
    let file = format!("{}.json", job.cluster());
    let steer = ["ipsteer", "--connect", &file, "--url", "unix:/tmp/steer.sock"];
    let said = hosts.run(
        "laptop",
        &[
            &steer[..],
            &["exec", "print('on', __import__('socket').gethostname())"],
        ]
        .concat(),
    );
    assert_eq!(said.matches("on h1").count(), 2, "{said}");
    hosts.run("laptop", &[&steer[..], &["stop"]].concat());
    drop(tunnel);
    check_good_end(&job);
}

/// The client is told, the job ends, nothing is left; the state and the exit code that remain.
fn ended_by(job: &Job, end: impl FnOnce(&Job)) -> (String, String, String) {
    let mut client = job.busy();
    let began = Instant::now();
    end(job);
    let told = until_within(TIME_LIMIT, || client.poll()).expect("the client hears of the end");
    println!("{}: the client heard after {:?}", job.cluster(), began.elapsed());
    assert!(!told.success());
    let (state, code) = job.wait_over();
    println!("{}: the job was over after {:?}", job.cluster(), began.elapsed());
    (state, code, client.stderr())
}

fn kill_rank(job: &Job) {
    let (host, pid) = job.engine(3);
    assert_eq!(host, "h2");
    job.hosts.run(&host, &["kill", "-KILL", &pid]);
}

#[test]
fn a_killed_rank_under_mpiexec() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &[], &[]);
    let (state, code, told) = ended_by(&job, kill_rank);
    assert_eq!((state.as_str(), code.as_str()), ("FAILED", "137:0"));
    assert!(
        told.contains("engine 3 on h2") && told.contains("exited on signal 9"),
        "{told}"
    );
}

#[test]
fn a_killed_rank_under_srun() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &["--export=ALL,IPENGINE_LAUNCH=srun"], &[]);
    let (state, code, told) = ended_by(&job, kill_rank);
    assert_eq!((state.as_str(), code.as_str()), ("FAILED", "137:0"));
    assert!(
        told.contains("engine 3 on h2") && told.contains("task 3: Killed"),
        "{told}"
    );
}

#[test]
fn a_killed_rank_under_pbs() {
    let Some(hosts) = Hosts::of(2).pbs().start() else {
        return;
    };
    let job = Job::qsub(&hosts);
    let (state, code, told) = ended_by(&job, kill_rank);
    assert_eq!((state.as_str(), code.as_str()), ("FAILED", "137:0"));
    assert!(
        told.contains("engine 3 on h2") && told.contains("exited on signal 9"),
        "{told}"
    );
}

/// All processes got TERM: the instruction was interrupted, or the signal was faster.
fn check_told_of_term(told: &str) {
    let known = ["interrupted because the cluster is stopping", "received SIGTERM"];
    assert!(known.iter().any(|text| told.contains(text)), "{told}");
}

#[test]
fn scancel() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &[], &[]);
    let (state, _, told) = ended_by(&job, |job| {
        job.hosts.run("head", &["scancel", &job.id]);
    });
    assert_eq!(state, "CANCELLED");
    check_told_of_term(&told);
    assert!(job.reason().contains("SIGTERM"), "{}", job.reason());
}

#[test]
fn scancel_under_srun() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &["--export=ALL,IPENGINE_LAUNCH=srun"], &[]);
    let (state, _, told) = ended_by(&job, |job| {
        job.hosts.run("head", &["scancel", &job.id]);
    });
    assert_eq!(state, "CANCELLED");
    check_told_of_term(&told);
    assert!(job.reason().contains("SIGTERM"), "{}", job.reason());
}

#[test]
fn qdel() {
    let Some(hosts) = Hosts::of(2).pbs().start() else {
        return;
    };
    let job = Job::qsub(&hosts);
    let (state, _, told) = ended_by(&job, |job| {
        job.hosts.run("head", &["qdel", &job.id]);
    });
    assert_eq!(state, "CANCELLED");
    check_told_of_term(&told);
    assert!(job.reason().contains("SIGTERM"), "{}", job.reason());
}

/// The script alone gets the warning before the time limit (`--signal=B:TERM@60`): all ends in good order.
#[test]
fn a_signal_to_the_script() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &[], &[]);
    let (state, code, _) = ended_by(&job, |job| {
        job.hosts.run("head", &["scancel", "-b", "-s", "TERM", &job.id]);
    });
    assert_eq!((state.as_str(), code.as_str()), ("COMPLETED", "0:0"));
    assert_eq!(job.reason(), "ipengine-mpi serve received SIGTERM");
    assert_eq!(hosts.killed_by_slurm(), "", "these did not end by themselves");
}

#[test]
fn the_time_limit() {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &[], &[]);
    let (state, _, told) = ended_by(&job, |job| {
        job.hosts.run(
            "head",
            &["scontrol", "update", &format!("JobId={}", job.id), "EndTime=now"],
        );
    });
    assert_eq!(state, "TIMEOUT");
    check_told_of_term(&told);
    assert!(job.reason().contains("SIGTERM"), "{}", job.reason());
}

/// A node is lost: the client hears of it, the job ends, also on the other node, and Slurm does not start it again.
fn lost_node(lose: impl FnOnce(&Hosts)) {
    let Some(hosts) = Hosts::of(2).slurm().start() else {
        return;
    };
    let job = Job::sbatch(&hosts, &[], &[]);
    let mut client = job.busy();
    let began = Instant::now();
    lose(&hosts);
    let told = until_within(TIME_LIMIT, || client.poll()).expect("the client hears of the end");
    println!("{}: the client heard after {:?}", job.cluster(), began.elapsed());
    let said = client.stderr();
    assert!(!told.success() && said.contains("on h2"), "{said}");
    until_within(TIME_LIMIT, || (!job.lives()).then_some(())).expect("the job ends");
    println!("{}: the job was over after {:?}", job.cluster(), began.elapsed());
    job.hosts.wait_idle();
    let state = job.field("JobState");
    assert!(["FAILED", "NODE_FAIL"].contains(&state.as_str()), "{state}");
}

#[test]
fn a_killed_host() {
    lost_node(|hosts| hosts.kill("h2"));
}

#[test]
fn a_cut_cable() {
    lost_node(|hosts| hosts.cut("h2"));
}
