"""Tests of the Python package: `unit` against a stand-in for the Rust core, `live` on real engines."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120 if "live" in item.path.parts else 30))
