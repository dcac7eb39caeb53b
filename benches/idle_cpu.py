"""What do 16 idle engines, with everything that serves them, cost?"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import _bench

ENGINES = 16


def noop() -> None:
    """In this program itself, so that it is sent as code."""


def processor_seconds(pid: int) -> float:
    """Processor time of all threads, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def wake_ups(pid: int) -> int:
    """How often a thread of the process went to sleep so far."""
    pattern = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)
    return sum(
        int(pattern.search((task / "status").read_text())[1]) for task in Path(f"/proc/{pid}/task").iterdir()
    )


def memory_mib(pid: int) -> float:
    """Resident memory that is this process's share (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1]) / 1024


def totals(pids: list[int]) -> tuple[float, int]:
    return sum(map(processor_seconds, pids)), sum(map(wake_ups, pids))


def cost(
    start: Callable[[int, str], AbstractContextManager[Any]], binding: str, seconds: float, rounds: int
) -> tuple[list[float], list[float], float, list[str]]:
    """Per round: % of one core, wake-ups per second; memory of all; which processes there are."""
    loads, rates = [], []
    with start(ENGINES, binding) as client:
        client[:].apply_sync(noop)
        time.sleep(3)  # what start and first call leave behind is over
        processes = _bench.marked_processes()
        pids = list(processes)
        for _ in range(rounds):
            begin, (used, woken) = time.perf_counter(), totals(pids)
            time.sleep(seconds)
            used_after, woken_after = totals(pids)
            elapsed = time.perf_counter() - begin
            loads.append(100 * (used_after - used) / elapsed)
            rates.append((woken_after - woken) / elapsed)
        memory = sum(map(memory_mib, pids))
    names = sorted(set(processes.values()))
    return loads, rates, memory, [f"{list(processes.values()).count(name)} × {name}" for name in names]


def main() -> None:
    options = _bench.options(__doc__)
    seconds, rounds = (2.0, 1) if options.quick else (10.0, 3)
    report = _bench.Report(
        f"{ENGINES} idle engines",
        f"All processes that the product started, launcher included; {rounds} times {seconds:g} s each.",
    )
    for binding in _bench.BINDINGS:
        with _bench.home():
            ours = cost(_bench.ipsteer_client, binding, seconds, rounds)
            os.environ[_bench.MARK] += "-ipyparallel"
            theirs = cost(_bench.ipyparallel_client, binding, seconds, rounds)
        report.figures += [
            _bench.Figure(f"processor, bound: {binding}", "% of a core", ours[0], theirs[0], "≈ 0"),
            _bench.Figure(f"wake-ups, bound: {binding}", "/s", ours[1], theirs[1]),
            _bench.Figure(f"memory (PSS), bound: {binding}", "MiB", [ours[2]], [theirs[2]]),
        ]
        report.notes = [f"ipsteer: {', '.join(ours[3])}.", f"ipyparallel: {', '.join(theirs[3])}."]
    report.print(options.json)


if __name__ == "__main__":
    main()
