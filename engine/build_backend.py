"""What pip calls to build `./engine`: maturin, in a target directory that belongs to one MPI.

An engine is bound to the MPI that it was built with, but mpi-sys is not built again when another one is
chosen. So each MPI has a directory of its own, apart from the one of scripts/build.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import maturin
from maturin import get_requires_for_build_wheel

__all__ = ["build_wheel", "get_requires_for_build_wheel", "prepare_metadata_for_build_wheel"]

# Other ways than a compiler wrapper to name an MPI; mpi-sys asks for them first.
OTHER_WAYS = ("MPI_PKG_CONFIG", "CRAY_MPICH_DIR")


def build_wheel(
    wheel_directory: str,
    config_settings: Mapping[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel for the interpreter that runs this, and for the MPI of `MPICC` or `PATH`."""
    os.environ["CARGO_TARGET_DIR"] = str(target_directory())
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: Mapping[str, Any] | None = None
) -> str:
    """Refuse at once where there is no MPI; else what maturin does."""
    identity_of_mpi()
    return maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def target_directory() -> Path:
    """`<MPI>-<digest>` below `CARGO_TARGET_DIR`, or below `target/pip` of the checkout."""
    root = Path(os.environ.get("CARGO_TARGET_DIR") or Path(__file__).parents[1] / "target/pip")
    name, identity = identity_of_mpi()
    return root / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def identity_of_mpi() -> tuple[str, str]:
    """A name for people, and all that tells this MPI from another one."""
    for variable in OTHER_WAYS:
        if os.environ.get(variable):
            return variable.lower().replace("_", "-"), f"{variable}={os.environ[variable]}"
    asked = os.environ.get("MPICC") or "mpicc"
    wrapper = shutil.which(asked)
    if wrapper is None:
        if asked == "mpicc":
            stop("no MPI found: load the MPI's module, so that mpicc is on PATH, or set MPICC")
        stop(f"MPICC names {asked}, which is not a command; correct it or unset it")
    shown = subprocess.run([wrapper, "-show"], capture_output=True, text=True)
    if shown.returncode != 0:
        stop(f"{wrapper} -show fails, so it is no compiler wrapper of an MPI; set MPICC to one")
    return re.sub(r"\W", "", Path(wrapper).name), f"{wrapper}\n{shown.stdout}"


def stop(sentence: str) -> None:
    """End the build with one sentence, which pip shows."""
    sys.exit(f"ipengine-mpi: {sentence}.")
