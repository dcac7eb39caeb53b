"""Engines by index, views, history, what is held, and refusals before anything is sent."""

import os
import sys

import ipsteer
import numpy
import pytest
from ipsteer import _work, ledger
from ipsteer.client import _native


def test_ids_are_a_sorted_copy(rc):
    rc.ids.clear()
    assert rc.ids == [0, 1, 2, 3]
    assert len(rc) == 4
    assert [view.targets for view in rc] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("index", "targets"),
    [
        (0, 0),
        (-1, 3),
        (numpy.int64(2), 2),
        (slice(None, None, 2), [0, 2]),
        (slice(None), [0, 1, 2, 3]),
        ([3, 0], [3, 0]),
        ((1, -1), [1, 3]),
        (range(2), [0, 1]),
    ],
)
def test_indexing_names_engines_in_the_order_given(rc, index, targets):
    assert rc[index].targets == targets


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (4, IndexError),
        (-5, IndexError),
        ([0, 9], IndexError),
        ("all", TypeError),
        (1.5, TypeError),
        (None, TypeError),
        ([0, "1"], TypeError),
        ([True], TypeError),
        ([1, 1], ValueError),
    ],
)
def test_bad_indices(rc, index, error):
    with pytest.raises(error):
        rc[index]


def test_an_empty_set_is_refused_at_use(rc, session):
    view = rc[7:]
    with pytest.raises(ValueError, match="empty"):
        view.execute("a = 1")
    assert session.log == []


def test_no_engines(rc, session):
    session.engines = []
    with pytest.raises(ipsteer.NoEnginesRegistered):
        rc.direct_view()


def test_history_results_and_metadata_by_message_id(rc, view):
    ar = view.apply_async(pow, 2, 3)
    assert rc.history == ar.msg_ids == view.history
    assert len(set(ar.msg_ids)) == 4
    assert rc.results[ar.msg_ids[2]] == 8
    assert rc.metadata[ar.msg_ids[2]].engine_id == 2
    assert dict(rc.results) == dict.fromkeys(ar.msg_ids, 8)
    assert rc.outstanding == set()


def test_outstanding_shrinks_as_engines_answer(rc, view, session):
    session.hold = True
    ar = view.apply_async(pow, 2, 3)
    assert rc.outstanding == view.outstanding == set(ar.msg_ids)
    session.finish(1, 0)
    assert rc.outstanding == set(ar.msg_ids[1:])
    assert rc.wait(timeout=0) is False
    session.finish(1)
    assert rc.wait() is True


def test_get_result_by_index_id_and_list(rc, view):
    first = view.apply_async(pow, 2, 3)
    second = rc[1].apply_async(pow, 2, 4)
    assert rc.get_result().get() == 16
    assert rc.get_result(0).get() == 8
    assert rc.get_result(second.msg_ids[0], block=True) == 16
    assert rc.get_result(first.msg_ids).get() == [8, 8, 8, 8]
    assert rc.get_result([first.msg_ids[0], second.msg_ids[0]]).get() == [8, 16]
    assert view.get_result(-1).get() == 8


@pytest.mark.parametrize("unknown", ["nobody_1_0", "x", "0123456789abcdef" * 2 + "_99"])
def test_get_result_of_an_unknown_id(rc, unknown):
    with pytest.raises(KeyError):
        rc.get_result(unknown)
    with pytest.raises(TypeError):
        rc.get_result(1.5)


def test_old_results_are_let_go_but_not_those_in_use(rc, session, monkeypatch):
    monkeypatch.setattr(ledger, "LIMIT", 8)
    rc._ledger._sweep_at = 9
    kept = rc[0].apply_async(str, "kept")
    for i in range(30):
        rc[0].apply_async(str, i)
    assert len(rc._ledger.records()) <= 17
    assert kept.msg_ids[0] not in rc.results
    assert 1 in session.forgotten
    assert kept.get() == "kept"
    assert kept.metadata.engine_id == 0
    assert len(rc.history) == 31
    with pytest.raises(KeyError, match="no longer held"):
        rc.get_result(kept.msg_ids[0])


def test_pending_work_is_never_let_go(rc, session, monkeypatch):
    monkeypatch.setattr(ledger, "LIMIT", 4)
    rc._ledger._sweep_at = 5
    session.hold = True
    results = [rc[0].apply_async(str, i) for i in range(20)]
    assert session.forgotten == []
    for ar in results:
        session.finish(ar._records[0].counter)
    assert [ar.get() for ar in results] == [str(i) for i in range(20)]


def test_values_held_are_bounded_in_bytes(rc, session, monkeypatch):
    monkeypatch.setattr(ledger, "BYTES", 10_000)
    big = [rc[0].apply_sync(numpy.zeros, 500) for _ in range(10)]
    assert len(session.forgotten) >= 7
    assert sum(array.nbytes for array in big) == 40_000


def test_code_by_value_is_refused_before_sending_to_another_python(rc, session):
    other = [3, sys.version_info[1] + 1, 0]
    session.python = other
    assert rc.ids
    with pytest.raises(ipsteer.PythonVersionError) as refused:
        rc[:].apply_sync(lambda: 1)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for part in (here, f"3.{other[1]}", "execute"):
        assert part in str(refused.value)
    with pytest.raises(ipsteer.PythonVersionError):
        rc.load_balanced_view().apply(lambda: 1)
    with pytest.raises(ipsteer.PythonVersionError):
        rc[:].push({"f": lambda: 1})
    with pytest.raises(ipsteer.PythonVersionError):
        rc[:].map_sync(lambda x: x, range(4))
    assert session.log == []
    assert rc[0].apply_sync(pow, 2, 3) == 8
    rc[0]["text"] = "travels"
    assert rc[0]["text"] == "travels"


def test_a_result_with_code_of_another_python_is_not_loaded():
    with pytest.raises(ipsteer.PythonVersionError, match=r"3\.99"):
        _work.decode("pickle", '{"python": [3, 99], "by_value": true}', [memoryview(b"")])


def test_an_unknown_kind_of_value_is_named():
    with pytest.raises(ValueError, match="hologram"):
        _work.decode("hologram", "{}", [])


def test_queue_status(rc):
    assert rc.queue_status() == {e: {"queue": 0, "completed": 2, "tasks": 0} for e in range(4)} | {
        "unassigned": 0
    }
    assert rc[1].queue_status(verbose=True)[1]["state"] == "idle"
    assert set(rc[:2].queue_status()) == {0, 1, "unassigned"}


def test_clear_and_interrupt_and_shutdown(rc, session, view):
    view["a"] = 1
    rc.clear(block=True)
    assert session.namespaces == [{}] * 4
    assert [report["engine"] for report in rc[1:].interrupt()] == [1, 2, 3]
    with pytest.raises(ValueError, match="all engines or none"):
        rc[0].shutdown()
    with pytest.raises(NotImplementedError):
        rc.shutdown(restart=True)
    rc.shutdown()
    assert session.log[-1] == "shutdown"


def test_a_closed_client_says_so(rc):
    ar = rc[0].apply_async(pow, 2, 3)
    rc.close()
    with pytest.raises((ipsteer.SessionClosed, OSError)):
        rc[0].apply_sync(pow, 2, 3)
    assert "pending" in repr(ar) or "finished" in repr(ar)


def test_context_manager_closes(rc, session):
    with rc as same:
        assert same is rc
    assert session.closed


def test_after_a_fork_any_use_raises_and_the_parent_goes_on(rc):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            rc[0].apply_sync(pow, 2, 3)
            told = b"worked"
        except _native.SessionClosed as error:
            told = str(error).encode()
        finally:
            os.write(write, told)
            os._exit(0)
    os.waitpid(pid, 0)
    assert b"forked" in os.read(read, 1000)
    assert rc[0].apply_sync(pow, 2, 3) == 8


def test_activate_outside_ipython_warns(view):
    with pytest.warns(UserWarning, match="IPython"):
        view.activate()


def test_a_world_cannot_grow(rc):
    assert rc.wait_for_engines(4) is None
    assert rc.wait_for_engines() is None
    with pytest.raises(ipsteer.EngineError, match="cannot grow"):
        rc.wait_for_engines(5, timeout=1)
