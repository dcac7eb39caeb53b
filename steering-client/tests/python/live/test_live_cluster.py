"""Starting and stopping real clusters."""

import json
import os

import ipsteer
import pytest
from processes import gone


def pids(client):
    return client[:].apply_sync(os.getpid)


@pytest.mark.parametrize("n", [1, 2])
def test_context_manager_yields_a_client_and_leaves_nothing(n):
    with ipsteer.Cluster(n=n) as rc:
        assert rc.ids == list(range(n))
        engines = pids(rc)
        job = rc.cluster
        gateway = job._process.pid
    assert not job.running()
    assert all(gone(pid) for pid in [*engines, gateway])


def test_start_and_stop_by_hand_and_again():
    job = ipsteer.Cluster(2, cluster_id=f"twice-{os.getpid()}")
    for _ in range(2):
        job.start()
        with job.connect_client() as client:
            assert len(client) == 2
        job.stop()
        assert not job.running()
    job.stop()


def test_names_that_ipyparallel_has():
    job = ipsteer.Cluster(1)
    client = job.start_and_connect_sync()
    assert client[0].apply_sync(int) == 0
    client.close()
    job.stop_cluster_sync()


def test_client_shutdown_ends_the_cluster():
    job = ipsteer.Cluster(2)
    client = job.start_and_connect()
    engines = pids(client)
    client.shutdown()
    job._process.wait(60)
    client.close()
    job.stop()
    assert all(gone(pid) for pid in engines)


def test_engines_use_this_python_and_the_environment_given():
    with ipsteer.Cluster(1, env={"MARKER": "seen"}) as rc:
        rc[0].execute(
            "import os, sys; marker, version = os.environ.get('MARKER'), sys.version_info[:3]", block=True
        )
        assert rc[0].get(["marker", "version"]) == ["seen", tuple(__import__("sys").version_info[:3])]


def test_a_launcher_that_fails_is_quoted():
    job = ipsteer.Cluster(1, mpi_args=["--no-such-option-anywhere", "1"])
    with pytest.raises(ipsteer.EngineError, match="no-such-option-anywhere"):
        job.start()
    assert not job.running()


def test_another_python_is_refused_with_its_name(tmp_path):
    with pytest.raises(ipsteer.EngineError, match="python"):
        ipsteer.Cluster(1, python=tmp_path / "absent" / "python").start()


def test_what_is_left_running_ends_with_the_interpreter(program):
    text = (
        "import os, ipsteer\n"
        "rc = ipsteer.Cluster(2).start_and_connect()\n"
        "print(rc.cluster._process.pid, *rc[:].apply_sync(os.getpid))\n"
    )
    code, out, err = program(text).finish(90)
    assert (code, err) == (0, "")
    assert all(gone(int(pid)) for pid in out.split())


def test_an_ended_cluster_is_not_taken_for_a_running_one(home):
    with ipsteer.Cluster(1, cluster_id=f"ended-{os.getpid()}") as rc:
        file = rc.cluster.connection_file
    assert json.loads(file.read_text())
    with pytest.raises(ipsteer.ConnectError):
        ipsteer.Client(file, timeout=2)


def test_an_interactive_session_without_goodbye(program):
    """A client that is killed leaves engines that another one can still use."""
    with ipsteer.Cluster(1) as rc:
        text = "import os, sys, ipsteer\nrc = ipsteer.Client(sys.argv[1])\n"
        text += "rc[0]['x'] = 1\nos.kill(os.getpid(), 9)"
        code, _, _ = program(text, str(rc.cluster.connection_file)).finish()
        assert code == -9
        assert rc[0]["x"] == 1
