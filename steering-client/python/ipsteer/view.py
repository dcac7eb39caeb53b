"""`View`: a set of engines with flags, and what all kinds of views do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ipsteer.asyncresult import AsyncResult
from ipsteer.mapresult import AsyncMapResult
from ipsteer.record import Record
from ipsteer.remotefunction import (
    ParallelFunction,
    RemoteFunction,
    parallel,
    remote,
)
from ipsteer.targets import resolve

if TYPE_CHECKING:
    from ipsteer.client import Client
    from ipsteer.ledger import Key


class View:
    """Base of the views: flags, calls, maps, decorators and what is done with results.

    Attributes
    ----------
    targets : int, list of int, 'all' or None
        The engines; ``'all'`` and None mean all of the cluster at each call.
    block : bool
        Whether calls wait for their result.
    track : bool
        Accepted for ipyparallel's sake; arguments are always copied before a call returns.
    label : str, optional
        Given to every submitted instruction.
    """

    _flag_names: tuple[str, ...] = ("targets", "block", "track", "label")

    def __init__(self, client: Client, targets: Any = "all", **flags: Any) -> None:
        self.client = client
        self.block: bool = client.block
        self.track = False
        self.label: str | None = None
        self._keys: list[Key] = []
        self.targets = targets
        self.set_flags(**flags)

    @property
    def targets(self) -> Any:
        """The engines of this view."""
        return self._targets

    @targets.setter
    def targets(self, targets: Any) -> None:
        self._targets = targets
        self._resolved: tuple[tuple[int, ...], bool] | None = None

    def _engines(self, targets: Any = None) -> tuple[tuple[int, ...], bool]:
        """(engine ids, whether the result is a single one) of `targets`, by default this view's."""
        if targets is not None:
            return resolve(targets, self.client._ids)
        if self._resolved is None or self._targets is None or isinstance(self._targets, str):
            self._resolved = resolve(self._targets, self.client._ids)
        return self._resolved

    def __repr__(self) -> str:
        text = str(self.targets)
        return f"<{type(self).__name__} {text if len(text) <= 16 else text[:12] + '...]'}>"

    def __len__(self) -> int:
        return len(self._engines()[0])

    # --- flags ---

    def set_flags(self, **kwargs: Any) -> View:
        """Set flags by keyword and return the view.

        Raises
        ------
        KeyError
            A flag that this kind of view does not have.
        """
        for name, value in kwargs.items():
            if name not in self._flag_names:
                raise KeyError(f"Invalid name: {name!r}")
            setattr(self, name, value)
        return self

    @contextmanager
    def temp_flags(self, **kwargs: Any) -> Iterator[None]:
        """Set flags within a ``with`` block."""
        saved = {name: getattr(self, name) for name in self._flag_names}
        try:
            self.set_flags(**kwargs)
            yield
        finally:
            self.set_flags(**saved)

    # --- submitting ---

    def _submit(
        self,
        kind: str,
        targets: tuple[int, ...],
        meta: str,
        blobs: Sequence[Any] = (),
        name: str = "",
        each: Sequence[int] | None = None,
        one_of: bool = False,
        label: str | None = None,
    ) -> Record:
        label = self.label if label is None else label
        record = self.client._submit(kind, targets, meta, blobs, name or kind, each, one_of, label)
        self._keys.append((record.counter, None if one_of else targets))
        return record

    def _answer(self, ar: AsyncResult, block: bool | None) -> Any:
        """The value of a blocking call; the result itself otherwise."""
        return ar._foreground() if (self.block if block is None else block) else ar

    def _really_apply(
        self,
        f: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        block: bool | None = None,
        targets: Any = None,
    ) -> Any:
        raise NotImplementedError

    def apply(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` on the engines; waits if ``self.block``."""
        return self._really_apply(f, args, kwargs)

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` on the engines and return at once."""
        return self._really_apply(f, args, kwargs, False)

    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` on the engines and wait; Ctrl-C interrupts the engines."""
        return self._really_apply(f, args, kwargs, True)

    def map(self, f: Callable[..., Any], *sequences: Any, **kwargs: Any) -> Any:
        """`map` of the builtins on the engines; see the subclasses."""
        raise NotImplementedError

    def map_async(self, f: Callable[..., Any], *sequences: Any, **kwargs: Any) -> AsyncMapResult:
        """``map(..., block=False)``."""
        return self._map_with(f, sequences, kwargs, "map_async", False)

    def map_sync(self, f: Callable[..., Any], *sequences: Any, **kwargs: Any) -> list[Any]:
        """``map(..., block=True)``."""
        return self._map_with(f, sequences, kwargs, "map_sync", True)

    def _map_with(self, f: Any, sequences: Any, kwargs: dict[str, Any], name: str, block: bool) -> Any:
        if "block" in kwargs:
            raise TypeError(f"{name} doesn't take a `block` keyword argument.")
        return self.map(f, *sequences, block=block, **kwargs)

    def imap(self, f: Callable[..., Any], *sequences: Any, **kwargs: Any) -> Iterator[Any]:
        """Iterator over ``map_async``."""
        return iter(self.map_async(f, *sequences, **kwargs))

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable], RemoteFunction]:
        """Decorator: calls of the function run on this view's engines."""
        return remote(self, block=self.block if block is None else block, **flags)

    def parallel(
        self, dist: str = "b", block: bool | None = None, **flags: Any
    ) -> Callable[[Callable], ParallelFunction]:
        """Decorator: sequences given to the function are split over this view's engines."""
        return parallel(self, dist=dist, block=self.block if block is None else block, **flags)

    # --- results and control ---

    @property
    def history(self) -> list[str]:
        """Message ids of everything this view submitted, in order."""
        return self.client._ledger.names(self._keys)

    @property
    def outstanding(self) -> set[str]:
        """Message ids that have not ended."""
        return self.client._ledger.outstanding({counter for counter, _ in self._keys})

    @property
    def results(self) -> Any:
        """The client's results by message id."""
        return self.client.results

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for `jobs` (indices of `history`, message ids, results), by default all of this view."""
        return self.client.wait(self._own_ids(sorted(self.outstanding) if jobs is None else jobs), timeout)

    def get_result(
        self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = False
    ) -> Any:
        """The result for indices of `history` or message ids; the last one by default."""
        wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        return self.client.get_result(self._own_ids(wanted), block=block, owner=owner)

    def _own_ids(self, jobs: Any) -> Any:
        if isinstance(jobs, int):
            return self.history[jobs]
        if isinstance(jobs, list | tuple | set):
            return [self._own_ids(job) for job in jobs]
        return jobs

    def queue_status(self, targets: Any = None, verbose: bool = False) -> dict:
        """`Client.queue_status` of this view's engines."""
        return self.client.queue_status(self.targets if targets is None else targets, verbose=verbose)

    def interrupt(self, targets: Any = None, timeout: float | None = 10) -> list[dict[str, Any]]:
        """Interrupt what runs on this view's engines; see `Client.interrupt`."""
        return self.client.interrupt(self.targets if targets is None else targets, timeout=timeout)

    def shutdown(
        self, targets: Any = None, restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """`Client.shutdown`; this view must contain all engines."""
        block = self.block if block is None else block
        self.client.shutdown(self.targets if targets is None else targets, restart, hub, block)
