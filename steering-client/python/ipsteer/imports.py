"""``with view.sync_imports():`` imports here and on the engines."""

from __future__ import annotations

import builtins
import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipsteer.asyncresult import AsyncResult
    from ipsteer.directview import DirectView


class SyncImports:
    """Context manager that repeats ``import`` statements of its body on the engines."""

    def __init__(self, view: DirectView, local: bool, quiet: bool) -> None:
        if not local:
            raise NotImplementedError("remote-only imports: use view.execute('import ...')")
        self._view = view
        self._quiet = quiet
        self._results: list[AsyncResult] = []
        self._seen: set[str] = set()
        self._frame: FrameType | None = None

    def __enter__(self) -> None:
        self._frame = sys._getframe(1)
        self._import = builtins.__import__
        builtins.__import__ = self._import_both

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        builtins.__import__ = self._import
        self._frame = None
        if error is None:
            for result in self._results:
                result.get()

    def _import_both(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        module = self._import(name, globals, locals, fromlist, level)
        # only statements of the body itself; what an imported module imports comes by itself on the engines
        if sys._getframe(1) is self._frame and level == 0:
            self._forward(name, tuple(fromlist or ()))
        return module

    def _forward(self, name: str, names: tuple[str, ...]) -> None:
        line = f"from {name} import {', '.join(names)}" if names else f"import {name}"
        if line in self._seen:
            return
        self._seen.add(line)
        if not self._quiet:
            print(f"importing {', '.join(names) + ' from ' if names else ''}{name} on engine(s)")
        builtins.__import__ = self._import
        try:
            self._results.append(self._view.execute(line, block=False))
        finally:
            builtins.__import__ = self._import_both
