"""Cells without IPython: the last expression's value is shown, `In` and `Out` are kept."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from types import ModuleType
from typing import Any

from . import _errors, _loop, _shell
from ._interrupt import call_user


class PlainShell:
    """The fallback shell.

    Parameters
    ----------
    main
        The namespace's module.
    """

    def __init__(self, main: ModuleType):
        self._namespace = main.__dict__
        self.clear_history()

    def clear_history(self) -> None:
        """Start numbering again and put `In` and `Out` into the namespace."""
        self._count = 1
        self._in = [""]
        self._out: dict[int, Any] = {}
        self._last: list[Any] = ["", "", ""]
        self._namespace.update(In=self._in, Out=self._out, _="", __="", ___="")

    def run(
        self, code: str, filename: str | None, silent: bool, store_history: bool
    ) -> tuple[int | None, dict[str, Any], dict[str, Any]]:
        """Run a cell.

        Parameters
        ----------
        code
            The source text.
        filename
            The file it came from, or None.
        silent
            Do not show the value.
        store_history
            Count the cell.

        Returns
        -------
        tuple
            The cell's number, and the mime bundle of its value with the metadata.
        """
        number = None
        if store_history:
            number = self._count
            self._count += 1
            self._in.append(code)
        name = filename or _shell.cell_name(code)
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        body, last = _split(_parse(code, name))
        if body.body:
            self._evaluate(compile(body, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        if last is None:
            return number, {}, {}
        value = self._evaluate(compile(last, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        if value is None or silent or code.rstrip().endswith(";"):
            return number, {}, {}
        return number, self._show(value, number), {}

    def expressions(self, expressions: dict[str, str]) -> dict[str, Any]:
        """Evaluate expressions for the reply.

        Parameters
        ----------
        expressions
            Source by name.

        Returns
        -------
        dict
            A mime bundle or an error by name.
        """
        return {name: self._expression(source) for name, source in expressions.items()}

    def _evaluate(self, code):
        result = call_user(eval, code, self._namespace)
        if code.co_flags & inspect.CO_COROUTINE:
            return _loop.run_coroutine(result)
        return result

    def _show(self, value, number):
        data = {"text/plain": call_user(repr, value)}
        if number is not None and value is not self._out:
            self._out[number] = value
            self._namespace[f"_{number}"] = value
            self._last = [value, *self._last[:2]]
            self._namespace.update(_=self._last[0], __=self._last[1], ___=self._last[2])
        _shell.emit("execute_result", {"execution_count": number, "data": data, "metadata": {}})
        return data

    def _expression(self, source):
        try:
            value = call_user(eval, source, self._namespace)
            return {"status": "ok", "data": {"text/plain": call_user(repr, value)}, "metadata": {}}
        except Exception as error:
            described = _errors.describe(error)
            return {
                "status": "error",
                "ename": described["type_name"],
                "evalue": described["message"],
                "traceback": described["traceback"].splitlines(),
            }


def _parse(code, name):
    try:
        return ast.parse(code, name)
    except SyntaxError:
        _explain_ipython_syntax(code)
        raise


def _split(tree):
    """Separate a last expression from what precedes it."""
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
        return tree, last
    return tree, None


def _explain_ipython_syntax(code):
    for number, line in enumerate(code.splitlines(), 1):
        text = line.strip()
        if text.startswith(("%", "!", "?")) or text.endswith("?"):
            raise ModuleNotFoundError(
                f"line {number}, {text[:80]!r}, is IPython's syntax, and {sys.executable} has no IPython: "
                f"install it there to use magics, !commands and ? help",
                name="IPython",
            ) from None
