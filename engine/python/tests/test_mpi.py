"""mpi4py in an engine: its settings, the refusal of another MPI's build, and the communicator."""

import ctypes.util
import importlib.util
import shutil
import subprocess
import sys
import textwrap
import types
import warnings

import conftest
import pytest

PACKAGE = {
    "__init__.py": "class rc:\n    initialize = finalize = True\n",
    "MPI.py": textwrap.dedent(
        """
        from . import rc
        initialized_by_import = rc.initialize
        class Comm:
            def __init__(self, handle=0): self.handle = handle
            @classmethod
            def fromhandle(cls, handle): return cls(handle)
        class Intracomm(Comm): pass
        """
    ),
}


@pytest.fixture
def fake_mpi4py(tmp_path, monkeypatch):
    package = tmp_path / "mpi4py"
    package.mkdir()
    for name, text in PACKAGE.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.split(".")[0] == "mpi4py"]:
        monkeypatch.delitem(sys.modules, name)
    from ipengine import _mpi

    _mpi._comms.clear()
    yield package
    for name in [n for n in sys.modules if n.split(".")[0] == "mpi4py"]:
        del sys.modules[name]
    _mpi._comms.clear()


def comm(engine):
    import ipengine

    return ipengine.comm


def test_import_sets_rc(engine, fake_mpi4py):
    reply = engine.execute(
        "from mpi4py import MPI\nimport mpi4py\nMPI.initialized_by_import, mpi4py.rc.finalize"
    )
    assert reply["data"]["text/plain"] == "(False, False)"
    assert engine.execute("mpi4py.__spec__.loader is mpi4py.__loader__")["data"]["text/plain"] == "True"


def test_comm_is_cached_by_handle_and_generation(engine, fake_mpi4py):
    engine.fake.handles = [(17, 1)]
    first = comm(engine)
    assert first.handle == 17
    assert type(first).__name__ == "Intracomm"
    assert comm(engine) is first
    engine.fake.handles = [(17, 2)]
    second = comm(engine)
    assert second is not first
    engine.fake.handles = [(18, 3)]
    assert comm(engine).handle == 18
    import ipengine

    ipengine.reset_comm()
    assert engine.fake.resets == 1
    engine.fake.handles = [(17, 2)]
    assert comm(engine) is not second


def test_cache_is_bounded(engine, fake_mpi4py):
    from ipengine import _mpi

    for handle in range(600):
        engine.fake.handles = [(handle, 1)]
        assert comm(engine).handle == handle
    assert len(_mpi._comms) <= 256


def test_mpi4py_3_writes_the_handle(engine, fake_mpi4py):
    (fake_mpi4py / "MPI.py").write_text(
        "import ctypes\nclass Comm: pass\nclass Intracomm(Comm):\n"
        "    def __init__(self): self.mpi = ctypes.c_int(-1)\n"
        "def _sizeof(c): return 4\ndef _addressof(c): return ctypes.addressof(c.mpi)\n"
    )
    engine.fake.handles = [(0x44000000, 1)]
    assert comm(engine).mpi.value == 0x44000000


def test_refusal_to_give_a_communicator_is_the_error(engine, fake_mpi4py):
    failure = engine.execute("import ipengine\nipengine.comm")
    assert (failure.type_name, failure.message) == ("RuntimeError", "no communicator here")
    assert engine.execute("from ipengine import comm").message == "no communicator here"


def test_missing_mpi4py(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    engine.fake.handles = [(1, 1)]
    failure = engine.execute("import ipengine\nipengine.comm")
    assert failure.type_name == "ImportError"
    assert "needs mpi4py" in failure.message
    assert sys.executable in failure.message


# --- another MPI's build ---


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Real ELF files: two MPI libraries and an extension linked to each."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    place = tmp_path_factory.mktemp("elf")
    (place / "mpi.c").write_text("int MPI_Init(void) { return 0; }\n")
    (place / "ext.c").write_text("int MPI_Init(void);\nint PyInit_MPI(void) { return MPI_Init(); }\n")

    def build(*args):
        subprocess.run([compiler, "-shared", "-fPIC", *map(str, args)], check=True, cwd=place, timeout=60)

    build("-o", "libmpi.so.40", "-Wl,-soname,libmpi.so.40", "mpi.c")
    build("-o", "libmpich.so.12", "-Wl,-soname,libmpich.so.12", "mpi.c")
    build("-o", "open.so", "ext.c", "libmpi.so.40")
    build("-o", "mpich.so", "ext.c", "libmpich.so.12")
    build("-o", "none.so", "mpi.c")
    return place


def test_linked_to_the_same_mpi(engine, libraries):
    from ipengine import _elf

    assert _elf.dynamic(str(libraries / "open.so"))["needed"][0] == "libmpi.so.40"
    assert _elf.dynamic(str(libraries / "libmpi.so.40"))["soname"] == ["libmpi.so.40"]
    assert _elf.other_mpi(str(libraries / "open.so"), str(libraries / "libmpi.so.40")) is None
    assert _elf.other_mpi(str(libraries / "none.so"), str(libraries / "libmpi.so.40")) is None


def test_linked_to_another_mpi(engine, libraries, fake_mpi4py, monkeypatch):
    from ipengine import _elf, _mpi

    assert _elf.other_mpi(str(libraries / "mpich.so"), str(libraries / "libmpi.so.40")) == "libmpich.so.12"
    engine.fake.mpi_library_path = str(libraries / "libmpi.so.40")
    with pytest.raises(ImportError, match=r"linked to libmpich\.so\.12"):
        _mpi._refuse_foreign(str(libraries / "mpich.so"))
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (fake_mpi4py / "MPI.py").unlink()
    shutil.copy(libraries / "mpich.so", fake_mpi4py / f"MPI{suffix}")
    failure = engine.execute("from mpi4py import MPI")
    assert failure.type_name == "ImportError"
    assert "two MPI libraries in one process" in failure.message
    engine.fake.handles = [(1, 1)]
    assert "two MPI libraries" in engine.execute("import ipengine; ipengine.comm").message


def test_another_name_of_the_same_library(engine, libraries, monkeypatch):
    from ipengine import _elf

    link = libraries / "links"
    link.mkdir(exist_ok=True)
    (link / "libmpi.so.40").symlink_to(libraries / "libmpich.so.12")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(link))
    assert _elf.other_mpi(str(libraries / "open.so"), str(libraries / "libmpich.so.12")) is None


def test_broken_elf_files_do_not_decide(engine, libraries, tmp_path):
    from ipengine import _elf

    whole = (libraries / "mpich.so").read_bytes()
    good = str(libraries / "libmpi.so.40")
    for data in (b"", b"\x7fELF", b"text" * 100, whole[:64], whole[:1000], whole[:200] + b"\xff" * 4000):
        path = tmp_path / "broken.so"
        path.write_bytes(data)
        assert _elf.other_mpi(str(path), good) is None
    assert _elf.other_mpi(str(tmp_path / "missing.so"), good) is None


# --- the real thing ---


def test_real_communicator():
    library = ctypes.util.find_library("mpi")
    if library is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("needs an MPI and mpi4py")
    done = conftest.engine_process(
        f"""
        import ctypes
        mpi = ctypes.CDLL({library!r}, ctypes.RTLD_GLOBAL)
        assert mpi.MPI_Init(None, None) == 0
        try:
            world = ctypes.addressof(ctypes.c_char.in_dll(mpi, "ompi_mpi_comm_world"))
        except ValueError:
            world = 0x44000000
        fake.comm_handle = lambda: (world, 1, None)
        maps = open("/proc/self/maps").read().split()
        fake.mpi_library_path = next(word for word in maps if "/libmpi" in word)
        print(runtime.execute('''
        import ipengine
        from mpi4py import MPI
        MPI.COMM_WORLD == ipengine.comm, type(ipengine.comm).__name__, ipengine.comm.allreduce(5)
        '''.replace(chr(10) + "        ", chr(10))), flush=True)
        mpi.MPI_Finalize()
        """
    )
    assert "(True, \\'Intracomm\\', 5)" in done.stdout, done


def test_modules_are_what_they_say(engine):
    import ipengine

    assert isinstance(ipengine, types.ModuleType)
    with pytest.raises(AttributeError):
        ipengine.publish


def test_a_suspect_communicator_is_warned_of_once(engine, fake_mpi4py):
    seen = [(17, 1, 7), (17, 1, 7), (17, 1, None), (17, 1, 9)]
    engine.fake.comm_handle = lambda: seen.pop(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        handles = [comm(engine).handle for _ in range(4)]
    assert handles == [17] * 4
    texts = [str(each.message) for each in caught]
    assert [text.split(" of ")[0] for text in texts] == ["instruction #7", "instruction #9"]
    assert "reset_comm()" in texts[0]
