"""Callbacks for finished instructions: one daemon thread per client, started at first use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipsteer.client import Client

_log = logging.getLogger("ipsteer")


class _Waiter:
    """A function to call once all of its counters are finished."""

    def __init__(self, counters: Iterable[int], function: Callable[[], None]) -> None:
        self.remaining = set(counters)
        self.function = function

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
        self._thread: threading.Thread | None = None
        self._ended = False

    def when_finished(self, counters: Iterable[int], function: Callable[[], None]) -> None:
        """Call `function` when all `counters` are finished; at once, here, if they already are."""
        waiter = _Waiter(counters, function)
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
        self._finished([counter for counter in list(waiter.remaining) if session.finished(counter)])
        if not counters:
            waiter.run()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ipsteer-callbacks", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        session = self._client._session
        while True:
            try:
                finished = session.next_finished(None)
            except Exception:  # the session is closed: whoever still waits finds out by asking
                break
            self._finished(finished)
        with self._lock:
            self._ended = True
            left = {id(waiter): waiter for waiters in self._waiters.values() for waiter in waiters}
            self._waiters.clear()
        for waiter in left.values():
            waiter.run()

    def _finished(self, counters: Iterable[int]) -> None:
        due = []
        with self._lock:
            for counter in counters:
                for waiter in self._waiters.pop(counter, ()):
                    waiter.remaining.discard(counter)
                    if not waiter.remaining:
                        due.append(waiter)
        for waiter in due:
            waiter.run()

    def join(self) -> None:
        """Wait for the thread's end; the session must be closed."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)
