"""A stand-in for the Rust core: records what is submitted, and lets "engines" in this process carry it out.

By default an instruction runs inside `submit`. With ``hold = True`` it stays pending until `finish`. Headers
and blobs are read as the contract of `ipsteer._work` has them, so that these tests pin it.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import threading
import time
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass, field

import numpy
from ipengine import _canning


class ConnectError(OSError):
    pass


class SessionClosed(OSError):
    pass


@dataclass
class Outcome:
    engine: int
    status: str
    kind: str = "none"
    meta: str = "{}"
    parts: list = field(default_factory=list)
    started: float = 0.0
    completed: float = 0.0
    received: float = 0.0

    def buffers(self):
        return [memoryview(bytearray(part)) for part in self.parts]


@dataclass
class Output:
    engine: int
    kind: str
    text: str
    time: float = 0.0


@dataclass
class Submitted:
    counter: int
    kind: str
    targets: tuple
    meta: dict
    blobs: list
    each: list | None
    one_of: bool
    label: str | None
    outcomes: list
    outputs: list = field(default_factory=list)
    time: float = field(default_factory=time.time)

    def blobs_for(self, index):
        if self.each is None:
            return self.blobs
        start = sum(self.each[:index])
        return self.blobs[start : start + self.each[index]]

    def done(self):
        return all(outcome is not None for outcome in self.outcomes)

    def known(self):
        return len(self.outputs) + sum(o is not None for o in self.outcomes) + self.done()


def exception_data(error, engine):
    """What an engine reports about an exception, as the protocol describes it."""

    def described(value):
        item = {"repr": repr(value)}
        if value is None or isinstance(value, bool | int | float | str):
            item["json"] = value
        return item

    if error is None:
        return None
    attributes = dict(getattr(error, "__dict__", {}))
    if isinstance(error, OSError):
        attributes |= {"errno": error.errno, "filename": error.filename}
    notes = attributes.pop("__notes__", [])
    return {
        "type_name": type(error).__name__,
        "module": type(error).__module__,
        "mro": [f"{t.__module__}.{t.__qualname__}" for t in type(error).__mro__],
        "message": str(error),
        "args": [described(arg) for arg in error.args],
        "attributes": {name: described(value) for name, value in attributes.items()},
        "notes": notes,
        "frames": [
            {"file": "<cell>", "line": 1, "end_line": None, "column": None, "end_column": None}
            | {"function": "<module>", "source": "boom()"}
        ],
        "cause": exception_data(error.__cause__, engine),
        "context": exception_data(error.__context__, engine),
        "suppress_context": error.__suppress_context__,
        "rank": engine,
        "host": f"node{engine}",
        "traceback": "".join(traceback.format_exception(error)),
    }


class Session:
    """In-process engines behind the interface of `_native.Session`."""

    def __init__(self, engines=4, python=None):
        self.client_id = "0123456789abcdef" * 2
        self.python = python or list(sys.version_info[:3])
        self.engines = list(range(engines))
        self.namespaces = [{"engine_id": engine} for engine in self.engines]
        self.log = []
        self.by_counter = {}
        self.forgotten = []
        self.interrupts = []
        self.hold = False
        self.closed = False
        self.ctrl_c_in_wait = 0
        self._counters = itertools.count(1)
        self._changed = threading.Condition()
        self._fresh = []
        self._next_engine = itertools.cycle(self.engines)

    @property
    def info(self):
        rows = [
            {"id": e, "host": f"node{e}", "pid": 100 + e, "python": self.python, "mpi": "fake"}
            for e in self.engines
        ]
        return {
            "cluster": "fake",
            "file": None,
            "url": "ws://fake",
            "engines": rows,
            "state": "running",
            "end_reason": None,
        }

    def _open(self):
        if self.closed:
            raise SessionClosed("the session was closed")

    def submit(self, kind, targets, meta, blobs, each=None, one_of=False, label=None):
        self._open()
        if not targets or not set(targets) <= set(self.engines):
            raise ValueError("unknown or empty target set")
        slots = 1 if one_of else len(targets)
        work = Submitted(
            next(self._counters), kind, tuple(targets), json.loads(meta), [bytes(b) for b in blobs],
            None if each is None else list(each), one_of, label, [None] * slots,
        )  # fmt: skip
        if each is not None:
            assert len(each) == len(targets)
            assert sum(each) == len(blobs)
        self.log.append(work)
        self.by_counter[work.counter] = work
        if not self.hold:
            self.finish(work.counter)
        return work.counter

    def finish(self, counter, slot=None):
        """Carry out an instruction, on all of its targets or for one slot."""
        work = self.by_counter[counter]
        for index in range(len(work.outcomes)) if slot is None else [slot]:
            if work.outcomes[index] is None:
                engine = next(self._next_engine) if work.one_of else work.targets[index]
                self.settle(counter, index, self._run(work, index, engine))

    def settle(self, counter, slot, outcome):
        """Deliver an outcome."""
        work = self.by_counter[counter]
        outcome.received = time.time()
        with self._changed:
            work.outcomes[slot] = outcome
            if work.done():
                self._fresh.append(counter)
            self._changed.notify_all()

    def emit(self, counter, engine, kind, text):
        """Deliver a piece of output."""
        with self._changed:
            self.by_counter[counter].outputs.append(Output(engine, kind, text, time.time()))
            self._changed.notify_all()

    # --- what the engines do ---

    def _run(self, work, index, engine):
        started = time.time()
        try:
            kind, meta, parts = getattr(self, f"_{work.kind}")(work, index, engine)
            outcome = Outcome(engine, "ok", kind, json.dumps(meta), parts)
        except Exception as error:
            outcome = Outcome(engine, "error", meta=json.dumps(exception_data(error, engine)))
        outcome.started, outcome.completed = started, time.time()
        return outcome

    def _pickled(self, value):
        stream, buffers, by_value = _canning.dumps(value)
        return "pickle", {"python": self.python[:2], "by_value": by_value}, [stream, *buffers]

    def _loads(self, namespace, parts):
        _canning.set_namespace(namespace)
        try:
            return _canning.loads(parts[0], [bytearray(part) for part in parts[1:]])
        finally:
            _canning.set_namespace(None)

    def _apply(self, work, index, engine):
        f, args, kwargs = self._loads(self.namespaces[engine], work.blobs_for(index))
        text = io.StringIO()
        with redirect_stdout(text):
            value = f(*args, **kwargs)
        if text.getvalue():
            self.emit(work.counter, engine, "stdout", text.getvalue())
        return self._pickled(value)

    def _execute(self, work, index, engine):
        text = io.StringIO()
        with redirect_stdout(text):
            exec(work.meta["code"], self.namespaces[engine])
        if text.getvalue():
            self.emit(work.counter, engine, "stdout", text.getvalue())
        reply = {"execution_count": 1, "data": {}, "metadata": {}, "user_expressions": {}}
        return "execute_reply", {}, [json.dumps(reply).encode()]

    def _push(self, work, index, engine):
        blobs = work.blobs_for(index)
        for name, value in zip(work.meta["names"], work.meta["values"], strict=True):
            parts, blobs = blobs[: value["blobs"]], blobs[value["blobs"] :]
            self.namespaces[engine][name] = self._value(
                value["kind"], json.loads(value["meta"]), parts, engine
            )
        assert not blobs
        return "none", {}, []

    def _value(self, kind, meta, parts, engine):
        if kind == "pickle":
            return self._loads(self.namespaces[engine], parts)
        if kind == "ndarray":
            return numpy.frombuffer(bytearray(parts[0]), meta["dtype"]).reshape(
                meta["shape"], order=meta["order"]
            )
        return {"text": lambda raw: raw.decode(), "bytes": bytes}[kind](parts[0])

    def _pull(self, work, index, engine):
        values = [eval(name, self.namespaces[engine]) for name in work.meta["names"]]
        return self._pickled(values[0] if work.meta["single"] else values)

    def _clear(self, work, index, engine):
        self.namespaces[engine].clear()
        return "none", {}, []

    # --- what the client asks ---

    def wait(self, counters, timeout, first_error=False):
        self._open()

        def ended():
            works = [self.by_counter[counter] for counter in counters]
            failed = any(o is not None and o.status != "ok" for work in works for o in work.outcomes)
            return all(work.done() for work in works) or (first_error and failed)

        with self._changed:
            if self.ctrl_c_in_wait:
                self.ctrl_c_in_wait -= 1
                raise KeyboardInterrupt
            return self._changed.wait_for(ended, timeout)

    def wait_change(self, counter, seen, timeout):
        self._open()
        work = self.by_counter[counter]
        with self._changed:
            self._changed.wait_for(lambda: work.known() > seen, timeout)
            return work.known()

    def finished(self, counter):
        return self.by_counter[counter].done()

    def outcomes(self, counter):
        return list(self.by_counter[counter].outcomes)

    def running(self, counter):
        work = self.by_counter[counter]
        return [
            engine for engine, outcome in zip(work.targets, work.outcomes, strict=False) if outcome is None
        ]

    def outputs(self, counter, start=0):
        return self.by_counter[counter].outputs[start:]

    def submitted(self, counter):
        return self.by_counter[counter].time

    def next_finished(self, timeout):
        with self._changed:
            self._changed.wait_for(lambda: self._fresh or self.closed, timeout)
            self._open()
            fresh, self._fresh = self._fresh, []
            return fresh

    def forget(self, counters):
        for counter in counters:
            assert self.by_counter.pop(counter).done()
            self.forgotten.append(counter)

    def interrupt(self, counters, targets, timeout):
        self.interrupts.append((counters, targets))
        reports = []
        for work in [self.by_counter[counter] for counter in counters or ()]:
            for index, outcome in enumerate(work.outcomes):
                if outcome is None:
                    engine = work.targets[index]
                    data = exception_data(KeyboardInterrupt(), engine)
                    self.settle(work.counter, index, Outcome(engine, "interrupted", meta=json.dumps(data)))
                    reports.append({"engine": engine, "state": "interrupted", "detail": ""})
        return reports + [{"engine": engine, "state": "idle", "detail": ""} for engine in targets or ()]

    def status(self, timeout):
        rows = [
            {
                "id": e,
                "state": "idle",
                "since": 1.0,
                "instruction": None,
                "queue": 0,
                "completed": 2,
                "detail": None,
            }
            for e in self.engines
        ]
        return {"cluster": "fake", "engines": rows, "clients": []}

    def shutdown(self, timeout):
        self._open()
        self.log.append("shutdown")

    def close(self):
        with self._changed:
            self.closed = True
            self._changed.notify_all()


def connect(file=None, url=None, cluster=None, timeout=10.0, username=None):
    raise ConnectError("no cluster answered")


def main(argv):
    return 0
