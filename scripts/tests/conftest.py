"""A machine made of stand-ins: a copy of the scripts, and a PATH on which only chosen commands are."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What the scripts themselves call; everything else is there only as a stand-in.
TOOLS = "bash env sed sort head tail cat cmp dirname basename sha256sum".split()

APT_GET = """#!/bin/sh
echo "apt-get $*" >>"{log}"
[ "$1" = update ]
"""
SUDO = """#!/bin/sh
echo "sudo $*" >>"{log}"
exec "$@"
"""
APT_CACHE = """#!/bin/sh
case $1 in
policy) while read -r name version; do
    [ "$name" != "$2" ] || printf '%s:\\n  Installed: (none)\\n  Candidate: %s\\n' "$name" "$version"
done <"{table}" ;;
pkgnames) sed -n "s/^\\($2[^ ]*\\) .*/\\1/p" "{table}" ;;
esac
"""
# The real interpreter, told something else about itself before the script runs.
PYTHON = """#!/bin/sh
PYTHONPATH={told} exec {python} "$@"
"""


class Machine:
    """Runs the scripts where nothing is installed but what a test puts there."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.bin = base / "bin"
        self.log = base / "log"
        self.table = base / "apt-cache.txt"
        self.checkout = base / "checkout"
        for directory in (self.bin, self.checkout, base / "home"):
            directory.mkdir()
        for file in (self.log, self.table):
            file.touch()
        self.log.chmod(0o666)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self._copy_scripts()

    def _copy_scripts(self) -> None:
        shutil.copytree(ROOT / "scripts", self.checkout / "scripts", ignore=shutil.ignore_patterns("tests"))
        shutil.copy(ROOT / "Cargo.toml", self.checkout)
        # The places that the scripts look at whatever PATH is.
        self._replace("rust.sh", "VERSIONED_RUST=/usr/lib\n", f"VERSIONED_RUST={self.base}\n")
        self._replace("find.sh", " /usr/bin/python3 ", " ")
        self._replace("install.sh", "POLICY=/usr/sbin/", f"POLICY={self.base}/")
        self._replace("install.sh", "UNITS=/etc/systemd/system\n", f"UNITS={self.base}/units\n")

    def _replace(self, name: str, old: str, new: str) -> None:
        path = self.checkout / "scripts/lib" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def command(self, path: str, text: str) -> Path:
        """Put an executable file below the machine's directory."""
        file = self.base / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
        return file

    def apt(self, **versions: str) -> None:
        """apt-get, apt-cache and the versions that it offers; `_` in a name stands for `-`."""
        lines = [f"{name.replace('_', '-')} {version}\n" for name, version in versions.items()]
        self.table.write_text("".join(lines))
        self.command("bin/apt-get", APT_GET.format(log=self.log))
        self.command("bin/apt-cache", APT_CACHE.format(table=self.table))
        self.command("bin/sudo", SUDO.format(log=self.log))

    def cargo(self, version: str, path: str = "bin/cargo") -> None:
        """A cargo of this version, and nothing behind it."""
        self.command(path, f"#!/bin/sh\necho 'cargo {version} (0123 2022-01-01)'\n")

    def python(self, told: str) -> Path:
        """An interpreter that was told something about itself by `told`, which it runs at its start."""
        (self.base / "told").mkdir()
        (self.base / "told/sitecustomize.py").write_text(f"import sys, sysconfig\n{told}\n")
        return self.command("bin/told-python", PYTHON.format(told=self.base / "told", python=sys.executable))

    def run(self, *command: str, root: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the checkout; `root=False` makes sure that it is not root."""
        if not root and os.geteuid() == 0:
            setpriv = shutil.which("setpriv")
            assert setpriv, "util-linux has it"
            command = (setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", *command)
        variables |= {"PATH": str(self.bin), "HOME": str(self.base / "home"), "LANG": "C.UTF-8"}
        return subprocess.run(
            command, cwd=self.checkout, env=variables, capture_output=True, text=True, timeout=30
        )

    def setup(self, root: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run scripts/setup."""
        return self.run("scripts/setup", root=root, **variables)

    def asked_of_apt(self) -> list[str]:
        """What was said to apt-get and sudo, in order."""
        return self.log.read_text().splitlines()


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not below pytest's own directory, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="ipengine-scripts-") as directory:
        Path(directory).chmod(0o755)
        yield Machine(Path(directory))
