"""Times and metadata of a result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from ipsteer.record import Metadata


class Timed:
    """The part of `AsyncResult` that tells when and where its parts ran."""

    @property
    def metadata(self) -> Metadata | list[Metadata]:
        """What is known about each part: ids, times, engine, status, output."""
        rows = [record.metadata(index) for record, index in self._children]
        return rows[0] if self._single_result else rows

    def timedelta(
        self,
        start: datetime | Iterable[datetime],
        end: datetime | Iterable[datetime],
        start_key: Callable[..., datetime] = min,
        end_key: Callable[..., datetime] = max,
    ) -> float:
        """Seconds between two (sets of) times, such as ``ar.submitted`` and ``ar.received``."""
        first = start if isinstance(start, datetime) else start_key(start)
        last = end if isinstance(end, datetime) else end_key(end)
        return (last - first).total_seconds()

    @property
    def progress(self) -> int:
        """How many tasks have ended, of ``len(ar)``."""
        return sum(
            size
            for size, slot in zip(self._sizes(), self._children, strict=True)
            if self._status(slot) is not None
        )

    @property
    def elapsed(self) -> float:
        """Seconds since the submit; the `wall_time` once it is done."""
        if self.ready():
            return self.wall_time
        return time.time() - min(record.submitted() for record in self._records)

    def _finished_outcomes(self) -> list[Any]:
        if not self.ready():
            raise TimeoutError("result not ready")
        return [record.outcomes()[index] for record, index in self._children]

    @property
    def serial_time(self) -> float:
        """Sum of the seconds that the engines worked."""
        return sum(
            outcome.completed - outcome.started for outcome in self._finished_outcomes() if outcome.started
        )

    @property
    def wall_time(self) -> float:
        """Seconds from the first submit to the last arrival."""
        received = max(outcome.received for outcome in self._finished_outcomes())
        return received - min(record.submitted() for record in self._records)
