"""Waiting, values, times, callbacks, Ctrl-C."""

import asyncio
import concurrent.futures
import datetime
import threading

import ipsteer
import pytest
from ipsteer import waiting


@pytest.fixture
def pending(session, view):
    """A call on four engines that ends when the test says so."""
    session.hold = True
    return view.apply_async(pow, 2, 3)


def test_states(pending, session):
    assert not pending.ready()
    assert not pending.done()
    assert "pending" in repr(pending)
    with pytest.raises(RuntimeError):
        pending.successful()
    for read in (
        lambda: pending.get(timeout=0),
        lambda: pending.result(0.001),
        lambda: pending[0],
        lambda: pending.get_dict(0),
        lambda: pending.exception(0),
        lambda: pending.wall_time,
        pending.display_outputs,
    ):
        with pytest.raises(TimeoutError):
            read()
    assert pending.wait(0) is False
    session.finish(1, 1)
    assert pending.progress == 1
    assert pending.status == [None, "ok", None, None]
    session.finish(1)
    assert pending.ready()
    assert pending.successful()
    assert pending.wait() is True
    assert pending.exception() is None
    assert "finished" in repr(pending)


def test_values(rc, view):
    ar = view.apply_async(pow, 2, 3)
    assert ar.get() == ar.result() == ar.r == [8] * 4
    assert ar.get_dict() == ar.result_dict == {0: 8, 1: 8, 2: 8, 3: 8}
    assert ar[0] == ar[-1] == 8
    assert ar[1:3] == [8, 8]
    assert list(ar) == [8] * 4
    assert len(ar) == 4
    single = rc[3].apply_async(pow, 2, 3)
    assert single.get_dict() == {3: 8}
    with pytest.raises(TypeError, match="not iterable"):
        iter(single)
    with pytest.raises(TypeError):
        ar[1.5]
    with pytest.raises(KeyError):
        ar["colour"]
    with pytest.raises(AttributeError):
        ar.colour


def test_two_jobs_on_one_engine_make_no_dict(rc):
    both = ipsteer.AsyncResult.join(rc[0].apply_async(pow, 2, 3), rc[0].apply_async(pow, 2, 4))
    assert both.get() == [8, 16]
    with pytest.raises(ValueError, match="2 jobs"):
        both.get_dict()


def test_times(rc, view):
    ar = view.apply_async(pow, 2, 3)
    ar.get()
    assert all(isinstance(stamp, datetime.datetime) and stamp.tzinfo for stamp in ar.submitted)
    assert ar.timedelta(ar.submitted, ar.received) == pytest.approx(ar.wall_time, abs=1e-3)
    assert ar.elapsed == ar.wall_time >= 0
    assert ar.serial_time >= 0
    assert set(ar.metadata[0]) >= {"msg_id", "engine_id", "stdout", "stderr", "outputs", "status", "started"}
    assert rc[0].apply_async(pow, 2, 3).metadata.completed is not None


def test_output_of_each_engine(view):
    ar = view.apply_async(print, "hello")
    ar.get()
    assert ar.stdout == ["hello\n"] * 4
    assert ar.stderr == [""] * 4
    assert ar.outputs == [[]] * 4


def test_iteration_yields_as_results_arrive(pending, session):
    arrivals = iter(pending)
    for slot in range(4):
        session.finish(1, slot)
        assert next(arrivals) == 8


def test_split_waits_for_one_engine(pending, session):
    parts = pending.split()
    assert len(parts) == 4
    assert pending.split()[0].msg_ids == pending.msg_ids[:1]
    session.finish(1, 2)
    assert parts[2].get() == 8
    assert parts[2].ready()
    assert not parts[0].ready()
    assert parts[0].wait(0) is False
    session.finish(1)
    assert ipsteer.AsyncResult.join(*parts).get() == [8] * 4


def test_return_when(pending, session):
    session.finish(1, 2)
    done, left = pending.wait(return_when=concurrent.futures.FIRST_COMPLETED)
    assert [part.engine_id for part in done] == [2]
    assert len(left) == 3
    done, left = pending.wait(0, return_when=concurrent.futures.ALL_COMPLETED)
    assert len(done) == 1
    with pytest.raises(ValueError, match="return_when"):
        pending.wait(return_when="LATER")


def test_first_exception_does_not_wait_for_the_rest(rc, view, session):
    session.hold = True
    ar = view.apply_async(int, "x")
    session.finish(1, 3)
    with pytest.raises(ValueError, match="rank 3"):
        ar.get(return_when=concurrent.futures.FIRST_EXCEPTION)


def test_a_failure_known_before_ends_a_wait_for_the_first(view, session, monkeypatch):
    failed = view.apply_async(int, "x")
    failed.wait()
    assert not failed.successful()
    session.hold = True
    joined = ipsteer.AsyncResult.join(failed, view.apply_async(pow, 2, 3))
    waits = []
    wait = session.wait
    # a wait for a first error of what still runs would last for ever
    monkeypatch.setattr(
        session, "wait", lambda *args: waits.append(args[1:]) or (len(args) == 2 and wait(*args))
    )
    done, left = joined.wait(return_when=concurrent.futures.FIRST_EXCEPTION)
    assert (len(done), len(left)) == (4, 4)
    assert waits == []
    with pytest.raises(ValueError, match="invalid literal"):
        joined.get(return_when=concurrent.futures.FIRST_EXCEPTION)
    assert waits == []
    assert waiting.wait_all(session, joined._records, waiting.NOTICE_GRACE, notice=True) is False
    assert [len(args) for args in waits] == [1, 1]


def test_get_waits_for_a_thread_that_finishes_it(pending, session):
    threading.Thread(target=session.finish, args=(1,)).start()
    assert pending.get(timeout=20) == [8] * 4


# --- callbacks ---


def test_callbacks_run_once_and_may_call_get(pending, session):
    seen = []
    told = threading.Event()

    def remember(ar):
        seen.append((ar.get(), threading.current_thread().name))
        told.set()

    pending.add_done_callback(remember)
    session.finish(1, 0)
    assert not seen
    session.finish(1)
    assert told.wait(20)
    assert seen == [([8] * 4, "ipsteer-callbacks")]
    pending.add_done_callback(remember)
    assert seen[1][0] == [8] * 4
    assert seen[1][1] == threading.current_thread().name


def test_a_callback_may_wait_for_other_results(rc, pending, session):
    others = rc.load_balanced_view().map_async(abs, [-1, -2], ordered=False)
    seen, waiting_now, told = [], threading.Event(), threading.Event()

    def wait_for_others(_):
        waiting_now.set()
        seen.extend(others)
        told.set()

    pending.add_done_callback(wait_for_others)
    session.finish(1)
    assert waiting_now.wait(20)
    for record in reversed(others._records):
        session.finish(record.counter)
    assert told.wait(20)
    assert sorted(seen) == [1, 2]


def test_a_failing_callback_does_not_stop_others(pending, session, caplog):
    told = threading.Event()
    pending.add_done_callback(lambda ar: 1 / 0)
    pending.add_done_callback(lambda ar: told.set())
    session.finish(1)
    assert told.wait(20)
    assert "ZeroDivisionError" in caplog.text


def test_closing_releases_who_waits(pending, rc):
    told = threading.Event()
    pending.add_done_callback(lambda ar: told.set())
    rc.close()
    assert told.wait(20)
    with pytest.raises(OSError):
        pending.get()


def test_await(rc, pending, session):
    async def main():
        asyncio.get_running_loop().call_soon(session.finish, 1)
        first = await pending
        return first, await asyncio.gather(*[_value(rc[i].apply_async(pow, i, 2)) for i in range(3)])

    async def _value(ar):
        session.finish(ar._records[0].counter)
        return await ar

    assert asyncio.run(main()) == ([8] * 4, [0, 1, 4])


def test_await_raises_the_remote_error(rc):
    async def main():
        await rc[0].apply_async(int, "x")

    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(main())


# --- notices and Ctrl-C ---


def test_a_first_error_is_told_while_others_run(view, session, capsys):
    session.hold = True
    ar = view.apply_async(int, "x")
    session.finish(1, 3)
    with pytest.raises(TimeoutError):
        ar.get(timeout=waiting.NOTICE_GRACE * 2)
    told = capsys.readouterr().err
    assert told.startswith("rank 3: ValueError: invalid literal")
    assert "(still running: ranks 0-2)" in told
    session.finish(1)
    with pytest.raises(ValueError, match="ranks 0-3: ValueError"):
        ar.get()
    assert capsys.readouterr().err == ""


def test_no_notice_with_return_exceptions(view, session, capsys):
    session.hold = True
    ar = view.apply_async(int, "x")
    session.finish(1, 3)
    with pytest.raises(TimeoutError):
        ar.get(timeout=waiting.NOTICE_GRACE * 2, return_exceptions=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("wait", ["get", "wait", "exception"])
def test_ctrl_c_on_an_existing_result_only_stops_waiting(pending, session, wait):
    session.ctrl_c_in_wait = 1
    with pytest.raises(KeyboardInterrupt, match=r"ar.interrupt\(\)"):
        getattr(pending, wait)()
    assert session.interrupts == []
    session.finish(1)
    assert pending.get() == [8] * 4


@pytest.mark.parametrize(
    "call",
    [
        lambda view: view.apply_sync(pow, 2, 3),
        lambda view: view.map_sync(str, range(4)),
        lambda view: view.execute("a = 1", block=True),
        lambda view: view.push({"a": 1}, block=True),
        lambda view: view.scatter("a", [1, 2, 3, 4], block=True),
        lambda view: view.gather("a", block=True),
        lambda view: view["a"],
    ],
)
def test_ctrl_c_in_a_call_that_submitted_interrupts_its_engines(view, session, call):
    session.hold = True
    session.ctrl_c_in_wait = 1
    with pytest.raises(KeyboardInterrupt, match="ranks 0-3: interrupted") as stopped:
        call(view)
    assert session.interrupts == [([1], None)]
    assert stopped.value.async_result.ready()


def test_ctrl_c_says_what_happened_on_each_rank(view, session, monkeypatch):
    session.hold = True
    session.ctrl_c_in_wait = 1
    monkeypatch.setattr(waiting, "INTERRUPT_PATIENCE", 0.01)
    submit = session.submit

    def submit_and_finish_some(*args):
        counter = submit(*args)
        session.finish(counter, 0)
        return counter

    def interrupt(counters, targets, timeout):
        return [{"engine": 3, "state": "pending", "detail": "in MPI_Barrier"}]

    session.submit, session.interrupt = submit_and_finish_some, interrupt
    with pytest.raises(KeyboardInterrupt) as stopped:
        view.apply_sync(pow, 2, 3)
    assert str(stopped.value) == (
        "rank 0: had finished; ranks 1-2: still running; "
        "rank 3: still running, interrupt pending (in MPI_Barrier)"
    )


def test_a_second_ctrl_c_stops_waiting_for_the_interrupt(view, session):
    session.hold = True
    session.ctrl_c_in_wait = 2
    session.interrupt = lambda *_: []
    with pytest.raises(KeyboardInterrupt, match="not waited for: ranks 0-3"):
        view.apply_sync(pow, 2, 3)


def test_interrupt_of_a_result(pending, session):
    assert [report["state"] for report in pending.interrupt()] == ["interrupted"] * 4
    with pytest.raises(ipsteer.CompositeError, match="KeyboardInterrupt"):
        pending.get()
    assert pending.interrupt() == []


# --- showing ---


def test_live_output_is_tagged_and_in_order(pending, session, capsys):
    session.emit(1, 0, "stdout", "early\n")
    with pending.stream_output():
        assert pending.wait(0.01) is False
        session.emit(1, 3, "stdout", "half")
        session.emit(1, 1, "stderr", "loud\n")
        session.emit(1, 3, "stdout", " line\nsecond\n")
        session.finish(1)
        assert pending.get() == [8] * 4
    shown = capsys.readouterr()
    assert shown.out == "[stdout:0] early\n[stdout:3] half\n[stdout:3]  line\n[stdout:3] second\n"
    assert shown.err == "[stderr:1] loud\n"


@pytest.mark.parametrize("groupby", ["type", "engine", "order"])
def test_display_outputs(view, session, capsys, groupby):
    ar = view.execute("print('out', engine_id)", block=True)
    session.emit(1, 2, "stderr", "err")
    session.emit(1, 2, "display_data", '{"data": {"text/plain": "<figure>"}, "metadata": {}}')
    session.emit(
        1, 0, "execute_result", '{"data": {"text/plain": "42"}, "metadata": {}, "execution_count": 5}'
    )
    ar.display_outputs(groupby)
    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if line.startswith("[stdout")] == [
        f"[stdout:{e}] out {e}" for e in range(4)
    ]
    assert "[output:2] <figure>" in shown.out
    assert "Out[0:5]: 42" in shown.out
    assert shown.err == "[stderr:2] err\n"
    with pytest.raises(ValueError, match="groupby"):
        ar.display_outputs("colour")


def test_wait_interactive_shows_progress(pending, session, capsys):
    pending.wait_interactive(interval=0.01, timeout=0.05)
    session.finish(1)
    pending.wait_interactive(widget=False)
    assert "4/4" in capsys.readouterr().err


def test_a_first_error_is_told_while_streaming(view, session, capsys):
    session.hold = True
    ar = view.apply_async(int, "x")
    session.emit(1, 3, "stdout", "no newline")
    session.finish(1, 3)
    with ar.stream_output():
        assert ar.wait(waiting.NOTICE_GRACE * 2) is False
        assert ar.wait(0.01) is False
    shown = capsys.readouterr()
    assert shown.out == "[stdout:3] no newline\n"
    assert shown.err.count("rank 3: ValueError") == 1
    assert "(still running: ranks 0-2)" in shown.err
