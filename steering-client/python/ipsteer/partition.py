"""How a sequence is cut into one part per engine, and how parts become one sequence again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any


def _is_array(obj: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(obj, numpy.ndarray)


class BlockMap:
    """Contiguous blocks; the first ones are longer by one when it does not divide evenly."""

    def part(self, seq: Any, index: int, parts: int, length: int | None = None) -> Any:
        """Part `index` of `parts`; `length` stands in for ``len(seq)``."""
        length = len(seq) if length is None else length
        if not 0 <= index < parts:
            raise ValueError(f"part {index} of {parts} does not exist")
        base, longer = divmod(length, parts)
        low = index * base + min(index, longer)
        high = low + base + (index < longer)
        try:
            return seq[low:high]
        except TypeError:
            return list(islice(seq, low, high))

    def join(self, parts: Sequence[Any]) -> Any:
        """The parts as one array or list; parts that are no sequences come back as they are."""
        first = parts[0]
        if _is_array(first) and first.ndim:
            return sys.modules["numpy"].concatenate(parts)
        if all(isinstance(part, list | tuple | range) for part in parts):
            return list(chain.from_iterable(parts))
        return list(parts)


class RoundRobinMap(BlockMap):
    """Item i goes to part ``i % parts``."""

    def part(self, seq: Any, index: int, parts: int, length: int | None = None) -> Any:
        """Part `index` of `parts`."""
        length = len(seq) if length is None else length
        try:
            return seq[index:length:parts]
        except TypeError:
            return list(islice(seq, index, length, parts))

    def join(self, parts: Sequence[Any]) -> Any:
        """The parts woven together again."""
        first = parts[0]
        if _is_array(first) and first.ndim:
            return self._weave_arrays(parts)
        if all(isinstance(part, list | tuple | range) for part in parts):
            longest = max(len(part) for part in parts)
            return [part[i] for i in range(longest) for part in parts if i < len(part)]
        return list(parts)

    def _weave_arrays(self, parts: Sequence[Any]) -> Any:
        numpy = sys.modules["numpy"]
        total = sum(len(part) for part in parts)
        dtype = numpy.result_type(*parts)
        whole = numpy.empty((total, *parts[0].shape[1:]), dtype=dtype)
        for index, part in enumerate(parts):
            whole[index :: len(parts)] = part
        return whole


DISTS: dict[str, type[BlockMap]] = {"b": BlockMap, "r": RoundRobinMap}


def distribution(dist: str) -> BlockMap:
    """The map called `dist`.

    Raises
    ------
    ValueError
        For anything but ``'b'`` (blocks) and ``'r'`` (round robin).
    """
    try:
        return DISTS[dist]()
    except KeyError:
        raise ValueError(f"dist must be 'b' (blocks) or 'r' (round robin), not {dist!r}") from None
