"""The magics in a real Jupyter kernel: what a notebook sees."""

from __future__ import annotations

import pytest
from jupyter_client.manager import start_new_kernel


@pytest.fixture
def notebook(cluster):
    """A function that runs a cell in a kernel connected to the engines and returns (status, messages)."""
    manager, client = start_new_kernel(startup_timeout=60)

    def run(code):
        messages = []
        reply = client.execute_interactive(code, timeout=30, output_hook=messages.append)
        return reply["content"]["status"], messages

    status, messages = run(f"import ipsteer; rc = ipsteer.Client({str(cluster.connection_file)!r}); rc.ids")
    assert status == "ok", messages
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def streams(messages):
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")


@pytest.mark.timeout(120)
def test_px_in_a_notebook(notebook):
    status, messages = notebook("%px import ipengine; print('hello', ipengine.rank)")
    assert status == "ok"
    text = streams(messages)
    assert all(f"[stdout:{rank}] hello {rank}" in text for rank in range(4)), text
    status, messages = notebook("%%px -t 0,2\nipengine.rank + 40")
    assert status == "ok"
    shown = str([m["content"] for m in messages])
    assert "40" in shown
    assert "42" in shown
    assert "41" not in shown
    status, messages = notebook("%px 1 / 0")
    assert status == "error"
    errors = [m["content"] for m in messages if m["msg_type"] == "error"]
    assert "ZeroDivisionError" in str(errors)


@pytest.mark.timeout(120)
def test_rich_display_reaches_the_notebook(notebook):
    code = "%px -t 1 from IPython.display import HTML, display; display(HTML('<b>bold</b>'))"
    status, messages = notebook(code.replace("%px -t 1 ", "%%px -t 1\n"))
    assert status == "ok"
    bundles = [m["content"]["data"] for m in messages if m["msg_type"] == "display_data"]
    assert any(data.get("text/html") == "<b>bold</b>" for data in bundles), messages
