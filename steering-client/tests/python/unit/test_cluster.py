"""Starting and stopping a local cluster, with small scripts in place of launcher and engine."""

import os
import shutil
import signal
import stat
import sys

import ipsteer
import pytest
from ipsteer import cluster, launch

OPEN_MPI_4 = "mpiexec (OpenRTE) 4.1.4\n\nReport bugs to ..."
OPEN_MPI_5 = "mpiexec (Open MPI) 5.0.3"
PRRTE = "prterun (PRRTE) 3.0.5"
MPICH = "HYDRA build details:\n    Version: 4.1"


@pytest.mark.parametrize(
    ("text", "arguments", "variable"),
    [
        (OPEN_MPI_4, ["--oversubscribe"], True),
        (OPEN_MPI_5, ["--map-by", ":OVERSUBSCRIBE"], True),
        (PRRTE, ["--map-by", ":OVERSUBSCRIBE"], True),
        (MPICH, [], False),
        ("", [], False),
    ],
)
def test_settings_of_each_mpi(text, arguments, variable):
    got, env = launch.settings_for(text, root=True)
    assert got == arguments
    assert ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM" in env) is variable
    assert launch.settings_for(text, root=False)[1] == {}


def script(path, text):
    path.write_text(f"#!{sys.executable}\nimport json, os, signal, sys, time\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory of connection files, and a launcher that says it is MPICH."""
    monkeypatch.setenv("IPSTEER_DIR", str(tmp_path))
    monkeypatch.setenv("MPIEXEC", str(script(tmp_path / "mpiexec", "print('HYDRA build details:')")))
    monkeypatch.delenv("IPENGINE_MPI", raising=False)
    return tmp_path


SERVE = """
name = sys.argv[sys.argv.index("--cluster") + 1]
print("arguments", json.dumps(sys.argv[1:]), flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
file = os.path.join(os.environ["IPSTEER_DIR"], name + ".json")
open(file + ".new", "w").write("{}")
os.replace(file + ".new", file)
signal.pause()
"""


def test_start_runs_serve_with_the_launcher_and_stop_ends_it(home):
    engine = script(home / "ipengine-mpi", SERVE)
    job = ipsteer.Cluster(3, engine=engine, cluster_id="mine", mpi_args=["-x"], engine_args=["-y"], linger=7)
    assert job.start() is job
    assert job.running()
    assert job.connection_file == home / "mine.json"
    with pytest.raises(RuntimeError, match="running already"):
        job.start()
    pid = job._process.pid
    job.stop(timeout=0.1)
    assert not job.running()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    expected = [
        "serve",
        "--cluster",
        "mine",
        "--linger",
        "7",
        "--",
        str(home / "mpiexec"),
        "-x",
        "-n",
        "3",
        str(engine),
    ]
    expected += ["--python", sys.executable, "-y"]
    assert ("arguments " + str(expected).replace("'", '"')) in job.log_file.read_text()
    job.stop()


def test_directories_that_a_start_makes_are_private(home, monkeypatch):
    engine = script(home / "ipengine-mpi", "sys.exit(1)")
    monkeypatch.setenv("IPSTEER_DIR", str(home / "new" / "deep"))
    home.chmod(0o755)
    umask = os.umask(0)
    try:
        with pytest.raises(ipsteer.EngineError, match="exit code 1"):
            ipsteer.Cluster(1, engine=engine, cluster_id="mine").start()
    finally:
        os.umask(umask)
    for made in ("new", "new/deep", "new/deep/runs", "new/deep/runs/mine"):
        assert stat.S_IMODE((home / made).stat().st_mode) == 0o700
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


def test_an_old_connection_file_is_not_taken_for_the_new_one(home):
    (home / "mine.json").write_text("{}")
    engine = script(home / "ipengine-mpi", "print('no slots'); sys.exit(5)")
    with pytest.raises(ipsteer.EngineError, match=r"(?s)exit code 5.*no slots"):
        ipsteer.Cluster(1, engine=engine, cluster_id="mine").start()


def test_a_post_mortem_is_not_a_running_cluster(home):
    post_mortem = """write('{"ended": {"at": 1, "reason": "the world did not start"}}')"""
    text = SERVE.replace('write("{}")', post_mortem)
    job = ipsteer.Cluster(1, engine=script(home / "ipengine-mpi", text))
    with pytest.raises(ipsteer.EngineError, match=r"(?s)the world did not start.*arguments"):
        job.start()
    assert not job.running()


def test_a_start_that_takes_too_long_is_ended(home):
    engine = script(home / "ipengine-mpi", "print('still thinking', flush=True); signal.pause()")
    job = ipsteer.Cluster(1, engine=engine, engine_timeout=0.5)
    with pytest.raises(
        ipsteer.EngineError, match=r"(?s)1 engines did not answer within 0\.5 s.*still thinking"
    ):
        job.start()
    assert job._process is None


def test_one_that_ignores_sigterm_is_killed(home, monkeypatch):
    engine = script(home / "ipengine-mpi", SERVE.replace("lambda *_: os._exit(0)", "signal.SIG_IGN"))
    job = ipsteer.Cluster(1, engine=engine).start()
    process = job._process
    wait = process.wait
    monkeypatch.setattr(process, "wait", lambda timeout: wait(min(timeout, 0.2)))
    job.stop(timeout=0.1)
    assert process.returncode == -signal.SIGKILL


def test_what_is_still_running_is_stopped_at_exit(home):
    engine = script(home / "ipengine-mpi", SERVE)
    kept = ipsteer.Cluster(1, engine=engine, shutdown_atexit=False).start()
    stopped = ipsteer.Cluster(1, engine=engine).start()
    cluster._stop_all()
    assert not stopped.running()
    assert kept.running()
    kept.stop(timeout=0.1)


def test_a_forked_child_does_not_stop_it(home):
    job = ipsteer.Cluster(1, engine=script(home / "ipengine-mpi", SERVE)).start()
    pid = os.fork()
    if pid == 0:
        job.stop()
        os._exit(0)
    os.waitpid(pid, 0)
    assert job.running()
    job.stop(timeout=0.1)


def test_where_the_engine_is_looked_for(home, monkeypatch):
    engine = script(home / "ipengine-mpi", "pass")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(launch.sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError, match="IPENGINE_MPI"):
        launch.find_engine(None)
    monkeypatch.setenv("PATH", str(home))
    assert launch.find_engine(None) == str(engine)
    monkeypatch.setenv("IPENGINE_MPI", "/absent/ipengine-mpi")
    with pytest.raises(FileNotFoundError, match="/absent"):
        launch.find_engine(None)
    assert launch.find_engine(engine) == str(engine)
    with pytest.raises(FileNotFoundError, match="no-such-mpiexec"):
        launch.find_mpiexec("no-such-mpiexec")


@pytest.mark.parametrize("told", [True, False])
def test_the_launcher_is_that_of_the_engines_mpi(home, monkeypatch, told):
    """Unless something else is asked for; an engine that does not know leaves it to PATH."""
    theirs = script(home / "mpiexec.theirs", "")
    row = str(theirs) if told else "not known"
    engine = str(script(home / "ipengine-mpi", f"print('MPI  x\\nmpiexec        {row}'); sys.exit(1)"))
    monkeypatch.setenv("PATH", str(home), prepend=os.pathsep)
    assert launch.find_mpiexec("true", engine) == shutil.which("true")
    assert launch.find_mpiexec(None, engine) == str(home / "mpiexec")
    monkeypatch.delenv("MPIEXEC")
    assert launch.find_mpiexec(None, engine) == str(theirs if told else home / "mpiexec")


@pytest.mark.parametrize("n", [0, -1])
def test_at_least_one_engine(n):
    with pytest.raises(ValueError, match="at least 1"):
        ipsteer.Cluster(n)
