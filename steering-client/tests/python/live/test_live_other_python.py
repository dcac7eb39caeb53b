"""A client of another Python minor: code by value is refused before it is sent, everything else works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import cloudpickle
import ipengine
import ipsteer
import pytest

PROGRAM = textwrap.dedent(
    """
    import json, math, sys
    import ipsteer

    rc = ipsteer.Client(cluster=sys.argv[1])
    view = rc[:]
    said = {"version": list(sys.version_info[:2])}
    try:
        view.apply_sync(lambda: 1)
    except ipsteer.error.PythonVersionError as error:
        said["refused"] = str(error)
    said["by_reference"] = view.apply_sync(math.hypot, 3, 4)
    view.execute("import sys; minor = list(sys.version_info[:2])", block=True)
    said["engines"] = view["minor"]
    view["x"] = {"a": [1, 2.5, None]}
    said["pulled"] = view["x"]
    print(json.dumps(said))
    rc.close()
    """
)


def other_interpreter() -> str | None:
    """A Python with another minor version that can load the client (3.11 or newer)."""
    beside = sorted(Path(os.path.expanduser("~/.pyenv/versions")).glob("3.*/bin/python3"), reverse=True)
    names = [f"python3.{minor}" for minor in range(11, 16)]
    for candidate in [*filter(None, map(shutil.which, names)), *map(str, beside)]:
        ask = [candidate, "-c", "import sys; print(sys.version_info[0], sys.version_info[1])"]
        told = subprocess.run(ask, capture_output=True, text=True, timeout=30)
        version = tuple(map(int, told.stdout.split())) if told.returncode == 0 else ()
        if version >= (3, 11) and version != sys.version_info[:2]:
            return candidate
    return None


@pytest.fixture
def packages(tmp_path):
    """The client and what it needs, without the rest of this interpreter's environment."""
    for module in (ipsteer, ipengine, cloudpickle):
        source = Path(module.__file__).parent
        (tmp_path / source.name).symlink_to(source)
    return tmp_path


@pytest.mark.timeout(60)
def test_another_minor_sends_source_and_data_but_no_code(rc, cluster, packages):
    interpreter = other_interpreter()
    if interpreter is None:
        pytest.skip("no Python of another minor version here")
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(
        [interpreter, "-c", PROGRAM, cluster.cluster_id],
        capture_output=True,
        text=True,
        env=environment,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    here = list(sys.version_info[:2])
    for version in (said["version"], here):
        assert ".".join(map(str, version)) in said["refused"]
    assert "execute" in said["refused"], "the remedy is named"
    assert said["by_reference"] == [5.0] * 4
    assert said["engines"] == [here] * 4
    assert said["pulled"] == [{"a": [1, 2.5, None]}] * 4
