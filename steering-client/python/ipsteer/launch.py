"""Finding the programs of a local cluster, and the settings that its MPI needs on one machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def home(env: dict[str, str] | None = None) -> Path:
    """Directory of connection files and run directories: ``$IPSTEER_DIR`` or ``~/.ipsteer``."""
    chosen = (env or {}).get("IPSTEER_DIR") or os.environ.get("IPSTEER_DIR")
    return Path(chosen) if chosen else Path.home() / ".ipsteer"


def cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_engine(given: str | os.PathLike[str] | None) -> str:
    """The ``ipengine-mpi`` executable.

    Raises
    ------
    FileNotFoundError
        Nowhere; the message says where it was looked for.
    """
    chosen = given if given is not None else os.environ.get("IPENGINE_MPI")
    if chosen:
        return _executable(os.fspath(chosen), "ipengine-mpi")
    beside = Path(sys.executable).parent / "ipengine-mpi"
    if os.access(beside, os.X_OK):
        return str(beside)
    found = shutil.which("ipengine-mpi")
    if found is None:
        raise FileNotFoundError(
            f"ipengine-mpi is neither beside {sys.executable} nor on PATH; "
            "build it, then set IPENGINE_MPI to it"
        )
    return found


def find_mpiexec(given: str | os.PathLike[str] | None, engine: str | None = None) -> str:
    """The MPI's launcher; by default the one that belongs to the MPI of `engine`.

    Raises
    ------
    FileNotFoundError
        Not there.
    """
    chosen = given if given is not None else os.environ.get("MPIEXEC")
    return _executable(os.fspath(chosen) if chosen else _launcher_of(engine), "mpiexec")


def _launcher_of(engine: str | None) -> str:
    """What ``ipengine-mpi --check`` names: a machine may have several MPIs."""
    if engine is None:
        return "mpiexec"
    try:
        said = subprocess.run(
            [engine, "--check"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):  # what is wrong with it shows when it is started
        return "mpiexec"
    told = re.search(r"^mpiexec +(/.*)$", said.stdout, re.MULTILINE)
    return told[1] if told else "mpiexec"


def _executable(name: str, what: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(
            f"{what}: {name!r} is no executable file" if os.sep in name else f"{name} is not on PATH"
        )
    return found


def local_settings(mpiexec: str) -> tuple[list[str], dict[str, str]]:
    """(arguments, environment) to run any number of ranks on one machine, as root too."""
    told = subprocess.run(
        [mpiexec, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return settings_for(told.stdout + told.stderr, os.geteuid() == 0)


def settings_for(version_text: str, root: bool) -> tuple[list[str], dict[str, str]]:
    """`local_settings` for what ``mpiexec --version`` printed."""
    found = re.search(r"(Open MPI|OpenRTE|PRRTE)\D*(\d+)", version_text)
    if found is None:
        return [], {}  # MPICH and its kin neither count slots nor mind root
    env = {}
    if root:
        for prefix in ("OMPI", "PRTE"):
            env |= {f"{prefix}_ALLOW_RUN_AS_ROOT": "1", f"{prefix}_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if found[1] != "PRRTE" and int(found[2]) < 5:
        return ["--oversubscribe"], env
    return ["--map-by", ":OVERSUBSCRIBE"], env
