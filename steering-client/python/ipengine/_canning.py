"""Pickle functions, classes and data between a client and an engine.

The same file is part of the client's package and of the engine's glue, because a pickle stream names the
functions that rebuild its contents. Functions of ``__main__`` (and those marked with `interactive`) are
rebuilt with the receiving namespace as their globals. The globals which the sender's code refers to travel
along as a *fill*: they supply the names that the receiving namespace lacks, by `fill_scope`. Where no
namespace is registered (a client that receives a function) the rebuilt functions of one stream share fresh
globals that hold the fill.
"""

from __future__ import annotations

import builtins
import dis
import functools
import io
import linecache
import marshal
import pickle
import sys
import threading
import types
from typing import Any

__all__ = ["Reference", "dumps", "fill_scope", "interactive", "loads", "set_namespace", "take_fill"]

PROTOCOL = 5
# A function's own source travels with it up to this size, for tracebacks.
SOURCE_CHARS = 64 * 1024
_MAX_SOURCES = 10_000
# Below this size a buffer of its own costs more than the copy into the stream.
IN_BAND_BYTES = 512

_MARK = "__ipengine_interactive__"
_MAIN_NAMES = ("__main__", "__mp_main__")
_GLOBAL_READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
# What IPython puts into every namespace: the receiver has its own.
_NEVER_CARRIED = frozenset(("get_ipython", "In", "Out", "exit", "quit", "open", "_ih", "_oh", "_dh"))
_ABSENT = object()
_OWN_GLOBALS = globals()

_namespace: dict[str, Any] | None = None
_received_fill: dict[str, Any] = {}
_supplied: dict[str, Any] = {}
_sources: dict[str, dict[int, str]] = {}
_this_load = threading.local()


def set_namespace(namespace: dict[str, Any] | None) -> None:
    """Register the globals of functions that arrive here, and the place where a `Reference` is resolved.

    Parameters
    ----------
    namespace
        The dictionary, or None: every stream gets globals of its own and references stay references.
    """
    global _namespace
    _namespace = namespace
    _received_fill.clear()
    _supplied.clear()


class Reference:
    """A name that stands for the engine's own object of that name.

    Parameters
    ----------
    name
        An expression in the engine's namespace: a name, or a path such as ``model.weights[0]``.
    """

    __slots__ = ("name",)

    def __init__(self, name: str):
        if not isinstance(name, str):
            raise TypeError(f"the name of a Reference is a str, not {type(name).__name__}")
        self.name = name

    def __repr__(self) -> str:
        return f"Reference({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other.name == self.name

    def __hash__(self) -> int:
        return hash((Reference, self.name))

    def __reduce__(self):
        return _make_reference, (self.name,)


def _make_reference(name):
    # In an engine a reference becomes its object while the stream is read, at whatever depth it lies.
    return Reference(name) if _namespace is None else eval(name, _namespace)


def interactive(f: Any) -> Any:
    """Mark a function or class of a module as if it had been typed at the prompt.

    Parameters
    ----------
    f
        When it is sent, its code travels and uses the engine's namespace as globals.

    Returns
    -------
    object
        `f` itself.
    """
    if isinstance(f, types.FunctionType):
        # The code object says whose mark this is: functools.wraps copies attributes to other functions.
        f.__dict__[_MARK] = f.__code__
    elif isinstance(f, type):
        f.__module__ = "__main__"
    return f


def _uses_namespace(f):
    if f.__globals__.get("__name__") in _MAIN_NAMES:
        return True
    return f.__dict__.get(_MARK) is f.__code__


# --- what a function refers to ---


@functools.lru_cache(maxsize=4096)
def _global_reads(code):
    names = {i.argval: None for i in dis.get_instructions(code) if i.opname in _GLOBAL_READS}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(dict.fromkeys(_global_reads(constant)))
    return tuple(names)


@functools.lru_cache(maxsize=4096)
def _all_names(code):
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _all_names(constant)
    return frozenset(names)


def _captured(f):
    """Globals of `f` that its code reads, without those that every namespace has."""
    own = f.__globals__
    return {
        name: own[name]
        for name in _global_reads(f.__code__)
        if name in own and name not in _NEVER_CARRIED and not (name.startswith("__") and name.endswith("__"))
    }


def _submodules(f, values):
    """Loaded submodules that the code of `f` reaches as attributes of the packages among `values`."""
    found: list[types.ModuleType] = []
    for package in values:
        if isinstance(package, types.ModuleType) and hasattr(package, "__path__"):
            _add_submodules(package.__name__, _all_names(f.__code__), found)
    return found


def _add_submodules(package, names, found):
    for name in names:
        # By name and not by a look at all modules, which are thousands in a scientist's session.
        module = sys.modules.get(f"{package}.{name}")
        if module is not None:
            found.append(module)
            _add_submodules(f"{package}.{name}", names, found)


def _cell_values(f):
    for cell in f.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # an empty cell
            continue


@functools.lru_cache(maxsize=4096)
def _last_line(code):
    own = [line for _, _, line in code.co_lines() if line]
    inner = [_last_line(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return max([code.co_firstlineno, *own, *inner])


def _source(code):
    """Return the text of the lines of `code`, or None where nobody has them."""
    lines = linecache.getlines(code.co_filename)
    text = "".join(lines[code.co_firstlineno - 1 : _last_line(code)])
    return text if text and len(text) <= SOURCE_CHARS else None


# --- rebuilding, on the receiving side ---


def _fresh_globals():
    return {"__builtins__": builtins, "__name__": "__main__"}


def _make_function(code, name, closure):
    if type(code) is bytes:
        code = marshal.loads(code)
    namespace = _namespace
    if namespace is None:
        namespace = getattr(_this_load, "globals", None)
        if namespace is None:
            namespace = _fresh_globals()
    return types.FunctionType(code, namespace, name, None, closure)


def _set_function(f, state):
    f.__dict__.update(state["dict"])
    f.__defaults__ = state["defaults"]
    f.__kwdefaults__ = state["kwdefaults"]
    f.__annotations__ = state["annotations"]
    f.__qualname__ = state["qualname"]
    f.__doc__ = state["doc"]
    f.__module__ = "__main__"
    if state["source"] is not None:
        _keep_source(f.__code__, state["source"])
    if state["type_params"]:
        f.__type_params__ = state["type_params"]
    if _namespace is None:
        for name, value in state["fill"].items():
            f.__globals__.setdefault(name, value)
    else:
        _received_fill.update(state["fill"])


def _keep_source(code, text):
    if len(_sources) >= _MAX_SOURCES:
        _sources.clear()
    known = _sources.setdefault(code.co_filename, {})
    # The newest comes last: after an edit its lines cover those of older functions.
    known.pop(code.co_firstlineno, None)
    known[code.co_firstlineno] = text


def source_lines(filename: str) -> list[str]:
    """Return what is known of a file from the functions that came from it.

    Parameters
    ----------
    filename
        The name in their code objects: usually of a cell or file that exists only where they were sent.

    Returns
    -------
    list of str
        The lines, empty ones for what is not known.
    """
    lines: list[str] = []
    for first, text in _sources.get(filename, {}).items():
        new = text.splitlines(keepends=True)
        lines += ["\n"] * (first - 1 + len(new) - len(lines))
        lines[first - 1 : first - 1 + len(new)] = new
    return lines


def _make_cell():
    return types.CellType()


def _set_cell(cell, state):
    cell.cell_contents = state[0]


def _make_cached(f, maxsize, typed):
    return functools.lru_cache(maxsize=maxsize, typed=typed)(f)


# --- pickling ---


class _Reducers:
    """The part of the pickler that is ours; cloudpickle's pickler stands behind it."""

    by_value = False
    probe: _Probe | None = None

    def reducer_override(self, obj):
        """Choose our own way for functions, cells and caches; note code objects; leave the rest."""
        kind = type(obj)
        if kind is types.FunctionType:
            if obj.__globals__ is _OWN_GLOBALS:
                return NotImplemented  # by reference, without cloudpickle's search for the module
            if _uses_namespace(obj):
                return self._reduce_function(obj)
        elif kind is types.CellType:
            return _reduce_cell(obj)
        elif kind is types.CodeType:
            self.by_value = True
        elif kind is _CACHED and _wraps_ours(obj):
            return _make_cached, (obj.__wrapped__, *obj.cache_parameters().values())
        return super().reducer_override(obj)

    def _reduce_function(self, f):
        fill = _captured(f)
        if self.probe is not None:
            fill = {name: value for name, value in fill.items() if self.probe.can_send(value)}
        try:
            annotations = f.__annotations__
        except Exception:  # Python 3.14 evaluates them now, and may not find a name
            annotations = {}
        state = {
            "dict": {k: v for k, v in f.__dict__.items() if k != _MARK},
            "defaults": f.__defaults__,
            "kwdefaults": f.__kwdefaults__,
            "annotations": annotations,
            "qualname": f.__qualname__,
            "doc": f.__doc__,
            "type_params": getattr(f, "__type_params__", ()),
            "source": _source(f.__code__),
            "fill": fill,
            # Only to have them imported where the stream is read.
            "modules": _submodules(f, [*fill.values(), *_cell_values(f)]),
        }
        rebuilt = self._code(f.__code__), f.__name__, f.__closure__
        return _make_function, rebuilt, state, None, None, _set_function

    def _code(self, code):
        """Code as bytes: many times faster than field by field, and as bound to the minor version as that."""
        self.by_value = True
        try:
            return marshal.dumps(code)
        except ValueError:  # somebody has put other objects among its constants
            return code


_CACHED = type(functools.lru_cache(maxsize=1)(lambda: None))


def _wraps_ours(cached):
    wrapped = getattr(cached, "__wrapped__", None)
    return type(wrapped) is types.FunctionType and _uses_namespace(wrapped)


def _reduce_cell(cell):
    # Created empty and filled afterwards, so that functions which share a cell share it on arrival.
    try:
        return _make_cell, (), (cell.cell_contents,), None, None, _set_cell
    except ValueError:
        return _make_cell, ()


class _Probe:
    """Says which captured globals can be pickled; used only after pickling everything has failed."""

    def __init__(self):
        self._known: dict[int, bool] = {}
        self._kept: list[Any] = []

    def can_send(self, value):
        """Whether `value` can be pickled, its own captured globals aside."""
        key = id(value)
        if key not in self._known:
            self._kept.append(value)  # keeps the id valid
            self._known[key] = True  # a function that refers to itself
            try:
                _dump(value, self)
            except Exception:
                self._known[key] = False
        return self._known[key]


@functools.lru_cache(maxsize=1)
def _pickler_class():
    # cloudpickle is imported at the first use: an engine that only ever sends plain results never needs it.
    import cloudpickle

    return type("Pickler", (_Reducers, cloudpickle.CloudPickler), {})


def _dump(obj, probe):
    buffers = []

    def keep_in_band(buffer):
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < IN_BAND_BYTES:
            return True
        buffers.append(raw)
        return False

    file = io.BytesIO()
    pickler = _pickler_class()(file, protocol=PROTOCOL, buffer_callback=keep_in_band)
    pickler.probe = probe
    pickler.dump(obj)
    return file.getvalue(), buffers, pickler.by_value


def dumps(obj: Any) -> tuple[bytes, list[memoryview], bool]:
    """Pickle an object with its large buffers out of band.

    Parameters
    ----------
    obj
        Anything that cloudpickle takes. A captured global that cannot be pickled is left behind: the
        receiver's own value of that name is used, or the name is missing there.

    Returns
    -------
    tuple
        The stream, the buffers that belong to it in order, and whether the stream carries code by value,
        which only the same minor version of Python may load.
    """
    try:
        return _dump(obj, None)
    except Exception as error:
        first = error
    probe = _Probe()
    try:
        return _dump(obj, probe)
    except Exception:
        raise first from first.__cause__


def loads(stream: Any, buffers: Any = ()) -> Any:
    """Rebuild what `dumps` made.

    Parameters
    ----------
    stream
        The pickle stream.
    buffers
        Its buffers, in order. Arrays use this memory: give writable buffers to get writable arrays.

    Returns
    -------
    object
        The object.
    """
    outer = getattr(_this_load, "globals", None)
    _this_load.globals = _fresh_globals()
    try:
        return pickle.loads(stream, buffers=buffers)
    finally:
        _this_load.globals = outer


def take_fill() -> dict[str, Any]:
    """Return the globals that functions brought along since the last call, and forget them.

    Returns
    -------
    dict
        The captured globals by name; empty in most cases.
    """
    fill = dict(_received_fill)
    _received_fill.clear()
    return fill


class fill_scope:
    """Context in which the namespace has the names of a fill that it lacks.

    Parameters
    ----------
    fill
        What `take_fill` returned.
    keep
        Leave the names in the namespace afterwards. They stay replaceable: a later fill supersedes them,
        while a value that the engine's own code assigned always wins.
    """

    def __init__(self, fill: dict[str, Any], keep: bool = False):
        self._fill = fill
        self._keep = keep
        self._replaced: list[tuple[str, Any]] = []

    def __enter__(self) -> fill_scope:
        namespace = _namespace
        for name, value in self._fill.items():
            present = namespace.get(name, _ABSENT)
            if present is _ABSENT or present is _supplied.get(name, _supplied):
                namespace[name] = value
                self._replaced.append((name, present))
                if self._keep:
                    _supplied[name] = value
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._keep:
            return
        namespace = _namespace
        for name, previous in self._replaced:
            if namespace.get(name, _ABSENT) is not self._fill[name]:
                continue  # the call assigned it: now it is the engine's own
            if previous is _ABSENT:
                del namespace[name]
            else:
                namespace[name] = previous
