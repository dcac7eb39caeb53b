"""Cells, with IPython and in the plain shell."""

import sys
import textwrap
import types

import conftest
import pytest


def has_ipython():
    import importlib.util

    return importlib.util.find_spec("IPython") is not None


needs_ipython = pytest.mark.skipif(not has_ipython(), reason="IPython is not installed")


@pytest.fixture(params=["ipython", "plain"])
def cell(request, engine, monkeypatch):
    """Run cells in both shells."""
    from ipengine import _plain, _shell

    if request.param == "plain":
        monkeypatch.setattr(_shell, "_shell", _plain.PlainShell(sys.modules["__main__"]))
    elif not has_ipython():
        pytest.skip("IPython is not installed")
    engine.shell = request.param
    return engine


def text(reply):
    return reply["data"].get("text/plain")


def test_value_is_shown_and_returned(cell):
    reply = cell.execute("x = 3\nx + 1")
    assert text(reply) == "4"
    assert reply["execution_count"] == 1
    assert cell.fake.emitted == [
        ("execute_result", {"execution_count": 1, "data": {"text/plain": "4"}, "metadata": {}})
    ]
    assert reply["user_expressions"] == {}


def test_numbering_and_history(cell):
    cell.execute("10")
    cell.execute("20")
    assert text(cell.execute("_, __, _1, Out[2], In[1]")) == "(20, 10, 10, 20, '10')"
    assert cell.execute("1 / 0").type_name == "ZeroDivisionError"
    assert cell.execute("None")["execution_count"] == 5
    assert text(cell.execute("None")) is None


def test_semicolon_statement_and_silent(cell):
    assert cell.execute("5;")["data"] == {}
    assert cell.execute("y = 5")["data"] == {}
    reply = cell.execute("y", silent=True)
    assert reply["data"] == {}
    assert reply["execution_count"] is None
    assert cell.execute("y", store_history=False)["execution_count"] is None
    assert len([e for e in cell.fake.emitted if e[0] == "execute_result"]) == 1
    assert cell.execute("")["data"] == {}
    assert cell.execute("# nothing\n")["data"] == {}


def test_namespace_is_main(cell):
    cell.execute("import pickle\nclass P: pass\np = pickle.loads(pickle.dumps(P()))")
    assert text(cell.execute("__name__, type(p) is P")) == "('__main__', True)"
    assert cell.apply(getattr, cell.canning.Reference("P"), "__module__") == "__main__"


def test_top_level_await(cell):
    assert (
        text(
            cell.execute(
                "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 9\nawait f()"
            )
        )
        == "9"
    )
    assert cell.execute("async def g(): raise KeyError(3)\nawait g()").type_name == "KeyError"


def test_exits_are_errors(cell):
    failure = cell.execute("import sys\nsys.exit(3)")
    assert (failure.status, failure.type_name) == ("error", "SystemExit")
    assert failure.attributes["code"]["json"] == 3
    if cell.shell == "ipython":
        assert "ipsteer stop" in cell.execute("exit()").message
    assert text(cell.execute("1")) == "1"


def test_no_traceback_is_printed(cell, capfd):
    cell.execute("1 / 0")
    cell.execute("if")
    assert capfd.readouterr() == ("", "")


def test_user_expressions(cell):
    reply = cell.execute("a = 2", user_expressions={"twice": "2 * a", "bad": "nope"})
    assert reply["user_expressions"]["twice"]["data"]["text/plain"] == "4"
    assert reply["user_expressions"]["bad"]["status"] == "error"
    assert reply["user_expressions"]["bad"]["ename"] == "NameError"


def test_reply_is_bounded(cell):
    reply = cell.execute("class Big:\n    def __repr__(self): return 'x' * 3_000_000\nBig()")
    assert 1_000_000 < len(text(reply)) < 1_100_000
    assert "characters more" in text(reply)


def test_broken_repr(cell):
    outcome = cell.execute("class B:\n    def __repr__(self): raise ValueError('no')\nB()")
    assert outcome.type_name == "ValueError"
    assert text(cell.execute("1")) == "1"


def test_surrogates_and_nan(cell):
    reply = cell.execute("'\\ud800'")
    assert isinstance(text(reply), str)


def test_input_is_refused(cell, monkeypatch):
    from ipengine import _streams

    monkeypatch.setattr(sys, "stdin", _streams.NoInput())
    failure = cell.execute("input('name? ')")
    assert failure.type_name == "RuntimeError"
    assert "input() is not available on an engine" in failure.message
    assert cell.execute("import sys; sys.stdin.readline()").type_name == "RuntimeError"


def test_clear_starts_again(cell):
    cell.execute("x = 1")
    cell.runtime.clear()
    assert cell.execute("x").type_name == "NameError"
    assert text(cell.execute("In[1], len(In)")) in ("('x', 3)",)


def test_plain_shell_names_ipython(engine, monkeypatch):
    from ipengine import _plain, _shell

    monkeypatch.setattr(_shell, "_shell", _plain.PlainShell(sys.modules["__main__"]))
    for source in ("x = 1\n%time x", "!ls", "len?", "%%bash\necho"):
        failure = engine.execute(source)
        assert failure.type_name == "ModuleNotFoundError", source
        assert "IPython" in failure.message
    assert engine.execute("if").type_name == "SyntaxError"


# --- IPython only ---


@needs_ipython
def test_display_messages(engine):
    engine.execute(
        """
        from IPython.display import display, clear_output, HTML
        handle = display(HTML('<b>x</b>'), display_id='here')
        handle.update(HTML('<i>y</i>'))
        clear_output(wait=True)
        display({'image/png': b'\\x89PNG', 'text/plain': 'p'}, raw=True)
        class R:
            def _repr_mimebundle_(self, **kw):
                return {'text/plain': 'r', 'application/json': {'nan': float('nan')}}
        R()
        """
    )
    kinds = [kind for kind, _ in engine.fake.emitted]
    assert kinds == ["display_data", "update_display_data", "clear_output", "display_data", "execute_result"]
    contents = [content for _, content in engine.fake.emitted]
    assert contents[0]["data"]["text/html"] == "<b>x</b>"
    assert contents[0]["transient"] == {"display_id": "here"}
    assert contents[1]["transient"] == {"display_id": "here"}
    assert contents[2] == {"wait": True}
    assert contents[3]["data"]["image/png"] == "iVBORw=="
    assert contents[4]["data"]["application/json"] == {"nan": "nan"}


@needs_ipython
def test_magics_help_and_capture(engine, capfd):
    engine.execute("%env IPENGINE_TEST_VARIABLE=1")
    assert text(engine.execute("%env IPENGINE_TEST_VARIABLE")) == "'1'"
    assert engine.execute("%nosuchmagic").type_name == "UsageError"
    engine.fake.emitted.clear()
    engine.execute("len?")
    ((kind, content),) = engine.fake.emitted
    assert kind == "display_data"
    assert "number of items" in content["data"]["text/plain"]
    assert "\x1b" not in content["data"]["text/plain"]
    engine.execute("%%capture out\nprint('kept')")
    assert text(engine.execute("out.stdout")) == "'kept\\n'"
    capfd.readouterr()
    engine.execute("1 / 0")
    engine.execute("%tb")
    assert "ZeroDivisionError" in capfd.readouterr().out


@needs_ipython
def test_run_magic_reports_its_error(engine, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("value = 5\nraise LookupError('in the script')\n")
    failure = engine.execute(f"%run {script}")
    assert failure.type_name == "LookupError"


@needs_ipython
def test_children(engine, capfd, monkeypatch):
    for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "PALS_RANKID", "HYDRA_X"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("KEPT", "yes")
    # Not a rank's mark: a job started from a cell needs it in a container.
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.delenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", raising=False)
    engine.execute(
        "word = 'hello'\nprint('before')\n!echo {word} $$KEPT; env | grep '^OMPI_\\|^PMI\\|^PALS_\\|^HYD'"
    )
    assert capfd.readouterr().out.splitlines() == ["before", "hello yes", "OMPI_ALLOW_RUN_AS_ROOT=1"]
    assert text(engine.execute("lines = !env | grep '^PMI'; echo end\nlines")) == "['end']"
    engine.execute("!exit 3")
    assert engine.namespace["_exit_code"] == 3
    engine.execute("%%bash\necho from $KEPT; echo ${PMI_RANK:-scrubbed}")
    assert capfd.readouterr().out.split() == ["from", "yes", "scrubbed"]
    engine.execute("!cat")  # no terminal: ends at once
    monkeypatch.setenv("SHELL", "/nowhere/zsh")
    engine.execute("!echo still")
    assert "still" in capfd.readouterr().out


@needs_ipython
def test_ast_and_indentation_errors_are_data(engine):
    assert engine.execute("for x in [1]:\nprint(x)").type_name == "IndentationError"
    assert engine.execute("'abc").type_name == "SyntaxError"
    failure = engine.execute("get_ipython().run_cell('1/0')")
    assert failure.type_name == "ZeroDivisionError"


@needs_ipython
def test_nothing_grows_with_output(engine):
    engine.execute("print('x' * 100)")
    manager = engine.namespace["get_ipython"]().history_manager
    assert not getattr(manager, "outputs", {})


@needs_ipython
def test_matplotlib_figures_are_displayed(engine):
    pytest.importorskip("matplotlib")
    pytest.importorskip("matplotlib_inline")
    done = conftest.engine_process(
        """
        runtime.execute("import matplotlib.pyplot as plt\\nplt.plot([1, 2]);")
        print([(kind, sorted(content["data"])) for kind, content in fake.emitted])
        """
    )
    assert "('display_data', ['image/png', 'text/plain'])" in done.stdout, done


def test_start_imports_neither_ipython_nor_mpi4py(tmp_path):
    done = conftest.engine_process(
        """
        import pickle
        print(runtime.apply(pickle.dumps((len, ("abc",), {})), [], None))
        print(runtime.push(["a"], [("text", "{}", [b"x"])]), runtime.pull(["a"], "repr", True))
        print([m for m in ("IPython", "mpi4py", "numpy", "asyncio", "cloudpickle") if m in sys.modules])
        print(sys.path[0] == "", sys.modules["__main__"].__dict__ is runtime._namespace)
        """
    )
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-2:] == ["[]", "True True"]


def test_process_without_ipython():
    done = conftest.engine_process(
        """
        for source in ("6 * 7", "!ls", "x = 1\\nIn[1]"):
            print(runtime.execute(source))
        """,
        before="sys.modules['IPython'] = None",
    )
    assert done.returncode == 0, done
    first, second, third = done.stdout.splitlines()
    assert '"text/plain": "42"' in first
    assert "has no IPython" in second
    assert "6 * 7" in third


def test_nothing_is_left_on_disk(tmp_path):
    done = conftest.engine_process(
        "print(runtime.execute('1'))",
        before=f"import os; os.environ.update(HOME={str(tmp_path)!r}, TMPDIR={str(tmp_path)!r})",
    )
    assert done.stdout.startswith("('ok'"), done
    assert list(tmp_path.iterdir()) == []


def test_streams_of_a_process():
    done = conftest.engine_process(
        textwrap.dedent(
            """
            import os
            print("one", end="")
            os.write(1, b"two\\n")
            print("\\ud800 \\u00e9", file=sys.stderr)
            sys.stdout.buffer.write(b"raw\\n")
            print("x" * 3_000_000)
            class Broken:
                def flush(self): raise ValueError
                def write(self, text): raise ValueError
            sys.stdout = Broken()
            stream = __import__("pickle").dumps((len, ("abc",), {}))
            print(runtime.apply(stream, [], None)[0], file=sys.__stdout__)
            sys.stdout = sys.__stdout__
            """
        )
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("onetwo\nraw\nxxx")
    assert len(done.stdout) == len("onetwo\nraw\n") + 3_000_001 + len("ok\n")
    assert done.stderr == "\\ud800 é\n"


def test_fork_hook():
    done = conftest.engine_process(
        """
        import os
        pid = os.fork()
        if pid == 0:
            os._exit(len(fake.forked))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
        before="fake.forked = []; fake.after_fork_child = lambda: fake.forked.append(1)",
    )
    assert done.stdout == "1\n", done


def test_module_of_the_namespace(engine):
    assert isinstance(sys.modules["__main__"], types.ModuleType)
    assert sys.modules["__main__"].__dict__ is engine.namespace


EMBEDDED = """
import importlib.abc, importlib.util, sys, pathlib
tests, glue = sys.argv[1:]
sys.path.insert(0, tests)
import conftest
sys.path.remove(glue)
fake = sys.modules["_ipengine"]
table = {}
for line in (pathlib.Path(glue) / "manifest").read_text().splitlines():
    name, path, package = line.split(" ")
    table[name] = (pathlib.Path(glue, path).read_text(), path, package == "1")

class Embedded(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, vendored):
        self.vendored = vendored
    def find_spec(self, name, path=None, target=None):
        if name in table and table[name][1].startswith("vendor/") == self.vendored:
            return importlib.util.spec_from_loader(name, self, is_package=table[name][2])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        text, path, _ = table[module.__name__]
        exec(compile(text, f"<embedded>/{path}", "exec"), module.__dict__)

sys.meta_path.insert(0, Embedded(False))
sys.meta_path.append(Embedded(True))
import ipengine
assert not hasattr(ipengine, "__file__")
from ipengine import _runtime as runtime
runtime.start({"argv": ["engine", "x"]})
assert sys.argv == ["engine", "x"]
print(runtime.execute("import sys; sys.exit(3)")[:2])
print(runtime.execute("def f():\\n    return 1 / 0\\nf()")[2])
print(runtime.execute("(i for i in ())"), runtime.pull(["(i for i in ())"], "pickle", True)[2])
"""


def test_the_glue_embedded_without_files():
    import json
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED, str(conftest.GLUE / "tests"), str(conftest.GLUE)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second, third = done.stdout.splitlines()
    assert first == "('error', 'error')"
    error = json.loads(second)
    assert [frame["function"] for frame in error["frames"]] == ["<module>", "f"]
    assert error["frames"][1]["source"] == "    return 1 / 0"
    assert "<embedded>" not in second + third
    assert "cannot send result of type builtins.generator" in third
