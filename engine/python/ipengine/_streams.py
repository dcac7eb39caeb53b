"""The standard streams of an engine: text on the descriptors 1 and 2, and no input.

Nothing is buffered here: what was printed is in the file before the process can die, and in order with what C
code and children write to the same descriptors.
"""

from __future__ import annotations

import contextlib
import io
import select
import sys

_ours: list[io.TextIOWrapper] = []


class _Descriptor(io.FileIO):
    """A descriptor whose `write` writes everything."""

    def write(self, data):
        """Write all of `data`, also where the system takes it in parts (large writes, signals)."""
        done = super().write(data)
        total = data.nbytes if isinstance(data, memoryview) else len(data)
        if done == total:
            return done
        rest = memoryview(data).cast("B")
        done = done or 0
        while done < total:
            written = super().write(rest[done:])
            if written is None:  # somebody made the descriptor non-blocking
                select.select((), (self,), ())
            else:
                done += written
        return done


class NoInput(io.TextIOBase):
    """Standard input of a process that nobody types into."""

    name = "<stdin>"
    encoding = "utf-8"

    def _refuse(self):
        raise RuntimeError(
            "input() is not available on an engine: an instruction runs without a terminal; "
            "pass the value as an argument, or push it first"
        )

    def readable(self) -> bool:
        """Say yes: the refusal comes from reading, where it can be explained."""
        return True

    def read(self, size: int | None = -1) -> str:
        """Refuse."""
        self._refuse()

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        """Refuse."""
        self._refuse()

    def __next__(self) -> str:
        self._refuse()

    def isatty(self) -> bool:
        """Say no."""
        return False


def install() -> None:
    """Replace `sys.stdin`, `sys.stdout` and `sys.stderr` (and the originals that Python keeps)."""
    _ours.clear()
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = io.TextIOWrapper(
            _Descriptor(fd, "wb", closefd=False),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
            write_through=True,
        )
        stream.mode = "w"
        _ours.append(stream)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = sys.__stdin__ = NoInput()


def flush_all() -> None:
    """Pass on everything that Python code has written; a stream that user code broke is left alone."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
