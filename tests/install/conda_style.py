"""A stand-in for a conda environment, made from this Python: what of conda matters to an engine.

It has a prefix of its own that is no virtual environment, `conda-meta/`, an interpreter with libpython
linked in statically, build settings that say so, and in `lib/` the shared libpython of the same build.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

MAIN = "int Py_BytesMain(int, char **); int main(int n, char **words) { return Py_BytesMain(n, words); }\n"
LEFT_OUT = ("__pycache__", "site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "config-*")


def missing() -> str | None:
    """Why no stand-in can be made here."""
    if Path(sys.base_prefix) == Path("/usr"):
        return "the distribution's Python has its own layout; conda's is that of CPython"
    if not static_library().is_file():
        return f"this Python came without {static_library().name}"
    if not shutil.which("cc"):
        return "there is no C compiler"
    return None


def static_library() -> Path:
    """The archive from which the interpreter is linked."""
    return Path(sysconfig.get_config_var("LIBPL")) / f"libpython{sysconfig.get_config_var('LDVERSION')}.a"


def make(prefix: Path) -> None:
    """Make the environment, with pip in it."""
    version = f"python{sysconfig.get_config_var('LDVERSION')}"
    for directory in ("bin", "conda-meta", "lib", "include"):
        (prefix / directory).mkdir(parents=True)
    (prefix / "conda-meta/history").touch()
    base = Path(sys.base_prefix)
    for library in (base / "lib").glob(f"lib{version}.so*"):
        shutil.copy(library, prefix / "lib", follow_symlinks=False)
    ignored = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(base / "lib" / version, prefix / "lib" / version, ignore=ignored)
    shutil.copytree(base / "include" / version, prefix / "include" / version)
    relocate(prefix / "lib" / version)
    link(prefix, version)
    subprocess.run([prefix / "bin/python", "-m", "ensurepip"], check=True, capture_output=True, timeout=120)


def relocate(library: Path) -> None:
    """What conda does to every text file: the prefix of the build becomes the one of the environment."""
    (settings,) = library.glob("_sysconfigdata_*.py")
    text = settings.read_text().replace(sys.base_prefix, str(library.parents[1]))
    settings.write_text(
        text + "build_time_vars |= {'Py_ENABLE_SHARED': 0, 'LDLIBRARY': build_time_vars['LIBRARY']}\n"
    )


def link(prefix: Path, version: str) -> None:
    """The interpreter: everything of the archive, so that extension modules find what they need in it."""
    (prefix / "main.c").write_text(MAIN)
    whole = ["-Wl,--whole-archive", str(static_library()), "-Wl,--no-whole-archive", "-Wl,--export-dynamic"]
    others = [
        *sysconfig.get_config_var("LIBS").split(),
        *sysconfig.get_config_var("SYSLIBS").split(),
        "-lpthread",
    ]
    command = ["cc", str(prefix / "main.c"), *whole, *others, "-ldl", "-lutil", "-lm"]
    subprocess.run([*command, "-o", str(prefix / "bin" / version)], check=True, timeout=60)
    (prefix / "main.c").unlink()
    for name in ("python", "python3"):
        (prefix / "bin" / name).symlink_to(version)
