"""Exceptions as data, also those that resist."""

import pytest


def test_the_fields(engine):
    failure = engine.execute("def f(x):\n    return 1 / x\n\nf(0)", filename="lab.py")
    error = failure.error
    assert (error["type_name"], error["module"], error["message"]) == (
        "ZeroDivisionError",
        "builtins",
        "division by zero",
    )
    assert error["mro"][:3] == [
        "builtins.ZeroDivisionError",
        "builtins.ArithmeticError",
        "builtins.Exception",
    ]
    assert [(f["file"], f["line"], f["function"], f["source"]) for f in error["frames"]] == [
        ("lab.py", 4, "<module>", "f(0)"),
        ("lab.py", 2, "f", "    return 1 / x"),
    ]
    assert (error["rank"], error["host"]) == (2, "node7")
    assert error["args"] == [{"repr": "'division by zero'", "json": "division by zero"}]
    assert error["traceback"].startswith('Traceback (most recent call last):\n  File "lab.py", line 4')
    assert "ipengine/_" not in error["traceback"]
    assert "\x1b" not in error["traceback"]


def test_cells_without_a_file_have_source_lines(engine):
    failure = engine.execute("a = 1\nraise KeyError('k')")
    assert failure.frames[0]["source"] == "raise KeyError('k')"
    assert failure.message == "'k'"
    assert len(failure.frames) == 1


def test_frames_of_apply_begin_with_the_function(engine, client):
    failure = engine.apply(client("def f():\n    raise OSError(2, 'gone', 'x.dat')").f)
    assert [f["function"] for f in failure.frames] == ["f"]
    assert failure.type_name == "FileNotFoundError"
    assert failure.attributes["errno"]["json"] == 2
    assert failure.attributes["filename"]["json"] == "x.dat"


def test_source_of_a_function_that_a_client_typed(engine, client):
    import linecache

    def typed(name, source):
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        space = {"__name__": "__main__"}
        exec(compile(source, name, "exec"), space)
        stream, _, _ = engine.canning.dumps((space["f"], (), {}))
        del linecache.cache[name]  # it exists on the laptop only
        return engine.value(engine.runtime.apply(stream, [], None))

    source = "k = 0\ndef g():\n    return 1 / k\n\ndef f():\n    # why\n    return [g() for _ in range(1)]\n"
    for name in ("<laptop cell>", "/nowhere/on/the/laptop.py"):
        failure = typed(name, source)
        assert failure.frames[-1]["source"] == "    return 1 / k"
        assert failure.frames[-1]["file"] == name
        assert failure.frames[0]["source"] == "    return [g() for _ in range(1)]"
        assert "return 1 / k" in failure.traceback
    failure = typed("<laptop cell>", "def f():\n    edited = 1\n    raise ValueError(edited)\n")
    assert failure.frames[0]["source"] == "    raise ValueError(edited)"


def test_chains_notes_attributes(engine):
    failure = engine.execute(
        """
        class Odd(ValueError):
            def __init__(self, code):
                super().__init__(code, {"n": [1, None]})
                self.code = code
        try:
            try:
                {}["x"]
            except KeyError as e:
                raise Odd(7) from e
        except Odd as e:
            e.__notes__ = ["first", "second"]
            raise RuntimeError("outer")
        """
    )
    assert failure.type_name == "RuntimeError"
    assert failure.cause is None
    odd = failure.context
    assert odd["notes"] == ["first", "second"]
    assert odd["attributes"]["code"] == {"repr": "7", "json": 7}
    assert odd["args"][1]["json"] == {"n": [1, None]}
    assert odd["mro"][0] == "__main__.Odd"
    assert odd["cause"]["type_name"] == "KeyError"
    assert odd["suppress_context"] is True
    assert "direct cause" in failure.traceback


def test_cycles_and_long_chains(engine):
    failure = engine.execute(
        "a = ValueError('a'); b = ValueError('b')\na.__context__ = b; b.__context__ = a\nraise a"
    )
    assert failure.message == "a"
    failure = engine.execute(
        "e = None\nfor i in range(300):\n    n = ValueError(i); n.__cause__ = e; e = n\nraise e"
    )
    depth, link = 0, failure.error
    while link:
        depth, link = depth + 1, link["cause"]
    assert depth == 16


HOSTILE = """
import sys
class BadStr(Exception):
    def __str__(self): raise RuntimeError("no")
class BadRepr:
    def __repr__(self): raise KeyError("no")
class Exits(Exception):
    def __str__(self): sys.exit(9)
class Subclass(str):
    def __str__(self): raise ValueError
    def __len__(self): raise ValueError
class NotText(Exception):
    def __str__(self): return Subclass("sub")
class Meta(type):
    @property
    def __name__(cls): raise ValueError
    @property
    def __mro__(cls): raise ValueError
class Weird(Exception, metaclass=Meta): pass
class Args(Exception):
    args = property(lambda self: 1 / 0)
class Dict(Exception):
    @property
    def __dict__(self): raise ValueError
class Notes(Exception):
    @property
    def __notes__(self): raise ValueError
class Slow(Exception):
    @property
    def __cause__(self): raise ValueError
"""


@pytest.mark.parametrize(
    "raising",
    [
        "BadStr()",
        "ValueError(BadRepr())",
        "Exits()",
        "NotText()",
        "Weird()",
        "Args()",
        "Dict()",
        "Notes()",
        "Slow()",
        "ValueError('\\ud800 lone', float('nan'), float('inf'), b'\\xff', 10**5000)",
        "ValueError('x' * 10**7, list(range(10**6)), {i: i for i in range(10**5)})",
        "ValueError(*range(10000))",
        "UnicodeDecodeError('utf-8', b'x' * 10**6, 0, 1, 'r' * 10**6)",
        "SystemExit(BadRepr())",
        "StopIteration([1])",
    ],
)
def test_hostile_exceptions(engine, raising):
    failure = engine.execute(HOSTILE + f"raise {raising}")
    assert failure.status == "error"
    assert failure.rank == 2
    size = len(str(failure.error))
    assert size < 2_000_000
    assert engine.execute("1")["data"]["text/plain"] == "1"


def test_deep_recursion_is_bounded(engine):
    failure = engine.execute("def f(n):\n    return f(n + 1)\nf(0)")
    assert failure.type_name == "RecursionError"
    assert len(failure.frames) == 101
    assert "frames left out" in failure.frames[50]["function"]


def test_self_containing_args(engine):
    failure = engine.execute("a = []; a.append(a)\nraise ValueError(a)")
    assert failure.args[0] == {"repr": "[[...]]"}


def test_syntax_errors(engine):
    failure = engine.execute("x = 1\nif x\n    pass", filename="bad.py")
    assert failure.type_name == "SyntaxError"
    assert failure.attributes["lineno"]["json"] == 2
    assert failure.frames == []
    assert 'File "bad.py", line 2' in failure.traceback
    assert engine.execute("if 1:\nx = 1").type_name == "IndentationError"
    assert engine.execute("return 5").type_name == "SyntaxError"
    assert engine.execute("x = '\\ud800' + chr(0)").get("status") is None
    assert engine.execute("a\0b").status == "error"
