"""The engine that this code runs in.

``rank`` and ``size`` describe the MPI world, ``engine_id`` is the rank, ``comm`` is an mpi4py communicator of
exactly the targets of the present instruction (rank i is the i-th target as given), and ``reset_comm()``
replaces it after an error or an interrupt.
"""

from __future__ import annotations

from typing import Any

__all__ = ["comm", "engine_id", "rank", "reset_comm", "size"]


def __getattr__(name: str) -> Any:
    import _ipengine

    if name in ("rank", "engine_id"):
        return _ipengine.rank
    if name == "size":
        return _ipengine.size
    if name == "comm":
        from . import _mpi

        return _mpi.current_comm()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def reset_comm() -> None:
    """Replace the communicator of this instruction's targets; every target has to call it."""
    from . import _mpi

    _mpi.reset()
