"""What the user sees: tagged live output, results of cells, grouped output of a finished instruction.

Only the thread that waits prints; nothing here is called from the session's own thread.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ipsteer import _native
    from ipsteer.asyncresult import AsyncResult
    from ipsteer.record import Metadata, Record


def ipython() -> Any | None:
    """The running IPython shell, without importing IPython."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


class ExecuteReply:
    """Result of a cell on one engine: a bounded bundle of representations, not the object."""

    def __init__(self, msg_id: str, content: dict[str, Any], record: Record, index: int) -> None:
        self.msg_id = msg_id
        self.execution_count = content.get("execution_count")
        self.data: dict[str, Any] = content.get("data") or {}
        self.mime_metadata: dict[str, Any] = content.get("metadata") or {}
        self.user_expressions: dict[str, Any] = content.get("user_expressions") or {}
        self._record = record
        self._index = index

    @property
    def metadata(self) -> Metadata:
        """Times, engine and output of the cell."""
        return self._record.metadata(self._index)

    @property
    def engine_id(self) -> int | None:
        """The engine it ran on."""
        return self._record.engine(self._index)

    def __getitem__(self, key: str) -> Any:
        return self.metadata[key]

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            raise AttributeError(key)
        return getattr(self.metadata, key)

    def _plain(self) -> str:
        text = self.data.get("text/plain", "")
        if not text:
            return ""
        first = "\n" if "\n" in text and not text.startswith("\n") else ""
        return f"Out[{self.engine_id}:{self.execution_count}]: {first}{text}"

    def __repr__(self) -> str:
        text = self.data.get("text/plain", "")
        return f"<ExecuteReply[{self.execution_count}]: {text if len(text) <= 32 else text[:29] + '...'}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self._plain() or repr(self))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        return {**self.data, "text/plain": self._plain() or repr(self)}, self.mime_metadata

    def display(self) -> None:
        """Show it: richly in IPython, as text elsewhere."""
        shell = ipython()
        if shell is not None:
            shell.display_pub.publish(*self._repr_mimebundle_())
        elif self.data:
            print(self._plain())


class TaggedPrinter:
    """Prints output with ``[stdout:3]`` before each line; engines never share a line."""

    def __init__(self) -> None:
        self._tag = ""
        self._file: TextIO | None = None
        self._fresh = True

    def text(self, tag: str, text: str, file: TextIO) -> None:
        """Print `text` of the stream called `tag`."""
        if not text:
            return
        pieces = []
        if not self._fresh and (tag != self._tag or file is not self._file):
            (self._file or file).write("\n")
            self._fresh = True
        for line in text.splitlines(keepends=True):
            pieces.append(f"{tag} {line}" if self._fresh and tag else line)
            self._fresh = line.endswith("\n")
        self._tag, self._file = tag, file
        file.write("".join(pieces))
        file.flush()

    def finish(self) -> None:
        """End an unfinished line."""
        if not self._fresh and self._file is not None:
            self._file.write("\n")
            self._fresh = True

    def show(self, output: _native.Output) -> None:
        """Print or display one piece of output."""
        if output.kind in ("stdout", "stderr"):
            self.text(f"[{output.kind}:{output.engine}]", output.text, getattr(sys, output.kind))
        elif output.kind in ("display_data", "update_display_data"):
            self.finish()
            publish(json.loads(output.text), output.engine, output.kind == "update_display_data")
        elif output.kind == "execute_result":
            self.finish()
            show_result(json.loads(output.text), output.engine)


def publish(content: dict[str, Any], engine: int | None, update: bool = False) -> None:
    """Display a mime bundle of an engine: richly in IPython, its text elsewhere."""
    shell = ipython()
    data = content.get("data") or {}
    if shell is None:
        print(f"[output:{engine}] {data.get('text/plain', '')}")
        return
    if not update:
        shell.display_pub.publish({"text/plain": f"[output:{engine}]"})
    metadata = {**(content.get("metadata") or {}), "engine": engine}
    transient = content.get("transient") or {}
    shell.display_pub.publish(data=data, metadata=metadata, transient=transient, update=update)


def show_result(content: dict[str, Any], engine: int | None) -> None:
    """Display the value of a cell as ``Out[engine:count]``."""
    data = dict(content.get("data") or {})
    text = data.get("text/plain", "")
    first = "\n" if "\n" in text and not text.startswith("\n") else ""
    data["text/plain"] = f"Out[{engine}:{content.get('execution_count')}]: {first}{text}"
    shell = ipython()
    if shell is None:
        print(data["text/plain"])
    else:
        shell.display_pub.publish(data=data, metadata=content.get("metadata") or {})


def display_outputs(ar: AsyncResult, groupby: str, result_only: bool) -> None:
    """Show what a finished instruction printed, displayed and returned.

    `groupby` is ``'type'`` (all stdout, all stderr, ...), ``'engine'`` or ``'order'`` (first display of each
    engine, then the second of each, ...).
    """
    arrange = _ARRANGEMENTS.get(groupby)
    if arrange is None:
        raise ValueError(f"groupby must be one of 'type', 'engine', 'order', not {groupby!r}")
    rows = [record.metadata(index) for record, index in ar._children]
    printer = TaggedPrinter()
    arrange(rows, printer, result_only)
    printer.finish()


def _streams(rows: Sequence[Metadata], printer: TaggedPrinter, names: Sequence[str]) -> None:
    for name in names:
        for row in rows:
            printer.text(f"[{name}:{row.engine_id}]", row[name], getattr(sys, name))
            printer.finish()


def _results(rows: Sequence[Metadata]) -> None:
    for row in rows:
        if row.execute_result:
            show_result(row.execute_result, row.engine_id)


def _by_type(rows: Sequence[Metadata], printer: TaggedPrinter, result_only: bool) -> None:
    if not result_only:
        _streams(rows, printer, ("stdout", "stderr"))
        for row in rows:
            for content in row.outputs:
                publish(content, row.engine_id)
    _results(rows)


def _by_order(rows: Sequence[Metadata], printer: TaggedPrinter, result_only: bool) -> None:
    if not result_only:
        _streams(rows, printer, ("stdout", "stderr"))
        for place in range(max((len(row.outputs) for row in rows), default=0)):
            for row in rows:
                if place < len(row.outputs):
                    publish(row.outputs[place], row.engine_id)
    _results(rows)


def _by_engine(rows: Sequence[Metadata], printer: TaggedPrinter, result_only: bool) -> None:
    for row in rows:
        if not result_only:
            _streams([row], printer, ("stdout", "stderr"))
            for content in row.outputs:
                publish(content, row.engine_id)
        _results([row])


_ARRANGEMENTS: dict[str, Callable[..., None]] = {"type": _by_type, "order": _by_order, "engine": _by_engine}


class _NoBar:
    """Stands in for tqdm where that is not installed."""

    n = 0

    def update(self, step: int) -> None:
        self.n += step

    def close(self) -> None:
        pass


def progress_bar(total: int, name: str, widget: bool | None) -> Any:
    """A bar of tqdm, in a notebook its widget; without tqdm, nothing visible."""
    if widget is None:
        widget = getattr(ipython(), "kernel", None) is not None
    try:
        if widget:
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(total=total, unit="tasks", desc=name)
