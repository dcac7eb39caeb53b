"""Interrupts arrive in user code and nowhere else."""

import signal
import threading

import pytest

pytestmark = pytest.mark.timeout(60)


def send_now(fake):
    signal.pthread_kill(threading.get_ident(), fake.interrupt_signal)


def test_apply_in_a_builtin(engine, client, interrupt_at):
    space = client("import time\ndef f():\n    event.set()\n    time.sleep(600)")
    engine.namespace["event"] = interrupt_at
    failure = engine.apply(space.f)
    assert (failure.status, failure.type_name) == ("interrupted", "KeyboardInterrupt")
    assert failure.frames[-1]["function"] == "f"


def test_apply_of_a_builtin_itself(engine, interrupt_at):
    import time

    engine.namespace["event"] = interrupt_at
    event = engine.canning.Reference("event")

    class Seconds:
        """Starts the interrupt when it is unpickled; then nothing but the built-in runs."""

        def __reduce__(self):
            return eval, ("event.set() or 600", {"event": event})

    failure = engine.apply(time.sleep, Seconds())
    assert (failure.status, failure.type_name) == ("interrupted", "KeyboardInterrupt")
    assert failure.frames == []


def test_cell(engine, interrupt_at):
    engine.namespace["event"] = interrupt_at
    failure = engine.execute("event.set()\nwhile True:\n    pass")
    assert (failure.status, failure.type_name) == ("interrupted", "KeyboardInterrupt")
    assert failure.frames[0]["function"] == "<module>"
    assert engine.execute("1 + 1")["data"]["text/plain"] == "2"


def test_async_cell_is_cancelled(engine, interrupt_at):
    engine.namespace["event"] = interrupt_at
    failure = engine.execute(
        """
        import asyncio
        log = []
        try:
            asyncio.get_running_loop().call_soon(event.set)
            await asyncio.sleep(600)
        finally:
            log.append('ended')
        """
    )
    assert failure.status == "interrupted"
    assert engine.namespace["log"] == ["ended"]
    engine.execute("await asyncio.sleep(0)")
    assert engine.namespace["log"] == ["ended"]


def test_caught_by_user_code(engine, interrupt_at):
    engine.namespace["event"] = interrupt_at
    reply = engine.execute(
        "try:\n    event.set()\n    while True: pass\nexcept KeyboardInterrupt:\n    r = 'caught'\nr"
    )
    assert reply["data"]["text/plain"] == "'caught'"


def test_turned_into_another_error(engine, interrupt_at):
    engine.namespace["event"] = interrupt_at
    failure = engine.execute(
        "try:\n    event.set()\n    while True: pass\nexcept KeyboardInterrupt as e:\n"
        "    raise ValueError('mine') from e"
    )
    assert (failure.status, failure.type_name) == ("error", "ValueError")


def test_own_keyboard_interrupt_is_an_error(engine, client):
    assert engine.execute("raise KeyboardInterrupt").status == "error"
    assert engine.apply(client("def f(): raise KeyboardInterrupt").f).status == "error"


def test_signal_without_request_does_nothing(engine, client):
    space = client("def f():\n    send()\n    return 'done'")
    engine.namespace["send"] = lambda: send_now(engine.fake)
    assert engine.apply(space.f) == "done"


def test_signal_in_the_glue_waits_for_user_code(engine, client):
    send_now(engine.fake)  # nothing runs
    from ipengine import _interrupt

    assert _interrupt.pending
    engine.fake.interrupts = 1  # by now the instruction to interrupt has begun
    failure = engine.apply(client("def f(): return 1").f)
    assert failure.status == "interrupted"
    send_now(engine.fake)
    engine.fake.interrupts = 1
    failure = engine.execute("x = 1")
    assert failure.status == "interrupted"
    assert "x" not in engine.namespace


def test_late_signal_does_not_hit_the_next_instruction(engine):
    send_now(engine.fake)
    assert engine.apply(len, "abc") == 3
    send_now(engine.fake)
    assert engine.execute("2")["data"]["text/plain"] == "2"


def test_hanging_repr_of_an_exception(engine, interrupt_at):
    engine.namespace["event"] = interrupt_at
    failure = engine.execute(
        "class E(Exception):\n    def __str__(self):\n        event.set()\n        while True: pass\n"
        "raise E()"
    )
    assert failure.status == "error"
    assert failure.type_name == "E"


def test_while_unpickling(engine, interrupt_at):
    engine.execute("def wait():\n    event.set()\n    while True: pass")
    engine.namespace["event"] = interrupt_at
    failure = engine.apply(len, engine.canning.Reference("wait()"))
    assert failure.status == "interrupted"


def test_while_pickling_the_result(engine, interrupt_at):
    engine.execute(
        "class Slow:\n    def __reduce__(self):\n        event.set()\n        while True: pass\nslow = Slow()"
    )
    engine.namespace["event"] = interrupt_at
    assert engine.pull("slow").status == "interrupted"


def test_shell_child_ends(engine, interrupt_at):
    pytest.importorskip("IPython")
    engine.namespace["event"] = interrupt_at
    failure = engine.execute("event.set()\n!sleep 600")
    assert failure.status == "interrupted"


def test_native_interrupt_is_ours(engine, client):
    # The wait for the communicator raises it itself; the request has not been taken yet.
    engine.fake.interrupts = 1
    assert engine.apply(client("def f(): raise KeyboardInterrupt").f).status == "interrupted"
