"""Errors of real engines, interrupts and Ctrl-C."""

import os
import pickle

import ipsteer
import pytest
from processes import gone


def test_type_arguments_notes_and_cause(rc):
    code = """
class OwnError(ValueError):
    def __init__(self, code):
        super().__init__(code, "text")
        self.code = code

def fail():
    try:
        {}["key"]
    except KeyError as cause:
        error = OwnError(7)
        error.add_note("look here")
        raise error from cause
"""
    rc[1].execute(code, block=True)
    with pytest.raises(ValueError, match="rank 1") as failed:
        rc[1].execute("fail()", block=True)
    error = failed.value
    assert isinstance(error, ipsteer.RemoteError)
    assert (error.ename, error.args, error.code) == ("OwnError", (7, "text"), 7)
    assert error.__notes__[0] == "look here"
    assert isinstance(error.__cause__, KeyError)
    assert error.rank == 1
    assert error.host
    text = "\n".join(error.render_traceback())
    assert "raise error from cause" in text
    assert text.startswith(f"[rank 1 on {error.host}]")


def test_errors_of_files(rc):
    with pytest.raises(FileNotFoundError) as failed:
        rc[0].apply_sync(open, "/no/such/file")
    assert (failed.value.errno, failed.value.filename) == (2, "/no/such/file")


def test_identical_errors_are_merged(view):
    view.execute("import ipengine", block=True)
    with pytest.raises(ipsteer.CompositeError) as failed:
        view.execute("raise (KeyError('k') if ipengine.rank == 3 else ValueError('v'))", block=True)
    assert str(failed.value).splitlines()[1:] == ["ranks 0-2: ValueError: v", "rank 3: KeyError: 'k'"]


def test_sys_exit_is_an_error_and_the_engine_lives(rc):
    with pytest.raises(ipsteer.RemoteError, match="SystemExit"):
        rc[0].execute("import sys; sys.exit(3)", block=True)
    assert rc[0].apply_sync(int) == 0


def test_a_result_that_cannot_travel(rc):
    with pytest.raises(ipsteer.RemoteError, match="cannot send result"):
        rc[0].apply_sync(lambda: (i for i in range(3)))
    with pytest.raises((TypeError, pickle.PicklingError)):
        rc[0].apply_sync(len, (i for i in range(3)))
    assert rc[0].apply_sync(int) == 0


def test_the_first_error_is_told_while_others_run(rc, view, gate, capsys):
    view.execute("import ipengine", block=True)
    code = "if ipengine.rank == 3:\n    raise ValueError('early')\n"
    code += f"if ipengine.rank == 0:\n    exec({gate.code!r})"
    ar = view.execute(code, block=False)
    gate.wait_for_arrivals()
    with pytest.raises(TimeoutError):
        ar.get(timeout=5)
    told = capsys.readouterr().err
    assert "rank 3: ValueError: early (still running: rank 0)" in told
    gate.open()
    with pytest.raises(ValueError, match="early"):
        ar.get()


def test_interrupt_of_one_instruction_of_a_busy_engine(rc, gate):
    ar = rc[2].execute(gate.code + "reached = True", block=False)
    gate.wait_for_arrivals()
    reports = ar.interrupt()
    assert [report["engine"] for report in reports] == [2]
    with pytest.raises(ipsteer.RemoteError, match="KeyboardInterrupt"):
        ar.get(timeout=60)
    with pytest.raises(NameError):
        rc[2]["reached"]


def test_interrupt_of_pure_python(rc, view):
    ar = view.execute("import ipengine\nprint('started', flush=True)\nwhile True: pass", block=False)
    while not all(ar.stdout):
        ar.wait(0.1)
    rc.interrupt()
    with pytest.raises(ipsteer.CompositeError, match="ranks 0-3: KeyboardInterrupt"):
        ar.get(timeout=60)
    assert view.apply_sync(int) == [0] * 4


def test_interrupt_of_idle_engines_does_nothing(rc, view):
    assert {report["state"] for report in rc.interrupt()} <= {"idle", "done"}
    assert view.apply_sync(int) == [0] * 4


# Told to go on, it presses Ctrl-C once its main thread is inside a wait for results.
CTRL_C = """
import os, signal, sys, threading, traceback, ipsteer

def press(main=threading.get_ident()):
    sys.stdin.readline()
    while "wait_all" not in [f.name for f in traceback.extract_stack(sys._current_frames()[main])]:
        pass
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press).start()
rc = ipsteer.Client(sys.argv[1])
try:
    %s
except KeyboardInterrupt as stopped:
    print("STOPPED", stopped)
    print("ALIVE", rc[1].apply_sync(int, "5"))
"""


@pytest.mark.parametrize(
    "call",
    [
        "rc[1].execute(sys.argv[2], block=True)",
        "rc[1].apply_sync(exec, sys.argv[2], {})",
        "rc[[1]].map_sync(exec, [sys.argv[2]], [{}])",
    ],
)
def test_ctrl_c_in_a_blocking_call_interrupts_its_engine(cluster, rc, program, gate, call):
    started = program(CTRL_C % call, str(cluster.connection_file), gate.code)
    gate.wait_for_arrivals()
    started.go_on()
    code, out, err = started.finish()
    assert code == 0, err
    assert "STOPPED rank 1: interrupted" in out
    assert "ALIVE 5" in out


def test_ctrl_c_on_an_existing_result_leaves_the_engine(cluster, rc, program, gate):
    call = "ar = rc[1].execute(sys.argv[2], block=False); ar.get()"
    text = CTRL_C.replace('print("ALIVE", rc[1].apply_sync(int, "5"))', "pass") % call
    started = program(text, str(cluster.connection_file), gate.code)
    gate.wait_for_arrivals()
    started.go_on()
    code, out, err = started.finish()
    assert code == 0, err
    assert "ar.interrupt()" in out
    assert rc.queue_status()[1]["tasks"] == 1
    gate.open()
    assert rc[1].apply_sync(int, "5") == 5


@pytest.mark.parametrize(
    ("death", "told"),
    [
        ("import os; os._exit(3)", "exit"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    ],
)
def test_a_rank_that_dies_ends_every_instruction_with_the_cause(home, death, told):
    job = ipsteer.Cluster(2)
    client = job.start_and_connect()
    engines = client[:].apply_sync(os.getpid)
    try:
        doomed = client[1].execute(death, block=False)
        waiting = client[0].apply_async(int, "4")
        with pytest.raises(ipsteer.EngineError, match=told):
            doomed.get(timeout=60)
        assert waiting.wait(60)
        with pytest.raises((ipsteer.TaskAborted, ipsteer.EngineError), match=told):
            client[1].apply_sync(int)
    finally:
        client.close()
        job.stop()
    assert all(gone(pid) for pid in engines)
