"""What the benches share: options, clusters of both kinds side by side, rounds, and the printed table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

# How mpiexec places the engines, in Open MPI's words; more engines than cores must be allowed to share one.
BINDINGS = {"core": ["--bind-to", "core:overload-allowed"], "none": ["--bind-to", "none"]}

# In the environment of every process that a bench starts, so that it can be found again.
MARK = "IPENGINE_BENCH"


def options(description: str | None) -> argparse.Namespace:
    """The options that every bench has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    return parser.parse_args()


@dataclass
class Figure:
    """What was measured once per round, for ipsteer and for what it is compared with."""

    name: str
    unit: str
    ipsteer: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    goal: str = ""

    def ratio(self) -> float:
        """How many times the peer's median is ours."""
        return statistics.median(self.peer) / max(statistics.median(self.ipsteer), 1e-9)


@dataclass
class Report:
    """A title, a sentence on what was done, and the figures."""

    title: str
    how: str
    figures: list[Figure] = field(default_factory=list)
    peer: str = "ipyparallel"
    notes: list[str] = field(default_factory=list)

    def print(self, as_json: bool) -> None:
        """As a Markdown section or as one JSON object."""
        if as_json:
            print(json.dumps({"machine": facts()} | asdict(self), indent=2))
            return
        print(f"## {self.title}\n\n{self.how}\n\n{', '.join(f'{k} {v}' for k, v in facts().items())}\n")
        print(f"| | ipsteer | {self.peer} | {self.peer} / ipsteer | goal |\n|---|---|---|---|---|")
        for each in self.figures:
            print(
                f"| {each.name} | {_spread(each.ipsteer, each.unit)} | {_spread(each.peer, each.unit)}"
                f" | {each.ratio():.2f} | {each.goal} |"
            )
        print("".join(f"\n{note}\n" for note in self.notes))


def _spread(values: list[float], unit: str) -> str:
    """Median, and smallest to largest."""
    middle, low, high = map(_digits, (statistics.median(values), min(values), max(values)))
    return f"**{middle}** {unit} ({low} to {high})"


def _digits(value: float) -> str:
    """Three digits that count, more before the point where there are."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def facts() -> dict[str, Any]:
    """The machine and the versions."""
    launcher = subprocess.run(
        ["mpiexec", "--version"], capture_output=True, text=True, timeout=30, check=True
    ).stdout.splitlines()[0]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        "launcher": launcher,
        "ipsteer": version("ipsteer"),
        "ipyparallel": version("ipyparallel"),
    }


@contextmanager
def home() -> Iterator[str]:
    """A directory for everything that either product writes, and a mark on what is started."""
    directory = tempfile.mkdtemp(prefix="ipb-")
    os.environ["IPSTEER_DIR"] = os.environ["IPYTHONDIR"] = directory
    os.environ[MARK] = str(uuid.uuid4())
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def ipsteer_client(n: int, binding: str) -> Iterator[Any]:
    """A client of `n` engines of this project."""
    import ipsteer

    with ipsteer.Cluster(n, mpi_args=BINDINGS[binding]) as client:
        yield client


@contextmanager
def ipyparallel_client(n: int, binding: str) -> Iterator[Any]:
    """A client of `n` engines of ipyparallel, started by the same launcher with the same placement."""
    cluster = ipyparallel_cluster(n, binding)
    client = cluster.start_and_connect_sync()
    try:
        yield client
    finally:
        client.close()
        cluster.stop_cluster_sync()


def ipyparallel_cluster(n: int, binding: str) -> Any:
    """Not started yet."""
    import ipyparallel
    from ipsteer.launch import find_mpiexec, local_settings
    from traitlets.config import Config

    arguments, env = local_settings(find_mpiexec(None))
    os.environ.update(env)
    config = Config()
    config.MPILauncher.mpi_args = [*arguments, *BINDINGS[binding]]
    return ipyparallel.Cluster(n=n, engines="mpi", config=config, log_level=40)


@contextmanager
def both(n: int, binding: str) -> Iterator[tuple[Any, Any]]:
    """Clients of both, alive at the same time; whichever is not measured is idle."""
    with ExitStack() as stack:
        theirs = stack.enter_context(ipyparallel_client(n, binding))
        ours = stack.enter_context(ipsteer_client(n, binding))
        yield ours, theirs


def median_ms(call: Callable[[], Any], count: int) -> float:
    """The median time of one of `count` calls, in milliseconds."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def marked_processes() -> dict[int, str]:
    """Id and command of every process with the mark; without this one, which set it after its start."""
    found = {}
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as environ:
                if mark not in environ.read().split(b"\0"):
                    continue
            with open(f"/proc/{entry}/comm") as comm:
                found[int(entry)] = comm.read().strip()
        except OSError:
            continue  # ended meanwhile, or another user's
    return found
