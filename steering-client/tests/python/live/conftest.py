"""Real engines: a cluster of four for the whole run, and gates that hold engines inside an instruction.

``IPENGINE_MPI`` names the engine's executable, unless it lies beside this Python or on ``PATH``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import ipsteer
import pytest


@pytest.fixture(scope="session", autouse=True)
def home():
    """A directory of connection files of its own; short, since a socket's path may have about 100 bytes."""
    directory = tempfile.mkdtemp(prefix="ips-")
    os.environ["IPSTEER_DIR"] = directory
    yield Path(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(home):
    """Four engines."""
    job = ipsteer.Cluster(4, cluster_id=f"four-{os.getpid()}")
    job.start()
    yield job
    job.stop()
    assert not job.running()


@pytest.fixture
def rc(cluster):
    """A client, with empty namespaces."""
    with cluster.connect_client() as client:
        client.clear(block=True)
        yield client


@pytest.fixture
def view(rc):
    """All engines."""
    return rc[:]


@pytest.fixture
def lbview(rc):
    """All engines, load balanced."""
    return rc.load_balanced_view()


class Gate:
    """Two named pipes: code on one engine says that it has arrived, and waits until the test lets it go."""

    def __init__(self, directory: Path) -> None:
        self.arrival = directory / "arrival"
        self.release = directory / "release"
        os.mkfifo(self.arrival)
        os.mkfifo(self.release)
        self._opened = 0

    @property
    def code(self) -> str:
        """Source text that passes the gate."""
        return (
            f"with open({str(self.arrival)!r}, 'w') as gate: gate.write('x')\n"
            f"with open({str(self.release)!r}) as gate: gate.read(1)\n"
        )

    @property
    def passing(self):
        """A function that passes the gate and returns its argument."""
        code = self.code

        def passing(value=None):
            exec(code)
            return value

        return passing

    def wait_for_arrivals(self, count: int = 1) -> None:
        """Return when `count` engines stand at the gate."""
        arrived = 0
        while arrived < count:
            with open(self.arrival) as pipe:  # blocks until an engine has opened it
                arrived += len(pipe.read())

    def open(self, count: int = 1) -> None:
        """Let `count` engines pass."""
        with open(self.release, "w") as pipe:
            pipe.write("x" * count)


@pytest.fixture
def gate(tmp_path):
    """A closed gate for one engine at a time."""
    return Gate(tmp_path)


class Program:
    """A Python program with its output; ended when the test ends."""

    def __init__(self, text: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", text, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def go_on(self) -> None:
        """Send a line to its standard input."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self, timeout: float = 60) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err


@pytest.fixture
def program():
    """Starts programs."""
    started = []

    def start(text: str, *arguments: str) -> Program:
        started.append(Program(text, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


@pytest.fixture
def in_thread():
    """Runs a function in a thread that the test joins."""
    threads = []

    def start(function, *arguments):
        thread = threading.Thread(target=function, args=arguments)
        thread.start()
        threads.append(thread)
        return thread

    yield start
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
