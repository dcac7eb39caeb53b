"""The engines of an example: those of a running cluster, or new ones for the length of the example."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ipsteer as ipp

DEFAULT_ENGINES = 4


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that say which engines to use."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--cluster", metavar="NAME", help="the running cluster of this name")
    which.add_argument("--connect", metavar="FILE", help="the running cluster of this connection file")
    which.add_argument("-n", type=int, metavar="N", help="N new engines, whatever else is running")
    return parser


@contextmanager
def engines(options: argparse.Namespace) -> Iterator[ipp.Client]:
    """A client of the cluster that `options` name, else of the one that answers, else of a new one."""
    if options.n is None:
        client = _running(options)
        if client is not None:
            with client:
                print(f"connected to {client}", flush=True)
                yield client
            return
    count = DEFAULT_ENGINES if options.n is None else options.n
    print(f"starting {count} engines with Cluster({count})", flush=True)
    with ipp.Cluster(count) as client:
        yield client


def _running(options: argparse.Namespace) -> ipp.Client | None:
    try:
        return ipp.Client(options.connect, cluster=options.cluster)
    except ipp.ConnectError as error:
        if options.cluster or options.connect:
            sys.exit(f"{sys.argv[0]}: {error}")
        print(str(error).split(":")[0], end="; ")  # which ones were tried does not matter here
        return None
