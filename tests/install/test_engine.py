"""`pip install ./engine` into fresh environments: fits them, runs as their Python, goes without a trace."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import conda_style
import pytest
from conftest import ROOT, Environment, libraries, run

# Optimising takes most of a build's time and changes nothing that is looked at here.
UNOPTIMISED = {"MATURIN_PEP517_ARGS": "--profile dev"}

# The first build compiles every dependency.
pytestmark = pytest.mark.timeout(1500)

FIT = """
import sys, sysconfig
get = sysconfig.get_config_var
assert sys.version_info >= (3, 10) and get("Py_ENABLE_SHARED") and __import__("ensurepip")
open(get("INCLUDEPY") + "/Python.h").close()
print(sys.version_info[1])
"""


def other_pythons() -> list[str]:
    """Interpreters of other minor versions that can be embedded, the newest first."""
    names = [f"python3.{minor}" for minor in range(10, 16)]
    kept = Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3")
    found = {}
    for candidate in [*filter(None, map(shutil.which, names)), *map(str, kept)]:
        told = subprocess.run([candidate, "-I", "-c", FIT], capture_output=True, text=True, timeout=30)
        if told.returncode == 0 and int(told.stdout) != sys.version_info[1]:
            found[int(told.stdout)] = candidate
    return [found[minor] for minor in sorted(found, reverse=True)]


@pytest.fixture(scope="module", params=["this-python", "another-minor", "conda-style"])
def installed(request: pytest.FixtureRequest, directory: Path) -> Environment:
    """A fresh environment with the engine in it."""
    environment = KINDS[request.param](directory / request.param)
    environment.install("engine", **UNOPTIMISED)
    return environment


def of_this_python(prefix: Path) -> Environment:
    return Environment.virtual(sys.executable, prefix)


def of_another_minor(prefix: Path) -> Environment:
    others = other_pythons()
    if not others:
        pytest.skip("no Python of another minor version here that has its headers and a shared libpython")
    return Environment.virtual(others[0], prefix)


def in_the_style_of_conda(prefix: Path) -> Environment:
    why = conda_style.missing()
    if why:
        pytest.skip(why)
    conda_style.make(prefix)
    return Environment(prefix)


KINDS = {
    "this-python": of_this_python,
    "another-minor": of_another_minor,
    "conda-style": in_the_style_of_conda,
}


@pytest.fixture
def cluster(installed: Environment, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Two ranks of the installed program; yields the variables with which `ipsteer` finds them."""
    variables = {"IPSTEER_DIR": str(tmp_path), "IPENGINE_MPI": f"{installed}/bin/ipengine-mpi"}
    run([ipsteer(), "start", "-n", "2"], **variables)
    yield variables
    run([ipsteer(), "stop"], **variables)


def ipsteer() -> str:
    """The shell client that scripts/build makes."""
    return str(ROOT / "target/release/ipsteer")


def checked(environment: Environment) -> dict[str, str]:
    """`ipengine-mpi --check`, as a table."""
    lines = environment.run("ipengine-mpi", "--check").stdout.splitlines()
    return {line[:15].strip(): line[15:] for line in lines}


def test_the_program_fits_its_environment(installed: Environment) -> None:
    table = checked(installed)
    assert table["Python"] == installed.ask("import platform; print(platform.python_version())")
    assert table["runs as"] == f"{installed}/bin/python3"
    directory = installed.ask("import sysconfig; print(sysconfig.get_config_var('LIBDIR'))")
    assert Path(table["libpython"]).resolve().parent == Path(directory).resolve()


def test_the_libraries_are_not_copied(installed: Environment) -> None:
    loaded = libraries(installed.prefix / "bin/ipengine-mpi")
    assert "libmpi" in loaded
    assert "libpython" in loaded
    assert "not found" not in loaded
    added = sorted(installed.files() - installed.at_first)
    assert added[0] == "bin/ipengine-mpi"
    assert all(".dist-info/" in name for name in added[1:]), added


def test_the_wheel_is_bound_to_one_minor(installed: Environment) -> None:
    minor = installed.ask("import sys; print(sys.version_info[1])")
    (metadata,) = installed.prefix.glob("lib/python3.*/site-packages/ipengine_mpi-*.dist-info/WHEEL")
    (tag,) = [line for line in metadata.read_text().splitlines() if line.startswith("Tag: ")]
    assert tag.startswith(f"Tag: cp3{minor}-cp3{minor}-linux_")


def test_pip_takes_no_mpi4py_along(installed: Environment) -> None:
    names = [package["name"] for package in json.loads(installed.pip("list", "--format=json").stdout)]
    assert "ipengine-mpi" in names
    assert "mpi4py" not in names


def test_a_job_runs_as_the_environment(installed: Environment, cluster: dict[str, str]) -> None:
    (packages,) = installed.prefix.glob("lib/python3.*/site-packages")
    (packages / "only_here.py").write_text("WORD = 'beside the program'\n")
    code = "import ipengine, only_here, sys; print(ipengine.rank, sys.prefix, sys.executable, only_here.WORD)"
    said = run([ipsteer(), "exec", code], **cluster).stdout
    (packages / "only_here.py").unlink()
    for rank in (0, 1):
        assert f"{rank} {installed} {installed}/bin/python3 beside the program" in said


def test_another_minor_does_not_get_the_wheel(installed: Environment, directory: Path) -> None:
    minor = installed.ask("import sys; print(sys.version_info[1])")
    strangers = [sys.executable, *other_pythons()]
    newest = max(
        ROOT.glob(f"target/pip/*/wheels/ipengine_mpi-*-cp3{minor}-*.whl"),
        key=lambda path: path.stat().st_mtime,
    )
    for number, python in enumerate(strangers):
        stranger = Environment.virtual(python, directory / f"stranger-{minor}-{number}")
        if stranger.ask("import sys; print(sys.version_info[1])") != minor:
            done = stranger.pip("install", str(newest), check=False)
            assert done.returncode != 0
            assert "not a supported wheel" in done.stdout + done.stderr
            return
    pytest.skip("no Python of another minor version here")


def test_uninstalling_leaves_nothing(installed: Environment) -> None:
    """The last test of an environment."""
    assert installed.files() != installed.at_first
    installed.pip("uninstall", "-y", "ipengine-mpi")
    assert installed.files() == installed.at_first


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MPICC": "/nowhere/mpicc"}, "MPICC names /nowhere/mpicc, which is not a command"),
        ({"MPICC": "false"}, "is no compiler wrapper of an MPI"),
        ({"PATH": "/nowhere"}, "no MPI found: load the MPI's module"),
    ],
)
def test_without_an_mpi_the_build_ends_at_once(variables: dict[str, str], said: str, tmp_path: Path) -> None:
    """Asked of the build's own module, since pip would first fetch maturin."""
    (tmp_path / "maturin.py").write_text("get_requires_for_build_wheel = None\n")
    code = "import build_backend; build_backend.prepare_metadata_for_build_wheel('.')"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}/engine:{tmp_path}", **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_mpi_has_a_target_directory_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "maturin.py").write_text("get_requires_for_build_wheel = None\n")
    code = "import build_backend; print(build_backend.target_directory())"
    told = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        wrapper = tmp_path / name / "mpicc"
        wrapper.write_text(f"#!/bin/sh\necho gcc -I/opt/{name}/include -lmpi\n")
        wrapper.chmod(0o755)
        for target in ({}, {"CARGO_TARGET_DIR": str(tmp_path)}):
            environment = {"PYTHONPATH": f"{ROOT}/engine:{tmp_path}", "PATH": str(wrapper.parent), **target}
            command = [sys.executable, "-c", code]
            told.add(
                subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30).stdout
            )
    assert len(told) == 4
    assert sum(line.startswith(f"{tmp_path}/mpicc-") for line in told) == 2
    assert sum(line.startswith(f"{ROOT}/target/pip/mpicc-") for line in told) == 2
