"""Headers and blobs of what travels: instructions to engines, values from them.

The JSON built here is the `meta` of `Session.submit`; its fields are those of the protocol's `Work`.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ipengine import _canning

from ipsteer.error import PythonVersionError

PYTHON = list(sys.version_info[:2])
CLEAR = "{}"


def execute(code: str, silent: bool, filename: str | None = None) -> str:
    """Header of source text run as a cell; a silent one stays out of the history."""
    return json.dumps(
        {
            "code": code,
            "filename": filename,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
        }
    )


def apply(f: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str) -> tuple[str, list[Any], bool]:
    """(header, blobs, by value) of ``f(*args, **kwargs)``."""
    stream, buffers, by_value = _canning.dumps((f, args, kwargs))
    return apply_header(by_value, name), [stream, *buffers], by_value


@functools.lru_cache(maxsize=1024)
def apply_header(by_value: bool, name: str) -> str:
    """Header of a call; the same for every call of one function."""
    return json.dumps({"python": PYTHON, "by_value": by_value, "name": name})


def pull(names: Sequence[str], single: bool) -> str:
    """Header that asks for the values of expressions in the engine's namespace."""
    return json.dumps({"names": list(names), "format": "pickle", "single": single})


def push(ns: dict[str, Any]) -> tuple[str, list[Any], bool]:
    """(header, blobs, by value) that set each name of `ns`."""
    values, blobs, any_by_value = [], [], False
    for value in ns.values():
        kind, meta, parts, by_value = encode(value)
        values.append({"kind": kind, "meta": json.dumps(meta), "blobs": len(parts)})
        blobs += parts
        any_by_value |= by_value
    return json.dumps({"names": list(ns), "values": values}), blobs, any_by_value


def push_each(name: str, parts: Iterable[Any]) -> tuple[str, list[Any], list[int], bool]:
    """(header, blobs, blobs per target, by value) that set `name` to another part on each target.

    The header is shared, so every target gets the same number of blobs; empty ones are ignored when it is
    unpickled.
    """
    pickled = [_canning.dumps(part) for part in parts]
    most = max(len(buffers) for _, buffers, _ in pickled)
    by_value = any(flag for _, _, flag in pickled)
    blobs: list[Any] = []
    for stream, buffers, _ in pickled:
        blobs += [stream, *buffers, *([b""] * (most - len(buffers)))]
    value = {"kind": "pickle", "meta": _pickle_meta(by_value), "blobs": most + 1}
    return json.dumps({"names": [name], "values": [value]}), blobs, [most + 1] * len(pickled), by_value


def _pickle_meta(by_value: bool) -> str:
    return json.dumps({"python": PYTHON, "by_value": by_value})


def encode(value: Any) -> tuple[str, dict[str, Any], list[Any], bool]:
    """(kind, header, blobs, by value): the plainest kind that carries `value` exactly."""
    numpy = sys.modules.get("numpy")
    if type(value) is bytes:
        return "bytes", {}, [value], False
    if type(value) is str and value.isascii():
        return "text", {}, [value.encode()], False
    if numpy is not None and type(value) is numpy.ndarray and _raw(value):
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        meta = {"dtype": value.dtype.str, "shape": list(value.shape), "order": "F" if fortran else "C"}
        return (
            "ndarray",
            meta,
            [memoryview(value.reshape(-1, order="F" if fortran else "C").view("u1"))],
            False,
        )
    stream, buffers, by_value = _canning.dumps(value)
    return "pickle", {"python": PYTHON, "by_value": by_value}, [stream, *buffers], by_value


def _raw(array: Any) -> bool:
    """Whether an array's bytes and its `dtype.str` say everything about it."""
    contiguous = array.flags.c_contiguous or array.flags.f_contiguous
    return contiguous and array.size > 0 and array.dtype.kind in "biufcSU"


def decode(kind: str, meta: str, buffers: Sequence[memoryview]) -> Any:
    """The object that a value of an engine stands for.

    Raises
    ------
    ValueError
        A kind that this version does not know.
    PythonVersionError
        Code by value from another Python minor.
    """
    if kind == "pickle":
        return _unpickle(meta, buffers)
    if kind == "none":
        return None
    if kind == "json":
        return json.loads(bytes(buffers[0]))
    if kind in ("text", "repr"):
        return str(buffers[0], "utf-8")
    if kind in ("bytes", "npy"):
        return bytes(buffers[0])
    if kind == "ndarray":
        return _array(json.loads(meta), buffers[0])
    if kind == "mime":
        return json.loads(bytes(buffers[0]))
    raise ValueError(f"an engine sent a value of kind {kind!r}, which this client does not know")


def _unpickle(meta: str, buffers: Sequence[memoryview]) -> Any:
    refusal = _result_refusal(meta)
    if refusal is not None:
        raise PythonVersionError(refusal)
    return _canning.loads(buffers[0], buffers[1:])


@functools.lru_cache(maxsize=256)
def _result_refusal(meta: str) -> str | None:
    """Why a pickle with this header is not loaded; headers repeat."""
    header = json.loads(meta)
    python = header.get("python")
    if not header.get("by_value") or python is None or python[:2] == PYTHON:
        return None
    return (
        f"the result carries code of Python {_dotted(python)}, and this is Python {_dotted(PYTHON)}: "
        "use the same minor here, or return data"
    )


def _array(meta: dict[str, Any], buffer: memoryview) -> Any:
    import numpy

    dtype = meta["dtype"]
    if not isinstance(dtype, str):
        dtype = [tuple(field) for field in dtype]
    array = numpy.frombuffer(buffer, dtype=numpy.dtype(dtype))
    return array.reshape(meta["shape"], order=meta.get("order", "C"))


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(part) for part in version[:2])


def code_refusal(name: str, engine: int, python: Sequence[int]) -> str:
    """Why code by value is not sent to an engine of another Python."""
    return (
        f"{name} would be sent as code of Python {_dotted(PYTHON)}, but engine {engine} runs "
        f"Python {_dotted(python)}, which cannot run it: use Python {_dotted(python)} in this environment, "
        "or send source text with execute()"
    )
