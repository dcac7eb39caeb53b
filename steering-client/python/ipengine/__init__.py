"""Outside an engine: the names exist, so that code with them can be imported and sent; using one fails.

Inside an engine of ipengine-mpi another package of this name, embedded in the engine, gives `rank`, `size`,
`engine_id`, `comm` and `reset_comm`.
"""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["comm", "engine_id", "rank", "reset_comm", "size"]

_CALLABLE = ("reset_comm",)


def _only_inside(name: str) -> NoReturn:
    raise RuntimeError(
        f"only inside an engine: ipengine.{name} describes the MPI process that runs the code; "
        "send the code that uses it with view.apply or view.execute"
    )


def __getattr__(name: str) -> Any:
    if name in __all__ and name not in _CALLABLE:
        _only_inside(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def reset_comm() -> None:
    """Refuse: there is no communicator outside an engine."""
    _only_inside("reset_comm")
