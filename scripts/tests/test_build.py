"""What `scripts/build` refuses before it touches anything."""

import os
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[1] / "build"


@pytest.mark.parametrize(
    ("arguments", "mpicc", "said"),
    [
        (["--for", "mpich"], None, "--for needs MPICC"),
        (["--for"], "mpicc", "not usable as a name"),
        (["--for", "release"], "mpicc", "not usable as a name"),
        (["--for", "../elsewhere"], "mpicc", "not usable as a name"),
        (["--mpi"], None, "unknown option --mpi"),
    ],
)
def test_refusals(arguments, mpicc, said):
    environment = {name: value for name, value in os.environ.items() if name != "MPICC"}
    if mpicc:
        environment["MPICC"] = mpicc
    done = subprocess.run(
        [BUILD, *arguments], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""
