"""Waiting in the foreground: first error at once, live output, and what Ctrl-C means.

In a call that submitted and waits, Ctrl-C interrupts the engines; in a wait on an existing result it only
stops waiting. Everything runs in the thread that waits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from ipsteer.display import TaggedPrinter
from ipsteer.targets import ranks_text

if TYPE_CHECKING:
    from ipsteer import _native
    from ipsteer.asyncresult import AsyncResult
    from ipsteer.record import Record

# Errors of one cause arrive within a moment of each other; only those that leave engines running need a
# notice.
NOTICE_GRACE = 0.2
# How long an interrupted instruction may take to end before the user gets the prompt back.
INTERRUPT_PATIENCE = 5.0
# Streaming from several instructions at once looks at each of them this often.
STREAM_INTERVAL = 0.1


class Deadline:
    """A point in time, or never."""

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None or timeout < 0 else time.monotonic() + timeout

    def left(self) -> float | None:
        """Seconds left; None for never."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def capped(self, seconds: float) -> float:
        """The smaller of `seconds` and what is left."""
        left = self.left()
        return seconds if left is None else min(seconds, left)

    def passed(self) -> bool:
        """Whether it is over."""
        return self.left() == 0.0


def wait_all(
    session: _native.Session, records: Sequence[Record], timeout: float | None, notice: bool = False
) -> bool:
    """Wait for all slots of `records`; with `notice`, tell on stderr about a first error early."""
    counters = [record.counter for record in records if record._outcomes is None]
    if not counters:
        return True
    if timeout is not None and timeout < 0:
        timeout = None
    if not notice or (len(records) == 1 and records[0].size == 1):
        return session.wait(counters, timeout)
    deadline = Deadline(timeout)
    if not failed_before(records) and not session.wait(counters, timeout, True):
        return False
    if session.wait(counters, deadline.capped(NOTICE_GRACE)):
        return True
    _print_notice(records)
    return session.wait(counters, deadline.left())


def failed_before(records: Sequence[Record]) -> bool:
    """Whether a record that the session may have forgotten, so that waiting there cannot tell, has failed."""
    return any(outcome.status != "ok" for record in records for outcome in record._outcomes or ())


def _print_notice(records: Sequence[Record]) -> None:
    text = notice_text(records)
    if text:
        print(text, file=sys.stderr, flush=True)


def notice_text(records: Sequence[Record]) -> str:
    """``rank 3: ValueError: ... (still running: ranks 0-2)``; empty when there is no error yet."""
    from ipsteer.error import group_errors

    errors = []
    for record in records:
        for index, outcome in enumerate(record.outcomes()):
            if outcome is not None and outcome.status != "ok":
                errors.append(record.slot(index)[1])
    if not errors:
        return ""
    told = "; ".join(f"{who}: {error._line()}" for who, error in group_errors(errors))
    return f"{told} (still running: {_running_text(records)})"


def _running_text(records: Sequence[Record]) -> str:
    direct = [engine for record in records if not record.one_of for engine in record.running()]
    tasks = sum(1 for record in records if record.one_of and not record.finished())
    parts = [ranks_text(direct)] if direct else []
    if tasks:
        parts.append(f"{tasks} task{'s' if tasks > 1 else ''}")
    return ", ".join(parts) or "nothing"


# --- live output ---


class Streamer:
    """Prints output of records as it arrives, in the waiting thread."""

    def __init__(self, session: _native.Session, records: Sequence[Record]) -> None:
        self._session = session
        self._records = list(records)
        self._shown = [0] * len(self._records)
        self._printer = TaggedPrinter()
        self._noticed = False

    def pump(self) -> None:
        """Print what has arrived and was not printed yet."""
        for place, record in enumerate(self._records):
            for output in record.outputs(self._shown[place]):
                self._printer.show(output)
                self._shown[place] += 1

    def finish(self) -> None:
        """Print the rest and end an unfinished line."""
        self.pump()
        self._printer.finish()

    def wait(self, deadline: Deadline) -> bool:
        """Wait until all is finished, printing meanwhile."""
        if len(self._records) == 1:
            return self._wait_one(self._records[0], deadline)
        counters = [record.counter for record in self._records if record._outcomes is None]
        while not (
            done := self._session.wait(counters, deadline.capped(STREAM_INTERVAL)) if counters else True
        ):
            self.pump()
            if deadline.passed():
                break
        self.pump()
        return done

    def _notice(self, counters: list[int], deadline: Deadline) -> None:
        """Tell once about a first error while others still run."""
        if self._noticed or not self._session.wait(counters, 0, True):
            return
        self._noticed = True
        if not self._session.wait(counters, deadline.capped(NOTICE_GRACE)):
            self._printer.finish()
            _print_notice(self._records)

    def _wait_one(self, record: Record, deadline: Deadline) -> bool:
        seen = 0
        while not record.finished():
            seen = self._session.wait_change(record.counter, seen, deadline.left())
            self.pump()
            self._notice([record.counter], deadline)
            if deadline.passed() and not record.finished():
                return False
        self.pump()
        return True


# --- Ctrl-C ---


@contextmanager
def only_stop_waiting(ar: AsyncResult) -> Iterator[None]:
    """Ctrl-C in a wait on an existing result."""
    try:
        yield
    except KeyboardInterrupt:
        running = _running_text(ar._records)
        raise KeyboardInterrupt(
            f"stopped waiting; {running} not interrupted: ar.interrupt() interrupts, ar.get() waits again"
        ) from None


def foreground_wait(ar: AsyncResult, timeout: float | None, interrupts: bool) -> bool:
    """Wait in a call that submitted; Ctrl-C interrupts the engines, or only ends the wait."""
    try:
        return ar._wait(timeout, notice=True)
    except KeyboardInterrupt:
        if interrupts:
            interrupt_and_report(ar)
        raise


def foreground_progress(ar: AsyncResult, interrupts: bool) -> None:
    """`foreground_wait` without limit, behind a progress bar."""
    try:
        ar._wait_with_bar()
    except KeyboardInterrupt:
        if interrupts:
            interrupt_and_report(ar)
        raise


def interrupt_and_report(ar: AsyncResult) -> NoReturn:
    """Ctrl-C in a call that submitted and waits: interrupt its engines, then say what happened on each."""
    session = ar._client._session
    counters = [record.counter for record in ar._records if not record.finished()]
    reports: list[dict[str, Any]] = []
    try:
        if counters:
            reports = session.interrupt(counters, None, INTERRUPT_PATIENCE)
            session.wait(counters, INTERRUPT_PATIENCE)
    except KeyboardInterrupt:
        text = f"interrupt sent; not waited for: {_running_text(ar._records)}"
    except OSError as error:  # the connection is gone, or the gateway does not answer
        text = f"not interrupted: {error}"
    else:
        text = interrupt_text(ar._records, reports)
    error = KeyboardInterrupt(text)
    error.async_result = ar  # type: ignore[attr-defined]
    raise error from None


def interrupt_text(records: Sequence[Record], reports: Sequence[dict[str, Any]]) -> str:
    """What an interrupt did, per rank: from outcomes, and from the reports of engines still running."""
    told: dict[str, list[int]] = {}
    details = {report["engine"]: report for report in reports}
    tasks = 0
    for record in records:
        for index, outcome in enumerate(record.outcomes()):
            engine = record.engine(index)
            if engine is None:
                tasks += 1
                continue
            told.setdefault(_fate(outcome, details.get(engine)), []).append(engine)
    parts = [f"{ranks_text(engines)}: {fate}" for fate, engines in told.items()]
    if tasks:
        parts.append(f"{tasks} task{'s' if tasks > 1 else ''}: not ended")
    return "; ".join(parts)


def _fate(outcome: _native.Outcome | None, report: dict[str, Any] | None) -> str:
    if outcome is None:
        detail = (report or {}).get("detail") or ""
        return f"still running{', interrupt pending' if report else ''}{f' ({detail})' if detail else ''}"
    return {
        "ok": "had finished",
        "error": "raised",
        "interrupted": "interrupted",
        "aborted": "not started",
        "lost": "engine lost",
    }[outcome.status]
