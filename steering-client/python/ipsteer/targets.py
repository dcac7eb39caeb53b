"""Which engines a call is for: what users write, turned into engine ids in the order given."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

Targets = int | str | slice | Sequence[int] | None


def select(targets: Any, ids: Sequence[int]) -> int | list[int]:
    """Evaluate an index as in ``rc[...]``: an id for an int, a list for everything else.

    Raises
    ------
    IndexError
        An id that the cluster does not have.
    TypeError
        Something that does not name engines.
    """
    if isinstance(targets, str):
        if targets.lower() != "all":
            raise TypeError(f"{targets!r} names no engines; use 'all', an int, a slice or a list of ints")
        return list(ids)
    if isinstance(targets, slice):
        return [ids[i] for i in range(*targets.indices(len(ids)))]
    if isinstance(targets, bool) or targets is None:
        raise TypeError(f"targets must be an int, a slice or ints, not {targets!r}")
    try:
        return _one(operator.index(targets), ids)
    except TypeError:
        return _many(targets, ids)


def _one(target: int, ids: Sequence[int]) -> int:
    if target < 0:
        if -target > len(ids):
            raise IndexError(f"no engine {target}: there are {len(ids)}")
        return ids[target]
    if target not in ids:
        have = ranks_text(ids) if ids else "no engines"
        raise IndexError(f"no engine {target}: the cluster has {have}")
    return target


def _many(targets: Any, ids: Sequence[int]) -> list[int]:
    if not isinstance(targets, Iterable):
        raise TypeError(f"targets must be an int, a slice or ints, not {type(targets).__name__}")
    chosen = []
    for target in targets:
        if isinstance(target, bool) or not hasattr(target, "__index__"):
            raise TypeError(f"a target must be an int, not {target!r}")
        chosen.append(_one(operator.index(target), ids))
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"an engine is named twice in {chosen}")
    return chosen


def resolve(targets: Any, ids: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """Engine ids of a view's `targets` (None means all) and whether its result is a single one.

    Raises
    ------
    ValueError
        An empty set.
    """
    chosen = list(ids) if targets is None else select(targets, ids)
    if isinstance(chosen, int):
        return (chosen,), True
    if not chosen:
        raise ValueError("the set of target engines is empty")
    return tuple(chosen), False


def ranks_text(ranks: Iterable[int]) -> str:
    """``rank 3`` or ``ranks 0-2, 5``."""
    ordered = sorted(set(ranks))
    if not ordered:
        return "engine"
    runs: list[list[int]] = []
    for rank in ordered:
        if runs and runs[-1][-1] == rank - 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return f"rank{'s' if len(ordered) > 1 else ''} {', '.join(parts)}"
