"""Exceptions from data: what an engine reported becomes an exception here; nothing is unpickled.

The class derives from `RemoteError` and from the original type, if that is an `Exception` type of a module
that is already imported here; nothing is imported and no constructor of the user's class runs.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from ipsteer.error import CompositeError, EngineError, RemoteError, TaskAborted, TracebackNote

_HEAP_TYPE = 1 << 9
# raised here they would end a loop or break a generator or coroutine of the caller in place of being seen
_CONTROL_FLOW = (StopIteration, StopAsyncIteration)
_classes: dict[tuple[type, type], type] = {}


class RemoteValue:
    """An argument or attribute of a remote exception that only its repr describes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteValue) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def restore(data: dict[str, Any], method: str = "", engine: int | None = None) -> RemoteError:
    """Build the exception that `data` (the JSON of a remote exception) describes.

    Parameters
    ----------
    data : dict
        ``type_name``, ``module``, ``mro``, ``message``, ``args``, ... as the engine wrote them.
    method : str
        Kind of the instruction.
    engine : int, optional
        Engine id, when `data` has none.
    """
    error = _bare(data, method, engine)
    _chain(error, data, method, engine)
    if isinstance(error, SyntaxError):
        error.msg = str(error)  # what Python prints for this type, in place of str()
    error.add_note(TracebackNote("\n".join(error.render_traceback())))
    return error


def restore_json(text: str, status: str, method: str, engine: int) -> RemoteError:
    """`restore` for an outcome's header; `status` names the type when the engine could not."""
    data = json.loads(text)
    data.setdefault("type_name", {"lost": "EngineError", "aborted": "TaskAborted"}.get(status, "RemoteError"))
    return restore(data, method, engine)


def composite(message: str, errors: Sequence[RemoteError]) -> CompositeError:
    """A `CompositeError` that also derives from the type that all `errors` share, if they do."""
    types = {_real_type(type(error)) for error in errors}
    shared = types.pop() if len(types) == 1 else None
    cls = CompositeError if shared is None else _derive(shared, CompositeError)
    error = _instance(cls)
    CompositeError.__init__(error, message, errors)
    if isinstance(error, SyntaxError):
        error.msg = str(error)
    error.add_note(TracebackNote("\n".join(error.render_traceback())))
    return error


def _bare(data: dict[str, Any], method: str, engine: int | None) -> RemoteError:
    try:
        error = _instance(_class_for(data))
    except TypeError:  # a built-in type that cannot be made empty, such as an exception group
        error = _instance(RemoteError)
    RemoteError.__init__(error, data["type_name"], data.get("message", ""), data.get("traceback") or "")
    rank = data.get("rank", engine)
    error.engine_info = {"engine_id": rank, "host": data.get("host") or "", "method": method}
    error.frames = data.get("frames") or []
    error.args = tuple(_value(arg) for arg in data.get("args") or ())
    error._data = (data, method, engine)
    for name, value in (data.get("attributes") or {}).items():
        if name.startswith("_") or hasattr(RemoteError, name):
            continue
        # a slot of the real type may insist on another type (UnicodeError.object); it then stays unset
        with contextlib.suppress(Exception):
            setattr(error, name, _value(value))
    for note in data.get("notes") or ():
        error.add_note(note)
    return error


def _chain(error: RemoteError, data: dict[str, Any], method: str, engine: int | None) -> None:
    for key, attribute in (("cause", "__cause__"), ("context", "__context__")):
        if data.get(key):
            linked = _bare(data[key], method, engine)
            _chain(linked, data[key], method, engine)
            setattr(error, attribute, linked)
    error.__suppress_context__ = bool(data.get("suppress_context"))


def _value(item: dict[str, Any]) -> Any:
    return item["json"] if "json" in item else RemoteValue(item.get("repr", "?"))


def _class_for(data: dict[str, Any]) -> type:
    name = data["type_name"]
    if name in ("EngineError", "TaskAborted") and not data.get("mro"):
        return _derive({"EngineError": EngineError, "TaskAborted": TaskAborted}[name], RemoteError)
    for path in data.get("mro") or ():
        found = _imported_exception(path)
        if found is None or found is Exception or issubclass(found, _CONTROL_FLOW):
            continue
        with contextlib.suppress(Exception):
            return _derive(found, RemoteError)
    return RemoteError


def _imported_exception(path: str) -> type | None:
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:cut]))
        if module is None:
            continue
        found: Any = module
        for part in parts[cut:]:
            # `vars`, not `getattr`: a module's __getattr__ could import
            found = getattr(found, "__dict__", {}).get(part)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
        return None
    return None


def _derive(real: type, base: type) -> type:
    if issubclass(real, base):
        return real
    key = (real, base)
    if key not in _classes:
        body = {"__module__": "ipsteer.error", "__reduce__": _reduce, "_real": real}
        prefix = "Composite" if base is CompositeError else "Remote"
        _classes[key] = type(f"{prefix}{real.__name__}", (base, real), body)
    return _classes[key]


def _real_type(cls: type) -> type | None:
    return getattr(cls, "_real", None)


def _instance(cls: type) -> Any:
    """An instance without running any `__new__` or `__init__` of the user's class."""
    native = next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)
    return native.__new__(cls)


def _reduce(self: RemoteError) -> tuple:
    if isinstance(self, CompositeError):
        return composite, (self.msg, self.errors)
    return restore, self._data
