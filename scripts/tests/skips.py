"""Plugin of pytest: what is skipped goes into the file of IPENGINE_TEST_SKIPS, which scripts/test prints."""

import os

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    note(report)


def note(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Append a line: the reason, a tab, the test."""
    file = os.environ.get("IPENGINE_TEST_SKIPS")
    # An expected failure is reported as skipped, too.
    if not file or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    with open(file, "a") as skips:
        skips.write(f"{' '.join(reason.removeprefix('Skipped: ').split())}\t{report.nodeid}\n")
