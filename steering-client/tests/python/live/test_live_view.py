"""Calls, cells, namespaces, distribution, maps and references on real engines."""

import ipsteer
import numpy
import pytest
from ipsteer import AsyncMapResult, AsyncResult, Reference


def test_apply(rc, view):
    assert view.apply_sync(pow, 2, 5) == [32] * 4
    assert rc[0].apply_sync(pow, 2, 5) == 32
    assert isinstance(view.apply(pow, 2, 5), AsyncResult)
    view.block = True
    assert view.apply(int, "ff", base=16) == [255] * 4
    assert view.apply_async(sorted, [2, 1], reverse=True).get() == [[2, 1]] * 4


def test_closures_and_lambdas(view):
    offset = 10
    assert view.apply_sync(lambda x: x + offset, 1) == [11] * 4


def test_interactive_functions_use_the_engines_namespace(view):
    view["factor"] = 3

    @ipsteer.interactive
    def scaled(x):
        return factor * x  # noqa: F821

    assert view.apply_sync(scaled, 2) == [6] * 4


def test_references(view):
    view.execute("import ipengine; mine = [ipengine.rank] * 2", block=True)
    assert view.apply_sync(sum, Reference("mine")) == [0, 2, 4, 6]
    assert view.apply_sync(pow, Reference("mine[0]"), 2) == [0, 1, 4, 9]
    with pytest.raises(NameError):
        view.apply_sync(sum, Reference("nowhere"))


def test_numpy_results_are_exact_and_writable(view):
    array = numpy.linspace(0, 1, 200_000).reshape(400, 500)
    for back in view.apply_sync(numpy.negative, array):
        assert (back == -array).all()
        back[0, 0] = 7


def test_push_pull(rc, view):
    view["x"] = 5
    assert view["x"] == [5] * 4
    view.push({"y": "text", "z": b"raw", "d": {"k": [1, (2, 3)]}, "n": None}, block=True)
    assert rc[2].get(["y", "z", "d", "n"]) == ["text", b"raw", {"k": [1, (2, 3)]}, None]
    assert view.pull("x * 2", block=True) == [10] * 4
    assert view.pull(["x", "y"], targets=[1], block=True) == [[5, "text"]]
    view.update({"x": 6}).get()
    assert view["x"] == [6] * 4


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(12.0).reshape(3, 4),
        numpy.asfortranarray(numpy.arange(12).reshape(3, 4)),
        numpy.arange(20)[::3],
        numpy.zeros((0, 3)),
        numpy.array(["ab", "c"]),
        numpy.array(7),
        numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array([None, "x"], dtype=object),
    ],
    ids=repr,
)
def test_arrays_in_namespaces(rc, array):
    rc[1]["a"] = array
    rc[1].execute("a[...] = a.copy()", block=True)
    back = rc[1]["a"]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert (back == array).all()
    back[...] = back.copy()


def test_a_name_missing_on_some_ranks_only(rc, view):
    rc[1:]["here"] = 1
    with pytest.raises(ipsteer.CompositeError, match="rank 0: NameError") as missing:
        view["here"]
    assert len(missing.value.errors) == 1
    assert view.pull("here").get(return_exceptions=True)[1:] == [1, 1, 1]


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("length", [2, 4, 11])
def test_scatter_gather(view, dist, length):
    view.scatter("part", list(range(length)), dist=dist, block=True)
    assert view.gather("part", dist=dist, block=True) == list(range(length))
    rows = numpy.arange(length * 3.0).reshape(length, 3)
    view.scatter("rows", rows, dist=dist, block=True)
    view.execute("rows += 1", block=True)
    assert (view.gather("rows", dist=dist).get() == rows + 1).all()


def test_scatter_flatten(view):
    view.scatter("rank", [0, 1, 2, 3], flatten=True, block=True)
    assert view["rank"] == [0, 1, 2, 3]


def test_map(rc, view):
    ar = view.map(lambda x: x * x, range(10))
    assert isinstance(ar, AsyncMapResult)
    assert len(ar) == 10
    assert ar.get() == [x * x for x in range(10)]
    assert view.map_sync(pow, range(3), [2] * 9) == [0, 1, 4]
    assert list(view.imap(str, (i for i in range(5)))) == ["0", "1", "2", "3", "4"]
    assert view.map_sync(str, []) == []
    assert rc[3].map_sync(str, [1, 2]) == ["1", "2"]


def test_load_balanced(rc, lbview):
    assert lbview.apply_sync(pow, 2, 6) == 64
    assert lbview.map_sync(lambda x: x + 1, range(50), chunksize=7) == list(range(1, 51))
    assert sorted(lbview.map_async(abs, range(-20, 0), ordered=False)) == list(range(1, 21))
    ar = rc.load_balanced_view([1, 2]).map_async(abs, range(40))
    ar.get()
    assert set(ar.engine_id) <= {1, 2}


def test_load_balancing_goes_around_a_busy_engine(rc, lbview, gate):
    held = rc[0].execute(gate.code, block=False)
    gate.wait_for_arrivals()
    # one at a time: several at once may be queued behind a busy engine
    ars = []
    for i in range(12):
        ars.append(lbview.apply_async(abs, -i))
        ars[-1].wait(20)
    gate.open()
    assert [ar.get() for ar in ars] == list(range(12))
    assert 0 not in [ar.engine_id for ar in ars]
    held.get()


def test_lazy_map_over_an_endless_input(lbview):
    def numbers():
        number = 0
        while True:
            yield number
            number += 1

    results = lbview.imap(lambda x: -x, numbers())
    assert [next(results) for _ in range(30)] == [-x for x in range(30)]
    results.cancel()
    assert all(value < 0 for value in results)


def test_remote_and_parallel_functions(view, lbview):
    @view.remote(block=True)
    def whoami(base):
        import ipengine

        return base + ipengine.rank

    assert whoami(10) == [10, 11, 12, 13]

    @view.parallel(block=True)
    def total(part):
        return [sum(part)]

    assert total(range(8)) == [1, 5, 9, 13]
    assert ipsteer.parallel(lbview, block=True, chunksize=3)(sorted)([3, 2, 1, 6, 5, 4]) == [1, 2, 3, 4, 5, 6]
    assert ipsteer.remote(lbview, block=True)(pow)(2, 3) == 8


def test_execute(rc, view):
    ar = view.execute("x = 6 * 7\nx", silent=False, block=True)
    reply = ar.get()[0]
    assert reply.execution_count is not None
    assert reply.data["text/plain"] == "42"
    assert "42" in repr(reply)
    assert view["x"] == [42] * 4
    assert rc[0].execute("y = 1", block=True).get() is not None


def test_a_syntax_error_on_all_and_on_some(rc, view):
    with pytest.raises(SyntaxError, match="ranks 0-3: SyntaxError"):
        view.execute("x = = 1", block=True)
    rc[2]["source"] = "x = = 1"
    rc[[0, 1, 3]]["source"] = "x = 1"
    with pytest.raises(SyntaxError, match="rank 2: SyntaxError"):
        view.execute("exec(source)", block=True)
    assert rc[[0, 1, 3]]["x"] == [1, 1, 1]


def test_run_names_the_file_in_tracebacks(view, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("a = 1\nif a:\n    raise LookupError('in the file')")
    with pytest.raises(LookupError) as failed:
        view.run(str(script), block=True)
    assert str(script) in "\n".join(failed.value.render_traceback())
    assert view["a"] == [1] * 4


def test_imports_on_both_sides(view):
    with view.sync_imports(quiet=True):
        import fractions
        from collections import OrderedDict
    assert view.apply_sync(ipsteer.interactive(lambda: str(fractions.Fraction(1, 2)))) == ["1/2"] * 4
    view.execute("made = OrderedDict(a=1)", block=True)
    assert view["made"] == [OrderedDict(a=1)] * 4


def test_clear(rc, view):
    view["x"] = 1
    rc[0].clear(block=True)
    with pytest.raises(NameError):
        rc[0]["x"]
    assert rc[1:]["x"] == [1, 1, 1]


def test_flags_for_a_while(view):
    with view.temp_flags(block=True, targets=[0, 1], label="tagged"):
        assert view.apply(int, "1") == [1, 1]
    ar = view.set_flags(label="later").apply_async(int)
    assert ar.label == ["later"] * 4
    with pytest.raises(KeyError):
        view.set_flags(nonsense=1)


def test_mpi_among_the_targets_in_the_order_given(rc):
    def sums():
        import ipengine
        from mpi4py import MPI

        comm = ipengine.comm
        return comm.rank, comm.size, comm.allreduce(ipengine.rank, MPI.SUM)

    assert rc[:].apply_sync(sums) == [(0, 4, 6), (1, 4, 6), (2, 4, 6), (3, 4, 6)]
    assert rc[[3, 1]].apply_sync(sums) == [(0, 2, 4), (1, 2, 4)]
