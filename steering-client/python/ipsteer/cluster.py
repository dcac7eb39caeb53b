"""`Cluster`: engines on this machine, started with the MPI's own launcher and ended with the program."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipsteer import _native, launch
from ipsteer.client import Client
from ipsteer.error import EngineError

# held until stopped: one that nobody refers to any more must not outlive the interpreter either
_clusters: set[Cluster] = set()
_numbers = itertools.count()

# how often the start looks for the connection file while it watches the child
_LOOK_EVERY = 0.02
_LOG_TAIL = 4000


class Cluster:
    """A local cluster of `n` engines.

    As a context manager it starts the engines, yields a connected `Client`, and stops them. What is still
    running when the interpreter exits is stopped as well.

    Parameters
    ----------
    n : int, optional
        Number of engines; the number of CPUs by default.
    cluster_id : str, optional
        Name of the cluster; made from host and process id by default.
    engine : str or path, optional
        The ``ipengine-mpi`` executable; else ``$IPENGINE_MPI``, the one beside this Python, or the one on
        ``PATH``.
    mpiexec : str or path, optional
        The launcher; else ``$MPIEXEC``, the one of the engine's MPI, or the one on ``PATH``.
    mpi_args : sequence of str
        More arguments for the launcher, before ``-n``.
    engine_args : sequence of str
        More arguments for ``ipengine-mpi``.
    python : str or path, optional
        The interpreter whose environment the engines use; this one by default.
    env : dict, optional
        Environment variables to add.
    engine_timeout : float
        Seconds until the engines must have answered.
    linger : int
        Seconds that results stay available to others after the engines have ended.
    shutdown_atexit : bool
        Stop it when the interpreter exits.
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        cluster_id: str | None = None,
        engine: str | os.PathLike[str] | None = None,
        mpiexec: str | os.PathLike[str] | None = None,
        mpi_args: Sequence[str] = (),
        engine_args: Sequence[str] = (),
        python: str | os.PathLike[str] | None = None,
        env: dict[str, str] | None = None,
        engine_timeout: float = 60,
        linger: int = 3,
        shutdown_atexit: bool = True,
    ) -> None:
        if n is not None and n < 1:
            raise ValueError(f"a cluster has at least 1 engine, not {n}")
        self.n = n or launch.cpus()
        self.cluster_id = cluster_id or f"local-{socket.gethostname()}-{os.getpid()}-{next(_numbers)}"
        self.engine_timeout = engine_timeout
        self.linger = linger
        self.shutdown_atexit = shutdown_atexit
        self._engine = engine
        self._mpiexec = mpiexec
        self._mpi_args = list(mpi_args)
        self._engine_args = list(engine_args)
        self._python = os.fspath(python) if python is not None else sys.executable
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._client: Client | None = None

    # --- paths ---

    @property
    def connection_file(self) -> Path:
        """Where the gateway writes how to connect."""
        return launch.home(self._env) / f"{self.cluster_id}.json"

    @property
    def log_file(self) -> Path:
        """What launcher and gateway printed."""
        return launch.home(self._env) / "runs" / self.cluster_id / "cluster.log"

    def __repr__(self) -> str:
        return (
            f"<Cluster {self.cluster_id}: {self.n} engines, {'running' if self.running() else 'not running'}>"
        )

    # --- start ---

    def running(self) -> bool:
        """Whether its processes are there."""
        return self._process is not None and self._process.poll() is None

    def start(self, n: int | None = None) -> Cluster:
        """Start the engines and wait until they answer.

        Raises
        ------
        EngineError
            They could not be started; the message ends with what the launcher said.
        FileNotFoundError
            ``ipengine-mpi`` or ``mpiexec`` was not found.
        """
        if self.running():
            raise RuntimeError(f"{self.cluster_id} is running already")
        self.n = n or self.n
        before = _stamp(self.connection_file)
        command, env = self._command()
        _make_private(self.log_file.parent)
        with open(self.log_file, "wb") as log:
            # a session of its own: Ctrl-C in the terminal must not end the engines
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        self._owner = os.getpid()
        _clusters.add(self)
        try:
            self._wait_ready(before)
        except BaseException:
            self._end_processes()
            raise
        return self

    def _command(self) -> tuple[list[str], dict[str, str]]:
        engine = launch.find_engine(self._engine)
        mpiexec = launch.find_mpiexec(self._mpiexec, engine)
        mpi_args, mpi_env = launch.local_settings(mpiexec)
        command = [engine, "serve", "--cluster", self.cluster_id, "--linger", str(self.linger), "--"]
        command += [mpiexec, *mpi_args, *self._mpi_args, "-n", str(self.n), engine]
        if self._python:  # empty in a program that embeds Python
            command += ["--python", self._python]
        return [*command, *self._engine_args], {**os.environ, **mpi_env, **self._env}

    def _wait_ready(self, before: tuple[int, int] | None) -> None:
        assert self._process is not None
        for _ in range(int(self.engine_timeout / _LOOK_EVERY) + 1):
            if _stamp(self.connection_file) not in (None, before):
                self._check_alive()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(_LOOK_EVERY)
                raise EngineError(
                    f"the cluster ended with exit code {code} while it started{self._log_tail()}"
                )
        raise EngineError(f"{self.n} engines did not answer within {self.engine_timeout} s{self._log_tail()}")

    def _check_alive(self) -> None:
        """The file that appeared may already be the post-mortem of a start that failed."""
        ended = json.loads(self.connection_file.read_text()).get("ended")
        if ended:
            raise EngineError(f"{ended['reason']}{self._log_tail()}")

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            text = self.log_file.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()
            return f"; the end of {self.log_file}:\n{text}" if text else f"; {self.log_file} is empty"
        return ""

    def connect_client(self, **kwargs: Any) -> Client:
        """A new `Client` of this cluster."""
        client = Client(self.connection_file, **kwargs)
        client.cluster = self
        return client

    def start_and_connect(self, n: int | None = None, activate: bool = False) -> Client:
        """Start, connect, and with `activate` bind the magics."""
        self.start(n)
        try:
            client = self.connect_client()
        except BaseException:
            self.stop()
            raise
        if activate:
            client.activate()
        return client

    # --- stop ---

    def stop(self, timeout: float = 20) -> None:
        """Stop engines and gateway; after `timeout` seconds by signals; nothing when not running."""
        if self._process is None or os.getpid() != self._owner:
            return
        if self.running():
            self._ask_to_stop(timeout)
        self._end_processes()

    def _ask_to_stop(self, timeout: float) -> None:
        assert self._process is not None
        with contextlib.suppress(Exception):  # whatever the gateway's state is, signals follow
            session = _native.connect(file=str(self.connection_file), timeout=timeout)
            try:
                session.shutdown(timeout)
            finally:
                session.close()
            self._process.wait(timeout)

    def _end_processes(self) -> None:
        process = self._process
        assert process is not None
        # TERM begins an orderly end, for which `serve` gives its launcher 23 s.
        for number, patience in ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0)):
            if process.poll() is not None:
                break
            # TERM to `serve` alone, which ends its launcher in order, and takes it along when killed
            if number == signal.SIGTERM:
                process.terminate()
            else:
                self._signal_group(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        self._signal_group(signal.SIGKILL)
        self._process = None
        _clusters.discard(self)

    def _signal_group(self, number: int) -> None:
        """To everything left in the child's process group; nothing is when all is well."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def __enter__(self) -> Client:
        self._client = self.start_and_connect()
        return self._client

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close()
            self._client = None
        self.stop()

    # names that ipyparallel has for the same
    start_cluster_sync = start
    stop_cluster_sync = stop
    connect_client_sync = connect_client
    start_and_connect_sync = start_and_connect


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tells one version of a file from the next, which replaces it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _make_private(directory: Path) -> None:
    """Make a directory and its missing parents for this user alone (`Path.mkdir`: only the last)."""
    if not directory.is_dir():
        _make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _stop_all() -> None:
    for cluster in list(_clusters):
        if cluster.shutdown_atexit:
            with contextlib.suppress(Exception):
                cluster.stop()


atexit.register(_stop_all)
