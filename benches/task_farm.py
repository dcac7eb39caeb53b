"""How many tasks that do nothing does a load-balanced view get done per second?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import _bench

ENGINES = 4


def noop() -> None:
    """In this program itself, so that it is sent as code."""


def nothing(_: int) -> None:
    pass


def by_map(client: Any) -> Callable[[int], Any]:
    view = client.load_balanced_view()
    return lambda tasks: view.map_sync(nothing, range(tasks), chunksize=1)


def by_apply(client: Any) -> Callable[[int], Any]:
    view = client.load_balanced_view()

    def farm(tasks: int) -> None:
        for result in [view.apply_async(noop) for _ in range(tasks)]:
            result.get()

    return farm


def per_second(farm: Callable[[int], Any], tasks: int) -> float:
    begin = time.perf_counter()
    farm(tasks)
    return tasks / (time.perf_counter() - begin)


def measure(binding: str, rounds: int, tasks: int) -> list[_bench.Figure]:
    figures = []
    with _bench.both(ENGINES, binding) as (ours, theirs):
        for name, make in (("map, one item per task", by_map), ("apply_async and get", by_apply)):
            figure = _bench.Figure(f"{name}, bound: {binding}", "tasks/s")
            figures.append(figure)
            our_farm, their_farm = make(ours), make(theirs)
            per_second(our_farm, 50)
            per_second(their_farm, 50)
            for _ in range(rounds):
                figure.ipsteer.append(per_second(our_farm, tasks))
                figure.peer.append(per_second(their_farm, tasks))
    return figures


def main() -> None:
    options = _bench.options(__doc__)
    rounds, tasks = (2, 200) if options.quick else (5, 1000)
    report = _bench.Report(
        "Task farm",
        f"{tasks} tasks that do nothing over {ENGINES} engines, {rounds} rounds that take turns; "
        "from the first submission to the last result. More is better.",
    )
    with _bench.home():
        for binding in _bench.BINDINGS:
            report.figures += measure(binding, rounds, tasks)
    report.print(options.json)


if __name__ == "__main__":
    main()
