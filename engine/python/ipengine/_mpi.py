"""mpi4py in an engine: settings before its import, refusal of another MPI's build, and the communicator.

MPI is initialised and finalised by the engine, so mpi4py must do neither. The import hook sees to it without
importing anything at start-up.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import _ipengine

_MAX_CACHED = 256
_comms: dict[tuple[int, int], Any] = {}
# The instruction that the user was warned of.
_warned: int | None = None


# --- the import hook ---


def install_import_hook() -> None:
    """Put the finder for mpi4py in front of all others, once."""
    if not any(isinstance(finder, _Mpi4pyFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Mpi4pyFinder())
    if "mpi4py" in sys.modules:
        _configure(sys.modules["mpi4py"])


# Neither this nor the loader derives from `importlib.abc`, whose import would slow every start.
class _Mpi4pyFinder:
    """Lets the other finders find mpi4py and adds what an engine needs."""

    def find_spec(self, fullname, path=None, target=None):
        """Return the other finders' spec, with our loader around it or after our check."""
        if fullname != "mpi4py" and fullname != "mpi4py.MPI":
            return None
        spec = self._found_by_others(fullname, path, target)
        if spec is not None and fullname == "mpi4py" and spec.loader is not None:
            spec.loader = _ConfiguringLoader(spec.loader)
        elif spec is not None and spec.origin:
            _refuse_foreign(spec.origin)
        return spec

    def _found_by_others(self, fullname, path, target):
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            if finder is not self and find is not None:
                spec = find(fullname, path, target)
                if spec is not None:
                    return spec
        return None


class _ConfiguringLoader:
    """The real loader of the package, followed by our settings."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        """Leave it to the real loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module):
        """Run the package, then set `mpi4py.rc`."""
        self._loader.exec_module(module)
        module.__loader__ = module.__spec__.loader = self._loader
        _configure(module)


def _configure(package):
    package.rc.initialize = False
    package.rc.finalize = False


def _refuse_foreign(extension):
    library = getattr(_ipengine, "mpi_library_path", "")
    if not library:
        return
    from . import _elf

    foreign = _elf.other_mpi(extension, library)
    if foreign:
        raise ImportError(
            f"mpi4py at {extension} is linked to {foreign}, and this engine runs on {library}: "
            f"two MPI libraries in one process crash; install mpi4py for this MPI "
            f"(pip install --no-binary mpi4py mpi4py, with MPICC set to its compiler wrapper)",
            name="mpi4py.MPI",
            path=extension,
        )


# --- the communicator ---


def current_comm() -> Any:
    """Return the communicator of the present instruction's targets.

    Returns
    -------
    mpi4py.MPI.Intracomm
        The same object until the communicator is replaced.
    """
    MPI = _import_mpi()
    handle, generation, suspect = _ipengine.comm_handle()
    if suspect is not None:
        _warn_once(suspect)
    key = (handle, generation)
    comm = _comms.get(key)
    if comm is None:
        comm = _from_handle(MPI, key[0])
        # A handle that comes back with another generation was freed in between.
        for old in [k for k in _comms if k[0] == key[0]]:
            del _comms[old]
        if len(_comms) >= _MAX_CACHED:
            del _comms[next(iter(_comms))]
        _comms[key] = comm
    return comm


def reset() -> None:
    """Ask the engine for a new communicator at the next access."""
    _ipengine.reset_comm()
    _comms.clear()


def _warn_once(order):
    global _warned
    if order != _warned:
        _warned = order
        warnings.warn(
            f"instruction #{order} of these targets failed on one of them; messages of it may be under way: "
            f"ipengine.reset_comm() on every target replaces ipengine.comm",
            RuntimeWarning,
            stacklevel=4,
        )


def _import_mpi():
    try:
        from mpi4py import MPI
    except ImportError as error:
        if error.name != "mpi4py":
            raise
        raise ImportError(
            f"ipengine.comm needs mpi4py, which {sys.executable} does not have: install it there, built for "
            f"this engine's MPI",
            name="mpi4py",
        ) from None
    return MPI


def _from_handle(MPI, handle):
    if hasattr(MPI.Comm, "fromhandle"):  # mpi4py 4
        return MPI.Intracomm.fromhandle(handle)
    import ctypes

    comm = MPI.Intracomm()
    kind = {4: ctypes.c_int, 8: ctypes.c_void_p}[MPI._sizeof(MPI.Comm)]
    kind.from_address(MPI._addressof(comm)).value = handle
    return comm
