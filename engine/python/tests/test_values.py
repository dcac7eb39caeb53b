"""Push and pull of every kind of value."""

import json

import pytest


def push(engine, name, kind, *buffers, **meta):
    return engine.value(
        engine.runtime.push([name], [(kind, json.dumps(meta), [bytearray(b) for b in buffers])])
    )


def test_push_kinds(engine):
    assert push(engine, "j", "json", b'{"a": [1, null]}') is None
    assert push(engine, "t", "text", "é".encode()) is None
    assert push(engine, "b", "bytes", b"\x00\xff") is None
    assert push(engine, "lit", "literal", b" (1, {'x'})\n") is None
    assert push(engine, "n", "none") is None
    assert engine.pull("j", "t", "b", "lit", "n") == [{"a": [1, None]}, "é", b"\x00\xff", (1, {"x"}), None]


def test_push_arrays(engine):
    numpy = pytest.importorskip("numpy")
    a = numpy.arange(6, dtype="<i4").reshape(2, 3)
    push(engine, "a", "ndarray", a.tobytes(), dtype="<i4", shape=[2, 3], order="C")
    push(engine, "f", "ndarray", a.tobytes(order="F"), dtype="<i4", shape=[2, 3], order="F")
    push(engine, "e", "ndarray", dtype="<f8", shape=[0, 4])
    push(
        engine,
        "s",
        "ndarray",
        b"\x01\0\0\0\0\0\0\0\0\0\0\0",
        dtype=[["n", "<i4"], ["p", "<f4", [2]]],
        shape=[1],
    )
    push(engine, "zero", "ndarray", b"\x05", dtype="|u1", shape=[])
    push(engine, "t", "ndarray", b"\x02\0\0\0", dtype='[["n", "<i4"]]', shape=[1], order="C")
    space = engine.namespace
    assert space["t"]["n"][0] == 2
    assert (space["a"] == a).all()
    assert (space["f"] == a).all()
    assert space["e"].shape == (0, 4)
    assert space["s"]["n"][0] == 1
    assert space["s"]["p"].shape == (1, 2)
    assert space["zero"] == 5
    space["a"][0, 0] = 9  # writable


@pytest.mark.parametrize(
    ("kind", "buffers", "meta"),
    [
        ("ndarray", [b"123"], {"dtype": "<i4", "shape": [1]}),
        ("ndarray", [b"1234"], {"dtype": "O", "shape": [1]}),
        ("ndarray", [b"1234"], {"dtype": "<i4", "shape": [-1]}),
        ("ndarray", [b"1234"], {"dtype": "nonsense", "shape": [1]}),
        ("ndarray", [b"1234"], {}),
        ("json", [b"{"], {}),
        ("text", [b"\xff"], {}),
        ("literal", [b"__import__('os')"], {}),
        ("pickle", [b"xx"], {}),
        ("pickle", [], {}),
        ("pickle", [b"x"], {"by_value": True, "python": [3, 2]}),
        ("mime", [b"{}"], {}),
        ("unheard of", [], {}),
    ],
)
def test_bad_values_change_nothing(engine, kind, buffers, meta):
    good = ("text", "{}", [b"x"])
    outcome = engine.runtime.push(["good", "bad"], [good, (kind, json.dumps(meta), buffers)])
    assert engine.value(outcome).status == "error"
    assert "good" not in engine.namespace


def test_bad_names(engine):
    for name in ("", "a b", "1x", "a.", "a..b"):
        assert push(engine, name, "none").type_name == "ValueError"
    assert engine.value(engine.runtime.push(["a"], [])).type_name == "ValueError"


def test_dotted_names_set_attributes(engine):
    engine.execute("import types; a = types.SimpleNamespace(b=types.SimpleNamespace())")
    good = ("text", "{}", [b"x"])
    assert engine.value(engine.runtime.push(["a.b.c", "plain"], [good, good])) is None
    assert engine.pull("a.b.c", "plain") == ["x", "x"]
    failed = engine.value(engine.runtime.push(["other", "missing.b"], [good, good]))
    assert failed.type_name == "NameError"
    assert "other" not in engine.namespace


def test_pull_expressions_and_missing_names(engine):
    engine.execute("d = {'a': [1, 2]}\nimport math")
    assert engine.pull("d['a'][1]") == 2
    assert engine.pull("math.pi", "d") == [pytest.approx(3.14159, 1e-4), {"a": [1, 2]}]
    failure = engine.pull("d", "missing")
    assert failure.type_name == "NameError"
    assert "missing" in failure.message
    assert engine.pull("d['b'").type_name == "SyntaxError"
    assert engine.pull("d", format="xml").type_name == "ValueError"
    assert engine.value(engine.runtime.pull(["a", "b"], "pickle", True)).type_name == "ValueError"


def test_pull_formats(engine):
    engine.execute("x = {'é': (1, 2)}\nbad = float('nan')\ns = '\\ud800'\nf = {1, 2}")
    assert engine.pull("x", format="repr") == "{'é': (1, 2)}"
    assert engine.pull("x", "x", format="repr") == ["{'é': (1, 2)}"] * 2
    assert engine.pull("x", format="json") == {"é": [1, 2]}
    assert engine.pull("x", "1", format="json") == [{"é": [1, 2]}, 1]
    assert engine.pull("bad", format="json").type_name == "ValueError"
    failure = engine.pull("f", format="json")
    assert failure.type_name == "TypeError"
    assert failure.message.startswith("f of type set")
    assert isinstance(engine.pull("s", format="repr"), str)
    assert engine.pull("None") is None


def test_pull_npy(engine):
    numpy = pytest.importorskip("numpy")
    import io

    engine.execute("import numpy as np; a = np.arange(4).reshape(2, 2)")
    outcome = engine.runtime.pull(["a"], "npy", True)
    assert outcome[:2] == ("ok", "npy")
    assert (numpy.load(io.BytesIO(bytes(outcome[3][0]))) == [[0, 1], [2, 3]]).all()
    assert engine.pull("a", format="json") == [[0, 1], [2, 3]]
    assert engine.pull("[1, object()]", format="npy").type_name == "TypeError"
    assert engine.value(engine.runtime.pull(["a", "a"], "npy", False)).type_name == "ValueError"


def test_clear(engine):
    engine.execute("x = 1")
    assert engine.runtime.clear() == ("ok", "none", "{}", [])
    assert engine.pull("x").type_name == "NameError"
    assert engine.pull("__name__") == "__main__"
    assert engine.execute("1 + 1")["execution_count"] == 1


def test_one_instruction_leaves_nothing_in_the_next(engine):
    assert engine.apply(divmod, 1, 0).type_name == "ZeroDivisionError"
    assert engine.apply(divmod, 7, 2) == (3, 1)


def test_manifest_lists_every_file():
    import conftest

    listed = {}
    for line in (conftest.GLUE / "manifest").read_text().splitlines():
        module, path, is_package = line.split(" ")
        listed[path] = module
        name = path.removeprefix("vendor/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert module == name
        assert is_package == str(int(path.endswith("/__init__.py")))
    files = [*(conftest.GLUE / "ipengine").glob("*.py"), *(conftest.GLUE / "vendor").rglob("*.py")]
    assert set(listed) == {str(f.relative_to(conftest.GLUE)) for f in files}
    assert (conftest.GLUE / "vendor" / "cloudpickle" / "LICENSE").exists()
