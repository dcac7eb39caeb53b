"""`pip install ./steering-client` into a fresh environment: a laptop, without MPI or libpython."""

import sys
from pathlib import Path

import pytest
from conftest import ROOT, Environment, libraries, run

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def laptop(directory: Path) -> Environment:
    """A fresh environment with the client in it; built where scripts/build builds its wheel."""
    environment = Environment.virtual(sys.executable, directory / "laptop")
    environment.install("steering-client", CARGO_TARGET_DIR=str(ROOT / "target/wheel"))
    return environment


def crates(*selection: str) -> list[str]:
    """Every crate that a build would use, build scripts and what is only for other systems included."""
    tree = ["cargo", "tree", "--locked", "--prefix=none", "--edges=normal,build", "--target=all"]
    return [line.split()[0] for line in run([*tree, *selection]).stdout.splitlines() if line]


def test_no_crate_of_the_client_knows_mpi() -> None:
    client = crates("--package=ipsteer", "--features=python")
    assert {"ipsteer", "pyo3", "rustls"} <= set(client)
    assert not [name for name in client if "mpi" in name.split("-") or name == "ipengine-gateway"]
    # The same question finds it where it is.
    assert {"mpi", "mpi-sys", "build-probe-mpi"} <= set(crates("--package=ipengine-mpi"))


def test_neither_mpi_nor_libpython_is_loaded(laptop: Environment) -> None:
    (module,) = laptop.prefix.glob("lib/python3.*/site-packages/ipsteer/_native*.so")
    for built in (module, ROOT / "target/release/ipsteer"):
        loaded = libraries(built)
        assert "libc." in loaded
        assert "libmpi" not in loaded
        assert "libpython" not in loaded
    # The same question finds them where they are.
    engine = libraries(ROOT / "target/release/ipengine-mpi")
    assert "libmpi" in engine
    assert "libpython" in engine


def test_the_wheel_fits_every_later_python(laptop: Environment) -> None:
    (metadata,) = laptop.prefix.glob("lib/python3.*/site-packages/ipsteer-*.dist-info/WHEEL")
    assert "Tag: cp311-abi3-linux_" in metadata.read_text()


def test_the_command_and_the_package_run(laptop: Environment, tmp_path: Path) -> None:
    alone = {"PATH": str(laptop.prefix / "bin"), "IPSTEER_DIR": str(tmp_path)}
    assert laptop.run("ipsteer", "--version", **alone).stdout.startswith("ipsteer ")
    assert laptop.run("ipsteer", "list", "--json", **alone).stdout.strip() == "[]"
    done = laptop.run("python", "-I", "-c", "import ipsteer; ipsteer.Client()", check=False, **alone)
    assert "ConnectError: no cluster" in done.stderr.splitlines()[-1]


def test_uninstalling_leaves_nothing(laptop: Environment) -> None:
    """The last test of the environment: what was there at first, and what the package asked for."""
    assert laptop.files() != laptop.at_first
    laptop.pip("uninstall", "-y", "ipsteer", "cloudpickle")
    assert laptop.files() == laptop.at_first
