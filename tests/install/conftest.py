"""Fresh environments to install into, and the wheels that a build needs, kept for runs without network."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]
WHEELHOUSE = ROOT / "target/pip/wheelhouse"
# What would lead a build or an engine to another environment than the one that is asked.
MISLEADING = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYO3_PYTHON", "PYTHONPATH", "CARGO_TARGET_DIR", "IPENGINE_MPI")


class Environment:
    """An environment with pip, and what was in it when it was made."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.at_first = self.files()

    @classmethod
    def virtual(cls, python: str, prefix: Path) -> "Environment":
        """A new virtual environment."""
        subprocess.run([python, "-m", "venv", prefix], check=True, timeout=120)
        return cls(prefix)

    def __str__(self) -> str:
        return str(self.prefix)

    def files(self) -> set[str]:
        """Every file and link, without what Python writes beside a module that it has read."""
        found = (path.relative_to(self.prefix) for path in self.prefix.rglob("*") if not path.is_dir())
        return {str(path) for path in found if "__pycache__" not in path.parts}

    def run(self, program: str, *arguments: str, **more) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment as a user does who did not activate it."""
        return run([str(self.prefix / "bin" / program), *arguments], **more)

    def pip(self, *arguments: str, **more) -> subprocess.CompletedProcess[str]:
        """Run this environment's pip without network."""
        return self.run("python", "-m", "pip", "--disable-pip-version-check", *arguments, **more)

    def ask(self, code: str) -> str:
        """What this environment's Python prints."""
        return self.run("python", "-I", "-c", code).stdout.strip()

    def fetch(self, requirements: Sequence[str]) -> None:
        """Put wheels for this Python into the wheelhouse, unless they are there."""
        download = ["download", "-q", "--only-binary=:all:", f"--dest={WHEELHOUSE}", *requirements]
        if self.pip(*download, check=False).returncode != 0:
            with_network = {key: value for key, value in os.environ.items() if key not in MISLEADING}
            subprocess.run(
                [self.prefix / "bin/python", "-m", "pip", *download],
                env=with_network,
                check=True,
                timeout=300,
            )

    def install(self, directory: str, **variables: str) -> None:
        """`pip install ./directory`; what its build and the package itself need comes from the wheelhouse."""
        project = tomllib.loads((ROOT / directory / "pyproject.toml").read_text())
        self.fetch([*project["build-system"]["requires"], *project["project"].get("dependencies", [])])
        self.pip("install", f"./{directory}", timeout=1200, **variables)


def run(
    command: list[str], check: bool = True, timeout: float = 120, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command at the root of the project; its whole output is the reason when it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in MISLEADING}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(WHEELHOUSE), **variables}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def libraries(program: Path) -> str:
    """What the dynamic linker loads with a program or a module."""
    ldd = shutil.which("ldd")
    if ldd is None:
        pytest.skip("there is no ldd here")
    return run([ldd, str(program)]).stdout


@pytest.fixture(scope="session", autouse=True)
def wheelhouse() -> None:
    WHEELHOUSE.mkdir(parents=True, exist_ok=True)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where environments are made; emptied at the end, since an engine is large."""
    path = tmp_path_factory.mktemp("environments")
    yield path
    shutil.rmtree(path)
