"""Calls, namespaces, distribution and flags of views."""

import numpy
import pytest
from ipsteer import AsyncMapResult, AsyncResult, Reference, RemoteError


def double(x):
    return 2 * x


def test_apply_honours_block_and_single_targets(rc, view):
    assert isinstance(view.apply(pow, 2, 3), AsyncResult)
    assert view.apply_sync(pow, 2, 3) == [8] * 4
    assert rc[2].apply_sync(pow, 2, 3) == 8
    assert rc[[2]].apply_sync(pow, 2, 3) == [8]
    with view.temp_flags(block=True):
        assert view.apply(int, "ff", base=16) == [255] * 4


def test_one_instruction_for_all_targets(view, session):
    view.apply_sync(pow, 2, 3)
    (work,) = session.log
    assert work.targets == (0, 1, 2, 3)
    assert work.meta["name"] == "pow"
    assert work.meta["by_value"] is False


def test_code_by_value_is_marked(view, session):
    offset = 5
    assert view.apply_sync(lambda x: x + offset, 1) == [6] * 4
    assert session.log[0].meta["by_value"] is True


def test_flags(view):
    assert view.set_flags(block=True, label="a") is view
    with view.temp_flags(block=False, label="b", targets=[1]):
        assert (view.block, view.label, view.targets, len(view)) == (False, "b", [1], 1)
    assert (view.block, view.label, len(view)) == (True, "a", 4)
    with pytest.raises(KeyError):
        view.set_flags(colour=1)
    with pytest.raises(ZeroDivisionError), view.temp_flags(block=False):
        1 / 0
    assert view.block is True


def test_label_reaches_engine_and_metadata(view, session):
    view.label = "mine"
    ar = view.apply_async(pow, 2, 3)
    assert session.log[0].label == "mine"
    assert ar.label == ["mine"] * 4


def test_push_pull_and_item_access(rc, view, session):
    view["x"] = 3
    view.push({"y": "text", "z": b"raw", "w": None, "v": "ünï", "u": [1, {"k": (2,)}]}, block=True)
    assert view["x"] == [3] * 4
    assert rc[1].get(["y", "z", "w", "v", "u"]) == ["text", b"raw", None, "ünï", [1, {"k": (2,)}]]
    assert view.pull("x + 1", block=True) == [4] * 4
    assert view.pull(["x", "y"], targets=[0, 2]).get() == [[3, "text"]] * 2
    view.update({"x": 4}).get()
    assert session.namespaces[3]["x"] == 4


def test_setting_an_item_waits_even_without_block(view, session):
    view["f"] = double
    assert [work.done() for work in session.log] == [True]
    with pytest.raises(RemoteError):
        view["missing"]


@pytest.mark.parametrize("bad", [None, 3, ["a"], {1: 2}])
def test_push_wants_a_dict_of_names(view, bad):
    with pytest.raises(TypeError):
        view.push(bad)


@pytest.mark.parametrize("bad", [None, 3, ["a", 1]])
def test_pull_wants_names(view, bad):
    with pytest.raises(TypeError):
        view.pull(bad)


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(12.0).reshape(3, 4),
        numpy.asfortranarray(numpy.arange(12).reshape(3, 4)),
        numpy.arange(20)[::3],
        numpy.zeros((0, 3)),
        numpy.array(["ab", "c"]),
        numpy.array([1 + 2j]),
        numpy.array(7),
        numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array([None, "x"], dtype=object),
        numpy.array(["2013-01-01"], dtype="M8[D]"),
        numpy.arange(4, dtype=">i2"),
    ],
    ids=repr,
)
def test_arrays_survive_the_round_trip_and_are_writable(rc, array):
    rc[0]["a"] = array
    back = rc[0]["a"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert (back == array).all()
    back[...] = back.copy()


def test_big_arrays_travel_out_of_band(rc, session):
    array = numpy.arange(100_000.0)
    assert rc[0].apply_sync(numpy.sum, array) == array.sum()
    assert [len(blob) for blob in session.log[0].blobs][1:] == [array.nbytes]


def test_references_are_resolved_on_the_engine(view):
    view["a"] = 21
    assert view.apply_sync(double, Reference("a")) == [42] * 4
    assert view.apply_sync(double, Reference("engine_id")) == [0, 2, 4, 6]
    with pytest.raises(TypeError):
        Reference(3)
    with pytest.raises(NameError):
        view.apply_sync(double, Reference("nowhere"))


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 10, 17])
@pytest.mark.parametrize(
    "make",
    [list, tuple, lambda numbers: numbers, lambda numbers: numpy.array(numbers, dtype="i2")],
    ids=["list", "tuple", "range", "array"],
)
def test_scatter_then_gather_gives_the_sequence_back(rc, view, session, dist, length, make):
    seq = make(range(length))
    view.scatter("part", seq, dist=dist, block=True)
    sizes = [len(ns["part"]) for ns in session.namespaces]
    assert sum(sizes) == length
    assert max(sizes) - min(sizes) <= 1
    back = view.gather("part", dist=dist, block=True)
    assert list(back) == list(seq)
    if isinstance(seq, numpy.ndarray):
        assert back.dtype == seq.dtype


def test_scatter_flatten_and_two_dimensions(rc, view, session):
    view.scatter("one", [10, 11, 12, 13], flatten=True, block=True)
    assert [ns["one"] for ns in session.namespaces] == [10, 11, 12, 13]
    assert view.gather("one").get() == [10, 11, 12, 13]
    rows = numpy.arange(24.0).reshape(8, 3)
    for dist in "br":
        view.scatter("rows", rows, dist=dist, block=True)
        assert (view.gather("rows", dist=dist, block=True) == rows).all()
    assert isinstance(view.scatter("g", (i for i in range(4)), block=False), AsyncResult)
    with pytest.raises(ValueError, match="dist"):
        view.scatter("x", [1], dist="z")
    with pytest.raises(TypeError):
        view.scatter(3, [1])


def test_scatter_of_parts_with_different_numbers_of_buffers(view, session):
    seq = [numpy.ones(1000), 1, [numpy.ones(1000), numpy.zeros(2000)], None]
    view.scatter("part", seq, flatten=True, block=True)
    assert session.namespaces[1]["part"] == 1
    assert session.namespaces[2]["part"][1].shape == (2000,)


@pytest.mark.parametrize("n", [1, 3, 4, 11])
def test_map(rc, view, n):
    assert view.map_sync(double, range(n)) == [2 * i for i in range(n)]
    assert view.map_sync(pow, range(n), [2] * (n + 5)) == [i**2 for i in range(n)]
    ar = view.map_async(double, (i for i in range(n)))
    assert isinstance(ar, AsyncMapResult)
    assert len(ar) == n
    assert list(ar) == ar.get() == [2 * i for i in range(n)]
    assert list(view.imap(double, numpy.arange(n))) == [2 * i for i in range(n)]
    assert rc[1].map_sync(double, range(n)) == [2 * i for i in range(n)]


def test_map_of_nothing_and_bad_arguments(view):
    assert view.map_sync(double, []) == []
    assert view.map(double, []) == []
    with pytest.raises(TypeError):
        view.map_async(double, [1], block=True)
    with pytest.raises(TypeError):
        view.map_sync(double)
    with pytest.raises(TypeError):
        view.map_sync(double, [1], chunksize=2)


def test_map_is_one_instruction_with_a_part_for_each(view, session):
    view.map_sync(double, range(10))
    (work,) = session.log
    assert work.each == [1, 1, 1, 1]
    assert work.meta["name"] == "double"


def test_map_with_errors(view):
    with pytest.raises(ZeroDivisionError):
        view.map_sync(divmod, [1, 1, 1, 1], [1, 1, 0, 1])
    got = view.map_sync(divmod, [1, 1, 1, 1], [1, 1, 0, 1], return_exceptions=True)
    assert got[:2] == [(1, 0), (1, 0)]
    assert isinstance(got[2], ZeroDivisionError)
    assert got[3] == (1, 0)


def test_remote_and_parallel(rc, view):
    @view.remote(block=True)
    def add(a, b=1):
        """Add."""
        return a + b

    assert add(1, b=2) == [3] * 4
    assert add.__name__ == "add"
    assert "Add." in add.__doc__

    @view.parallel(block=True)
    def total(part):
        return [sum(part)]

    assert total(range(8)) == [1, 5, 9, 13]
    assert total.map([[1, 2], [3, 4]]) == [[3], [7]]
    with pytest.raises(ValueError, match="equal length"):
        view.parallel()(pow)([1, 2], [3])
    balanced = rc.load_balanced_view()
    assert balanced.parallel(block=True, chunksize=2)(sorted)([4, 3, 2, 1]) == [3, 4, 1, 2]


def test_execute_and_run(rc, view, session, tmp_path):
    ar = view.execute("a = engine_id; print('hi', a)", block=True)
    assert ar.get()[0].execution_count == 1
    assert ar.stdout == [f"hi {e}\n" for e in range(4)]
    assert ar.execute_input == ["a = engine_id; print('hi', a)"] * 4
    script = tmp_path / "script.py"
    script.write_text("b = 5\nif b:\n    c = 6")
    rc[0].run(str(script), block=True)
    assert session.namespaces[0]["c"] == 6
    assert session.log[-1].meta["filename"] == str(script)
    with pytest.raises(FileNotFoundError):
        view.run(tmp_path / "absent.py")
    with pytest.raises(TypeError):
        view.execute(b"a = 1")


def test_sync_imports(view, session, capsys):
    with view.sync_imports():
        import json
        from collections import Counter, deque
    assert session.namespaces[2]["json"] is json
    assert session.namespaces[2]["deque"] is deque
    assert session.namespaces[2]["Counter"] is Counter
    assert "importing Counter, deque from collections on engine(s)" in capsys.readouterr().out
    with view.sync_imports(quiet=True), pytest.raises(ImportError):
        import no_such_module_anywhere  # noqa: F401
    import builtins

    assert builtins.__import__.__name__ == "__import__"
    with pytest.raises(NotImplementedError):
        view.sync_imports(local=False)


def test_load_balanced_calls(rc, session):
    view = rc.load_balanced_view()
    assert view.apply_sync(pow, 2, 3) == 8
    assert view.map_sync(double, range(10), chunksize=3) == [2 * i for i in range(10)]
    assert all(work.one_of for work in session.log)
    assert [len(work.outcomes) for work in session.log] == [1] * 5
    assert view.apply_async(pow, 2, 3).engine_id in rc.ids
    few = rc.load_balanced_view([1, 3])
    few.apply_sync(pow, 2, 3)
    assert session.log[-1].targets == (1, 3)
    with pytest.raises(ValueError, match="chunksize"):
        view.map(double, [1], chunksize=0)
    assert not hasattr(view, "push")


def test_unordered_map_yields_what_comes_first(rc, session):
    session.hold = True
    ar = rc.load_balanced_view().map_async(double, range(3), ordered=False)
    arrivals = iter(ar)
    counters = [record.counter for record in ar._records]
    for place in (2, 0, 1):
        session.finish(counters[place])
        assert next(arrivals) == 2 * place
    assert ar.get() == [0, 2, 4]


def test_ordered_map_waits_in_order(rc, session):
    session.hold = True
    ar = rc.load_balanced_view().map_async(double, range(3))
    arrivals = iter(ar)
    counters = [record.counter for record in ar._records]
    session.finish(counters[1])
    session.finish(counters[0])
    assert [next(arrivals), next(arrivals)] == [0, 2]
    assert ar.progress == 2
    session.finish(counters[2])
    assert list(arrivals) == [4]


def test_imap_takes_inputs_only_as_engines_become_free(rc, session):
    taken = []

    def endless():
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    results = rc.load_balanced_view().imap(double, endless(), max_outstanding=3)
    assert len(taken) <= 3 * results.READ_AHEAD
    assert [next(results) for _ in range(20)] == [2 * i for i in range(20)]
    assert len(taken) <= 20 + 3 * results.READ_AHEAD
    results.cancel()
    rest = list(results)
    assert len(rest) == len(taken) - 20


def test_imap_keeps_the_number_of_tasks_at_a_time(rc, session):
    session.hold = True
    results = rc.load_balanced_view().imap(double, range(100), max_outstanding=2, ordered=False)
    assert len(session.log) == 2
    session.finish(session.log[1].counter)
    assert next(results) == 2
    assert len(session.log) == 3
    results.cancel()
    for work in session.log:
        session.finish(work.counter)
    assert sorted(results) == [0, 4]


def test_imap_with_errors(rc):
    view = rc.load_balanced_view()
    results = view.imap(divmod, [1, 1, 2], [1, 0, 1])
    assert next(results) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(results) == (2, 0)
    assert isinstance(next(view.imap(divmod, [1], [0], return_exceptions=True)), ZeroDivisionError)

    def broken():
        yield 1
        raise LookupError("no more inputs")

    results = view.imap(double, broken(), max_outstanding=0)
    assert next(results) == 2
    with pytest.raises(LookupError, match="no more inputs"):
        next(results)
    assert list(results) == []


def test_imap_when_results_are_known_before_their_callbacks_run(rc, monkeypatch):
    late = []
    monkeypatch.setattr(
        rc._callbacks, "when_finished", lambda counters, function, quick: late.append(function)
    )
    results = rc.load_balanced_view().imap(double, range(7), max_outstanding=2)
    arrived = results._arrived

    class LateArrivals:
        put = arrived.put
        empty = staticmethod(lambda: True)

        @staticmethod
        def get():
            late.pop(0)()
            return arrived.get_nowait()

    results._arrived = LateArrivals
    assert list(results) == [2 * i for i in range(7)]
