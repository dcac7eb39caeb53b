"""Where the time of a round trip goes: by stage, and by the thread that works."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _bench

STAGES = ("call returns", "engine starts", "engine ends", "client has it", "caller has it")


def note(client: Any, function: Callable[[], Any], calls: int) -> str:
    """Both tables for `function` applied on engine 1 alone, in Markdown."""
    view = client[1]
    processes = {
        "client": os.getpid(),
        "gateway": _gateway(),
        "engine": view.apply_sync(os.getpid),
    }
    for _ in range(calls):
        view.apply_sync(function)
    stages = _stages(view, function, calls)
    threads, wall = _threads(processes, lambda: view.apply_sync(function), calls)
    lines = [
        f"Where the time of `apply` on 1 of {len(client)} goes, not bound. "
        f"µs since the call, medians of {calls}: "
        + ", ".join(f"{name} **{value:.0f}**" for name, value in stages.items())
        + ".",
        "",
        f"Of each thread that takes part, per round trip of {wall:.0f} µs (mean of {calls}):",
        "",
        "| thread | processor time | sleeps |",
        "|---|---|---|",
        *(f"| {name} | {used:.0f} µs | {sleeps:.2f} |" for name, used, sleeps in threads),
        f"| all | {sum(used for _, used, _ in threads):.0f} µs | {sum(s for *_, s in threads):.1f} |",
    ]
    return "\n".join(lines)


def _stages(view: Any, function: Callable[[], Any], calls: int) -> dict[str, float]:
    """Median time since the call at each point; engine and client share this host's clock."""
    rows = []
    for _ in range(calls):
        begin = time.time()
        result = view.apply_async(function)
        returned = time.time()
        result.get()
        got = time.time()
        points = (result.started, result.completed, result.received)
        rows.append([1e6 * (at - begin) for at in (returned, *(p.timestamp() for p in points), got)])
    return dict(zip(STAGES, map(statistics.median, zip(*rows, strict=True)), strict=True))


def _threads(
    processes: dict[str, int], call: Callable[[], Any], calls: int
) -> tuple[list[tuple[str, float, float]], float]:
    """(thread, µs of processor, times it slept) per call, and the time per call."""
    before, begin = _usage(processes), time.perf_counter()
    for _ in range(calls):
        call()
    elapsed, after = time.perf_counter() - begin, _usage(processes)
    rows = []
    for key, (name, used, sleeps) in after.items():
        _, used_before, sleeps_before = before.get(key, (name, 0, 0))
        cost = (used - used_before) / calls / 1e3
        if cost >= 1:
            rows.append((name, cost, (sleeps - sleeps_before) / calls))
    return rows, 1e6 * elapsed / calls


def _usage(processes: dict[str, int]) -> dict[tuple[int, str], tuple[str, int, int]]:
    """Per thread: its name, ns of processor time, and how often it went to sleep."""
    usage = {}
    for name, pid in processes.items():
        for task in Path(f"/proc/{pid}/task").iterdir():
            used = int((task / "schedstat").read_text().split()[0])
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
            thread = "main" if task.name == str(pid) else status["Name"]
            usage[pid, task.name] = (f"{name}, {thread}", used, int(status["voluntary_ctxt_switches"]))
    return usage


def _gateway() -> int:
    """Its process; it was started with a command line of its own."""
    for pid in _bench.marked_processes():
        if b"internal-gateway" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise ProcessLookupError("no gateway among the processes of this bench")
