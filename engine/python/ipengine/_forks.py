"""Processes that user code forks: they are no engines, and signals are theirs to die of.

The engine answers INT and TERM by way of its control thread. A child inherits the handler but not the thread,
and would swallow them: `multiprocessing` ends its workers by TERM. Until the child has given up what is the
engine's, signals wait.
"""

from __future__ import annotations

import os
import signal
import threading

import _ipengine

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_held = threading.local()


def install() -> None:
    """Watch the forks of this interpreter; call it once."""
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def _before():
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _in_parent():
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _in_child():
    _ipengine.after_fork_child()
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        # Where Python knows of no handler it is the engine's; one that user code has set is inherited.
        if signal.getsignal(number) in (None, signal.SIG_DFL, default):
            signal.signal(number, default)
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)
