"""Functions bound to a view: `remote` calls them on its engines, `parallel` splits sequences over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from inspect import signature
from typing import TYPE_CHECKING, Any

from ipsteer.partition import distribution

if TYPE_CHECKING:
    from ipsteer.view import View


def function_name(f: Any) -> str:
    """A name for what is called, bounded."""
    name = getattr(f, "__name__", None)
    return name if type(name) is str else str(getattr(f, "name", None) or f)[:200]


def map_parts(f: Callable[..., Any], parts: Sequence[Any]) -> tuple[Callable[..., Any], list[Any]]:
    """A call that gives ``list(map(f, *parts))`` on an engine, of builtins that travel by name."""
    return list, [map(f, *parts)]


class RemoteFunction:
    """A function whose calls run on a view's engines.

    Parameters
    ----------
    view : View
        Where.
    f : callable
        What.
    block : bool, optional
        Whether calls wait; the view's flag by default.
    **flags
        Other flags of the view, set during each call.
    """

    def __init__(self, view: View, f: Callable[..., Any], block: bool | None = None, **flags: Any) -> None:
        self.view = view
        self.func = f
        self.block = block
        self.flags = flags
        self.__name__ = function_name(f)
        if getattr(f, "__doc__", None):
            self.__doc__ = f"{type(self).__name__} wrapping:\n{f.__doc__}"
        with suppress(TypeError, ValueError):  # some callables have none
            self.__signature__ = signature(f)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function on the view's engines."""
        block = self.view.block if self.block is None else self.block
        with self.view.temp_flags(block=block, **self.flags):
            return self.view.apply(self.func, *args, **kwargs)


class ParallelFunction(RemoteFunction):
    """A function of sequences: a call splits them over the engines, `map` applies it to each item.

    Parameters
    ----------
    view, f, block, **flags
        As for `RemoteFunction`.
    dist : str
        ``'b'`` for blocks, ``'r'`` for round robin.
    chunksize : int, optional
        Items per task, for load-balanced views.
    ordered : bool
        Whether iterating keeps the order of submission.
    return_exceptions : bool
        Put exceptions into the result instead of raising them.
    """

    def __init__(
        self,
        view: View,
        f: Callable[..., Any],
        dist: str = "b",
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
        **flags: Any,
    ) -> None:
        super().__init__(view, f, block=block, **flags)
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"chunksize must be at least 1, not {chunksize}")
        self.dist = distribution(dist)
        self.chunksize = chunksize
        self.ordered = ordered
        self.return_exceptions = return_exceptions
        self.label = label

    def __call__(self, *sequences: Any) -> Any:
        """Call the function with each engine's parts of `sequences`."""
        return self._run(sequences, mapping=False)

    def map(self, *sequences: Any) -> Any:
        """Call the function once per item; the shortest sequence decides the length."""
        return self._run(sequences, mapping=True)

    def _run(self, sequences: Sequence[Any], mapping: bool) -> Any:
        if not sequences:
            raise TypeError("must have some sequences to map onto!")
        sized = [seq if hasattr(seq, "__len__") else list(seq) for seq in sequences]
        lengths = [len(seq) for seq in sized]
        if not mapping and min(lengths) != max(lengths):
            raise ValueError(f"all sequences must have equal length, but have {lengths}")
        if min(lengths) == 0:
            return []
        block = self.view.block if self.block is None else self.block
        with self.view.temp_flags(block=False, **self.flags):
            ar = self.view._parallel(self, sized, min(lengths), mapping)
        return ar._foreground() if block else ar


def remote(view: View, block: bool | None = None, **flags: Any) -> Callable[[Callable], RemoteFunction]:
    """Decorator: calls of the function run on `view`'s engines."""
    return lambda f: RemoteFunction(view, f, block=block, **flags)


def parallel(
    view: View, dist: str = "b", block: bool | None = None, ordered: bool = True, **flags: Any
) -> Callable[[Callable], ParallelFunction]:
    """Decorator: sequences given to the function are split over `view`'s engines."""
    return lambda f: ParallelFunction(view, f, dist=dist, block=block, ordered=ordered, **flags)
