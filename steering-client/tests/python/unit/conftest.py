"""A client over the stand-in of the Rust core."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fake_native

try:
    importlib.import_module("ipsteer")
except ModuleNotFoundError:  # a checkout without the compiled module
    sys.modules["ipsteer._native"] = fake_native

import ipsteer
import ipsteer.client


@pytest.fixture
def session():
    """Four in-process engines."""
    return fake_native.Session(4)


@pytest.fixture
def rc(session, monkeypatch):
    """A client of them."""
    monkeypatch.setattr(ipsteer.client._native, "connect", lambda **_: session)
    client = ipsteer.Client()
    yield client
    client.close()


@pytest.fixture
def view(rc):
    """All four engines."""
    return rc[:]
