"""Load-balanced views: each call is one task, and the gateway gives it to the least busy engine."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ipsteer import _work, waiting
from ipsteer.asyncresult import AsyncResult
from ipsteer.mapresult import AsyncMapResult
from ipsteer.record import Record
from ipsteer.remotefunction import ParallelFunction, function_name, map_parts
from ipsteer.view import View


class LoadBalancedView(View):
    """A view whose calls each run on one engine of `targets` (None: of all)."""

    def __init__(self, client: Any, targets: Any = None, **flags: Any) -> None:
        super().__init__(client, targets, **flags)

    def _task(
        self, f: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str, label: str | None = None
    ) -> Record:
        engines, _ = self._engines()
        meta, blobs, by_value = _work.apply(f, args, kwargs, name)
        if by_value:
            self.client._refuse_code(engines, name)
        return self._submit("apply", engines, meta, blobs, name, one_of=True, label=label)

    def _really_apply(
        self,
        f: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        block: bool | None = None,
        targets: Any = None,
    ) -> Any:
        name = function_name(f)
        record = self._task(f, args, kwargs or {}, name)
        return self._answer(AsyncResult(self.client, [record], name, True), block)

    def map(
        self,
        f: Callable[..., Any],
        *sequences: Any,
        block: bool | None = None,
        chunksize: int = 1,
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Any:
        """`map` of the builtins; each `chunksize` items are one task.

        Parameters
        ----------
        f : callable
            Called with one item of each sequence.
        *sequences : iterables
            The shortest decides the length.
        block : bool, optional
            Wait for the list of results; the view's flag by default.
        chunksize : int
            Items per task.
        ordered : bool
            Whether iterating over the result keeps the order; the list always does.
        return_exceptions : bool
            Put exceptions into the result instead of raising them.
        label : str, optional
            Given to every task.

        Returns
        -------
        AsyncMapResult, or list if it blocks
        """
        function = ParallelFunction(
            self,
            f,
            block=block,
            chunksize=chunksize,
            ordered=ordered,
            return_exceptions=return_exceptions,
            label=label,
        )
        return function.map(*sequences)

    def _parallel(
        self, function: ParallelFunction, sequences: Sequence[Any], length: int, mapping: bool
    ) -> Any:
        """One task per chunk of `sequences`."""
        tasks = -(-length // (function.chunksize or 1))
        records, sizes = [], []
        for index in range(tasks):
            parts = [function.dist.part(seq, index, tasks, length) for seq in sequences]
            f, args = map_parts(function.func, parts) if mapping else (function.func, parts)
            records.append(self._task(f, args, {}, function.__name__, function.label))
            sizes.append(len(parts[0]) if mapping else 1)
        return AsyncMapResult(
            self.client,
            records,
            function.dist,
            function.__name__,
            function.ordered,
            function.return_exceptions,
            sizes,
        )

    def imap(
        self,
        f: Callable[..., Any],
        *sequences: Any,
        ordered: bool = True,
        max_outstanding: int | str = "auto",
        return_exceptions: bool = False,
    ) -> LazyMapIterator:
        """Lazy `map` that takes inputs only as engines become free, so that they may be endless.

        Parameters
        ----------
        f : callable
            Called with one item of each iterable.
        *sequences : iterables
            The shortest decides the length.
        ordered : bool
            Keep the order of submission, or yield what comes first.
        max_outstanding : int or 'auto'
            Tasks at a time; ``'auto'`` means one per engine, 0 takes the whole input at once.
        return_exceptions : bool
            Yield exceptions instead of raising them.
        """
        if not sequences:
            raise TypeError("must have some sequences to map onto!")
        limit = len(self) if max_outstanding == "auto" else int(max_outstanding)
        return LazyMapIterator(self, f, zip(*sequences, strict=False), ordered, limit, return_exceptions)


class LazyMapIterator:
    """What `LoadBalancedView.imap` returns; `cancel` stops taking inputs."""

    # with ordered results, how many may wait behind a slow one, in multiples of the tasks at a time
    READ_AHEAD = 4

    def __init__(
        self, view: LoadBalancedView, f: Any, inputs: Iterator[tuple], ordered: bool, limit: int, quiet: bool
    ) -> None:
        self._view = view
        self._f = f
        self._inputs: Iterator[tuple] | None = inputs
        self._ordered = ordered
        self._limit = limit
        self._quiet = quiet
        self._waiting: deque[AsyncResult] = deque()  # not yielded yet, in order of submission
        self._arrived: queue.SimpleQueue[AsyncResult] = queue.SimpleQueue()
        self._in_flight = 0
        self._input_error: BaseException | None = None
        self._top_up()

    def __iter__(self) -> LazyMapIterator:
        return self

    def cancel(self) -> None:
        """Stop taking inputs; what was submitted is still yielded."""
        self._inputs = None

    def _drain(self) -> None:
        """Count what ended without being waited for (ordered results are taken from `_waiting`)."""
        while self._ordered and not self._arrived.empty():
            self._arrived.get()
            self._in_flight -= 1

    def _top_up(self) -> None:
        self._drain()
        room = self._limit * self.READ_AHEAD
        while self._inputs is not None and (
            not self._limit or (self._in_flight < self._limit and len(self._waiting) < room)
        ):
            try:
                args = next(self._inputs)
                ar = self._view.apply_async(self._f, *args)
            except StopIteration:
                self._inputs = None
                return
            except Exception as error:  # raised where its turn in the results is
                self._input_error, self._inputs = error, None
                return
            self._waiting.append(ar)
            self._in_flight += 1
            ar._when_done(self._arrived.put, quick=True)

    def _next_arrived(self) -> AsyncResult:
        with waiting.only_stop_waiting(self._waiting[0]):
            ar = self._arrived.get()
        self._in_flight -= 1
        return ar

    def __next__(self) -> Any:
        self._top_up()
        while not self._waiting and self._inputs is not None:
            # results are known a moment before their callbacks have counted them
            self._arrived.get()
            self._in_flight -= 1
            self._top_up()
        if not self._waiting:
            if self._input_error is not None:
                error, self._input_error = self._input_error, None
                raise error
            raise StopIteration
        ar = self._take()
        self._top_up()
        return ar.get(return_exceptions=self._quiet)

    def _take(self) -> AsyncResult:
        if not self._ordered:
            ar = self._next_arrived()
            self._waiting.remove(ar)
            return ar
        while not self._waiting[0].ready():
            self._next_arrived()
            self._top_up()
        return self._waiting.popleft()
