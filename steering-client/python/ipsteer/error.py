"""Errors that a client raises; errors of engines are rebuilt from data by `ipsteer.restore`."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from ipsteer.targets import ranks_text

__all__ = [
    "AlreadyDisplayedError",
    "CompositeError",
    "EngineError",
    "IPythonError",
    "KernelError",
    "NoEnginesRegistered",
    "PythonVersionError",
    "RemoteError",
    "TaskAborted",
    "TimeoutError",
]

TimeoutError = builtins.TimeoutError


class IPythonError(Exception):
    """Base of all errors here; the name is the one that notebooks for ipyparallel catch."""


class KernelError(IPythonError):
    """Something about the cluster, not about the user's code."""


class EngineError(KernelError):
    """An engine died, or could not be reached."""


class NoEnginesRegistered(KernelError):
    """The cluster has no engines (its world has ended)."""


class TaskAborted(KernelError):
    """The instruction was removed before any engine started it."""


class PythonVersionError(KernelError):
    """Code by value would have crossed between two Python minors."""


class RemoteError(KernelError):
    """An exception that was raised on an engine.

    What `get` raises derives from this class *and* from the original type when that type is known here, so
    both ``except RemoteError`` and ``except ValueError`` catch it.

    Parameters
    ----------
    ename : str
        Name of the exception's type on the engine.
    evalue : str
        Its text.
    traceback : str
        The traceback as the engine would print it.
    engine_info : dict, optional
        ``engine_id``, ``host`` and ``method`` of the instruction.
    """

    ename: str = "RemoteError"
    evalue: str = ""
    traceback: str = ""
    engine_info: dict[str, Any]
    frames: list[dict[str, Any]]

    def __init__(self, ename: str, evalue: str, traceback: str = "", engine_info: dict | None = None) -> None:
        # not super().__init__: behind this class may stand a user's type, whose constructor must not run
        self.args = (ename, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine_info = engine_info or {}
        self.frames = []

    @property
    def rank(self) -> int | None:
        """Rank of the engine that raised it."""
        return self.engine_info.get("engine_id")

    @property
    def host(self) -> str:
        """Host of the engine that raised it."""
        return self.engine_info.get("host", "")

    def _where(self) -> str:
        if self.rank is None:
            return "engine"
        return f"rank {self.rank} on {self.host}" if self.host else f"rank {self.rank}"

    def _line(self) -> str:
        return f"{self.ename}: {self.evalue}" if self.evalue else self.ename

    def __str__(self) -> str:
        return f"{self._where()}: {self._line()}"

    def __repr__(self) -> str:
        return f"<RemoteError[{'?' if self.rank is None else self.rank}]:{self.ename}({self.evalue})>"

    def render_traceback(self) -> list[str]:
        """Lines of the engine's traceback, headed by rank and host."""
        return [f"[{self._where()}]", *(self.traceback or self._rendered_frames()).splitlines()]

    def _rendered_frames(self) -> str:
        lines = ["Traceback (most recent call last):"] if self.frames else []
        for frame in self.frames:
            lines.append(f'  File "{frame["file"]}", line {frame["line"]}, in {frame["function"]}')
            if frame.get("source"):
                lines.append(f"    {frame['source'].strip()}")
        return "\n".join([*lines, self._line(), *self._own_notes()])

    def _own_notes(self) -> list[str]:
        return [note for note in getattr(self, "__notes__", ()) if not isinstance(note, TracebackNote)]

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of the local frames."""
        return self.render_traceback()

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the engine's traceback."""
        print("\n".join(self.render_traceback()))


class TracebackNote(str):
    """The engine's traceback as a note, so that plain Python and pytest show it too."""


class CompositeError(RemoteError):
    """Errors of several engines; identical ones are shown once.

    Parameters
    ----------
    message : str
        What was being done.
    errors : sequence of RemoteError
        One per failed engine, in target order.
    """

    tb_limit = 4

    def __init__(self, message: str, errors: Sequence[RemoteError]) -> None:
        super().__init__("CompositeError", message)
        self.msg = message
        self.errors = list(errors)
        self.args = (message, self.errors)

    def __reduce__(self) -> tuple:
        return CompositeError, (self.msg, self.errors)

    @property
    def elist(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        """(ename, evalue, traceback, engine_info) per failed engine."""
        return [(e.ename, e.evalue, e.traceback, e.engine_info) for e in self.errors]

    def groups(self) -> list[tuple[str, RemoteError]]:
        """Pairs of (ranks as text, first of the identical errors)."""
        return group_errors(self.errors)

    def __str__(self) -> str:
        return "\n".join([self.msg, *(f"{who}: {error._line()}" for who, error in self.groups())])

    def __repr__(self) -> str:
        return f"CompositeError({len(self.errors)})"

    def _at(self, excid: int) -> RemoteError:
        try:
            return self.errors[excid]
        except IndexError:
            raise IndexError(f"an exception with index {excid} does not exist") from None

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """Lines of one engine's traceback, or of each distinct one (`tb_limit` at most)."""
        if excid is not None:
            return self._at(excid).render_traceback()
        groups = self.groups()
        lines: list[str] = []
        for who, error in groups[: self.tb_limit]:
            lines += [f"[{who}]", *error.render_traceback()[1:], ""]
        more = groups[self.tb_limit :]
        if more:
            lines.append(f"... {len(more)} more distinct errors:")
        lines += [f"{who}: {error._line()}" for who, error in more]
        return [*lines, str(self)]

    def print_traceback(self, excid: int | None = None) -> None:
        """Print one engine's traceback, or all distinct ones."""
        print("\n".join(self.render_traceback(excid)))

    def raise_exception(self, excid: int = 0) -> NoReturn:
        """Raise the error of one engine."""
        raise self._at(excid)


class AlreadyDisplayedError(RemoteError):
    """Raised by a magic whose errors were already shown."""

    def __init__(self, original_error: CompositeError) -> None:
        super().__init__(original_error.ename, original_error.evalue)
        self.original_error = original_error
        self.n = len(original_error.errors)

    def __str__(self) -> str:
        return f"{self.n} errors"

    def render_traceback(self) -> list[str]:
        """One line: the tracebacks are on the screen already."""
        return [str(self)]


def group_errors(errors: Iterable[RemoteError]) -> list[tuple[str, RemoteError]]:
    """Merge identical errors: ``[("ranks 0-62", error), ("rank 63", error)]``, by first appearance."""
    ranks: dict[tuple[str, str], list[int]] = {}
    first: dict[tuple[str, str], RemoteError] = {}
    for error in errors:
        key = (error.ename, error.evalue)
        first.setdefault(key, error)
        ranks.setdefault(key, [])
        if error.rank is not None:
            ranks[key].append(error.rank)
    return [(ranks_text(ranks[key]), error) for key, error in first.items()]
