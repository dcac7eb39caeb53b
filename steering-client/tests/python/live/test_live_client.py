"""Connecting, engines by index, status of busy engines, several clients, fork and exit."""

import json
import os
import stat

import ipsteer
import pytest


def test_engines(rc):
    assert rc.ids == [0, 1, 2, 3]
    assert len(rc) == 4
    assert [view.targets for view in rc] == [0, 1, 2, 3]
    pids = rc[:].apply_sync(os.getpid)
    assert len(set(pids)) == 4
    assert os.getpid() not in pids


@pytest.mark.parametrize(
    ("index", "ranks"),
    [(0, 0), (-1, 3), (slice(None, None, 2), [0, 2]), ([3, 0], [3, 0]), (slice(None), [0, 1, 2, 3])],
)
def test_indexing(rc, index, ranks):
    view = rc[index]
    view.execute("import ipengine; r = ipengine.rank", block=True)
    assert view["r"] == ranks


def test_unknown_engines_send_nothing(rc):
    before = rc.history
    with pytest.raises(IndexError):
        rc[4]
    with pytest.raises(IndexError):
        rc[:].execute("a = 1", targets=[0, 7])
    with pytest.raises(ValueError, match="empty"):
        rc[4:].execute("a = 1")
    assert rc.history == before


def test_direct_view_of_all(rc):
    view = rc.direct_view()
    assert view.targets == "all"
    assert view.apply_sync(int, "7") == [7] * 4


@pytest.mark.parametrize("how", ["file", "cluster", "newest"])
def test_ways_to_connect(cluster, how):
    client = {
        "file": lambda: ipsteer.Client(cluster.connection_file),
        "cluster": lambda: ipsteer.Client(cluster=cluster.cluster_id),
        "newest": ipsteer.Client,
    }[how]()
    with client:
        assert client.ids == [0, 1, 2, 3]


def test_no_such_cluster_is_named(cluster, tmp_path):
    with pytest.raises(ipsteer.ConnectError, match="nowhere"):
        ipsteer.Client(cluster="nowhere", timeout=2)
    with pytest.raises(ipsteer.ConnectError):
        ipsteer.Client(tmp_path / "absent.json", timeout=2)


def test_a_wrong_token_is_refused(cluster, tmp_path):
    text = cluster.connection_file.read_text()
    record = json.loads(text)
    token = record["token"]
    forged = tmp_path / "forged.json"
    forged.write_text(text.replace(token, token[::-1]))
    forged.chmod(0o600)
    with pytest.raises(OSError) as refused:
        ipsteer.Client(forged, timeout=5)
    assert token not in str(refused.value)
    assert token[::-1] not in str(refused.value)


def test_connection_file_is_private(cluster):
    assert stat.S_IMODE(cluster.connection_file.stat().st_mode) == 0o600


def test_status_while_an_engine_is_busy(rc, gate):
    ar = rc[1].execute(gate.code, block=False)
    gate.wait_for_arrivals()
    queued = rc[1].apply_async(int, "5")
    status = rc.queue_status(verbose=True)
    assert status[1]["state"] == "busy"
    assert status[1]["tasks"] == 1
    assert status[0]["tasks"] == 0
    assert not queued.ready()
    gate.open()
    ar.get()
    assert queued.get() == 5


def test_two_clients_share_namespaces_and_see_only_their_own_results(cluster, rc):
    rc[0]["shared"] = 11
    ar = rc[0].apply_async(int, "3")
    with cluster.connect_client() as other:
        assert other[0]["shared"] == 11
        with pytest.raises(KeyError):
            other.get_result(ar.msg_ids[0])
    assert ar.get() == 3


def test_results_by_id_after_the_object_is_gone(rc):
    msg_ids = rc[:2].apply_async(pow, 2, 5).msg_ids
    assert rc.wait(msg_ids) is True
    assert rc.get_result(msg_ids).get() == [32, 32]
    assert rc.get_result(-1).get() == [32, 32] or rc.get_result(-1).get() == 32
    assert rc.results[msg_ids[1]] == 32
    assert rc.metadata[msg_ids[0]]["engine_id"] == 0
    assert rc.outstanding == set()


def test_closing_leaves_the_engines(cluster):
    client = cluster.connect_client()
    client[0]["kept"] = 1
    client.close()
    with pytest.raises(ipsteer.SessionClosed):
        client[0].apply_sync(int)
    with cluster.connect_client() as again:
        assert again[0]["kept"] == 1


def test_a_client_that_leaves_does_not_end_its_instruction(cluster, rc, gate):
    client = cluster.connect_client()
    client[2].execute(gate.code + "finished = True", block=False)
    gate.wait_for_arrivals()
    client.close()
    gate.open()
    assert rc[2]["finished"] is True


def test_fork(rc):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            rc[0].apply_sync(int)
            told = "worked"
        except ipsteer.SessionClosed as error:
            told = str(error)
        except BaseException as error:
            told = repr(error)
        os.write(write, told.encode())
        os._exit(0)
    _, code = os.waitpid(pid, 0)
    assert code == 0
    assert "forked" in os.read(read, 1000).decode()
    assert rc[0].apply_sync(int, "8") == 8


@pytest.mark.parametrize(
    "ending",
    ["pass", "rc.close()", "del rc", "ar.add_done_callback(print)", "raise SystemExit(0)"],
)
def test_the_interpreter_ends_cleanly_with_work_under_way(cluster, program, gate, rc, ending):
    text = (
        "import sys, ipsteer\n"
        "rc = ipsteer.Client(sys.argv[1])\n"
        "ar = rc[0].execute(sys.argv[2], block=False)\n"
        "sys.stdin.close()\n" + ending
    )
    started = program(text, str(cluster.connection_file), gate.code)
    gate.wait_for_arrivals()
    code, _, err = started.finish()
    assert (code, err) == (0, "")
    gate.open()
    assert rc[0].apply_sync(int) == 0
