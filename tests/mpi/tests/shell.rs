//! The shell command against real engines: what a user types, from `start` to `stop`.

use std::fs;
use std::process::{Command, Output, Stdio};

use ipengine_tests::launch::{engine_program, root, venv_python};
use ipengine_tests::until;
use serde_json::Value;
use tempfile::TempDir;

/// A directory of connection files; whatever is alive in it is stopped at the end.
struct Shell {
    home: TempDir,
}

impl Shell {
    fn new() -> Self {
        Self {
            home: tempfile::Builder::new()
                .prefix("ips")
                .tempdir_in("/tmp")
                .expect("a directory"),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(root().join("target/release/ipsteer"));
        let environment = venv_python()
            .parent()
            .and_then(|bin| bin.parent())
            .expect("an environment")
            .to_owned();
        command
            .args(arguments)
            .env("IPSTEER_DIR", self.home.path())
            .env("IPENGINE_MPI", engine_program())
            .env("VIRTUAL_ENV", environment)
            // It finds the launcher of the engine's MPI by itself, whichever is first on PATH.
            .env_remove("MPIEXEC")
            .env_remove("OMPI_ALLOW_RUN_AS_ROOT")
            .env_remove("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("ipsteer runs")
    }

    /// Runs to success; what it printed.
    fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.must(&[&["--json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Nothing may be alive any more; a failed test leaves it to this.
        let _ = self.run(&["--timeout", "20", "stop"]);
    }
}

#[test]
fn a_day_at_the_shell() {
    let shell = Shell::new();
    shell.must(&["start", "-n", "2", "--cluster", "day"]);
    let list = shell.json(&["list"]);
    assert!(list.to_string().contains("day"), "{list}");
    let said = shell.must(&[
        "exec",
        "import ipengine; print('hello', ipengine.rank); ipengine.rank + 40",
    ]);
    for line in [
        "[stdout:0] hello 0",
        "[stdout:1] hello 1",
        "[Out:0] 40",
        "[Out:1] 41",
    ] {
        assert!(said.contains(line), "{line} is missing in {said}");
    }
    shell.must(&["push", "x=(1, 2)", "y:={\"a\": [1]}"]);
    assert_eq!(
        shell.must(&["pull", "-t", "1", "x", "y"]),
        "x = (1, 2)\ny = {'a': [1]}\n"
    );
    assert_eq!(
        shell.json(&["pull", "y"]),
        serde_json::json!({"0": {"a": [1]}, "1": {"a": [1]}})
    );
    let file = shell.home.path().join("program.py");
    fs::write(&file, "z = ipengine.comm.allreduce(1)\nprint('sum', z)\n").expect("a file");
    assert!(
        shell
            .must(&["run", file.to_str().expect("plain"), "-t", "1,0"])
            .contains("[stdout:0] sum 2")
    );
    let failed = shell.run(&["exec", "-t", "1", "1 / 0"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("ZeroDivisionError"));
    let logs = shell.must(&["logs", "-t", "0"]);
    assert!(logs.contains("hello 0") && logs.contains("sum 2"), "{logs}");
    let ended = shell.must(&["stop"]);
    assert!(ended.contains("day has ended"), "{ended}");
    let after = shell.run(&["status"]);
    assert_eq!(
        after.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&after.stderr)
    );
}

#[test]
fn a_busy_cluster_answers_and_is_interrupted() {
    let shell = Shell::new();
    shell.must(&["start", "-n", "2", "--cluster", "busy"]);
    let mut busy = shell
        .command(&["exec", "import time\nwhile True: time.sleep(0.01)"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ipsteer runs");
    let all_busy = |status: &Value| {
        status["engines"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["state"] == "busy"))
    };
    until("both engines to be busy", || {
        Some(shell.json(&["status"])).filter(all_busy)
    });
    let report = shell.must(&["interrupt"]);
    assert_eq!(report.matches("interrupted").count(), 2, "{report}");
    assert_eq!(
        busy.wait().expect("it ends").code(),
        Some(1),
        "the engines raised"
    );
    shell.must(&["stop"]);
}
