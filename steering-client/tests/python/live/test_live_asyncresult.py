"""Results of real engines: arrival, output, times, callbacks, await."""

import asyncio
import threading

import ipsteer
import pytest
from ipsteer import FIRST_COMPLETED, FIRST_EXCEPTION


def test_pending_then_ready(rc, view, gate):
    view.execute("import ipengine", block=True)
    ar = view.execute(f"if ipengine.rank == 3:\n    exec({gate.code!r})", block=False)
    gate.wait_for_arrivals()
    assert ar.wait(return_when=FIRST_COMPLETED)[0]
    assert not ar.ready()
    with pytest.raises(TimeoutError):
        ar.get(timeout=0)
    with pytest.raises(RuntimeError):
        ar.successful()
    assert [part.get() is not None for part in ar.split()[:3]] == [True] * 3
    assert ar.progress == 3
    assert ar.status[3] is None
    gate.open()
    assert ar.wait() is True
    assert ar.successful()
    assert ar.progress == len(ar) == 4


def test_iteration_before_all_have_ended(rc, gate):
    passing = gate.passing
    ar = rc.load_balanced_view().map_async(lambda i: passing(i) if i == 1 else i, [0, 1, 2], ordered=False)
    arrivals = iter(ar)
    gate.wait_for_arrivals()
    assert {next(arrivals), next(arrivals)} == {0, 2}
    gate.open()
    assert next(arrivals) == 1
    assert ar.get() == [0, 1, 2]


def test_values_by_position_and_engine(view):
    ar = view.apply_async(lambda: __import__("ipengine").rank * 10)
    assert ar.get_dict() == {0: 0, 1: 10, 2: 20, 3: 30}
    assert ar[1] == 10
    assert ar[1:3] == [10, 20]
    assert ipsteer.AsyncResult.join(*ar.split()[:2]).get() == [0, 10]
    assert len(ar.msg_ids) == 4


def test_output_is_complete_when_the_result_is_there(rc, view):
    code = "import os, sys, ipengine\nprint('out', ipengine.rank)\nprint('err', file=sys.stderr)\n"
    ar = view.execute(code + "sys.stdout.flush(); os.write(1, b'raw\\n')", block=True)
    assert ar.stdout == [f"out {e}\nraw\n" for e in range(4)]
    assert ar.stderr == ["err\n"] * 4
    assert rc[2].apply_async(print, "from apply").metadata.engine_id == 2
    single = rc[2].apply_async(print, "from apply")
    single.get()
    assert single.stdout == "from apply\n"


def test_output_arrives_while_the_instruction_runs(rc, gate, capsys):
    ar = rc[1].execute("print('before the gate', flush=True)\n" + gate.code + "print('after')", block=False)
    gate.wait_for_arrivals()
    with ar.stream_output():
        while not ar.stdout:
            ar.wait(0.1)
        ar.wait(0)
        assert "[stdout:1] before the gate\n" in capsys.readouterr().out
        gate.open()
        ar.get()
    assert capsys.readouterr().out == "[stdout:1] after\n"


def test_times(view):
    ar = view.apply_async(sum, range(1000))
    ar.get()
    for submitted, started, completed, received in zip(
        ar.submitted, ar.started, ar.completed, ar.received, strict=True
    ):
        assert started <= completed
        assert submitted <= received
    assert ar.wall_time > 0
    assert ar.serial_time > 0
    assert ar.elapsed == ar.wall_time


def test_callback(rc, gate):
    told = threading.Event()
    seen = []
    ar = rc[0].apply_async(gate.passing, 5)
    ar.add_done_callback(lambda result: (seen.append(result.get()), told.set()))
    gate.wait_for_arrivals()
    assert seen == []
    gate.open()
    assert told.wait(60)
    assert seen == [5]


def test_await(view):
    async def main():
        ars = [view.apply_async(pow, i, 2) for i in range(5)]

        async def value(ar):
            return await ar

        return await asyncio.gather(*map(value, ars))

    assert asyncio.run(main()) == [[i * i] * 4 for i in range(5)]


def test_first_exception_does_not_wait(rc, view, gate):
    view.execute("import ipengine", block=True)
    code = "if ipengine.rank == 3:\n    raise ValueError('early')\n"
    code += f"if ipengine.rank == 0:\n    exec({gate.code!r})"
    ar = view.execute(code, block=False)
    gate.wait_for_arrivals()
    with pytest.raises(ValueError, match="early"):
        ar.get(return_when=FIRST_EXCEPTION)
    assert not ar.ready()
    gate.open()
    with pytest.raises(ipsteer.CompositeError):
        ar.get()


def test_waiting_releases_the_interpreter(rc, gate, in_thread):
    ar = rc[0].apply_async(gate.passing, 1)

    def release():
        gate.wait_for_arrivals()
        gate.open()

    in_thread(release)
    assert ar.get(timeout=60) == 1


def test_many_small_instructions_keep_their_order(rc):
    rc[0]["seen"] = []
    ars = [rc[0].execute(f"seen.append({i})") for i in range(300)]
    ars[-1].get()
    assert rc[0]["seen"] == list(range(300))
