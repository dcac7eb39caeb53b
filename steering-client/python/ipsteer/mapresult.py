"""Results of maps and gathers: parts that become one sequence again, iterable while they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ipsteer import waiting
from ipsteer.asyncresult import AsyncResult, Slot
from ipsteer.partition import BlockMap
from ipsteer.record import Record
from ipsteer.restore import composite

if TYPE_CHECKING:
    from ipsteer.client import Client


class AsyncMapResult(AsyncResult):
    """The result of a map or gather: ``get`` joins the parts.

    It can be iterated at any time and yields items as they arrive: in order, or as they come with
    ``ordered=False``.
    """

    def __init__(
        self,
        client: Client,
        records: list[Record],
        dist: BlockMap,
        fname: str = "",
        ordered: bool = True,
        return_exceptions: bool = False,
        chunk_sizes: list[int] | None = None,
    ) -> None:
        super().__init__(client, records, fname, return_exceptions=return_exceptions)
        self._dist = dist
        self.ordered = ordered
        self._chunk_sizes = chunk_sizes

    def _reconstruct(self, values: list[Any], failed: bool) -> Any:
        if not failed:
            return self._dist.join(values)
        flat: list[Any] = []
        for (record, index), value in zip(self._children, values, strict=True):
            if record.slot(index)[0]:
                flat.extend(value)
            else:
                flat.append(value)
        return flat

    def _iterate(self) -> Iterator[Any]:
        if self.ready():
            yield from self._finished_result(self._return_exceptions)
            return
        for slot in self._children if self.ordered else self._as_they_come():
            yield from self._items(slot)

    def _items(self, slot: Slot) -> Iterator[Any]:
        with waiting.only_stop_waiting(self):
            self._wait_slot(slot, waiting.Deadline(None))
        good, value = slot[0].slot(slot[1])
        if good:
            yield from value if isinstance(value, list) else [value]
        elif self._return_exceptions:
            yield value
        else:
            raise composite(self._failed_text(), [value])

    def _as_they_come(self) -> Iterator[Slot]:
        if len(self._records) > 1:
            with waiting.only_stop_waiting(self):
                for record in self._client._as_finished(self._records):
                    yield from ((record, index) for index in range(record.size))
            return
        record, seen, given = self._records[0], 0, set()
        while len(given) < record.size:
            fresh = [
                i for i, outcome in enumerate(record.outcomes()) if outcome is not None and i not in given
            ]
            given.update(fresh)
            yield from ((record, index) for index in fresh)
            if not fresh:
                with waiting.only_stop_waiting(self):
                    seen = self._client._session.wait_change(record.counter, seen, None)
