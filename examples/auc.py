"""The area under 0.7x³ - 2x² + 4 on [0, 3]: every rank sums its own bars, and MPI sums the ranks.

The client sends one function to all engines of a view. In each of them it runs as ordinary MPI code:
`ipengine.comm` has exactly the ranks of that view, so that the same function works on two engines and on
all. A bar is as high as the curve at the bar's left edge; rank i takes the bars i, i + size, i + 2 size,
...
"""

from __future__ import annotations

from fractions import Fraction

import _start
import ipsteer as ipp

LOW, HIGH = 0, 3
BARS = (10, 100, 10_000, 1_000_000)


def curve(x: float) -> float:
    return 0.7 * x**3 - 2 * x**2 + 4


def exact_area() -> float:
    """From the antiderivative, in whole numbers until the end."""

    def antiderivative(x: int) -> Fraction:
        return Fraction(7, 40) * x**4 - Fraction(2, 3) * x**3 + 4 * x

    return float(antiderivative(HIGH) - antiderivative(LOW))


def area(bars: int) -> tuple[float, float]:
    """Run by every rank: (the sum over this rank's bars, the sum over all ranks)."""
    from ipengine import comm
    from mpi4py import MPI

    ranks = comm  # each access to `ipengine.comm` looks it up again
    width = (HIGH - LOW) / bars
    own = sum(curve(LOW + i * width) for i in range(ranks.rank, bars, ranks.size)) * width
    return own, ranks.allreduce(own, MPI.SUM)


def integrate(view: ipp.DirectView, bars: int) -> float:
    """Send `area` to the view's engines and show what comes back."""
    parts = view.apply_sync(area, bars)
    totals = {total for _, total in parts}
    assert len(totals) == 1, f"an allreduce gives every rank the same sum, not {totals}"
    total = totals.pop()
    own = " + ".join(f"{part:.6g}" for part, _ in parts[:4]) + (" + ..." if len(parts) > 4 else "")
    print(f"  area({bars}) on {len(parts)} engines: {own} = {total:.10g}", flush=True)
    return total


def main() -> None:
    with _start.engines(_start.arguments(__doc__).parse_args()) as rc:
        print("sending area(bars) = this rank's bars, then allreduce:")
        for count in sorted({min(2, len(rc)), len(rc)}):
            view = rc[:count]
            for bars in BARS:
                integrate(view, bars)
        print(f"exact: {exact_area():.10g}")


if __name__ == "__main__":
    main()
