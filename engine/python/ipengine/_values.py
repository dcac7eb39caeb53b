"""Values that travel, from and to Python objects: one tagged kind each.

`encode` and `decode` work on (kind, meta, buffers), where meta is JSON text and buffers are bytes-like.
"""

from __future__ import annotations

import ast
import json
import math
import pickle
import sys
from typing import Any

from . import _canning

MINOR = sys.version_info[:2]
NONE = ("none", "{}", [])
_DATA_META = json.dumps({"python": list(MINOR), "by_value": False})
_CODE_META = json.dumps({"python": list(MINOR), "by_value": True})
_PLAIN = frozenset((bool, int, float, str))
# How far the search for the part of a result that cannot be pickled goes.
_SEARCH_ITEMS = 64
_SEARCH_DEPTH = 6

Value = tuple[str, str, list]


# --- encoding ---


def encode_result(result: Any) -> Value:
    """Encode what user code returned.

    Parameters
    ----------
    result
        The object.

    Returns
    -------
    tuple
        Kind, meta and buffers.
    """
    if result is None:
        return NONE
    if type(result) in _PLAIN:
        return "pickle", _DATA_META, [pickle.dumps(result, 5)]
    try:
        stream, buffers, by_value = _canning.dumps(result)
    except Exception as cause:
        raise _cannot_send(result, cause) from cause
    return "pickle", _CODE_META if by_value else _DATA_META, [stream, *buffers]


def _cannot_send(result, cause):
    kind = type(result)
    path, culprit = _unsendable_part(result, 0)
    what = f"cannot send result of type {kind.__module__}.{kind.__qualname__}: {cause}"
    if path:
        part = type(culprit)
        what += f" (result{path} is a {part.__module__}.{part.__qualname__})"
    return pickle.PicklingError(
        f"{what}; return a part of it or its repr(), or keep it in the engine and pull an attribute"
    )


def _unsendable_part(value, depth):
    """Find the innermost part that cannot be pickled: (path, part)."""
    if depth < _SEARCH_DEPTH:
        for step, part in _parts(value):
            try:
                _canning.dumps(part)
            except Exception:
                path, culprit = _unsendable_part(part, depth + 1)
                return step + path, culprit
    return "", value


def _parts(value):
    if type(value) is dict and len(value) <= _SEARCH_ITEMS:
        return [(f"[{_short(key)}]", item) for key, item in value.items()]
    if type(value) in (list, tuple) and len(value) <= _SEARCH_ITEMS:
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    own = getattr(value, "__dict__", None)
    if type(own) is dict and not isinstance(value, type) and len(own) <= _SEARCH_ITEMS:
        return [(f".{name}", item) for name, item in own.items()]
    return []


def _short(key):
    return repr(key)[:40]


def encode_pulled(names: list[str], values: list[Any], form: str, single: bool) -> Value:
    """Encode pulled values in the format that the client asked for.

    Parameters
    ----------
    names
        What was pulled; for messages.
    values
        The objects.
    form
        ``pickle``, ``repr``, ``json`` or ``npy``.
    single
        One value instead of a list.

    Returns
    -------
    tuple
        Kind, meta and buffers.
    """
    if form == "pickle":
        return encode_result(values[0] if single else values)
    if form == "repr":
        texts = [repr(value) for value in values]
        if single:
            return "text", "{}", [texts[0].encode("utf-8", "backslashreplace")]
        return "json", "{}", [json.dumps(texts).encode()]
    if form == "json":
        parts = [_json(name, value) for name, value in zip(names, values, strict=True)]
        return "json", "{}", [(parts[0] if single else f"[{','.join(parts)}]").encode("utf-8", "replace")]
    if form == "npy":
        if not single:
            raise ValueError("the format npy takes one name at a time")
        return "npy", "{}", [_npy(names[0], values[0])]
    raise ValueError(f"unknown format {form!r}: pickle, repr, json or npy")


def _json(name, value):
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, default=_json_default)
    except (TypeError, ValueError) as cause:
        raise type(cause)(f"{name} of type {type(value).__name__} has no JSON form: {cause}") from None


def _json_default(value):
    for convert in ("tolist", "isoformat"):
        method = getattr(value, convert, None)
        if callable(method) and not isinstance(value, type):
            return method()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def _npy(name, value):
    import io

    import numpy

    array = numpy.asanyarray(value)
    if array.dtype.hasobject:
        raise TypeError(f"{name} of type {type(value).__name__} has no npy form: it is no array of numbers")
    file = io.BytesIO()
    numpy.save(file, array, allow_pickle=False)
    return file.getbuffer()


# --- decoding ---


def decode(kind: str, meta: str, buffers: list[Any]) -> Any:
    """Make a Python object from a value that a client sent.

    Parameters
    ----------
    kind
        The value's tag.
    meta
        Its JSON text.
    buffers
        Its buffers; arrays keep using them.

    Returns
    -------
    object
        The object.
    """
    try:
        decoder = _DECODERS[kind]
    except KeyError:
        raise ValueError(f"a value of kind {kind!r} cannot be pushed") from None
    return decoder(json.loads(meta or "{}"), buffers)


def check_python(python: Any) -> None:
    """Refuse code objects of another minor version of Python: running them would crash the process.

    Parameters
    ----------
    python
        Major and minor of the sender, or None when the stream carries no code.
    """
    if python is not None and tuple(python[:2]) != MINOR:
        theirs = ".".join(map(str, python[:2]))
        ours = ".".join(map(str, MINOR))
        raise RuntimeError(
            f"this function was pickled by Python {theirs} and the engine runs Python {ours}: code travels "
            f"only between equal minor versions; use Python {ours} in the client, or send source text with "
            f"execute()"
        )


def _decode_pickle(meta, buffers):
    if meta.get("by_value"):
        check_python(meta.get("python"))
    return pickle.loads(buffers[0], buffers=buffers[1:])


def _decode_ndarray(meta, buffers):
    import numpy

    dtype = numpy.dtype(_descr(meta["dtype"]))
    shape = tuple(meta["shape"])
    if dtype.hasobject:
        raise ValueError("an array of Python objects does not travel as raw memory")
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"no shape of an array: {list(shape)}")
    raw = memoryview(buffers[0]).cast("B") if buffers else memoryview(b"")
    expected = dtype.itemsize * math.prod(shape)
    if raw.nbytes != expected:
        raise ValueError(f"an array of {dtype} and shape {shape} has {expected} bytes, not {raw.nbytes}")
    order = meta.get("order", "C")
    if expected == 0:
        return numpy.empty(shape, dtype, order)
    return numpy.ndarray(shape, dtype, buffer=raw, order=order)


def _descr(dtype):
    """Return what numpy takes for a dtype: its name, or a descr with the tuples that JSON does not have."""
    if isinstance(dtype, str):
        return _descr(json.loads(dtype)) if dtype.startswith("[") else dtype
    return [(field[0], _descr(field[1]), *(tuple(extra) for extra in field[2:])) for field in dtype]


def _decode_npy(meta, buffers):
    import io

    import numpy

    return numpy.load(io.BytesIO(buffers[0]), allow_pickle=False)


def _text(buffers):
    return bytes(buffers[0]).decode("utf-8")


_DECODERS = {
    "none": lambda meta, buffers: None,
    "pickle": _decode_pickle,
    "json": lambda meta, buffers: json.loads(_text(buffers)),
    "text": lambda meta, buffers: _text(buffers),
    "bytes": lambda meta, buffers: bytes(buffers[0]),
    "literal": lambda meta, buffers: ast.literal_eval(_text(buffers).strip()),
    "ndarray": _decode_ndarray,
    "npy": _decode_npy,
}
