"""`DirectView`: engines addressed one by one, each with its namespace."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ipsteer import _work
from ipsteer.asyncresult import AsyncResult
from ipsteer.imports import SyncImports
from ipsteer.mapresult import AsyncMapResult
from ipsteer.partition import distribution
from ipsteer.record import Record
from ipsteer.remotefunction import ParallelFunction, function_name, map_parts
from ipsteer.view import View


class DirectView(View):
    """Engines addressed directly: each gets every call. ``view['x']`` is its namespace."""

    def _really_apply(
        self,
        f: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        block: bool | None = None,
        targets: Any = None,
    ) -> Any:
        engines, single = self._engines(targets)
        name = function_name(f)
        meta, blobs, by_value = _work.apply(f, args, kwargs or {}, name)
        if by_value:
            self.client._refuse_code(engines, name)
        record = self._submit("apply", engines, meta, blobs, name)
        return self._answer(AsyncResult(self.client, [record], name, single), block)

    def _apply_each(
        self,
        calls: Sequence[tuple[Callable, Sequence[Any]]],
        engines: tuple[int, ...],
        name: str,
        label: str | None,
    ) -> Record:
        """One call per engine, each with arguments of its own, as one instruction."""
        blobs: list[Any] = []
        each: list[int] = []
        any_by_value = False
        for f, args in calls:
            _, parts, by_value = _work.apply(f, args, {}, name)
            blobs += parts
            each.append(len(parts))
            any_by_value |= by_value
        if any_by_value:
            self.client._refuse_code(engines, name)
        return self._submit(
            "apply", engines, _work.apply_header(any_by_value, name), blobs, name, each, label=label
        )

    def map(
        self,
        f: Callable[..., Any],
        *sequences: Any,
        block: bool | None = None,
        track: bool = False,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Any:
        """`map` of the builtins, cut into one part per engine.

        Parameters
        ----------
        f : callable
            Called with one item of each sequence.
        *sequences : iterables
            The shortest decides the length.
        block : bool, optional
            Wait for the list of results; the view's flag by default.
        track : bool
            Accepted and without effect.
        return_exceptions : bool
            Put exceptions into the result instead of raising them.
        label : str, optional
            Given to the instruction.

        Returns
        -------
        AsyncMapResult, or list if it blocks
        """
        function = ParallelFunction(self, f, block=block, return_exceptions=return_exceptions, label=label)
        return function.map(*sequences)

    def _parallel(
        self, function: ParallelFunction, sequences: Sequence[Any], length: int, mapping: bool
    ) -> Any:
        """Split `sequences` over the engines and call `function` on each part."""
        if function.chunksize is not None:
            warnings.warn("`chunksize` is ignored unless load balancing", UserWarning, stacklevel=4)
        engines, _ = self._engines()
        used = engines[: min(len(engines), length)]
        calls, sizes = [], []
        for index in range(len(used)):
            parts = [function.dist.part(seq, index, len(used), length) for seq in sequences]
            calls.append(map_parts(function.func, parts) if mapping else (function.func, parts))
            sizes.append(len(parts[0]) if mapping else 1)
        record = self._apply_each(calls, used, function.__name__, function.label)
        return AsyncMapResult(
            self.client,
            [record],
            function.dist,
            function.__name__,
            function.ordered,
            function.return_exceptions,
            sizes,
        )

    # --- code ---

    def execute(
        self,
        code: str,
        silent: bool = True,
        targets: Any = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run `code` as a cell in the engines' namespaces.

        Parameters
        ----------
        code : str
            Source text; magics, ``!shell`` and ``?`` work where the engines have IPython.
        silent : bool
            Keep it out of the engines' history and do not display its value.
        targets, block, label
            Instead of the view's.

        Returns
        -------
        AsyncResult
            Its values are `ExecuteReply`. With `block`, it has ended; Ctrl-C interrupts the engines.
        """
        if not isinstance(code, str):
            raise TypeError(f"code must be a str, not {type(code).__name__}")
        return self._execute(code, silent, None, targets, block, label)

    def _execute(
        self,
        code: str,
        silent: bool,
        filename: str | None,
        targets: Any,
        block: bool | None,
        label: str | None,
    ) -> AsyncResult:
        engines, single = self._engines(targets)
        record = self._submit("execute", engines, _work.execute(code, silent, filename), label=label)
        record.code = code
        ar = AsyncResult(self.client, [record], "execute", single)
        self._answer(ar, block)
        return ar

    def run(
        self, filename: str, targets: Any = None, block: bool | None = None, label: str | None = None
    ) -> AsyncResult:
        """Run a file of this machine on the engines; tracebacks name it."""
        with open(filename, encoding="utf-8") as file:
            code = file.read()
        return self._execute(code + "\n", True, str(filename), targets, block, label)

    def sync_imports(self, local: bool = True, quiet: bool = False) -> SyncImports:
        """Context in which ``import`` statements also run on the engines (without ``as`` names)."""
        return SyncImports(self, local, quiet)

    @property
    def importer(self) -> SyncImports:
        """``sync_imports(True)``."""
        return self.sync_imports(True)

    # --- namespaces ---

    def push(
        self, ns: dict[str, Any], targets: Any = None, block: bool | None = None, track: bool | None = None
    ) -> Any:
        """Set names in the engines' namespaces.

        Raises
        ------
        TypeError
            `ns` is not a dict of str.
        """
        if not isinstance(ns, dict):
            raise TypeError(f"Must be a dict, not {type(ns)}")
        _check_names(ns)
        engines, single = self._engines(targets)
        meta, blobs, by_value = _work.push(ns)
        if by_value:
            self.client._refuse_code(engines, "push")
        record = self._submit("push", engines, meta, blobs)
        return self._answer(AsyncResult(self.client, [record], "push", single), block)

    def update(self, ns: dict[str, Any]) -> Any:
        """`push` with the view's flags."""
        return self.push(ns)

    def pull(self, names: str | Sequence[str], targets: Any = None, block: bool | None = None) -> Any:
        """Get values of names (or expressions) from the engines' namespaces.

        One name gives one value per engine, several give a list per engine.
        """
        single_name = isinstance(names, str)
        if not single_name:
            if not isinstance(names, list | tuple | set):
                raise TypeError(f"names must be strs, not {names!r}")
            _check_names(names)
        engines, single = self._engines(targets)
        record = self._submit(
            "pull", engines, _work.pull([names] if single_name else list(names), single_name)
        )
        return self._answer(AsyncResult(self.client, [record], "pull", single), block)

    def get(self, key_s: str | Sequence[str]) -> Any:
        """`pull` that waits."""
        return self.pull(key_s, block=True)

    def __getitem__(self, key: str | Sequence[str]) -> Any:
        return self.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.push({key: value}, block=True)

    def scatter(
        self,
        key: str,
        seq: Any,
        dist: str = "b",
        flatten: bool = False,
        targets: Any = None,
        block: bool | None = None,
        track: bool | None = None,
    ) -> AsyncResult | None:
        """Give each engine its part of a sequence under the name `key`.

        Parameters
        ----------
        key : str
            Name on the engines.
        seq : sequence or numpy.ndarray
            What to cut; with fewer items than engines, some parts are empty.
        dist : str
            ``'b'`` for blocks, ``'r'`` for round robin.
        flatten : bool
            A part of one item becomes that item.
        """
        _check_names([key])
        engines, _ = self._engines(targets)
        mapping = distribution(dist)
        if not hasattr(seq, "__len__"):
            seq = list(seq)
        parts = [mapping.part(seq, index, len(engines)) for index in range(len(engines))]
        if flatten:
            parts = [part[0] if len(part) == 1 else part for part in parts]
        meta, blobs, each, by_value = _work.push_each(key, parts)
        if by_value:
            self.client._refuse_code(engines, "scatter")
        record = self._submit("push", engines, meta, blobs, "scatter", each)
        ar = AsyncResult(self.client, [record], "scatter")
        if self.block if block is None else block:
            ar._foreground()
            return None
        return ar

    def gather(self, key: str, dist: str = "b", targets: Any = None, block: bool | None = None) -> Any:
        """Join the engines' parts of `key` into one sequence, in target order."""
        mapping = distribution(dist)
        engines, _ = self._engines(targets)
        record = self._submit("pull", engines, _work.pull([key], True), name="gather")
        return self._answer(AsyncMapResult(self.client, [record], mapping, "gather"), block)

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Empty the engines' namespaces."""
        engines, single = self._engines(targets)
        record = self._submit("clear", engines, _work.CLEAR)
        return self._answer(AsyncResult(self.client, [record], "clear", single), block)

    # --- magics ---

    def activate(self, suffix: str = "") -> None:
        """Bind ``%px``, ``%%px``, ``%autopx``, ``%pxresult``, ``%pxconfig`` (plus `suffix`) to this view."""
        from ipsteer.display import ipython

        shell = ipython()
        if shell is None:
            warnings.warn("the parallel magics (%px, ...) only work within IPython", stacklevel=2)
            return
        from ipsteer.magics import ParallelMagics

        shell.magics_manager.register(ParallelMagics(shell, self, suffix))


def _check_names(names: Any) -> None:
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"keys must be str, not type {type(name)!r}")
