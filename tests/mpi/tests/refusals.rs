//! Starts that are refused: each ends at once, in words that name the cause, and leaves nothing behind.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipengine_tests::launch::venv_python;
use ipengine_tests::{Launch, Mpi, MpiJob, skipped};

/// Runs to the end; what it said.
fn refused(launch: Launch) -> (MpiJob, String) {
    let mut job = launch.spawn();
    let status = job.wait_exit();
    assert!(!status.success(), "it returns {status}: {}", job.text());
    job.wait_gone();
    let text = job.text();
    (job, text)
}

fn assert_says(text: &str, wanted: &[&str]) {
    for words in wanted {
        assert!(text.contains(words), "{words:?} is missing in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn no_connection_file(job: &MpiJob) {
    assert!(
        !job.access_file().exists(),
        "a connection file of a cluster that never was"
    );
}

/// A process that another MPI's launcher seems to have started.
fn as_rank_of_another_mpi(rank: &str) -> Launch {
    let [rank_variable, size_variable] = Mpi::other().variables;
    Launch::plain(4)
        .without_mpiexec()
        .env(rank_variable, Some(rank))
        .env(size_variable, Some("4"))
}

fn assert_names_both_mpis(text: &str, processes: &str) {
    let (ours, theirs) = (Mpi::under_test().version, Mpi::other().launcher);
    assert_says(text, &[theirs, processes, ours, "world of 1", "--check"]);
}

#[test]
fn another_mpis_launcher() {
    let (job, text) = refused(as_rank_of_another_mpi("0"));
    assert_names_both_mpis(&text, "4 processes");
    no_connection_file(&job);
}

#[test]
fn another_mpis_launcher_seen_by_a_later_rank() {
    let (job, _) = refused(as_rank_of_another_mpi("2"));
    no_connection_file(&job);
}

/// The real one; `None` where this machine has only one MPI.
fn under_another_mpis_mpiexec(launch: Launch) -> Option<Launch> {
    let other = Mpi::other();
    let Some(mpiexec) = other.installed_launcher() else {
        skipped(&format!("there is no mpiexec.{} on PATH", other.name));
        return None;
    };
    Some(launch.launcher(other.launcher_words(mpiexec.display().to_string())))
}

#[test]
fn another_mpis_mpiexec() {
    if let Some(launch) = under_another_mpis_mpiexec(Launch::plain(2)) {
        let (job, text) = refused(launch);
        assert_names_both_mpis(&text, "2 processes");
        no_connection_file(&job);
    }
}

#[test]
fn another_mpis_mpiexec_under_serve() {
    if let Some(launch) = under_another_mpis_mpiexec(Launch::resident(2)) {
        let (job, text) = refused(launch);
        assert_names_both_mpis(&text, "2 processes");
        assert_names_both_mpis(&job.wait_post_mortem(), "2 processes");
        assert!(job.record().token.is_none());
    }
}

#[test]
fn no_python() {
    let (job, text) = refused(Launch::plain(2).python(Some(Path::new("/nowhere/python3"))));
    assert_says(&text, &["no usable Python", "/nowhere/python3", "--python"]);
    no_connection_file(&job);
}

#[test]
fn a_python_that_is_none() {
    let (job, text) = refused(Launch::plain(2).python(Some(Path::new("/bin/echo"))));
    assert_says(&text, &["no usable Python", "/bin/echo"]);
    no_connection_file(&job);
}

/// A real interpreter of another minor version, if this machine has one.
fn other_python() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let own = fs::canonicalize(venv_python()).ok()?;
    let versions = fs::read_dir(home.join(".pyenv/versions")).ok()?;
    let minor = |name: &str| name.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    versions.flatten().map(|entry| entry.path()).find_map(|dir| {
        let name = dir.file_name()?.to_str()?.to_owned();
        let python = dir.join("bin/python3");
        let differs = !own.to_string_lossy().contains(&format!("/{}.", minor(&name)));
        (name.starts_with("3.1") && differs && python.exists()).then_some(python)
    })
}

#[test]
fn a_python_of_another_minor_version() {
    let job = Launch::plain(1).start();
    let ours = job.record().python;
    drop(job);
    let fake = tempfile::tempdir().expect("a directory");
    let python = other_python().unwrap_or_else(|| {
        let path = fake.path().join("python3");
        fs::write(&path, "#!/bin/sh\necho 3.99.1\necho \"$0\"\n").expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        path
    });
    let (job, text) = refused(Launch::plain(2).python(Some(&python)));
    assert_says(
        &text,
        &[
            "built for Python",
            &ours,
            &python.parent().expect("a directory").display().to_string(),
        ],
    );
    no_connection_file(&job);
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    for launch in [Launch::plain(2), Launch::resident(2)] {
        let (job, text) = refused(launch.option("--listen", &address));
        assert_says(&text, &[&address, "in use"]);
        no_connection_file(&job);
    }
}

#[test]
fn an_address_that_is_none() {
    let (_job, text) = refused(Launch::plain(1).option("--listen", "everywhere"));
    assert_says(&text, &["--listen everywhere", "0.0.0.0:7000"]);
}

#[test]
fn an_interface_that_does_not_exist() {
    let (_job, text) = refused(Launch::plain(1).option("--interface", "nope0"));
    assert_says(&text, &["--interface nope0", "lo"]);
}

#[test]
fn a_directory_that_cannot_be_written() {
    // Below a file: not even root can.
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    for launch in [Launch::plain(2), Launch::resident(2)] {
        let (_job, text) = refused(launch.ipsteer_dir(&file.join("below")));
        assert_says(&text, &["file/below", "IPSTEER_DIR"]);
    }
}

#[test]
fn a_cluster_name_that_leaves_the_directory() {
    let (_job, text) = refused(Launch::plain(1).option("--cluster", "../up"));
    assert!(
        text.contains("../up") || text.contains("cannot be used multiple times"),
        "{text}"
    );
}

#[test]
fn a_rank_that_is_no_engine() {
    let stranger = "from mpi4py import MPI\nimport time\ntime.sleep(60)";
    let python = venv_python().display().to_string();
    let launch = Launch::plain(1)
        .option("--start-timeout", "3")
        .and_ranks_of(&[&python, "-c", stranger]);
    let (job, text) = refused(launch);
    assert_says(&text, &["rank 1", "no engine"]);
    no_connection_file(&job);
}

#[test]
fn a_rank_that_never_initialises_mpi() {
    let launch = Launch::plain(1)
        .option("--start-timeout", "3")
        .and_ranks_of(&["sleep", "60"]);
    let (job, text) = refused(launch);
    assert_says(&text, &["MPI_Init", "3 s", "ipengine-mpi"]);
    no_connection_file(&job);
}

#[test]
fn a_name_that_is_in_use() {
    let first = Launch::plain(1).start();
    let before = first.record();
    for launch in [Launch::plain(1), Launch::resident(1)] {
        let (_job, text) = refused(launch.beside(&first));
        assert_says(&text, &["test is already running", "--cluster"]);
    }
    // The first one is untouched.
    assert!(first.record() == before);
    first.connect().must(&[0], "1 + 1");
}

#[test]
fn a_launcher_that_does_not_exist() {
    let (job, text) = refused(Launch::resident(1).launcher(vec!["/nowhere/mpiexec".to_owned()]));
    assert_says(&text, &["cannot run /nowhere/mpiexec"]);
    let reason = job.wait_post_mortem();
    assert!(reason.contains("cannot run /nowhere/mpiexec"), "{reason}");
    assert!(job.record().token.is_none());
}

/// One rank alone cannot go on: it must take the others along instead of waiting for them in `MPI_Finalize`.
#[test]
fn a_rank_that_cannot_open_its_files() {
    let home = tempfile::Builder::new()
        .prefix("ipt")
        .tempdir_in("/tmp")
        .expect("a directory");
    let submit = home.path().join("submit");
    let launch = Launch::plain(2)
        .ipsteer_dir(home.path())
        .env("SLURM_SUBMIT_DIR", Some(&submit.display().to_string()));
    let own = launch.dir().join(format!("ipsteer-{}", nix::unistd::geteuid()));
    // Everywhere that it may write to.
    let places = [
        home.path().join("runs/test/logs"),
        submit.join(".ipsteer/runs/test/logs"),
        own.join("test/logs"),
    ];
    for place in &places {
        fs::create_dir_all(place.join("rank-0001.out")).expect("a directory in the way");
    }
    let (job, text) = refused(launch);
    assert_says(&text, &["rank 1 cannot go on"]);
    for place in &places {
        assert_says(&text, &[&place.display().to_string()]);
    }
    no_connection_file(&job);
}
