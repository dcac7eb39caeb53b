"""Cells: chooses the shell at the first one, runs them, and makes the reply.

IPython's own shell is used when the engine's environment has it; `_plain` stands in otherwise. IPython is
imported here and not before, so that function calls, push and pull never pay for it.
"""

from __future__ import annotations

import sys
import zlib
from types import ModuleType
from typing import Any

import _ipengine

from . import _jsontext, _streams

# A reply is kept with the task; a display message with the same content is not cut.
MAX_REPLY_CHARS = 1 << 20

_shell: Any = None


def run(
    main: ModuleType,
    code: str,
    filename: str | None,
    silent: bool,
    store_history: bool,
    user_expressions: dict[str, str],
) -> str:
    """Run one cell.

    Parameters
    ----------
    main
        The namespace's module.
    code
        The cell's text.
    filename
        The name of its file in tracebacks, or None.
    silent
        Show no result and count no cell.
    store_history
        Count the cell.
    user_expressions
        Expressions to evaluate after success.

    Returns
    -------
    str
        The reply as JSON; the cell's exception is raised.
    """
    global _shell
    if _shell is None:
        _shell = _choose(main)
    count, data, metadata = _shell.run(code, filename, silent, store_history and not silent)
    data = bounded(data)
    return _jsontext.dumps(
        {
            "execution_count": count,
            "data": data,
            "metadata": {mime: value for mime, value in metadata.items() if mime in data},
            "user_expressions": _shell.expressions(user_expressions) if user_expressions else {},
        }
    )


def reset() -> None:
    """Forget the history after the namespace was emptied."""
    if _shell is not None:
        _shell.clear_history()


def emit(msg_type: str, content: dict[str, Any]) -> None:
    """Send a display message of the present instruction, after the output that was printed before it.

    Parameters
    ----------
    msg_type
        Jupyter's name of the message.
    content
        Its content.
    """
    _streams.flush_all()
    _ipengine.emit(msg_type, _jsontext.dumps(content))


def cell_name(code: str) -> str:
    """Name a cell by its text and not by a count, so that it has one name on all engines.

    Errors of many ranks are merged only if their tracebacks agree, and ranks that have run different
    numbers of cells would count differently.

    Parameters
    ----------
    code
        The cell's text.

    Returns
    -------
    str
        Its name in tracebacks.
    """
    return f"<cell {zlib.crc32(code.encode('utf-8', 'replace')):08x}>"


def bounded(data: dict[str, Any]) -> dict[str, Any]:
    """Bound a mime bundle for the reply: text is cut with a mark, other large parts are left out.

    Parameters
    ----------
    data
        Values by mime type.
    """
    kept = {}
    for mime, value in data.items():
        size = _size(value)
        if size <= MAX_REPLY_CHARS:
            kept[mime] = value
        elif isinstance(value, str) and mime == "text/plain":
            kept[mime] = f"{value[:MAX_REPLY_CHARS]}… ({size - MAX_REPLY_CHARS} characters more)"
    return kept


def _size(value):
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    return len(_jsontext.dumps(value))


def _choose(main):
    try:
        from . import _ipython
    except ImportError as error:
        if not (isinstance(error, ModuleNotFoundError) and error.name == "IPython"):
            print(f"IPython cannot be used here, cells run in the plain shell: {error}", file=sys.stderr)
        from . import _plain

        return _plain.PlainShell(main)
    return _ipython.make_shell(main)
