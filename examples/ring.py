"""Point-to-point and collective MPI among some of the ranks, in an order of the client's choosing.

A view may have any engines in any order. In an instruction sent to it, `ipengine.comm` is a communicator
of just these: rank i is the i-th engine of the view, whatever its rank in the world. The other engines
are not involved and stay free for other work.
"""

from __future__ import annotations

import _start
import ipsteer as ipp


def who() -> tuple[int, int, int]:
    """(rank in the world, rank in the view, size of the view)."""
    import ipengine

    ranks = ipengine.comm
    return ipengine.rank, ranks.rank, ranks.size


def ring() -> list[int]:
    """Pass world ranks around: after `size` steps to the right, everyone has seen everyone."""
    import ipengine

    ranks = ipengine.comm
    right, left = (ranks.rank + 1) % ranks.size, (ranks.rank - 1) % ranks.size
    seen, token = [], ipengine.rank
    for _ in range(ranks.size):
        token = ranks.sendrecv(token, dest=right, source=left)
        seen.append(token)
    return seen


def total() -> int:
    """The sum of the world ranks of the view's engines."""
    import ipengine

    return ipengine.comm.allreduce(ipengine.rank)


def from_first() -> str:
    """What rank 0 of the view, its first engine, broadcasts."""
    import ipengine

    ranks = ipengine.comm
    text = f"greetings from world rank {ipengine.rank}" if ranks.rank == 0 else None
    return ranks.bcast(text, root=0)


def check(view: ipp.DirectView) -> None:
    """Run all of it on `view` and compare with what MPI must give."""
    engines = view.targets
    size = len(engines)
    print(f"\nengines {engines}:")
    places = view.apply_sync(who)
    print(f"  who():        (world rank, rank in view, size) = {places}")
    assert places == [(engine, index, size) for index, engine in enumerate(engines)]
    seen = view.apply_sync(ring)
    print(f"  ring():       {dict(zip(engines, seen, strict=True))}")
    for index in range(size):
        assert seen[index] == [engines[(index - step) % size] for step in range(1, size + 1)]
    sums = view.apply_sync(total)
    print(f"  total():      {sums}")
    assert sums == [sum(engines)] * size
    texts = view.apply_sync(from_first)
    print(f"  from_first(): {texts[-1]!r}")
    assert texts == [f"greetings from world rank {engines[0]}"] * size


def main() -> None:
    with _start.engines(_start.arguments(__doc__).parse_args()) as rc:
        ids = rc.ids
        check(rc[ids])
        check(rc[ids[::-1]])
        check(rc[ids[-1:] + ids[:-2]])  # all but the last but one, the last of them first
        print("\nall as expected")


if __name__ == "__main__":
    main()
