"""What the engine's main thread calls: one function per kind of instruction.

Each returns ``(status, kind, meta, buffers)``. The status is ``ok``, ``error`` or ``interrupted``; in the
last two cases the kind is ``error``, the meta is the exception as JSON and there are no buffers.
"""

from __future__ import annotations

import builtins
import pickle
import sys
import types
from typing import Any

from . import _canning, _errors, _forks, _interrupt, _mpi, _streams, _values

Outcome = tuple[str, str, str, list]

_OK_NONE = ("ok", "none", "{}", [])
_MINOR = sys.version_info[:2]
_BASE = ("__name__", "__doc__", "__package__", "__loader__", "__spec__", "__builtins__", "__annotations__")

_main: types.ModuleType | None = None
_namespace: dict[str, Any] = {}

# Bound once: these are looked up for every instruction.
_loads = pickle.loads
_call_user = _interrupt.call_user
_received_fill = _canning._received_fill


def start(user_site_setup: dict[str, Any]) -> None:
    """Prepare the interpreter; call it once, on the main thread.

    Parameters
    ----------
    user_site_setup
        Optional settings: ``argv`` (list of str) becomes `sys.argv`; ``sys_path`` (list of str) is put behind
        the ``''`` that comes first in `sys.path`.
    """
    global _main, _namespace
    sys.argv = list(user_site_setup.get("argv", [""]))
    extra = [path for path in user_site_setup.get("sys_path", ()) if path not in sys.path]
    sys.path[:] = ["", *extra, *(path for path in sys.path if path != "")]
    _main = _make_main()
    _namespace = _main.__dict__
    _canning.set_namespace(_namespace)
    _streams.install()
    _mpi.install_import_hook()
    _interrupt.install(_namespace)
    _forks.install()


def _make_main():
    main = types.ModuleType("__main__", "The namespace of this engine.")
    main.__builtins__ = builtins
    main.__annotations__ = {}
    sys.modules["__main__"] = main
    return main


# --- instructions ---


def apply(stream: Any, buffers: list[Any], python: tuple[int, int] | None) -> Outcome:
    """Call a function that a client sent.

    Parameters
    ----------
    stream
        The pickle of (function, args, kwargs).
    buffers
        Its out-of-band buffers: writable memory that belongs to the unpickled objects from now on.
    python
        Major and minor version of the sender's Python if the stream carries code by value, else None.

    Returns
    -------
    tuple
        The outcome.
    """
    _interrupt.delivered = False
    if _received_fill:
        _received_fill.clear()
    try:
        if python is not None and python != _MINOR:
            _values.check_python(python)
        function, args, kwargs = _call_user(_loads, stream, buffers=buffers)
        if _received_fill:
            with _canning.fill_scope(_canning.take_fill()):
                outcome = _finish(_call_user(function, *args, **kwargs))
        else:
            result = _call_user(function, *args, **kwargs)
            outcome = _OK_NONE if result is None else _finish(result)
    except BaseException as error:
        outcome = _failed(error)
    _streams.flush_all()
    return outcome


def execute(
    code: str,
    filename: str | None = None,
    silent: bool = False,
    store_history: bool = True,
    user_expressions: dict[str, str] | None = None,
) -> Outcome:
    """Run source text as a cell.

    Parameters
    ----------
    code
        The cell.
    filename
        Name of the file that the text came from, for tracebacks.
    silent
        Show no result and count no cell.
    store_history
        Count the cell and keep it in `In`.
    user_expressions
        Expressions to evaluate after a cell that succeeded.

    Returns
    -------
    tuple
        The outcome; its kind is ``execute_reply``.
    """
    from . import _shell

    _interrupt.begin()
    try:
        reply = _shell.run(_main, code, filename, silent, store_history, user_expressions or {})
        outcome = ("ok", "execute_reply", "{}", [reply.encode("utf-8", "replace")])
    except BaseException as error:
        outcome = _failed(error)
    _streams.flush_all()
    return outcome


def push(names: list[str], values: list[tuple[str, str, list[Any]]]) -> Outcome:
    """Assign values to names, all or none.

    Parameters
    ----------
    names
        The names.
    values
        As many (kind, meta, buffers).

    Returns
    -------
    tuple
        The outcome; its kind is ``none``.
    """
    _interrupt.begin()
    _received_fill.clear()
    try:
        _check_names(names, values)
        new = {name: _call_user(_values.decode, *value) for name, value in zip(names, values, strict=True)}
        if _received_fill:
            # A pushed function is called later, by any instruction: what it needs stays with it.
            with _canning.fill_scope(_canning.take_fill(), keep=True):
                pass
        _assign(new)
        outcome = _OK_NONE
    except BaseException as error:
        outcome = _failed(error)
    _streams.flush_all()
    return outcome


def pull(names: list[str], format: str, single: bool) -> Outcome:
    """Evaluate names (or dotted and indexed expressions) and send their values.

    Parameters
    ----------
    names
        The expressions.
    format
        ``pickle``, ``repr``, ``json`` or ``npy``.
    single
        Send the one value instead of a list.

    Returns
    -------
    tuple
        The outcome.
    """
    _interrupt.begin()
    try:
        if single and len(names) != 1:
            raise ValueError(f"one name was announced and {len(names)} were sent")
        values = [_call_user(eval, name.strip(), _namespace) for name in names]
        outcome = ("ok", *_call_user(_values.encode_pulled, names, values, format, single))
    except BaseException as error:
        outcome = _failed(error)
    _streams.flush_all()
    return outcome


def clear() -> Outcome:
    """Empty the namespace.

    Returns
    -------
    tuple
        The outcome; its kind is ``none``.
    """
    _interrupt.begin()
    try:
        kept = {name: _namespace[name] for name in _BASE if name in _namespace}
        # The old objects end here: their finalisers are user code.
        _call_user(_namespace.clear)
        _namespace.update(kept)
        _canning.set_namespace(_namespace)
        shell = sys.modules.get("ipengine._shell")
        if shell is not None:
            shell.reset()
        outcome = _OK_NONE
    except BaseException as error:
        outcome = _failed(error)
    _streams.flush_all()
    return outcome


# --- their parts ---


def _finish(result):
    return ("ok", *_call_user(_values.encode_result, result))


def _failed(error):
    status = "interrupted" if _interrupt.was_ours(error) else "error"
    try:
        # Below the marked call site: an exception's own methods may hang as well.
        text = _call_user(_errors.to_json, error)
    except BaseException as failure:
        text = _errors.to_json(failure)
    return status, "error", text, []


def _check_names(names, values):
    if len(names) != len(values):
        raise ValueError(f"{len(names)} names and {len(values)} values")
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is not a name")


def _assign(new):
    """Bind names; `a.b` sets an attribute, whose owner must exist before anything is changed."""
    owners = {name: _call_user(eval, name.rpartition(".")[0], _namespace) for name in new if "." in name}
    for name, value in new.items():
        if name in owners:
            _call_user(setattr, owners[name], name.rpartition(".")[2], value)
        else:
            _namespace[name] = value
