"""Turn the control thread's signal into a KeyboardInterrupt, in user code and nowhere else.

The control thread sends `_ipengine.interrupt_signal` to the main thread. The handler raises only while user
code is on the stack, that is below `call_user`; when the glue itself runs, the request stays pending and is
delivered at the next entry into user code of the same instruction.
"""

from __future__ import annotations

import signal
from typing import Any

import _ipengine

# Set when a signal came at a moment that must not be interrupted.
pending = False
# Set when the present instruction was interrupted by us, as opposed to a KeyboardInterrupt that user code
# raised.
delivered = False
# Code objects below whose frames user code runs; filled at import and by the shell.
_direct: set[Any] = set()
_cell_runners: set[Any] = set()
_namespace: dict[str, Any] | None = None


def install(namespace: dict[str, Any]) -> None:
    """Install the signal handler; call it on the main thread.

    Parameters
    ----------
    namespace
        The globals by which a cell's own frame is recognised.
    """
    global _namespace
    _namespace = namespace
    signal.signal(_ipengine.interrupt_signal, _on_signal)


def begin() -> None:
    """Forget what the instruction before left behind."""
    global delivered
    delivered = False


def call_user(f: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call user code: the one place from which it may be interrupted."""
    if pending:
        deliver_pending()
    return f(*args, **kwargs)


def deliver_pending() -> None:
    """Raise the interrupt that came while the glue was running, if it is still wanted."""
    global pending
    pending = False
    _raise_if_wanted()


def add_cell_runner(code: Any) -> None:
    """Register a shell's function that executes cells: only the cell's own frames below it are user code.

    Parameters
    ----------
    code
        The function's code object.
    """
    _cell_runners.add(code)


def add_direct(code: Any) -> None:
    """Register a function all of whose callees may be interrupted.

    Parameters
    ----------
    code
        The function's code object.
    """
    _direct.add(code)


def was_ours(error: BaseException) -> bool:
    """Whether `error` is the end of an instruction that a client interrupted.

    Parameters
    ----------
    error
        The exception that ended it.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    # Native code (a wait for the communicator) may have raised it in place of the handler.
    return delivered or bool(_ipengine.take_interrupt())


def _on_signal(signum, frame):
    global pending
    if _in_user_code(frame):
        _raise_if_wanted()
    else:
        pending = True


def _raise_if_wanted():
    global delivered
    if _ipengine.take_interrupt():
        delivered = True
        raise KeyboardInterrupt("interrupted by a client")


def _in_user_code(frame):
    while frame is not None:
        if frame.f_code in _direct:
            return True
        outer = frame.f_back
        if outer is not None and frame.f_globals is _namespace and outer.f_code in _cell_runners:
            return True
        frame = outer
    return False


add_direct(call_user.__code__)
