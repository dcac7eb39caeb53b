"""Steer the ranks of an MPI job from a laptop, from Python, IPython or Jupyter."""

from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from typing import Any

from ipengine._canning import Reference, interactive

from ipsteer import error
from ipsteer._native import ConnectError, SessionClosed
from ipsteer.asyncresult import AsyncResult
from ipsteer.client import Client
from ipsteer.cluster import Cluster
from ipsteer.directview import DirectView
from ipsteer.error import (
    CompositeError,
    EngineError,
    NoEnginesRegistered,
    PythonVersionError,
    RemoteError,
    TaskAborted,
    TimeoutError,
)
from ipsteer.lbview import LoadBalancedView
from ipsteer.mapresult import AsyncMapResult
from ipsteer.remotefunction import ParallelFunction, RemoteFunction, parallel, remote

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AsyncMapResult",
    "AsyncResult",
    "Client",
    "Cluster",
    "CompositeError",
    "ConnectError",
    "DirectView",
    "EngineError",
    "LoadBalancedView",
    "NoEnginesRegistered",
    "ParallelFunction",
    "PythonVersionError",
    "Reference",
    "RemoteError",
    "RemoteFunction",
    "SessionClosed",
    "TaskAborted",
    "TimeoutError",
    "error",
    "interactive",
    "parallel",
    "remote",
]


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext ipsteer``: connect to the newest cluster that answers, and bind the magics to it."""
    from ipsteer.magics import load

    load(shell)
