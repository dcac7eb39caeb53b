"""The glue under an ordinary interpreter, with a stand-in for the module of the engine's Rust side."""

import json
import os
import pickle
import signal
import sys
import textwrap
import threading
import types
from pathlib import Path

import pytest

GLUE = Path(__file__).resolve().parents[1]
CLIENT = GLUE.parents[1] / "steering-client" / "python"


def fake_module():
    fake = types.ModuleType("_ipengine")
    fake.rank, fake.size, fake.cluster, fake.host = 2, 4, "test", "node7"
    fake.interrupt_signal = signal.SIGRTMIN + 5
    fake.mpi_library_path = ""
    fake.emitted = []
    fake.interrupts = 0
    fake.handles = []
    fake.resets = 0

    def take_interrupt():
        if fake.interrupts:
            fake.interrupts -= 1
            return True
        return False

    def comm_handle():
        if not fake.handles:
            raise RuntimeError("no communicator here")
        return (*fake.handles[0], None)

    def reset_comm():
        fake.resets += 1

    fake.emit = lambda kind, content: fake.emitted.append((kind, json.loads(content)))
    fake.take_interrupt = take_interrupt
    fake.comm_handle = comm_handle
    fake.reset_comm = reset_comm
    return fake


sys.modules["_ipengine"] = fake_module()
sys.path.insert(0, str(GLUE))


class Engine:
    """Calls the glue as the Rust side does and takes the outcomes apart."""

    def __init__(self, runtime, fake):
        self.runtime, self.fake = runtime, fake
        self.namespace = runtime._namespace

    def execute(self, code, **options):
        status, kind, meta, buffers = self.runtime.execute(textwrap.dedent(code), **options)
        if status == "ok":
            assert kind == "execute_reply"
            return json.loads(buffers[0])
        return self._error(status, kind, meta, buffers)

    def apply(self, f, *args, **kwargs):
        stream, buffers, by_value = self.canning.dumps((f, args, kwargs))
        received = [bytearray(buffer) for buffer in buffers]
        python = sys.version_info[:2] if by_value else None
        return self.value(self.runtime.apply(stream, received, python))

    def push(self, **values):
        packed = []
        for value in values.values():
            stream, buffers, by_value = self.canning.dumps(value)
            meta = json.dumps({"python": sys.version_info[:2], "by_value": by_value})
            packed.append(("pickle", meta, [stream, *map(bytearray, buffers)]))
        return self.value(self.runtime.push(list(values), packed))

    def pull(self, *names, format="pickle"):
        return self.value(self.runtime.pull(list(names), format, len(names) == 1))

    def value(self, outcome):
        status, kind, _, buffers = outcome
        if status != "ok":
            return self._error(*outcome)
        if kind == "none":
            assert buffers == []
            return None
        if kind == "pickle":
            return pickle.loads(buffers[0], buffers=[bytearray(b) for b in buffers[1:]])
        if kind == "json":
            return json.loads(bytes(buffers[0]))
        if kind == "text":
            return bytes(buffers[0]).decode()
        return bytes(buffers[0])

    def _error(self, status, kind, meta, buffers):
        assert kind == "error"
        assert buffers == []
        error = json.loads(meta)
        meta.encode()  # no lone surrogates
        return Failure(status, error)

    @property
    def canning(self):
        from ipengine import _canning

        return _canning


class Failure:
    """What came back instead of a value."""

    def __init__(self, status, error):
        self.status, self.error = status, error

    def __getattr__(self, name):
        return self.error[name]

    def __repr__(self):
        return f"Failure({self.status}, {self.error.get('traceback')})"


@pytest.fixture(scope="session")
def started():
    from ipengine import _runtime

    saved = (
        sys.stdin,
        sys.stdout,
        sys.stderr,
        sys.__stdin__,
        sys.__stdout__,
        sys.__stderr__,
        sys.modules["__main__"],
    )
    argv = sys.argv
    _runtime.start({})
    (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__) = saved[:6]
    yield _runtime
    sys.modules["__main__"], sys.argv = saved[6], argv


@pytest.fixture
def engine(started):
    fake = sys.modules["_ipengine"]
    fake.emitted.clear()
    fake.interrupts, fake.resets, fake.handles = 0, 0, []
    fake.mpi_library_path = ""
    assert started.clear()[0] == "ok"
    return Engine(started, fake)


@pytest.fixture
def client():
    """Run source as if typed into a client's `__main__`; returns its names."""

    def type_in(source, **names):
        space = {"__name__": "__main__", **names}
        exec(textwrap.dedent(source), space)
        return types.SimpleNamespace(**{k: v for k, v in space.items() if not k.startswith("__")})

    return type_in


@pytest.fixture
def interrupt_at(engine):
    """Return an event: once user code sets it, the main thread gets the interrupt signal."""
    running, ended = threading.Event(), threading.Event()
    main = threading.get_ident()

    def send():
        running.wait()
        if ended.is_set():
            return
        engine.fake.interrupts = 1
        # Repeated until taken, as the control thread does: a signal just before a system call is lost on it.
        while engine.fake.interrupts and not ended.is_set():
            signal.pthread_kill(main, engine.fake.interrupt_signal)
            ended.wait(0.02)

    thread = threading.Thread(target=send)
    thread.start()
    yield running
    ended.set()
    running.set()
    thread.join()


def engine_process(body, **options):
    """Run `body` in a fresh interpreter with the glue started; returns the completed process."""
    import subprocess

    program = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, {tests!r})
        import conftest
        fake = sys.modules["_ipengine"]
        {before}
        from ipengine import _runtime as runtime
        runtime.start({{}})
        """
    ).format(tests=str(Path(__file__).parent), before=options.pop("before", ""))
    program += textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ},
        **options,
    )
