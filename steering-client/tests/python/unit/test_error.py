"""Exceptions as data: types, arguments, chains, merging, and what must never happen."""

import builtins
import pickle
import sys
import traceback
import types

import ipsteer
import pytest
from fake_native import Outcome, exception_data
from ipsteer.restore import RemoteValue, composite, restore


class OwnError(ValueError):
    made = 0

    def __init__(self, code, text):
        OwnError.made += 1
        super().__init__(code, text)
        self.code = code
        self.unsendable = object()


def raised(make):
    try:
        make()
    except BaseException as error:
        return exception_data(error, 3)


def own_error():
    raise OwnError(7, "seven")


def test_both_types_catch_it(rc):
    with pytest.raises(ValueError, match="invalid literal") as by_type:
        rc[0].apply_sync(int, "x")
    with pytest.raises(ipsteer.RemoteError) as by_base:
        rc[0].apply_sync(int, "x")
    assert type(by_type.value) is type(by_base.value)
    error = by_type.value
    assert (error.ename, error.rank, error.host) == ("ValueError", 0, "node0")
    assert error.engine_info == {"engine_id": 0, "host": "node0", "method": "apply"}
    assert str(error).startswith("rank 0 on node0: ValueError: invalid literal")


def test_arguments_attributes_and_notes():
    def fail():
        error = OwnError(7, "seven")
        error.add_note("look at the input")
        raise error

    data = raised(fail)
    made = OwnError.made
    error = restore(data)
    assert isinstance(error, OwnError)
    assert OwnError.made == made, "the constructor of the user's class ran"
    assert error.args == (7, "seven")
    assert error.code == 7
    assert isinstance(error.unsendable, RemoteValue)
    assert "object object" in repr(error.unsendable)
    assert error.__notes__[0] == "look at the input"
    assert error.__notes__[1].startswith("[rank 3 on node3]")
    assert len(error.__notes__) == 2


def test_os_error_keeps_errno_and_filename(tmp_path):
    error = restore(raised(lambda: open(tmp_path / "absent")))
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename) == (2, str(tmp_path / "absent"))


def test_causes_and_contexts():
    def fail():
        try:
            {}["key"]
        except KeyError as cause:
            raise RuntimeError("outer") from cause

    error = restore(raised(fail))
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, KeyError)
    assert error.__cause__.args == ("key",)
    assert error.__suppress_context__ is True


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_exits_of_engines_are_plain_errors_here(error):
    def fail():
        raise error

    restored = restore(raised(fail))
    assert type(restored) is ipsteer.RemoteError
    assert restored.ename == type(error).__name__


def test_exception_groups_and_odd_constructors():
    def group():
        raise builtins.ExceptionGroup("several", [ValueError(1)])

    def unicode():
        b"\xff".decode("utf-8")

    assert restore(raised(group)).ename == "ExceptionGroup"
    assert isinstance(restore(raised(unicode)), UnicodeDecodeError)


def test_nothing_is_imported_for_an_error():
    data = raised(own_error)
    data |= {
        "mro": ["antigravity.FlyError", "builtins.ValueError", "builtins.Exception"],
        "type_name": "FlyError",
    }
    error = restore(data)
    assert "antigravity" not in sys.modules
    assert isinstance(error, ValueError)
    assert error.ename == "FlyError"


def test_modules_that_import_lazily_are_not_triggered(monkeypatch):
    lazy = types.ModuleType("lazy_module")
    lazy.__getattr__ = lambda name: pytest.fail(f"{name} was looked up")
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    data = raised(own_error) | {"mro": ["lazy_module.Error", "builtins.Exception"]}
    assert type(restore(data)) is ipsteer.RemoteError


@pytest.mark.parametrize("path", ["os.system", "builtins.int", "builtins.SystemExit", "nonsense", ""])
def test_only_exception_types_are_used(path):
    assert type(restore(raised(own_error) | {"mro": [path]})) is ipsteer.RemoteError


def test_restored_errors_can_be_pickled():
    error = pickle.loads(pickle.dumps(restore(raised(own_error))))
    assert isinstance(error, OwnError)
    assert error.code == 7
    both = composite("one or more", [error, restore(raised(own_error))])
    assert len(pickle.loads(pickle.dumps(both)).errors) == 2


def test_traceback_has_rank_host_and_source():
    data = raised(own_error)
    lines = restore(data).render_traceback()
    assert lines[0] == "[rank 3 on node3]"
    assert any("own_error" in line for line in lines)
    lines = restore(data | {"traceback": ""}).render_traceback()
    assert lines[1:4] == [
        "Traceback (most recent call last):",
        '  File "<cell>", line 1, in <module>',
        "    boom()",
    ]
    assert lines[4].startswith("OwnError: ")


def test_composite_merges_identical_errors(view):
    view.execute("def f():\n    raise (KeyError('k') if engine_id == 3 else ValueError('v'))").get()
    with pytest.raises(ipsteer.CompositeError) as raised_here:
        view.apply_sync(eval, "f()", ipsteer.Reference("globals()"))
    error = raised_here.value
    assert str(error).splitlines()[1:] == ["ranks 0-2: ValueError: v", "rank 3: KeyError: 'k'"]
    assert [item[0] for item in error.elist] == ["ValueError"] * 3 + ["KeyError"]
    with pytest.raises(KeyError):
        error.raise_exception(3)
    with pytest.raises(IndexError):
        error.raise_exception(4)
    rendered = "\n".join(error.render_traceback())
    assert rendered.count("Traceback (most recent call last)") == 2
    assert "[ranks 0-2]" in rendered
    assert not isinstance(error, ValueError)
    error.print_traceback(0)


def test_composite_of_one_type_is_caught_by_that_type(view):
    with pytest.raises(ValueError, match="ranks 0-3: ValueError: invalid literal"):
        view.apply_sync(int, "x")


def test_many_distinct_errors_are_bounded():
    errors = [restore(raised(own_error) | {"message": str(i), "rank": i}) for i in range(10)]
    lines = composite("many", errors).render_traceback()
    assert "... 6 more distinct errors:" in lines
    assert "rank 9: OwnError: 9" in lines


@pytest.mark.parametrize(
    ("status", "error", "meta"),
    [
        (
            "lost",
            ipsteer.EngineError,
            '{"type_name": "EngineError", "message": "engine 0 was killed", "rank": 0}',
        ),
        ("aborted", ipsteer.TaskAborted, '{"type_name": "TaskAborted", "message": "removed"}'),
        ("lost", ipsteer.EngineError, "{}"),
    ],
)
def test_lost_and_aborted(rc, session, status, error, meta):
    session.hold = True
    ar = rc[0].apply_async(pow, 2, 3)
    session.settle(1, 0, Outcome(0, status, meta=meta))
    with pytest.raises(error) as ended:
        ar.get()
    assert isinstance(ended.value, ipsteer.RemoteError)
    assert ended.value.rank == 0
    assert ar.status == "error"
    assert isinstance(ar.error, error)


def test_an_unreadable_result_is_an_error_of_its_own(rc, session):
    session.hold = True
    ar = rc[0].apply_async(pow, 2, 3)
    session.settle(1, 0, Outcome(0, "ok", "pickle", "{}", [b"not a pickle"]))
    with pytest.raises(ipsteer.RemoteError, match="could not be read here") as unread:
        ar.get()
    assert isinstance(unread.value.__cause__, pickle.UnpicklingError)


def test_return_exceptions(view):
    got = view.apply_async(eval, "1 // engine_id", {"engine_id": ipsteer.Reference("engine_id")}).get(
        return_exceptions=True
    )
    assert isinstance(got[0], ZeroDivisionError)
    assert got[1:] == [1, 0, 0]


def test_plain_python_prints_the_remote_traceback(view):
    with pytest.raises(ValueError) as failed:
        view.apply_sync(int, "x")
    text = "".join(traceback.format_exception(failed.value))
    assert "ipsteer.error.CompositeValueError: one or more exceptions raised in: int" in text
    assert "ranks 0-3: ValueError: invalid literal" in text
    assert text.count("Traceback (most recent call last)") == 2
    with pytest.raises(SyntaxError) as failed:
        view.execute("x = = 1", block=True)
    text = "".join(traceback.format_exception(failed.value))
    assert "ranks 0-3: SyntaxError: invalid syntax" in text


@pytest.mark.parametrize("type_name", ["StopIteration", "StopAsyncIteration"])
def test_the_end_of_a_remote_iteration_ends_none_here(type_name):
    error = restore(exception_data(getattr(builtins, type_name)(3), 0))
    assert type(error) is ipsteer.RemoteError
    assert error.ename == type_name
