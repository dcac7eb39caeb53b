"""Function calls: canning on one side, the runtime on the other."""

import functools
import math
import pickle
import subprocess
import sys

import conftest
import pytest


def test_plain_results(engine):
    for value in (None, True, 3, 2.5, "text", [1, {"a": (2,)}], b"x"):
        assert engine.apply(functools.partial(next, iter([value]))) == value


def test_engine_namespace_is_the_globals(engine, client):
    engine.execute("y = 40")
    space = client("y = 1\ndef f(x):\n    global z\n    z = x\n    return x + y")
    assert engine.apply(space.f, 2) == 42  # the engine's own y wins
    assert engine.namespace["z"] == 2


def test_fill_is_there_only_for_the_call(engine, client):
    space = client(
        "import math\nk = 10\ndef g(x):\n    return k * x\ndef f(x):\n"
        "    return [g(i) for i in range(x)], math.pi"
    )
    assert engine.apply(space.f, 3) == ([0, 10, 20], math.pi)
    assert not {"k", "g", "math"} & set(engine.namespace)


def test_assigned_fill_stays(engine, client):
    space = client("count = 5\ndef f():\n    global count\n    count += 1")
    assert engine.apply(space.f) is None
    assert engine.namespace["count"] == 6
    engine.apply(space.f)
    assert engine.namespace["count"] == 7


def test_fill_goes_after_an_error_too(engine, client):
    space = client("k = 1\ndef f():\n    return k / 0")
    assert engine.apply(space.f).type_name == "ZeroDivisionError"
    assert "k" not in engine.namespace


def test_recursion_closures_defaults_methods(engine, client):
    space = client(
        """
        import functools
        def fact(n):
            return 1 if n < 2 else n * fact(n - 1)
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        def outer():
            count = 0
            def bump():
                nonlocal count
                count += 1
            def read():
                return count
            return bump, read
        bump, read = outer()
        def both(b, r):
            b(); b()
            return r()
        def local_recursion():
            def down(n):
                return n if n == 0 else down(n - 1)
            return down
        down = local_recursion()
        def named(a, b=2, *, c=3) -> int:
            "Doc."
            return a, b, c
        named.tag = [1]
        def look(f):
            return f(1), f.tag, f.__doc__, f.__annotations__, f.__name__, f.__qualname__, f.__kwdefaults__
        def twice(f):
            @functools.wraps(f)
            def wrapper(*a):
                return 2 * f(*a)
            return wrapper
        @twice
        def decorated(x): return x + 1
        @functools.lru_cache(maxsize=7)
        def cached(n): return n if n < 2 else cached(n - 1) + cached(n - 2)
        class Base:
            def who(self): return "base"
        class Thing(Base):
            kind = 7
            def __init__(self, n): self.n = n
            def grow(self, k): return fact(self.n) + k + self.kind
            def who(self): return "thing of " + super().who()
            @staticmethod
            def static(x): return -x
            @classmethod
            def make(cls, n): return cls(n)
        class_body = 5
        def makes_class():
            class Inner:
                value = class_body
            return Inner.value
        add = lambda a, b: a + b
        """
    )
    assert engine.apply(space.fact, 5) == 120
    assert engine.apply(space.even, 10) is True
    assert engine.apply(space.both, space.bump, space.read) == 2
    assert engine.apply(space.down, 4) == 0
    assert engine.apply(space.look, space.named) == (
        (1, 2, 3),
        [1],
        "Doc.",
        space.named.__annotations__,
        "named",
        "named",
        {"c": 3},
    )
    assert engine.apply(space.decorated, 4) == 10
    assert engine.apply(space.cached, 30) == 832040
    assert engine.apply(space.Thing(4).grow, 1) == 32
    assert engine.apply(space.Thing(4).who) == "thing of base"
    assert engine.apply(space.Thing.static, 3) == -3
    assert isinstance(engine.apply(space.Thing.make, 3), space.Thing)
    assert engine.apply(space.makes_class) == 5
    assert engine.apply(space.add, 1, b=2) == 3


def test_code_with_a_constant_that_no_compiler_makes(engine, client):
    space = client("def f():\n    return 'constant'")
    space.f.__code__ = space.f.__code__.replace(
        co_consts=tuple(range(3) if const == "constant" else const for const in space.f.__code__.co_consts)
    )
    assert engine.apply(space.f) == range(3)


def test_submodules_of_captured_packages_are_imported(tmp_path):
    # In a process of its own: here everything is imported already.
    pickled = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1])\nimport xml.dom.minidom\n"
            "from ipengine import _canning\n"
            "def f():\n    return xml.dom.minidom.parseString('<a/>').documentElement.tagName\n"
            "sys.stdout.buffer.write(_canning.dumps((f, (), {}))[0])",
            str(conftest.CLIENT),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    done = conftest.engine_process(
        f"""
        assert "xml.dom.minidom" not in sys.modules
        print(runtime.apply({pickled!r}, [], None))
        """
    )
    assert done.stdout.startswith("('ok', 'pickle'"), done
    assert "xml" not in done.stderr


def test_stream_of_the_client_package_loads_here(engine):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom ipengine import _canning\n"
        "base = 3\nclass P:\n    def __init__(self): self.v = base\n"
        "def f(r, p):\n    return r + base + p.v\n"
        "s, b, by_value = _canning.dumps((f, (_canning.Reference('x'), P()), {}))\n"
        "assert by_value and not b\nsys.stdout.buffer.write(s)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(conftest.CLIENT)], capture_output=True, check=True, timeout=60
    )
    engine.execute("x = 100")
    assert engine.value(engine.runtime.apply(run.stdout, [], sys.version_info[:2])) == 106


def test_interactive_function_of_a_module(engine, tmp_path, monkeypatch):
    (tmp_path / "lab_module.py").write_text(
        "import functools\nfrom ipengine import _canning\nunit = 3\ndef plain():\n    return unit\n"
        "@_canning.interactive\ndef marked():\n    return unit\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    lab = __import__("lab_module")
    engine.execute("unit = 50")
    assert engine.apply(lab.plain) == 3
    assert engine.apply(lab.marked) == 50
    assert lab.marked() == 3  # still an ordinary function at home
    del engine.namespace["unit"]
    assert engine.apply(lab.marked) == 3


def test_wrapper_with_globals_of_a_library_keeps_them(engine, client):
    space = client(
        "import contextlib\n@contextlib.contextmanager\ndef cm():\n    yield 5\ndef use():\n"
        "    with cm() as v:\n        return v"
    )
    assert engine.apply(space.use) == 5


def test_unsendable_global_is_left_behind(engine, client):
    import threading

    space = client("def f():\n    return lock, k\ndef g():\n    return k", lock=threading.Lock(), k=4)
    engine.execute("lock = 'mine'")
    assert engine.apply(space.f) == ("mine", 4)
    del engine.namespace["lock"]
    failure = engine.apply(space.f)
    assert (failure.type_name, failure.message) == ("NameError", "name 'lock' is not defined")


def test_unsendable_argument_raises_at_the_sender(engine):
    import threading

    with pytest.raises(TypeError, match="lock"):
        engine.canning.dumps((len, (threading.Lock(),), {}))


def test_references(engine):
    engine.execute("x = 5\nd = {'k': [1, 2]}\nclass C: pass\nc = C()\nc.v = 'deep'")
    ref = engine.canning.Reference
    assert engine.apply(max, ref("x"), 3) == 5
    assert engine.apply(dict, a=ref("d['k'][1]")) == {"a": 2}
    assert engine.apply(list, [ref("x"), (ref("c.v"),), {"q": ref("x")}]) == [5, ("deep",), {"q": 5}]
    assert engine.push(z=ref("x")) is None
    assert engine.namespace["z"] == 5
    failure = engine.apply(len, ref("nowhere"))
    assert failure.type_name == "NameError"
    assert "nowhere" in failure.message
    with pytest.raises(TypeError):
        ref(3)
    assert ref("a") == ref("a") != ref("b")


def test_by_value_flag(client, engine):
    dumps = engine.canning.dumps
    space = client("f = lambda: 1\nclass C:\n    def m(self): pass")
    assert dumps(space.f)[2]
    assert dumps([space.C()])[2]
    assert not dumps((max, ([1, 2], "x"), {}))[2]


def test_other_python_minor_is_refused(engine, client):
    space = client("f = lambda: 1")
    stream, buffers, _ = engine.canning.dumps((space.f, (), {}))
    other = (3, sys.version_info[1] + 1)
    failure = engine.value(engine.runtime.apply(stream, buffers, other))
    assert failure.type_name == "RuntimeError"
    for version in (other, sys.version_info[:2]):
        assert ".".join(map(str, version)) in failure.message
    assert "execute" in failure.message
    assert engine.value(engine.runtime.apply(stream, buffers, sys.version_info[:2])) == 1


def test_client_receives_functions(engine, client):
    # The receiving side without a namespace: functions of one stream share fresh globals.
    engine.execute("h = 2\ndef g(): return h\ndef f(): return g() + h")
    stream, _, by_value = engine.canning.dumps(engine.namespace["f"])
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom ipengine import _canning\n"
        "f = _canning.loads(sys.stdin.buffer.read())\nprint(f(), 'h' in globals(), _canning.take_fill())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(conftest.CLIENT)], input=stream, capture_output=True, timeout=60
    )
    assert by_value
    assert run.stdout == b"4 False {}\n", run.stderr


def test_writable_arrays_out_of_band(engine):
    numpy = pytest.importorskip("numpy")
    big = numpy.arange(10_000.0)
    stream, buffers, by_value = engine.canning.dumps(big)
    assert [b.nbytes for b in buffers] == [big.nbytes]
    assert len(stream) < 1000
    assert not by_value
    assert engine.push(a=big, small=numpy.arange(3), noncontiguous=big.reshape(100, 100)[:, ::2]) is None
    engine.execute("a += 1; small += 1; noncontiguous += 1", silent=True)
    assert engine.pull("a")[0] == 1.0
    assert engine.apply(numpy.sum, engine.canning.Reference("a")) == big.sum() + 10_000
    result = engine.value(engine.runtime.apply(*engine.canning.dumps((numpy.zeros, (5000,), {}))[:2], None))
    result += 1
    assert result.sum() == 5000


def test_received_memory_is_the_sent_buffer(engine):
    numpy = pytest.importorskip("numpy")
    stream, buffers, _ = engine.canning.dumps((numpy.ndarray.fill, (numpy.zeros(1000), 7.0), {}))
    memory = [bytearray(b) for b in buffers]
    assert engine.value(engine.runtime.apply(stream, memory, None)) is None
    assert numpy.frombuffer(memory[0]).sum() == 7000


def test_unpicklable_results(engine, client):
    space = client(
        "import threading\nclass Box: pass\ndef gen():\n    yield 1\ndef nested():\n    b = Box()\n"
        "    b.parts = [1, {'lock': threading.Lock()}]\n    return {'box': b}"
    )
    failure = engine.apply(space.gen)
    assert failure.status == "error"
    assert failure.type_name == "PicklingError"
    assert "cannot send result of type builtins.generator" in failure.message
    assert failure.cause["type_name"] == "TypeError"
    failure = engine.apply(space.nested)
    assert "result['box'].parts[1]['lock'] is a _thread.lock" in failure.message


def test_hostile_results(engine, client):
    space = client(
        """
        import sys
        class Evil:
            def __reduce__(self): raise SystemExit(3)
        class Deep: pass
        def evil(): return Evil()
        def deep():
            top = []
            for _ in range(200_000): top = [top]
            return top
        def quits(): sys.exit(5)
        def stops(): raise GeneratorExit
        """
    )
    assert engine.apply(space.evil).type_name == "SystemExit"
    assert engine.apply(space.deep).status == "error"
    failure = engine.apply(space.quits)
    assert (failure.status, failure.type_name) == ("error", "SystemExit")
    assert failure.attributes["code"]["json"] == 5
    assert engine.apply(space.stops).type_name == "GeneratorExit"


def test_broken_streams(engine):
    for stream in (
        b"",
        b"\x80\x05",
        b"garbage",
        pickle.dumps(1),
        pickle.dumps((1, 2)),
        pickle.dumps((1, (), {})),
    ):
        assert engine.value(engine.runtime.apply(stream, [], None)).status == "error"
    assert engine.apply(len, "abc") == 3


def test_fill_of_a_failed_load_is_forgotten(engine, client):
    space = client("k = 1\ndef f():\n    return k")
    stream, _, _ = engine.canning.dumps((space.f, (engine.canning.Reference("missing"),), {}))
    assert engine.value(engine.runtime.apply(stream, [], None)).type_name == "NameError"
    assert engine.apply(len, "ab") == 2
    assert "k" not in engine.namespace


def test_pushed_function_brings_what_it_needs(engine, client):
    space = client("def helper(): return 'old'\ndef f(): return helper()")
    engine.push(f=space.f)
    assert engine.execute("f()")["data"]["text/plain"] == "'old'"
    space = client("def helper(): return 'new'\ndef f(): return helper()")
    engine.push(f=space.f)
    assert engine.execute("f()")["data"]["text/plain"] == "'new'"
    engine.execute("def helper(): return 'own'")
    engine.push(f=space.f)
    assert engine.execute("f()")["data"]["text/plain"] == "'own'"


def test_ipengine_names(engine, client):
    space = client(
        "def where():\n    import ipengine\n"
        "    return ipengine.rank, ipengine.size, ipengine.engine_id, dir(ipengine)"
    )
    assert engine.apply(space.where) == (2, 4, 2, ["comm", "engine_id", "rank", "reset_comm", "size"])
    space = client("def bad():\n    import ipengine\n    ipengine.nope")
    assert engine.apply(space.bad).type_name == "AttributeError"


def test_laptop_stub():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\nimport ipengine\n"
        "for use in (lambda: ipengine.rank, lambda: ipengine.size, lambda: ipengine.comm, lambda: "
        "ipengine.engine_id,"
        " lambda: ipengine.reset_comm()):\n"
        "    try: use()\n    except RuntimeError as e: assert 'only inside an engine' in str(e)\n"
        "    else: sys.exit(1)\n"
        "try: ipengine.other\nexcept AttributeError: pass\nelse: sys.exit(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(conftest.CLIENT)], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_vendored_cloudpickle_serves_an_environment_without_one():
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\nimport cloudpickle\nfrom ipengine import _canning\n"
        "assert cloudpickle.__file__.startswith(sys.argv[2])\nclass C:\n    def m(self): return 5\n"
        "f = _canning.loads(*_canning.dumps(lambda: C().m())[:2])\nassert f() == 5\n"
    )
    vendored = str(conftest.GLUE / "vendor")
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, str(conftest.CLIENT), vendored], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
