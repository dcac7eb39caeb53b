"""Functions to call when instructions finish: two daemon threads per client, started at first use.

One hears what has finished and tells those who wait inside this package. The user's callbacks run in the
other one, so that they may themselves wait for results.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipsteer.client import Client

_log = logging.getLogger("ipsteer")


class _Waiter:
    """A function to call once all of its counters are finished."""

    def __init__(self, counters: Iterable[int], function: Callable[[], None], quick: bool) -> None:
        self.remaining = set(counters)
        self.function = function
        self.quick = quick

    def run(self) -> None:
        try:
            self.function()
        except Exception:
            _log.exception("exception in a callback of a result")


class Callbacks:
    """Runs functions when instructions finish, each exactly once, outside of any lock."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._waiters: dict[int, list[_Waiter]] = {}
        self._threads: list[threading.Thread] = []
        # For the thread of the user's callbacks; None ends it.
        self._due: queue.SimpleQueue[_Waiter | None] = queue.SimpleQueue()
        self._ended = False

    def when_finished(
        self, counters: Iterable[int], function: Callable[[], None], quick: bool = False
    ) -> None:
        """Call `function` when all `counters` are finished; at once, here, if they already are.

        A `quick` one never waits for anything and is called by the thread that hears of the end.
        """
        waiter = _Waiter(counters, function, quick)
        with self._lock:
            ended = self._ended
            if not ended:
                for counter in waiter.remaining:
                    self._waiters.setdefault(counter, []).append(waiter)
                self._start()
        if ended:
            waiter.run()
            return
        # what finished before it was registered may already have been reported
        session = self._client._session
        known = [counter for counter in list(waiter.remaining) if session.finished(counter)]
        for due in self._finished(known):
            if due is waiter:
                due.run()
            else:
                self._hand_over(due)
        if not counters:
            waiter.run()

    def _start(self) -> None:
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._hear, name="ipsteer-finished", daemon=True),
                threading.Thread(target=self._call, name="ipsteer-callbacks", daemon=True),
            ]
            for thread in self._threads:
                thread.start()

    def _call(self) -> None:
        while (waiter := self._due.get()) is not None:
            waiter.run()

    def _hear(self) -> None:
        session = self._client._session
        while True:
            try:
                finished = session.next_finished(None)
            except Exception:  # the session is closed: whoever still waits finds out by asking
                break
            for waiter in self._finished(finished):
                self._hand_over(waiter)
        with self._lock:
            self._ended = True
            left = {id(waiter): waiter for waiters in self._waiters.values() for waiter in waiters}
            self._waiters.clear()
        for waiter in left.values():
            self._hand_over(waiter)
        self._due.put(None)

    def _hand_over(self, waiter: _Waiter) -> None:
        if waiter.quick:
            waiter.run()
        else:
            self._due.put(waiter)

    def _finished(self, counters: Iterable[int]) -> list[_Waiter]:
        """Those whose last counter is among `counters`."""
        due = []
        with self._lock:
            for counter in counters:
                for waiter in self._waiters.pop(counter, ()):
                    waiter.remaining.discard(counter)
                    if not waiter.remaining:
                        due.append(waiter)
        return due

    def join(self) -> None:
        """Wait for the threads' end; the session must be closed."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5)
