"""``%px``, ``%%px``, ``%pxresult``, ``%pxconfig`` and ``%autopx`` for IPython and Jupyter."""

from __future__ import annotations

import ast
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from IPython.core import magic_arguments
from IPython.core.error import UsageError
from IPython.core.magic import Magics, magics_class, no_var_expand

from ipsteer import waiting
from ipsteer.asyncresult import AsyncResult
from ipsteer.targets import resolve

if TYPE_CHECKING:
    from ipsteer.directview import DirectView

_argument = magic_arguments.argument

_EXEC_ARGUMENTS = (
    _argument("-b", "--block", action="store_const", const=True, dest="block", help="wait for the result"),
    _argument("-a", "--noblock", action="store_const", const=False, dest="block", help="do not wait"),
    _argument("--stream", action="store_const", const=True, dest="stream", help="print output as it arrives"),
    _argument(
        "--no-stream", action="store_const", const=False, dest="stream", help="print output at the end"
    ),
    _argument("-t", "--targets", type=str, help="engines: an int, a slice, a list or 'all'"),
    _argument("--verbose", action="store_const", const=True, dest="verbose", help="say where each cell runs"),
    _argument("--no-verbose", action="store_const", const=False, dest="verbose", help="do not say it"),
    _argument(
        "--progress-after",
        dest="progress_after",
        type=float,
        default=None,
        help="seconds until a progress bar shows, without streaming; -1 for never",
    ),
    _argument(
        "--signal-on-interrupt",
        dest="signal",
        type=str,
        default=None,
        help="what Ctrl-C sends to the engines: SIGINT (default), or 0 for nothing",
    ),
)

_OUTPUT_ARGUMENTS = (
    _argument(
        "-r", action="store_const", dest="groupby", const="order", help="same as --group-outputs=order"
    ),
    _argument(
        "-e", action="store_const", dest="groupby", const="engine", help="same as --group-outputs=engine"
    ),
    _argument(
        "--group-outputs",
        dest="groupby",
        type=str,
        choices=["engine", "order", "type"],
        default="type",
        help="arrange output by type (default), by engine, or displays of all engines in order",
    ),
    _argument("-o", "--out", dest="save_name", type=str, help="keep the AsyncResult under this name"),
)

_SIGNALS = {"SIGINT": True, "2": True, "0": False}


def _arguments(*groups: Any) -> Any:
    def decorate(function: Any) -> Any:
        for argument in groups:
            function = argument(function)
        return magic_arguments.magic_arguments()(function)

    return decorate


@magics_class
class ParallelMagics(Magics):
    """The magics of one view; `suffix` tells those of several views apart.

    Attributes
    ----------
    view : DirectView
        Where cells run.
    last_result : AsyncResult
        The result of the last cell.
    """

    verbose = False
    stream_output = True
    progress_after_seconds = 2.0
    interrupts = True

    def __init__(self, shell: Any, view: DirectView, suffix: str = "") -> None:
        super().__init__(shell=shell)
        self.view = view
        self.suffix = suffix
        self.last_result: AsyncResult | None = None
        px = f"px{suffix}"
        # per instance, not by decorator: the names carry the suffix
        self.magics = {
            "line": {
                px: self.px,
                f"pxresult{suffix}": self.result,
                f"pxconfig{suffix}": self.pxconfig,
                f"autopx{suffix}": self.autopx,
            },
            "cell": {px: self.cell_px},
        }
        if not suffix:
            self.magics["line"]["result"] = self.result

    # --- magics ---

    @no_var_expand
    def px(self, line: str = "") -> AsyncResult | None:
        """Run a line on the engines: ``%px import numpy``."""
        return self.parallel_execute(line)

    @_arguments(
        *_EXEC_ARGUMENTS,
        *_OUTPUT_ARGUMENTS,
        _argument("--local", action="store_const", const=True, dest="local", help="also run the cell here"),
    )
    @no_var_expand
    def cell_px(self, line: str = "", cell: str = "") -> AsyncResult | None:
        """Run a cell on the engines."""
        args = magic_arguments.parse_argstring(self.cell_px, line)
        block = self.view.block if args.block is None else args.block
        targets = self._targets(args.targets) if args.targets else self.view.targets
        ar = self._submit(cell, targets, block, args.save_name)
        if args.local:
            self.shell.run_cell(cell)
        if not block:
            return ar
        self._finish(ar, args)
        return None

    @_arguments(*_EXEC_ARGUMENTS)
    def pxconfig(self, line: str) -> None:
        """Set the defaults of ``%px`` and ``%%px``."""
        args = magic_arguments.parse_argstring(self.pxconfig, line)
        if args.targets:
            self.view.targets = self._targets(args.targets)
        if args.block is not None:
            self.view.block = args.block
        if args.verbose is not None:
            self.verbose = args.verbose
        if args.stream is not None:
            self.stream_output = args.stream
        if args.progress_after is not None:
            self.progress_after_seconds = args.progress_after
        if args.signal is not None:
            self.interrupts = self._signal(args.signal)

    @_arguments(*_OUTPUT_ARGUMENTS)
    def result(self, line: str = "") -> None:
        """Show the result of the last ``%px`` again, waiting for it."""
        args = magic_arguments.parse_argstring(self.result, line)
        if self.last_result is None:
            raise UsageError("%pxresult shows the result of the last %px; there was none yet")
        if args.save_name:
            self.shell.user_ns[args.save_name] = self.last_result
            return
        self.last_result.get()
        self.last_result.display_outputs(args.groupby)

    @no_var_expand
    def autopx(self, line: str = "") -> None:
        """Send every cell to the engines, until ``%autopx`` again."""
        transforms = self.shell.input_transformers_cleanup
        if self._to_engines in transforms:
            transforms.remove(self._to_engines)
            print("%autopx disabled")
        else:
            transforms.append(self._to_engines)
            print("%autopx enabled")

    # --- how ---

    def _to_engines(self, lines: list[str]) -> list[str]:
        """Rewrite a cell into a ``%%px`` of itself, unless it is the one that ends this."""
        cell = "".join(lines)
        if not cell.strip() or re.match(rf"\s*%autopx{re.escape(self.suffix)}\b", cell):
            return lines
        return [f"get_ipython().run_cell_magic({f'px{self.suffix}'!r}, '', {cell!r})\n"]

    def _targets(self, text: str) -> Any:
        """Engines named on a magic's line: ``3``, ``1::2``, ``[0, 2]``, ``0,2``, ``all``."""
        client = self.view.client
        if "all" in text:
            return "all"
        try:
            if ":" in text:
                bounds = [int(part) if part.strip() else None for part in text.strip("[] ").split(":")]
                targets: Any = client.ids[slice(*bounds)]
            else:
                targets = ast.literal_eval(text)
                targets = targets if isinstance(targets, int) else list(targets)
            resolve(targets, client.ids)
        except (ValueError, TypeError, SyntaxError, IndexError) as error:
            raise UsageError(f"targets {text!r}: {error}") from None
        return targets

    def _signal(self, text: str) -> bool:
        try:
            return _SIGNALS[text.upper()]
        except KeyError:
            raise UsageError(f"engines can be sent SIGINT or 0 (nothing), not {text!r}") from None

    def parallel_execute(self, cell: str, block: bool | None = None) -> AsyncResult | None:
        """Run source text on the view's engines; shows output and returns None when it blocks."""
        block = self.view.block if block is None else block
        ar = self._submit(cell, self.view.targets, block, None)
        if not block:
            return ar
        self._finish(ar)
        return None

    def _submit(self, cell: str, targets: Any, block: bool, save_name: str | None) -> AsyncResult:
        if self.verbose:
            print(f"{'Parallel' if block else 'Async parallel'} execution on engine(s): {targets}")
        ar = self.view.execute(cell, silent=False, targets=targets, block=False)
        ar._fname = "%px"
        self.last_result = ar
        if save_name:
            self.shell.user_ns[save_name] = ar
        return ar

    def _finish(self, ar: AsyncResult, args: Any = None) -> None:
        """Wait in the foreground, showing output as configured."""
        stream = self.stream_output if args is None or args.stream is None else args.stream
        after = (
            self.progress_after_seconds
            if args is None or args.progress_after is None
            else args.progress_after
        )
        interrupts = self.interrupts if args is None or args.signal is None else self._signal(args.signal)
        try:
            with ar.stream_output() if stream else nullcontext():
                if not stream and after >= 0 and not waiting.foreground_wait(ar, after, interrupts):
                    waiting.foreground_progress(ar, interrupts)
                waiting.foreground_wait(ar, None, interrupts)
        finally:
            if not stream and ar.ready():
                ar.display_outputs("type" if args is None else args.groupby)
        ar.get()


def load(shell: Any) -> None:
    """Bind the magics to the newest cluster that answers, unless a client has done so."""
    from ipsteer.client import Client

    if "px" not in shell.magics_manager.magics["line"]:
        client = Client()
        shell.user_ns.setdefault("rc", client)
