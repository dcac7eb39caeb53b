"""The event loop on which cells with top-level ``await`` run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from . import _interrupt

_loop: asyncio.AbstractEventLoop | None = None


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end on the engine's one loop; tasks that it started go on in the next such cell.

    Parameters
    ----------
    coroutine
        What to run. When the wait is interrupted it is cancelled, so that it cannot wake up in a later cell.

    Returns
    -------
    object
        Its result.
    """
    loop = _event_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            task.cancel()
            with contextlib.suppress(BaseException):
                loop.run_until_complete(task)
        raise


def _event_loop():
    global _loop
    if _loop is None or _loop.is_closed():
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    return _loop


_interrupt.add_direct(run_coroutine.__code__)
