"""How long until N engines answer, beside the least that an MPI Python program needs to start?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import _bench
from ipsteer.launch import find_mpiexec, local_settings


def noop() -> None:
    """In this program itself, so that it is sent as code."""


def bare_mpi(n: int, binding: str) -> float:
    """`mpiexec -n N python -c "from mpi4py import MPI"`, to its end."""
    mpiexec = find_mpiexec(None)
    arguments, env = local_settings(mpiexec)
    command = [mpiexec, *arguments, *_bench.BINDINGS[binding], "-n", str(n)]
    begin = time.perf_counter()
    subprocess.run(
        [*command, sys.executable, "-c", "from mpi4py import MPI"], env=_bench.os.environ | env, check=True
    )
    return time.perf_counter() - begin


def ipsteer_answers(n: int, binding: str) -> float:
    """From `Cluster(n)` to an answer of every engine."""
    begin = time.perf_counter()
    with _bench.ipsteer_client(n, binding) as client:
        client[:].apply_sync(noop)
        return time.perf_counter() - begin


def ipyparallel_answers(n: int, binding: str) -> float:
    """The same of the peer."""
    begin = time.perf_counter()
    with _bench.ipyparallel_client(n, binding) as client:
        client[:].apply_sync(noop)
        return time.perf_counter() - begin


def measure(
    n: int, binding: str, rounds: int, peers: dict[str, Callable[[int, str], float]]
) -> list[_bench.Figure]:
    figures = [_bench.Figure(f"{n} engines, bound: {binding}, beside {name}", "s") for name in peers]
    figures[0].goal = "ratio ≥ 0.77 (1.3 times)"
    for _ in range(rounds):
        ours = ipsteer_answers(n, binding)
        for figure, peer in zip(figures, peers.values(), strict=True):
            figure.ipsteer.append(ours)
            figure.peer.append(peer(n, binding))
    return figures


def main() -> None:
    options = _bench.options(__doc__)
    rounds = 2 if options.quick else 5
    report = _bench.Report(
        "Start",
        "From `Cluster(n)` in a running Python until every engine answered an instruction; "
        f"{rounds} rounds that take turns with `ipyparallel.Cluster` and with "
        '`mpiexec -n N python -c "from mpi4py import MPI"` (to its end).',
        peer="peer",
    )
    peers = {"bare MPI": bare_mpi, "ipyparallel": ipyparallel_answers}
    with _bench.home():
        for n in (4,) if options.quick else (4, 16):
            for binding in _bench.BINDINGS:
                report.figures += measure(n, binding, rounds, peers)
    report.print(options.json)


if __name__ == "__main__":
    main()
