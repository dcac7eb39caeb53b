"""scripts/setup where something is missing: one sentence and nothing installed, or the right packages."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, Machine

MINIMUM = re.search(r'^rust-version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]


def refusal(machine: Machine, done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence with which setup gave up, before anything was installed."""
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("setup: ")
    assert done.stderr.endswith(".\n")
    assert not [line for line in machine.asked_of_apt() if " install " in line]
    assert not (machine.checkout / ".venv").exists()
    return done.stderr


def installed(machine: Machine) -> list[str]:
    """The packages of the one call that would have installed something."""
    (line,) = [line for line in machine.asked_of_apt() if line.startswith("apt-get install ")]
    return [word for word in line.split()[2:] if not word.startswith("-")]


def test_apt_has_only_an_old_rust(machine: Machine) -> None:
    machine.apt(rustc="1.63.0+dfsg1-2", cargo="0.66.0+ds1-1")
    said = refusal(machine, machine.setup())
    assert f"there is no Rust here, and apt's is 1.63.0 where {MINIMUM} or later is needed" in said
    assert "rustup" in said


def test_apt_has_no_rust(machine: Machine) -> None:
    machine.apt()
    assert "there is no Rust here, and apt's is missing" in refusal(machine, machine.setup())


def test_apt_has_a_new_rustc_and_an_old_cargo(machine: Machine) -> None:
    machine.apt(rustc="1.95.0", cargo="1.63.0", rustc_web="1.96.0", rustc_1_62="1.62.0")
    assert "there is no Rust here" in refusal(machine, machine.setup())


def test_the_cargo_on_path_is_too_old(machine: Machine) -> None:
    machine.apt(rustc="1.95.0", cargo="1.95.0")
    machine.cargo("1.75.0")
    assert f"Rust is 1.75.0 where {MINIMUM} or later is needed" in refusal(machine, machine.setup())
    assert machine.asked_of_apt() == []


def test_there_is_no_apt(machine: Machine) -> None:
    machine.cargo("1.95.0")
    said = refusal(machine, machine.setup())
    assert "there is no apt-get here" in said
    assert "openmpi-bin libopenmpi-dev" in said
    assert "rustc" not in said


def test_neither_root_nor_sudo(machine: Machine) -> None:
    machine.apt(rustc="1.95.0", cargo="1.95.0")
    (machine.bin / "sudo").unlink()
    said = refusal(machine, machine.setup(root=False))
    assert "without root or sudo nothing can be installed" in said
    assert "cargo rustc" in said
    assert machine.asked_of_apt() == []


def test_mpicc_names_nothing(machine: Machine) -> None:
    machine.cargo("1.95.0")
    said = refusal(machine, machine.setup(MPICC="/opt/mpi/bin/mpicc"))
    assert "MPICC names /opt/mpi/bin/mpicc, which is not a command" in said


@pytest.mark.parametrize(
    ("mpicc", "beside", "launcher"),
    [
        ("mpi/mpicc", "mpi/mpiexec", "mpi/mpiexec"),
        ("mpi/mpicc.mpich", "mpi/mpiexec.mpich", "mpi/mpiexec.mpich"),
        ("mpi/mpicc.mpich", "mpi/mpiexec", "mpi/mpiexec"),
        ("mpi/mpiicx", "mpi/mpiexec", "mpi/mpiexec"),
        ("cray/cc", None, "bin/mpiexec"),
    ],
)
def test_the_launcher_of_a_compiler_wrapper(
    machine: Machine, mpicc: str, beside: str | None, launcher: str
) -> None:
    for path in {mpicc, "bin/mpiexec"} | ({beside} if beside else set()):
        machine.command(path, "#!/bin/sh\n")
    machine.cargo("1.95.0")
    script = "source scripts/lib/env.sh; source scripts/lib/find.sh; find_mpi && echo $MPICC $MPIEXEC"
    done = machine.run("bash", "-euo", "pipefail", "-c", script, MPICC=str(machine.base / mpicc))
    assert done.stdout.split() == [str(machine.base / mpicc), str(machine.base / launcher)], done


def test_a_compiler_wrapper_without_a_launcher(machine: Machine) -> None:
    machine.cargo("1.95.0")
    wrapper = machine.command("cray/cc", "#!/bin/sh\n")
    script = "source scripts/lib/env.sh; source scripts/lib/find.sh; find_mpi || echo no MPI"
    done = machine.run("bash", "-euo", "pipefail", "-c", script, MPICC=str(wrapper))
    assert done.stdout == "no MPI\n", done


def test_pyo3_python_names_nothing(machine: Machine) -> None:
    machine.cargo("1.95.0")
    said = refusal(machine, machine.setup(PYO3_PYTHON="/opt/python/bin/python3"))
    assert "PYO3_PYTHON names /opt/python/bin/python3, which is not a command" in said


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            "sysconfig.get_config_vars()['Py_ENABLE_SHARED'] = 0; sys.base_prefix = '/'",
            "has no shared libpython",
        ),
        ("sysconfig.get_config_vars()['LIBDIR'] = '/nowhere'", "has no shared libpython"),
        ("sysconfig.get_config_vars()['INCLUDEPY'] = '/nowhere'", "has no headers"),
        ("sys.version_info = (3, 10, 2)", "is 3.10 where 3.11 or later is needed"),
        ("sys.modules['ensurepip'] = None", "cannot make environments"),
    ],
)
def test_a_python_that_will_not_do(machine: Machine, told: str, said: str) -> None:
    machine.cargo("1.95.0")
    python = machine.python(told)
    assert f"which {said}" in refusal(machine, machine.setup(PYO3_PYTHON=str(python)))


def test_a_python_that_was_told_nothing_will_do(machine: Machine) -> None:
    """Otherwise the refusals above could come from the stand-in itself."""
    machine.cargo("1.95.0")
    said = refusal(machine, machine.setup(PYO3_PYTHON=str(machine.python(""))))
    assert "python3-dev" not in said


def test_the_own_rust_of_the_distribution(machine: Machine) -> None:
    machine.apt(rustc="1.95.0", cargo="1.95.0", rustc_web="1.96.0", cargo_web="1.96.0")
    machine.setup()
    assert installed(machine)[:4] == ["rustc", "cargo", "rustfmt", "rust-clippy"]


def test_the_rust_that_debian_keeps_for_browsers(machine: Machine) -> None:
    machine.apt(rustc="1.63.0", cargo="0.66.0", rustc_web="1.96.0+dfsg1-1~deb12u2", cargo_web="1.96.0")
    machine.setup()
    assert installed(machine)[:4] == ["rustc-web", "cargo-web", "rustfmt-web", "rust-web-clippy"]
    assert "cargo" not in installed(machine)


def test_the_newest_rust_with_its_version_in_its_name(machine: Machine) -> None:
    versions = {
        "rustc-1.99": "1.99.0",
        "rustc-1.9": "1.9.0",
        "cargo-1.9": "1.9.0",
        "rustc-1.91-doc": "1.91.1",
    }
    versions |= {f"{name}-{v}": f"{v}.1" for v in ("1.89", "1.91", "1.62") for name in ("rustc", "cargo")}
    machine.apt(rustc="1.75.0", cargo="1.75.0", **versions)
    machine.setup()
    assert installed(machine)[:4] == ["rustc-1.91", "cargo-1.91", "rustfmt-1.91", "rust-1.91-clippy"]


def test_a_versioned_rust_comes_before_an_old_cargo(machine: Machine) -> None:
    machine.cargo("1.75.0")
    for version in ("1.80", "1.91"):
        machine.cargo(f"{version}.0", f"rust-{version}/bin/cargo")
        machine.command(f"rust-{version}/bin/rustc", "")
    assert "MPICC names" in refusal(machine, machine.setup(MPICC="/nowhere/mpicc"))
    machine.command("rust-1.91/bin/rustc", "").unlink()
    assert "Rust is 1.75.0" in refusal(machine, machine.setup(MPICC="/nowhere/mpicc"))


def test_the_packages_of_another_python(machine: Machine) -> None:
    machine.cargo("1.95.0")
    machine.apt(python3="3.10.6-1~22.04.1")
    machine.setup()
    assert {"python3.11-dev", "python3.11-venv"} <= set(installed(machine))


def test_sudo_is_used_without_root(machine: Machine) -> None:
    machine.cargo("1.95.0")
    machine.apt(python3="3.12.3")
    machine.setup(root=False)
    assert "openmpi-bin" in installed(machine)
    assert [line.split()[0] for line in machine.asked_of_apt()] == ["sudo", "apt-get", "sudo", "apt-get"]


@pytest.mark.parametrize("sudo", [True, False])
def test_fortran_comes_with_sudo_or_not_at_all(machine: Machine, sudo: bool) -> None:
    machine.apt()
    if not sudo:
        (machine.bin / "sudo").unlink()
    script = "for name in env install skips; do source scripts/lib/$name.sh; done; want_fortran"
    done = machine.run("bash", "-euo", "pipefail", "-c", script, root=False)
    # The stand-in for apt-get installs nothing.
    assert done.returncode == 0
    assert "there is no gfortran: tests of Fortran's output" in done.stdout
    assert bool(machine.asked_of_apt()) == sudo
    if sudo:
        assert installed(machine) == ["gfortran"]


def test_every_script_has_its_help(machine: Machine) -> None:
    for script in ("setup", "build", "test", "demo", "bench"):
        done = machine.run(str(Path("scripts") / script), "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: scripts/{script} ")
