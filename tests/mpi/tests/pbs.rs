//! What the virtual hosts' PBS is to a job, and the job script where PBS itself starts processes on other nodes.

use std::fs;
use std::path::PathBuf;

use ipengine_protocol::AccessRecord;
use ipengine_tests::launch::{engine_program, root, venv_python};
use ipengine_tests::{Hosts, until};

/// A job that shows what it was given.
const SHOW: &str = r#"#PBS -N show
#PBS -l select=2:ncpus=2:mpiprocs=2
#PBS -l place=scatter
#PBS -j oe -o shown
echo "nodes $(tr '\n' ' ' <"$PBS_NODEFILE")"
echo "threads $OMP_NUM_THREADS of $NCPUS"
echo "starts in $PWD, submitted in $PBS_O_WORKDIR"
echo "job $PBS_JOBID of $PBS_ENVIRONMENT"
echo "slurm $(compgen -e | grep -c ^SLURM)"
echo "given ${GIVEN-nothing}, not given ${NOT_GIVEN-nothing}"
"#;

fn hosts_path() -> PathBuf {
    root().join("tests/mpi/hosts/pbs")
}

/// What Slurm says of a job.
fn told(hosts: &Hosts, id: &str) -> String {
    let number = id.trim_end_matches(".head");
    hosts.run("head", &["scontrol", "-o", "show", "job", number])
}

fn wait_completed(hosts: &Hosts, id: &str) {
    let over = until("the end of the job", || {
        let told = told(hosts, id);
        let going = ["PENDING", "RUNNING", "COMPLETING"]
            .iter()
            .any(|state| told.contains(&format!("JobState={state} ")));
        (!going).then_some(told)
    });
    assert!(
        over.contains("JobState=COMPLETED ") && over.contains("ExitCode=0:0"),
        "{over}\n{}",
        hosts.report()
    );
    hosts.wait_idle();
    assert_eq!(hosts.killed_by_slurm(), "", "these did not end by themselves");
}

#[test]
fn a_job_has_the_environment_of_pbs() {
    let Some(hosts) = Hosts::of(2).pbs().start() else {
        return;
    };
    let work = hosts.home("head").join("work");
    fs::create_dir(&work).expect("a directory");
    fs::write(work.join("show.pbs"), SHOW).expect("a script");
    let from = work.display().to_string();
    let words = ["env", "-C", &from, "GIVEN=this", "NOT_GIVEN=that"];
    let submit = ["qsub", "-l", "walltime=00:07:00", "-v", "GIVEN", "show.pbs"];
    let id = hosts
        .run("head", &[&words[..], &submit].concat())
        .trim()
        .to_owned();
    wait_completed(&hosts, &id);
    assert!(
        told(&hosts, &id).contains("TimeLimit=00:07:00"),
        "{}",
        told(&hosts, &id)
    );
    let shown = fs::read_to_string(work.join("shown")).expect("its output");
    let wanted = [
        "nodes h1 h1 h2 h2 ".to_owned(),
        "threads 2 of 2".to_owned(),
        format!("starts in {}, submitted in {from}", hosts.home("head").display()),
        format!("job {id} of PBS_BATCH"),
        "slurm 0".to_owned(),
        "given this, not given nothing".to_owned(),
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn pbs_tmrsh_is_as_strict_as_that_of_pbs() {
    let Some(hosts) = Hosts::of(2).pbs().start() else {
        return;
    };
    let nodes = hosts.dir().join("nodes");
    fs::write(&nodes, "h1\nh2\n").expect("a file");
    let file = format!("PBS_NODEFILE={}", nodes.display());
    let run = |words: &[&str]| {
        let all = [&["env", &file, "PBS_JOBID=1.head", "pbs_tmrsh"], words].concat();
        let mut running = hosts.spawn("h1", &all);
        let code = running.wait().code();
        (code, running.stdout(), running.stderr())
    };
    let (code, said, _) = run(&["h2", "printf", "%s|", "a  b", "$HOME", "c'd"]);
    assert_eq!((code, said.as_str()), (Some(0), "a  b|$HOME|c'd|"));
    let (code, _, why) = run(&["h2", "hostname -s"]);
    assert_eq!(code, Some(127), "{why}");
    for stranger in ["head", "h2.cluster", "10.77.0.2", "h"] {
        let (code, _, why) = run(&[stranger, "true"]);
        assert_eq!(code, Some(254), "{why}");
        assert!(why.contains("is not a node in job 1.head"), "{why}");
    }
}

/// What `qsub -v` hands on: `pbs_tmrsh` is on the job's `PATH`, as on sites of PBS.
fn variables(hosts: &Hosts) -> String {
    let path = hosts.run("head", &["sh", "-c", "echo $LOGIN_PATH"]);
    format!(
        "PATH={}:{},IPENGINE_MPI={},VIRTUAL_ENV={},OMPI_ALLOW_RUN_AS_ROOT=1,OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
        hosts_path().display(),
        path.trim(),
        engine_program().display(),
        venv_python().ancestors().nth(2).expect("…/bin/python").display()
    )
}

#[test]
fn engines_started_by_pbs_itself() {
    let Some(hosts) = Hosts::of(2).pbs().start() else {
        return;
    };
    let script = root().join("scripts/pbs/ipengine.pbs").display().to_string();
    let id = hosts.run("head", &["qsub", "-v", &variables(&hosts), &script]);
    let id = id.trim();
    let file = hosts.home("head").join(format!(".ipsteer/pbs-{id}.json"));
    until("the engines of the job", || {
        let record: AccessRecord = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        record.token
    });
    let cluster = format!("pbs-{id}");
    let ipsteer = |words: &[&str]| hosts.run("head", &[&["ipsteer", "--cluster", &cluster], words].concat());
    let said = ipsteer(&[
        "exec",
        "import ipengine, socket; print('on', socket.gethostname(), ipengine.comm.allreduce(1))",
    ]);
    for place in ["on h1 4", "on h2 4"] {
        assert_eq!(said.matches(place).count(), 2, "{said}");
    }
    let calls = hosts.dir().join(format!("slurm/jobs/{id}.tmrsh"));
    let calls = fs::read_to_string(calls).expect("pbs_tmrsh was called");
    assert_eq!(calls, "h2\n");
    ipsteer(&["stop"]);
    wait_completed(&hosts, id);
    let home = hosts.run("head", &["ls", "-A"]);
    assert!(!home.contains("agent"), "{home}");
}
