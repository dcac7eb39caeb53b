"""Steer a simulation: look at the field, turn a knob, go on from where it is.

Heat spreads over a square plate by Jacobi steps. Each engine holds a strip of its rows, and MPI carries
the edges of the strips between neighbours. The field and the knobs are plain names in the engines'
namespaces: between two stretches of steps the client pulls what it wants to see and pushes what it wants
to change. Nothing is set up anew.

The knobs are the temperatures of the top and the bottom edge, and how much of each step is taken
(`relaxation`). With the top edge at 1 and the other edges at 0 the centre must settle at 1/4, since the
four edges have equal shares in it; with the bottom edge heated too, at 1/2.
"""

from __future__ import annotations

import _start
import ipsteer as ipp
import numpy as np

SIZE = 31  # inner points along an edge; odd, so that there is a centre
STRETCH = 250  # steps between two looks
SETTLED = 1e-7
MOST_STRETCHES = 200


def set_up(size: int) -> tuple[int, int]:
    """Make this engine's strip of a cold plate; returns the first of its rows and the one after the last."""
    import ipengine
    import numpy

    global field, steps, top, bottom, relaxation
    ranks = ipengine.comm
    bounds = [size * rank // ranks.size for rank in range(ranks.size + 1)]
    low, high = bounds[ranks.rank], bounds[ranks.rank + 1]
    field = numpy.zeros((high - low + 2, size + 2))  # with a row above, a row below, and the side edges
    steps, top, bottom, relaxation = 0, 0.0, 0.0, 1.0
    return low, high


def advance(count: int) -> tuple[int, float]:
    """Take `count` steps; returns the steps so far and the largest change in the last one, anywhere."""
    import ipengine
    from mpi4py import MPI

    global field, steps
    ranks = ipengine.comm
    above = ranks.rank - 1 if ranks.rank > 0 else MPI.PROC_NULL
    below = ranks.rank + 1 if ranks.rank + 1 < ranks.size else MPI.PROC_NULL
    if above == MPI.PROC_NULL:
        field[0, 1:-1] = top
    if below == MPI.PROC_NULL:
        field[-1, 1:-1] = bottom
    change = field[1:-1, 1:-1] * 0
    for _ in range(count):
        ranks.Sendrecv(field[1], dest=above, recvbuf=field[-1], source=below)
        ranks.Sendrecv(field[-2], dest=below, recvbuf=field[0], source=above)
        neighbours = field[:-2, 1:-1] + field[2:, 1:-1] + field[1:-1, :-2] + field[1:-1, 2:]
        change = relaxation * (neighbours / 4 - field[1:-1, 1:-1])
        field[1:-1, 1:-1] += change
    steps += count
    return steps, ranks.allreduce(float(abs(change).max()), MPI.MAX)


def middle_column(strip: np.ndarray) -> np.ndarray:
    """One column of this engine's rows."""
    return strip[1:-1, strip.shape[1] // 2]


def look(view: ipp.DirectView) -> np.ndarray:
    """The plate's middle column, from top to bottom: the only part of the field that travels."""
    return np.concatenate(view.apply_sync(middle_column, ipp.Reference("field")))


def turn(view: ipp.DirectView, **knobs: float) -> None:
    print(f"  turning {', '.join(f'{name} = {value}' for name, value in knobs.items())}")
    view.push(knobs, block=True)


def sketch(column: np.ndarray) -> str:
    """Temperatures as a line of text, from cold to hot."""
    shades = " .:-=+*#%@"
    return "".join(shades[min(int(value * len(shades)), len(shades) - 1)] for value in column)


def stretch(view: ipp.DirectView) -> float:
    """A stretch of steps, and a look at the plate."""
    steps, change = view.apply_sync(advance, STRETCH)[0]
    column = look(view)
    centre = column[SIZE // 2]
    print(f"  step {steps:5}  change {change:.1e}  centre {centre:.5f}  |{sketch(column)}|", flush=True)
    return change


def settle(view: ipp.DirectView) -> float:
    """Advance until nothing changes any more; returns the centre's temperature."""
    for _ in range(MOST_STRETCHES):
        if stretch(view) < SETTLED:
            return look(view)[SIZE // 2]
    raise RuntimeError(f"not settled after {MOST_STRETCHES * STRETCH} steps")


def main() -> None:
    with _start.engines(_start.arguments(__doc__).parse_args()) as rc:
        view = rc[: min(len(rc), SIZE)]
        print(f"a plate of {SIZE} rows over {len(view)} engines: {view.apply_sync(set_up, SIZE)}")
        turn(view, top=1.0, bottom=0.0, relaxation=0.1)
        stretch(view)
        print("that is slow: steps of full length, from here on")
        turn(view, relaxation=1.0)
        centre = settle(view)
        assert abs(centre - 1 / 4) < 1e-3, centre
        print("settled at 1/4; now heat the bottom edge as well")
        turn(view, bottom=1.0)
        centre = settle(view)
        assert abs(centre - 1 / 2) < 1e-3, centre
        print("settled at 1/2")


if __name__ == "__main__":
    main()
