"""Exceptions as data: the JSON that a client makes its own exception from.

Nothing here may fail, whatever the exception's own methods do, and everything is bounded.
"""

from __future__ import annotations

import itertools
import linecache
import math
import os
import traceback
import types
from typing import Any

import _ipengine

from . import _canning, _jsontext

MAX_CHAIN = 16
MAX_FRAMES = 100
MAX_REPR = 1024
MAX_JSON = 4096
MAX_MESSAGE = 64 * 1024
MAX_TRACEBACK = 256 * 1024
MAX_ITEMS = 64
_MACHINERY = ("ipengine.", "IPython.", "cloudpickle.", "traitlets.")
_learned: set[str] = set()
_CARRIED = {
    OSError: ("errno", "strerror", "filename", "filename2"),
    SystemExit: ("code",),
    StopIteration: ("value",),
    UnicodeError: ("encoding", "object", "start", "end", "reason"),
    SyntaxError: ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset"),
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
}


def to_json(error: BaseException) -> str:
    """Describe an exception as JSON text.

    Parameters
    ----------
    error
        The exception, with its traceback, causes and contexts.

    Returns
    -------
    str
        A JSON object; a poorer one when the exception resists.
    """
    try:
        return _jsontext.dumps(describe(error))
    except BaseException as failure:
        return _jsontext.dumps(_minimal(error, failure))


def describe(error: BaseException) -> dict[str, Any]:
    """Describe an exception as a tree of plain values.

    Parameters
    ----------
    error
        The exception.

    Returns
    -------
    dict
        The fields that a client's remote exception has.
    """
    tree = _one(error)
    seen = {id(error)}
    here, exc = tree, error
    # The chain is one line in practice: from each exception to its cause, else to its context.
    pending = [(here, exc)]
    for _ in range(MAX_CHAIN):
        if not pending:
            break
        here, exc = pending.pop(0)
        for field, linked in (("cause", exc.__cause__), ("context", exc.__context__)):
            if linked is not None and id(linked) not in seen and len(seen) < MAX_CHAIN:
                seen.add(id(linked))
                here[field] = _one(linked)
                pending.append((here[field], linked))
    tree["traceback"] = _traceback_text(error)
    return tree


def _one(error):
    kind = type(error)
    return {
        "type_name": kind.__qualname__,
        "module": str(kind.__module__),
        "mro": [f"{c.__module__}.{c.__qualname__}" for c in kind.__mro__],
        "message": _message(error),
        "args": [_value(arg) for arg in _safely(lambda: tuple(error.args), ())[:MAX_ITEMS]],
        "attributes": _attributes(error),
        "notes": _notes(error),
        "frames": _safely(lambda: _frames(error.__traceback__), []),
        "cause": None,
        "context": None,
        "suppress_context": bool(error.__suppress_context__),
        "rank": _ipengine.rank,
        "host": _ipengine.host,
        "traceback": "",
    }


def _minimal(error, failure):
    name = type(error).__name__
    text = f"{name} (its description failed with {type(failure).__name__})"
    return {
        "type_name": name,
        "module": "builtins",
        "mro": ["builtins.BaseException", "builtins.object"],
        "message": text,
        "args": [],
        "attributes": {},
        "notes": [],
        "frames": [],
        "cause": None,
        "context": None,
        "suppress_context": False,
        "rank": _ipengine.rank,
        "host": _ipengine.host,
        "traceback": text,
    }


def _safely(get, otherwise):
    try:
        return get()
    except Exception:
        return otherwise


def _message(error):
    def text():
        # KeyError quotes its argument; the reader of a message wants to see what str() gives everywhere else.
        return _cut(str(error), MAX_MESSAGE)

    return _safely(text, f"<the message of this {type(error).__name__} cannot be made>")


def _notes(error):
    notes = _safely(lambda: getattr(error, "__notes__", ()), ())
    if not isinstance(notes, (list, tuple)):
        return []
    return [_cut(n, MAX_MESSAGE) if isinstance(n, str) else _repr(n) for n in notes[:MAX_ITEMS]]


def _attributes(error):
    found = {}
    for base, names in _CARRIED.items():
        if isinstance(error, base):
            for name in names:
                value = _safely(lambda name=name: getattr(error, name, None), None)
                if value is not None:
                    found[name] = _value(value)
    own = _safely(lambda: dict(vars(error)), {})
    for name, value in itertools.islice(own.items(), MAX_ITEMS):
        if isinstance(name, str) and name != "__notes__":
            found[name] = _value(value)
    return found


# --- values ---


def _value(value):
    described = {"repr": _repr(value)}
    budget = [MAX_JSON]
    try:
        plain = _plain(value, budget, 0)
    except (ValueError, TypeError, RuntimeError):
        return described
    described["json"] = plain
    return described


def _plain(value, budget, depth):
    """Return a copy made of JSON's own types, or raise ValueError."""
    budget[0] -= 2
    kind = type(value)
    if kind is str or kind is bytes:
        budget[0] -= len(value)
    elif kind is int:
        budget[0] -= value.bit_length() // 3
    if budget[0] < 0 or depth > 8:
        raise ValueError("too large")
    if value is None or kind in (bool, str, int):
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind in (list, tuple):
        return [_plain(item, budget, depth + 1) for item in value]
    if kind is dict and all(type(key) is str for key in value):
        budget[0] -= sum(len(key) + 2 for key in value)
        return {key: _plain(item, budget, depth + 1) for key, item in value.items()}
    raise ValueError("not plain")


def _repr(value):
    kind = type(value)
    if kind in (str, bytes, bytearray) and len(value) > MAX_REPR:
        value = value[:MAX_REPR]
    elif kind is int and value.bit_length() > 4 * MAX_REPR:
        return f"<int of {value.bit_length()} bits>"
    elif kind in (list, tuple, set, frozenset, dict) and len(value) > MAX_REPR:
        return f"<{kind.__name__} of {len(value)} items>"
    try:
        return _cut(repr(value), MAX_REPR)
    except Exception as failure:
        return f"<{kind.__name__} whose repr raises {type(failure).__name__}>"


def _cut(text, limit):
    text = str.__str__(text)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters more)"


# --- frames ---


def is_machinery(frame: types.FrameType) -> bool:
    """Whether a frame belongs to the glue or to the shell, not to the user's code.

    Parameters
    ----------
    frame
        A frame of a traceback.
    """
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and (name == "ipengine" or name.startswith(_MACHINERY))


def user_traceback(tb: types.TracebackType | None) -> types.TracebackType | None:
    """Return the part of a traceback that begins with the user's code.

    Parameters
    ----------
    tb
        The whole traceback.
    """
    while tb is not None and _leads_in(tb.tb_frame):
        tb = tb.tb_next
    return tb


def _leads_in(frame):
    # Code that IPython or asyncio run before the first frame of the cell; with user code before it, it would
    # stay.
    name = frame.f_globals.get("__name__")
    return is_machinery(frame) or name in ("codeop", "ast", "asyncio.base_events", "asyncio.runners")


def _is_glue(frame):
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and (name == "ipengine" or name.startswith("ipengine."))


def _frames(tb):
    steps = []
    tb = user_traceback(tb)
    _learn_sources(tb)
    while tb is not None:
        if not _is_glue(tb.tb_frame):
            steps.append(tb)
        tb = tb.tb_next
    if len(steps) <= MAX_FRAMES:
        return [_frame(step) for step in steps]
    half = MAX_FRAMES // 2
    gap = {
        "file": "",
        "line": 0,
        "end_line": None,
        "column": None,
        "end_column": None,
        "function": f"… {len(steps) - 2 * half} frames left out …",
        "source": None,
    }
    return [*map(_frame, steps[:half]), gap, *map(_frame, steps[-half:])]


def _learn_sources(tb):
    # Functions of a client come from cells and files that are not here; their own lines came with them.
    names = set()
    while tb is not None:
        names.add(tb.tb_frame.f_code.co_filename)
        tb = tb.tb_next
    for name in names:
        lines = _canning.source_lines(name)
        present = linecache.cache.get(name)
        if lines and (name in _learned or not (present or linecache.getlines(name))):
            linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
            _learned.add(name)


def _frame(tb):
    frame, code = tb.tb_frame, tb.tb_frame.f_code
    line, end_line, column, end_column = _position(code, tb)
    source = _safely(lambda: linecache.getline(code.co_filename, line, frame.f_globals), "")
    return {
        "file": code.co_filename,
        "line": line,
        "end_line": end_line,
        "column": column,
        "end_column": end_column,
        "function": getattr(code, "co_qualname", code.co_name),
        "source": _cut(source.rstrip("\n"), MAX_REPR) if source else None,
    }


def _position(code, tb):
    line = tb.tb_lineno or 0
    positions = getattr(code, "co_positions", None)  # Python 3.11
    if positions is None or tb.tb_lasti < 0:
        return line, None, None, None
    found = next(itertools.islice(positions(), tb.tb_lasti // 2, None), None)
    if found is None or found[0] != line:
        return line, None, None, None
    return found


def _traceback_text(error):
    try:
        tb = user_traceback(error.__traceback__)
        text = traceback.TracebackException(type(error), error, tb, compact=True)
        _drop_glue(text)
        return _middle_cut("".join(text.format()))
    except BaseException:
        return f"{type(error).__name__}: {_message(error)}\n"


def _drop_glue(text):
    # Causes begin in the glue as well when it is the glue that failed.
    todo, seen = [text], set()
    while todo:
        here = todo.pop()
        if here is None or id(here) in seen:
            continue
        seen.add(id(here))
        kept = [step for step in here.stack or () if os.path.dirname(step.filename) != _GLUE_PLACE]
        here.stack = traceback.StackSummary.from_list(kept)
        todo += [here.__cause__, here.__context__, *(getattr(here, "exceptions", None) or ())]


# Embedded modules have no __file__, but their code has the name it was compiled under.
_GLUE_PLACE = os.path.dirname(to_json.__code__.co_filename) or None


def _middle_cut(text):
    if len(text) <= MAX_TRACEBACK:
        return text
    half = MAX_TRACEBACK // 2
    return f"{text[:half]}\n… ({len(text) - 2 * half} characters left out) …\n{text[-half:]}"
