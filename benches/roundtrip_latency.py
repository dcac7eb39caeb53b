"""How long does an instruction that does nothing take, from the call to its result?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import _bench
import _breakdown

ENGINES = 4


def noop() -> None:
    """In this program itself, so that it is sent as code."""


def questions(client: Any) -> dict[str, Callable[[], Any]]:
    """The same calls for either client."""
    one, every = client[1], client[:]
    return {
        "apply on 1 of 4": lambda: one.apply_sync(noop),
        "apply on all 4": lambda: every.apply_sync(noop),
        "execute on all 4": lambda: every.execute("pass", block=True),
    }


GOALS = {"apply on 1 of 4": "≤ 0.2 ms", "apply on all 4": "≤ 0.5 ms"}


def measure(binding: str, rounds: int, calls: int) -> tuple[list[_bench.Figure], str]:
    with _bench.both(ENGINES, binding) as (ours, theirs):
        asked = [(name, questions(ours)[name], questions(theirs)[name]) for name in questions(ours)]
        figures = {
            name: _bench.Figure(f"{name}, bound: {binding}", "ms", goal=GOALS.get(name, ""))
            for name, *_ in asked
        }
        for _, our_call, their_call in asked:  # imports, caches and connections of the first call
            _bench.median_ms(our_call, calls)
            _bench.median_ms(their_call, calls)
        for _ in range(rounds):
            for name, our_call, their_call in asked:
                figures[name].ipsteer.append(_bench.median_ms(our_call, calls))
                figures[name].peer.append(_bench.median_ms(their_call, calls))
        return list(figures.values()), _breakdown.note(ours, noop, 10 * calls)


def main() -> None:
    options = _bench.options(__doc__)
    rounds, calls = (3, 20) if options.quick else (9, 100)
    report = _bench.Report(
        "Round trip of an instruction that does nothing",
        f"{ENGINES} engines of each product alive at once; {rounds} rounds that take turns, "
        f"each the median of {calls} calls; median over the rounds (smallest to largest).",
    )
    with _bench.home():
        for binding in _bench.BINDINGS:
            figures, breakdown = measure(binding, rounds, calls)
            report.figures += figures
    report.notes.append(breakdown)
    report.print(options.json)


if __name__ == "__main__":
    main()
