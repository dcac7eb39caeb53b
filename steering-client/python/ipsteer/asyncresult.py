"""Results that arrive later: `AsyncResult`; for maps and gathers see `ipsteer.mapresult`."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ipsteer import display, waiting
from ipsteer.error import RemoteError
from ipsteer.record import METADATA_KEYS, Record
from ipsteer.restore import composite
from ipsteer.timing import Timed

if TYPE_CHECKING:
    from ipsteer.client import Client

Slot = tuple[Record, int]

_METADATA = frozenset(METADATA_KEYS)


class AsyncResult(Timed):
    """The result of a call that was submitted: one value per engine, or a single one.

    It has the interfaces of `multiprocessing.pool.AsyncResult` and `concurrent.futures.Future`, and can be
    awaited. ``ar['key']`` and ``ar.key`` read metadata: ``stdout``, ``stderr``, ``outputs``, ``engine_id``,
    ``submitted``, ``started``, ``completed``, ``received``, ``status``, ...
    """

    def __init__(
        self,
        client: Client,
        records: list[Record],
        fname: str = "unknown",
        single: bool = False,
        return_exceptions: bool = False,
        slots: list[Slot] | None = None,
    ) -> None:
        self._client = client
        self._records = records
        self._fname = fname
        self._single_result = single
        self._return_exceptions = return_exceptions
        self._slots = slots
        self._partial = slots is not None
        self._chunk_sizes: list[int] | None = None
        self._streamer: waiting.Streamer | None = None

    # --- state ---

    @property
    def _children(self) -> list[Slot]:
        if self._slots is None:
            self._slots = [(record, index) for record in self._records for index in range(record.size)]
        return self._slots

    @property
    def msg_ids(self) -> list[str]:
        """Ids by which `Client.get_result` finds the parts again."""
        return [record.msg_id(index) for record, index in self._children]

    def __repr__(self) -> str:
        state = "pending"
        with suppress(OSError):  # a closed session can not tell
            if self.ready():
                state = "finished" if self.successful() else "failed"
        return f"<{type(self).__name__}({self._fname}): {state}>"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *METADATA_KEYS]

    def ready(self) -> bool:
        """Whether every part has ended."""
        if self._partial:
            return not self._pending()
        return all(record.finished() for record in self._records)

    done = ready

    def running(self) -> bool:
        """Whether some part has not ended."""
        return not self.ready()

    def cancelled(self) -> bool:
        """Always False; see `interrupt`."""
        return False

    def successful(self) -> bool:
        """Whether it ended without an exception.

        Raises
        ------
        RuntimeError
            It is not ready.
        """
        if not self.ready():
            raise RuntimeError("cannot tell before it is done")
        return all(self._status(slot) == "ok" for slot in self._children)

    def _pending(self) -> list[Slot]:
        return [slot for slot in self._children if self._status(slot) is None]

    @staticmethod
    def _status(slot: Slot) -> str | None:
        outcome = slot[0].outcomes()[slot[1]]
        return None if outcome is None else outcome.status

    # --- waiting ---

    def wait(self, timeout: float | None = -1, return_when: str | None = None) -> Any:
        """Wait until done, or for `timeout` seconds.

        Parameters
        ----------
        timeout : float, optional
            -1 and None wait without limit.
        return_when : str, optional
            A constant of `concurrent.futures`; the value is then a pair of sets (done, pending) of results.
            The first completion among several instructions means the first that all of its engines have
            ended.

        Returns
        -------
        bool
            Whether it is done.
        """
        with waiting.only_stop_waiting(self):
            if return_when is None:
                return self._wait(timeout)
            return self._wait_split(timeout, return_when)

    def _wait(self, timeout: float | None, notice: bool = False) -> bool:
        if self._streamer is not None:
            return self._streamer.wait(waiting.Deadline(timeout))
        if self._partial:
            return self._wait_slots(timeout)
        return waiting.wait_all(self._client._session, self._records, timeout, notice)

    def _wait_slots(self, timeout: float | None) -> bool:
        """Wait for some of the slots of the records (parts made by `split`)."""
        deadline = waiting.Deadline(timeout)
        return all(self._wait_slot(slot, deadline) for slot in self._children)

    def _wait_slot(self, slot: Slot, deadline: waiting.Deadline) -> bool:
        record, index = slot
        seen = 0
        while record.outcomes()[index] is None:
            if deadline.passed():
                return False
            seen = self._client._session.wait_change(record.counter, seen, deadline.left())
        return True

    def _wait_split(
        self, timeout: float | None, return_when: str
    ) -> tuple[set[AsyncResult], set[AsyncResult]]:
        session = self._client._session
        if return_when == ALL_COMPLETED:
            self._wait(timeout)
        elif return_when == FIRST_EXCEPTION:
            limit = None if timeout is None or timeout < 0 else timeout
            counters = [record.counter for record in self._records if record._outcomes is None]
            if counters and not waiting.failed_before(self._records):
                session.wait(counters, limit, True)
        elif return_when == FIRST_COMPLETED:
            self._wait_first(waiting.Deadline(timeout))
        else:
            raise ValueError(f"unknown return_when={return_when!r}")
        parts = self.split()
        done = {part for part in parts if part.ready()}
        return done, set(parts) - done

    def _wait_first(self, deadline: waiting.Deadline) -> None:
        slots = self._children
        if len(self._records) > 1:
            next(self._client._as_finished(self._records, deadline.left()), None)
            return
        seen = 0
        while len(self._pending()) == len(slots) and not deadline.passed():
            seen = self._client._session.wait_change(self._records[0].counter, seen, deadline.left())

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """Wait until the output is complete; it always precedes the outcome, so this is `wait`."""
        return self.wait(timeout)

    def get(
        self,
        timeout: float | None = None,
        return_exceptions: bool | None = None,
        return_when: str | None = None,
    ) -> Any:
        """The result, when it has arrived.

        Parameters
        ----------
        timeout : float, optional
            Seconds until `TimeoutError`; None waits without limit.
        return_exceptions : bool, optional
            Put exceptions into the result instead of raising them.
        return_when : str, optional
            ``FIRST_EXCEPTION`` raises with the first error instead of waiting for the rest.

        Raises
        ------
        RemoteError
            What was raised on the engine (also an instance of the original type); a `CompositeError` for
            several targets.
        TimeoutError
            Not ready in time; nothing is lost.
        """
        if return_when == FIRST_COMPLETED:
            warnings.warn("get ignores return_when=FIRST_COMPLETED", UserWarning, stacklevel=2)
        quiet = self._return_exceptions if return_exceptions is None else return_exceptions
        with waiting.only_stop_waiting(self):
            if return_when == FIRST_EXCEPTION:
                done, pending = self._wait_split(timeout, FIRST_EXCEPTION)
                for part in done if pending else ():
                    if not part.successful():
                        return part.get(return_exceptions=quiet)
                ready = not pending
            else:
                ready = self._wait(timeout, notice=not quiet)
        if not ready:
            raise TimeoutError("result not ready")
        return self._finished_result(quiet)

    def _foreground(self) -> Any:
        """`get` for the call that submitted this: Ctrl-C interrupts the engines."""
        try:
            self._wait(None, notice=not self._return_exceptions)
        except KeyboardInterrupt:
            waiting.interrupt_and_report(self)
        return self._finished_result(self._return_exceptions)

    def _finished_result(self, return_exceptions: bool) -> Any:
        if self._single_result:
            record, index = self._slots[0] if self._slots else (self._records[0], 0)
            good, value = record.slot(index)
            if good or return_exceptions:
                return value
            raise _fresh(value)
        pairs = [record.slot(index) for record, index in self._children]
        errors = [value for good, value in pairs if not good]
        if errors and not return_exceptions:
            raise composite(self._failed_text(), errors)
        return self._reconstruct([value for _, value in pairs], bool(errors))

    def _failed_text(self) -> str:
        return f"one or more exceptions raised in: {self._fname}"

    def _reconstruct(self, values: list[Any], failed: bool) -> Any:
        """Turn one value per slot into the result; maps and gathers join parts."""
        return values

    def result(self, timeout: float | None = None) -> Any:
        """Same as `get`, under the name that `concurrent.futures.Future` has."""
        return self.get(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception that `get` would raise, or None."""
        with waiting.only_stop_waiting(self):
            if not self._wait(timeout):
                raise TimeoutError("result not ready")
        try:
            self._finished_result(False)
        except RemoteError as error:
            return error
        return None

    @property
    def r(self) -> Any:
        """``get()``."""
        return self.get()

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """Results by engine id.

        Raises
        ------
        ValueError
            Two parts ran on one engine.
        """
        results = self.get(timeout)
        if self._single_result:
            results = [results]
        engines = [record.engine(index) for record, index in self._children]
        by_engine: dict[int, Any] = {}
        for engine, result in zip(engines, results, strict=False):
            if engine in by_engine:
                raise ValueError(f"cannot build dict, {engines.count(engine)} jobs ran on engine #{engine}")
            by_engine[engine] = result  # type: ignore[index]
        return by_engine

    @property
    def result_dict(self) -> dict[int, Any]:
        """``get_dict()``."""
        return self.get_dict()

    def interrupt(self, timeout: float | None = 10) -> list[dict[str, Any]]:
        """Interrupt it where it runs; where it waits in a queue, it will not start.

        Returns
        -------
        list of dict
            Per engine: ``engine``, ``state`` (``interrupted``, ``pending``, ``done``, ``queued`` or
            ``idle``), ``detail``.
        """
        counters = [record.counter for record in self._records if not record.finished()]
        return self._client._session.interrupt(counters, None, timeout) if counters else []

    # --- callbacks ---

    def add_done_callback(self, fn: Callable[[AsyncResult], Any]) -> None:
        """Call ``fn(self)`` when it is done, in a thread of the client (in this one if it is done)."""
        self._when_done(fn)

    def _when_done(self, fn: Callable[[AsyncResult], Any], quick: bool = False) -> None:
        """`add_done_callback`; a `quick` one never waits for anything."""
        counters = [record.counter for record in self._records if record._outcomes is None]
        self._client._callbacks.when_finished(counters, lambda: fn(self), quick)

    def __await__(self) -> Generator[Any, None, Any]:
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def tell(_: AsyncResult) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lambda: arrived.done() or arrived.set_result(None))

        self._when_done(tell, quick=True)
        yield from arrived.__await__()
        return self.get()

    # --- parts ---

    @classmethod
    def join(cls, *async_results: AsyncResult) -> AsyncResult:
        """One result made of several; the inverse of `split`."""
        if not async_results:
            raise ValueError("join needs at least one AsyncResult")
        first = async_results[0]
        if len(async_results) == 1:
            return first
        slots = [slot for ar in async_results for slot in ar._children]
        return AsyncResult(
            first._client,
            list(dict.fromkeys(record for record, _ in slots)),
            first._fname,
            return_exceptions=first._return_exceptions,
            slots=slots,
        )

    def split(self) -> tuple[AsyncResult, ...]:
        """One result per part."""
        if len(self._children) == 1:
            return (self,)
        return tuple(self._part(slot) for slot in self._children)

    def _part(self, slot: Slot) -> AsyncResult:
        return AsyncResult(
            self._client,
            [slot[0]],
            self._fname,
            True,
            return_exceptions=self._return_exceptions,
            slots=[slot],
        )

    def __len__(self) -> int:
        return sum(self._sizes())

    def _sizes(self) -> Sequence[int]:
        return self._chunk_sizes if self._chunk_sizes is not None else [1] * len(self._children)

    def __iter__(self) -> Iterator[Any]:
        if self._single_result:
            raise TypeError("AsyncResults with a single result are not iterable.")
        return self._iterate()

    def _iterate(self) -> Iterator[Any]:
        for slot in self._children:
            yield self._await_slot(slot)

    def _await_slot(self, slot: Slot) -> Any:
        """The value of one part, when it has arrived."""
        with waiting.only_stop_waiting(self):
            self._wait_slot(slot, waiting.Deadline(None))
        good, value = slot[0].slot(slot[1])
        if good or self._return_exceptions:
            return value
        raise composite(self._failed_text(), [value])

    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            if key not in _METADATA:
                raise KeyError(key)
            values = [record.metadata(index)[key] for record, index in self._children]
            return values[0] if self._single_result else values
        if not isinstance(key, int | slice):
            raise TypeError(f"invalid key type {type(key)!r}, must be 'int', 'slice', or 'str'")
        if not self.ready():
            raise TimeoutError("result not ready")
        return self._finished_result(self._return_exceptions)[key]

    def __getattr__(self, key: str) -> Any:
        if key in _METADATA:
            return self[key]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {key!r}")

    # --- showing ---

    def wait_interactive(
        self,
        interval: float = 0.1,
        timeout: float | None = -1,
        widget: bool | None = None,
        return_when: str = ALL_COMPLETED,
    ) -> None:
        """Wait and show progress (a bar when tqdm is there).

        Parameters
        ----------
        interval : float
            Seconds between updates.
        timeout : float, optional
            Stop waiting after this long; -1 and None wait without limit.
        widget : bool, optional
            A notebook widget instead of text; the default is whether this is a notebook.
        return_when : str
            A constant of `concurrent.futures`.
        """
        with waiting.only_stop_waiting(self):
            self._wait_with_bar(interval, timeout, widget, return_when)

    def _wait_with_bar(
        self,
        interval: float = 0.1,
        timeout: float | None = -1,
        widget: bool | None = None,
        return_when: str = ALL_COMPLETED,
    ) -> None:
        deadline = waiting.Deadline(timeout)
        bar = display.progress_bar(len(self), self._fname, widget)
        try:
            while not self._wait_some(deadline.capped(interval), return_when):
                bar.update(self.progress - bar.n)
                if deadline.passed():
                    break
            bar.update(self.progress - bar.n)
        finally:
            bar.close()

    def _wait_some(self, seconds: float, return_when: str) -> bool:
        if return_when == ALL_COMPLETED:
            return self._wait(seconds)
        done, pending = self._wait_split(seconds, return_when)
        if not pending:
            return True
        return bool(done) if return_when == FIRST_COMPLETED else any(not part.successful() for part in done)

    def display_outputs(self, groupby: str = "type", result_only: bool = False) -> None:
        """Show what it printed, displayed and returned, grouped by ``'type'``, ``'engine'`` or ``'order'``.

        Raises
        ------
        TimeoutError
            It is not ready.
        """
        if not self.ready():
            raise TimeoutError("result not ready")
        display.display_outputs(self, groupby, result_only)

    @contextmanager
    def stream_output(self) -> Iterator[None]:
        """Within this context, `wait` and `get` print output as it arrives."""
        self._streamer = waiting.Streamer(self._client._session, self._records)
        try:
            yield
        finally:
            streamer, self._streamer = self._streamer, None
            streamer.finish()


def _fresh(error: BaseException) -> BaseException:
    """The same exception without the local frames of an earlier raise."""
    return error.with_traceback(None)
