"""Shell children of a cell: output through the descriptors 1 and 2, without the launcher's variables."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping

# A child that saw these would believe that it is a rank of this job.
_LAUNCHER = ("OMPI_", "PMI_", "PMIX_", "PALS_", "HYD", "MPIR_", "MPI_LOCAL")
# What a root user of a container needs to start an MPI job from a cell.
_KEPT = "OMPI_ALLOW_RUN_AS_ROOT"
_GRACE_SECONDS = 2.0


def scrubbed_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child.

    Parameters
    ----------
    environment
        What to start from; this process's by default.

    Returns
    -------
    dict
        A copy without the MPI launcher's variables.
    """
    source = os.environ if environment is None else environment
    return {
        name: value
        for name, value in source.items()
        if name.startswith(_KEPT) or not name.startswith(_LAUNCHER)
    }


def run(command: str) -> int:
    """Run a shell command that writes to the engine's own output.

    Parameters
    ----------
    command
        One line for the shell.

    Returns
    -------
    int
        The exit code; negative for a signal.
    """
    child = subprocess.Popen(command, **_options())
    try:
        return child.wait()
    except BaseException:
        _end(child)
        raise


def capture(command: str) -> str:
    """Run a shell command and return what it writes.

    Parameters
    ----------
    command
        One line for the shell.

    Returns
    -------
    str
        Its output and error output.
    """
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **_options())
    try:
        return child.communicate()[0].decode("utf-8", "backslashreplace")
    except BaseException:
        _end(child)
        raise


def _options():
    own = os.environ.get("SHELL", "")
    return {
        "shell": True,
        # The batch system may pass on a login shell that this node does not have.
        "executable": own if os.access(own, os.X_OK) else None,
        "env": scrubbed_environment(),
        "stdin": subprocess.DEVNULL,
        # A group of its own, so that an interrupt ends the shell and everything it started.
        "start_new_session": True,
    }


def _end(child):
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass
        try:
            child.wait(_GRACE_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue
