"""Cells with IPython: its own shell class with an engine's display, children and errors.

The shell leaves nothing behind on disk and prints no traceback: an exception is the cell's outcome, as data.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import os
import re
import sys
import tempfile
import warnings
from types import ModuleType
from typing import Any

from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.text import LSString, SList
from traitlets import Type
from traitlets.config import Config

from . import _children, _interrupt, _loop, _shell

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def make_shell(main: ModuleType) -> EngineShell:
    """Create the shell, as the one that `get_ipython()` returns.

    Parameters
    ----------
    main
        The namespace's module.

    Returns
    -------
    EngineShell
        The shell.
    """
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    _choose_matplotlib_backend()
    # IPython insists on a directory while it starts; it needs none afterwards.
    with tempfile.TemporaryDirectory(prefix="ipengine-") as directory:
        shell = EngineShell.instance(config=config, user_module=main, ipython_dir=directory)
    atexit.unregister(shell.atexit_operations)
    shell.loop_runner = _loop.run_coroutine
    shell.set_hook("show_in_pager", _show_in_pager, 0)
    warnings.filterwarnings("ignore", message="To exit: use", category=UserWarning)
    return shell


def _choose_matplotlib_backend():
    # As a notebook does: figures become display messages. Only read if matplotlib is imported later.
    if importlib.util.find_spec("matplotlib_inline") is not None:
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")


def _show_in_pager(shell, data, start=0, screen_lines=0):
    bundle = data if isinstance(data, dict) else {"text/plain": data}
    if isinstance(bundle.get("text/plain"), str):
        bundle = {**bundle, "text/plain": _ANSI.sub("", bundle["text/plain"])}
    _shell.emit("display_data", {"data": bundle, "metadata": {}, "transient": {}})


class _Compiler(CachingCompiler):
    """Names a cell after the file it came from, if there is one."""

    filename: str | None = None

    def get_code_name(self, raw_code, transformed_code, number):
        return self.filename or _shell.cell_name(raw_code)


class _ResultHook(DisplayHook):
    """Sends the value of a cell as a message and keeps it for the reply."""

    def quiet(self) -> bool:
        """Whether a semicolon ends the cell."""
        try:
            return self.semicolon_at_end_of_expression(self.shell.current_source)
        except Exception:  # not tokenisable as it stands
            return False

    def write_output_prompt(self) -> None:
        """Print nothing."""

    def write_format_data(self, format_dict, md_dict=None) -> None:
        """Send the value."""
        metadata = md_dict or {}
        self.shell.shown_value = (format_dict, metadata)
        content = {"execution_count": self.shell.cell_number, "data": format_dict, "metadata": metadata}
        _shell.emit("execute_result", content)

    def log_output(self, format_dict) -> None:
        """Keep no copy: a long-lived engine would fill up."""

    def finish_displayhook(self) -> None:
        """Print nothing."""
        self._is_active = False


class _Publisher(DisplayPublisher):
    """Sends what `display()` shows as messages."""

    def publish(self, data, metadata=None, *, transient=None, update=False, **kwargs) -> None:
        """Send a mime bundle."""
        self._validate_data(data, metadata)
        content = {"data": data, "metadata": metadata or {}, "transient": transient or {}}
        _shell.emit("update_display_data" if update else "display_data", content)

    def clear_output(self, wait=False) -> None:
        """Ask the client to clear what it shows."""
        _shell.emit("clear_output", {"wait": bool(wait)})


class EngineShell(InteractiveShell):
    """IPython's shell in an engine."""

    compiler_class = _Compiler
    displayhook_class = Type(_ResultHook)
    display_pub_class = Type(_Publisher)

    current_source = ""
    cell_number: int | None = None
    shown_value: tuple[dict[str, Any], dict[str, Any]] = ({}, {})

    def __init__(self, **kwargs):
        self.unraised: list[BaseException] = []
        super().__init__(**kwargs)

    # --- what the glue calls ---

    def run(
        self, code: str, filename: str | None, silent: bool, store_history: bool
    ) -> tuple[int | None, dict[str, Any], dict[str, Any]]:
        """Run a cell; see `PlainShell.run`."""
        self.unraised = []
        self.shown_value = ({}, {})
        self.current_source = code
        self.cell_number = self.execution_count if store_history else None
        self.compile.filename = filename
        if _interrupt.pending:
            _interrupt.deliver_pending()
        try:
            result = self.run_cell(code, store_history=store_history, silent=silent)
        finally:
            self.compile.filename = None
        error = result.error_before_exec or result.error_in_exec
        if error is None and self.unraised:
            # %run and nested cells only print: here that would lose the exception.
            error = self.unraised[-1]
        if error is not None:
            self.unraised = []
            raise error
        return self.cell_number, *self.shown_value

    def expressions(self, expressions: dict[str, str]) -> dict[str, Any]:
        """Evaluate expressions for the reply; see `PlainShell.expressions`."""
        return _interrupt.call_user(self.user_expressions, expressions)

    def clear_history(self) -> None:
        """Start numbering again in an empty namespace."""
        self.reset(new_session=True)

    # --- start-up ---

    def init_virtualenv(self) -> None:
        """Do nothing: the engine has chosen its environment."""

    def init_syntax_highlighting(self, *args, **kwargs) -> None:
        """Choose the theme without colours, whose name differs between versions."""
        with contextlib.suppress(Exception):
            self.colors = "nocolor"
        super().init_syntax_highlighting(*args, **kwargs)

    # --- running ---

    async def run_code(self, code_obj, result=None, *, async_=False):
        """Run one compiled statement; an interrupt that came while the glue ran is raised here."""
        if _interrupt.pending:
            _interrupt.deliver_pending()
        return await super().run_code(code_obj, result, async_=async_)

    @contextlib.contextmanager
    def _tee(self, channel):
        # IPython 9 would keep a copy of everything that is printed.
        yield

    def ask_exit(self) -> None:
        """Make `exit` an ordinary error."""
        raise SystemExit("an engine ends with its job, not with a cell: use `ipsteer stop`")

    # --- errors ---

    def showtraceback(self, exc_tuple=None, *args, **kwargs):
        """Keep the exception for the outcome; without one (``%tb``) print the last."""
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        if error is None:
            super().showtraceback(exc_tuple, *args, **kwargs)
        else:
            self._keep(exc_tuple, error)

    def showsyntaxerror(self, filename=None, running_compiled_code=False):
        """Keep the exception for the outcome."""
        error = sys.exc_info()[1]
        if error is None:
            super().showsyntaxerror(filename, running_compiled_code)
        else:
            self._keep(None, error)

    def _keep(self, exc_tuple, error):
        self.unraised.append(error)
        # %tb and %debug look at sys.last_value.
        self._get_exc_info(exc_tuple)

    def _format_exception_for_storage(self, exception, *args, **kwargs):
        # IPython 9 would format every traceback a second time, for a history that nobody reads.
        return {"ename": type(exception).__name__, "evalue": "", "traceback": []}

    # --- children ---

    def system(self, cmd):
        """Run ``!cmd``; its exit code is left in ``_exit_code``."""
        code = _children.run(self.var_expand(cmd, depth=1))
        self._note_exit(code, cmd)

    system_piped = system_raw = system

    def getoutput(self, cmd, split=True, depth=0):
        """Run ``x = !cmd`` and return its output."""
        text = _children.capture(self.var_expand(cmd, depth=depth + 1))
        return SList(text.splitlines()) if split else LSString(text)

    def _note_exit(self, code, cmd):
        self.user_ns["_exit_code"] = code
        if code and getattr(self, "system_raise_on_error", False):
            import subprocess

            raise subprocess.CalledProcessError(code, cmd)

    def run_cell_magic(self, magic_name, line, cell):
        """Run a cell magic; the children of ``%%bash`` and its like get the scrubbed environment as well."""
        with _scrubbed_scripts() if self._is_script(magic_name) else contextlib.nullcontext():
            return super().run_cell_magic(magic_name, line, cell)

    def _is_script(self, name):
        magic = self.find_cell_magic(name)
        module = getattr(getattr(magic, "__func__", magic), "__module__", None)
        return module == "IPython.core.magics.script"


@contextlib.contextmanager
def _scrubbed_scripts():
    # IPython's script magics have no option for the environment; they look this function up in asyncio at the
    # call.
    original = asyncio.create_subprocess_exec

    def create(*args, **kwargs):
        kwargs.setdefault("env", _children.scrubbed_environment())
        return original(*args, **kwargs)

    asyncio.create_subprocess_exec = create
    try:
        yield
    finally:
        asyncio.create_subprocess_exec = original


_interrupt.add_cell_runner(InteractiveShell.run_code.__code__)
