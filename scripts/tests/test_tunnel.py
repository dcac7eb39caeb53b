"""What the tunnel scripts say to who calls them wrongly."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT


def call(system: str, arguments: list[str], path: str) -> subprocess.CompletedProcess[str]:
    """The script as called on a laptop with this PATH."""
    return subprocess.run(
        ["bash", ROOT / "scripts" / system / "tunnel.sh", *arguments],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("system", ["slurm", "pbs"])
@pytest.mark.parametrize("arguments", [[], ["--unknown"]])
def test_usage(system: str, arguments: list[str]) -> None:
    done = call(system, arguments, os.environ["PATH"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Usage: scripts/{system}/tunnel.sh LOGIN")


def test_no_ssh_without_a_login_node_even_if_the_usage_cannot_be_shown(tmp_path: Path) -> None:
    called = tmp_path / "called"
    for name, code in (("ssh", f"touch '{called}'"), ("sed", "exit 1")):
        stand_in = tmp_path / name
        stand_in.write_text(f"#!/bin/sh\n{code}\n")
        stand_in.chmod(0o755)
    done = call("slurm", [], f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode != 0
    assert not called.exists()
