"""What this session submitted: history, the results still held, and which to let go of.

Results of unbounded number and size would fill the laptop: the newest `LIMIT` records are kept, and of
decoded values `BYTES` at most. An `AsyncResult` holds its own records, so nothing a user still refers to is
lost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ipsteer.record import Record, message_id

if TYPE_CHECKING:
    from ipsteer.client import Client

LIMIT = 1024
BYTES = 64 << 20

Key = tuple[int, tuple[int, ...] | None]  # counter, targets (None: the gateway chose)


class Ledger:
    """Records of one session by counter, oldest first."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._records: dict[int, Record] = {}
        self._lock = threading.RLock()
        self._sweep_at = LIMIT + 1
        self._bytes = 0
        self.keys: list[Key] = []

    def add(self, record: Record) -> None:
        """Remember a record that was just submitted."""
        self._records[record.counter] = record
        self.keys.append((record.counter, None if record.one_of else record.targets))
        if len(self._records) >= self._sweep_at:
            self._sweep()

    def _sweep(self) -> None:
        with self._lock:
            spare = len(self._records) - LIMIT * 3 // 4
            done = [record for record in list(self._records.values()) if record.finished()]
            self._forget(done[: max(spare, 0)])
            self._sweep_at = max(LIMIT + 1, 2 * len(self._records))

    def decoded(self, record: Record, added: int) -> None:
        """Count the bytes of a value that was just taken over; let older ones go when there are too many."""
        with self._lock:
            if record.counter not in self._records:
                return
            self._bytes += added
            if self._bytes <= BYTES:
                return
            for kept in self.records():
                if kept.nbytes and kept.finished():
                    self._forget([kept])
                if self._bytes <= BYTES:
                    break

    def _forget(self, records: Iterable[Record]) -> None:
        gone = []
        for record in records:
            record.keep()
            if self._records.pop(record.counter, None) is not None:
                self._bytes -= record.nbytes
                gone.append(record.counter)
        if gone:
            self._client._session.forget(gone)

    # --- look-ups ---

    def find(self, msg_id: str) -> tuple[Record, int | None]:
        """The record of an id, and the slot when it names one engine.

        Raises
        ------
        KeyError
            An id of another session, or of a result that is no longer held.
        """
        stem, _, rest = msg_id.partition("_")
        counter, _, engine = rest.partition("_")
        if stem != self._client._session_id or not counter.isdigit():
            raise KeyError(f"{msg_id!r} was not submitted by this client")
        record = self._records.get(int(counter))
        if record is None:
            raise KeyError(f"the result of {msg_id!r} is no longer held (the newest {LIMIT} are)")
        if not engine:
            return record, None
        return record, record.targets.index(int(engine))

    def records(self) -> list[Record]:
        """All records held."""
        return list(self._records.values())

    def names(self, keys: Iterable[Key]) -> list[str]:
        """Message ids of history entries."""
        client = self._client
        return [
            message_id(client, counter, engine)
            for counter, targets in keys
            for engine in (targets or (None,))
        ]

    def outstanding(self, counters: set[int] | None = None) -> set[str]:
        """Ids of slots that are not finished, of all records or those of `counters`."""
        pending: set[str] = set()
        for record in self.records():
            if counters is not None and record.counter not in counters:
                continue
            if not record.finished():
                outcomes = record.outcomes()
                pending |= {record.msg_id(i) for i, outcome in enumerate(outcomes) if outcome is None}
        return pending


class SlotMapping(Mapping[str, Any]):
    """Message id to something about its slot, over the records still held."""

    def __init__(self, ledger: Ledger, read: Any, finished_only: bool) -> None:
        self._ledger = ledger
        self._read = read
        self._finished_only = finished_only

    def _slots(self) -> Iterator[tuple[str, Record, int]]:
        for record in self._ledger.records():
            for index, outcome in enumerate(record.outcomes()):
                if outcome is not None or not self._finished_only:
                    yield record.msg_id(index), record, index

    def __getitem__(self, msg_id: str) -> Any:
        record, index = self._ledger.find(msg_id)
        index = 0 if index is None else index
        if self._finished_only and record.outcomes()[index] is None:
            raise KeyError(msg_id)
        return self._read(record, index)

    def __iter__(self) -> Iterator[str]:
        return (msg_id for msg_id, _, _ in self._slots())

    def __len__(self) -> int:
        return sum(1 for _ in self._slots())

    def __repr__(self) -> str:
        return f"<{len(self)} results held>"
