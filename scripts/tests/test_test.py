"""What scripts/test does to the machine, and what it says of tests that were skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Machine

SERVICES = """#!/bin/sh
[ -x "{base}/policy-rc.d" ] && ! "{base}/policy-rc.d" && echo "services stay still" >>"{log}"
mkdir -p "{base}/units/multi-user.target.wants"
for unit in ssh.service ssh.socket; do ln -s /nowhere "{base}/units/multi-user.target.wants/$unit"; done
{then}
"""
LIBRARIES = "for name in env install skips; do source scripts/lib/$name.sh; done; "


@pytest.fixture
def idle(machine: Machine) -> Machine:
    """A machine on which something starts with it already, and packages would add two services."""
    for tool in ("find", "comm", "tee", "chmod", "rm", "ln", "mkdir", "setsid"):
        machine.bin.joinpath(tool).symlink_to(f"/usr/bin/{tool}")
    (machine.base / "units/multi-user.target.wants").mkdir(parents=True)
    (machine.base / "units/multi-user.target.wants/cron.service").symlink_to("/nowhere")
    machine.command("bin/systemctl", f'#!/bin/sh\necho "systemctl $*" >>"{machine.log}"\n')
    return machine


def installed_idle(machine: Machine, then: str) -> subprocess.CompletedProcess[str]:
    """Install with a stand-in for apt-get that does `then` at its end."""
    machine.command("bin/apt-get", SERVICES.format(base=machine.base, log=machine.log, then=then))
    script = LIBRARIES + 'as_root() { "$@"; }; apt_idle slurmd && echo went on || echo failed'
    return machine.run("setsid", "--wait", "bash", "-euo", "pipefail", "-c", script)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("exit 0", "went on"),
        ("exit 100", "failed"),
        # What Ctrl-C does: the terminal sends it to all.
        ("kill -INT 0; exit 0", None),
        ("kill -TERM $PPID; exit 0", None),
    ],
)
def test_no_service_starts_whatever_ends_the_installation(idle: Machine, then: str, said: str | None) -> None:
    done = installed_idle(idle, then)
    assert idle.asked_of_apt() == [
        "services stay still",
        "systemctl --quiet disable ssh.service ssh.socket",
    ], done
    assert not (idle.base / "policy-rc.d").exists()
    assert said is None or said in done.stdout


def test_a_policy_that_is_there_stays(idle: Machine) -> None:
    policy = idle.command("policy-rc.d", "#!/bin/sh\nexit 101\n# the user's own\n")
    installed_idle(idle, "exit 0")
    assert policy.read_text().endswith("own\n")


def test_each_reason_is_told_once_with_what_it_has_cost(machine: Machine) -> None:
    script = LIBRARIES + "skip Fortran 'no gfortran'; skip hosts 'no sshd'; skip more 'no sshd'; tell_skips"
    done = machine.run(
        "bash", "-euo", "pipefail", "-c", script, IPENGINE_TEST_SKIPS=str(machine.base / "skips")
    )
    told = done.stdout.partition("\n== skipped\n")[2].splitlines()
    assert [line.strip() for line in told] == ["no gfortran:", "Fortran", "no sshd:", "hosts", "more"], done


def test_nothing_is_told_where_nothing_was_skipped(machine: Machine) -> None:
    done = machine.run(
        "bash", "-euo", "pipefail", "-c", LIBRARIES + "tell_skips", IPENGINE_TEST_SKIPS="skips"
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_pytest_hands_on_what_it_skips(tmp_path: Path) -> None:
    (tmp_path / "test_skipping.py").write_text(
        "import pytest\n"
        "def test_runs(): pass\n"
        "def test_skips(): pytest.skip('there is\\n  no compiler')\n"
        "@pytest.mark.skipif(True, reason='never')\n"
        "def test_marked(): pass\n"
        "@pytest.mark.xfail(reason='known')\n"
        "def test_fails(): assert False\n"
    )
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    skips = tmp_path / "skips"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "scripts.tests.skips",
        "-p",
        "no:cacheprovider",
        tmp_path,
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"IPENGINE_TEST_SKIPS": str(skips)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = sorted(line.split("\t") for line in skips.read_text().splitlines())
    assert [reason for reason, _ in lines] == [
        "could not import 'no_such_module': No module named 'no_such_module'",
        "never",
        "there is no compiler",
    ]
    assert [Path(test).name for _, test in lines] == [
        "test_module.py",
        "test_skipping.py::test_marked",
        "test_skipping.py::test_skips",
    ]
