"""The magics of an IPython shell over real engines."""

import ipsteer
import pytest
from IPython.core.interactiveshell import InteractiveShell


@pytest.fixture
def shell(cluster):
    """A shell whose first client has registered the magics."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    with cluster.connect_client() as client:
        client.clear(block=True)
        yield shell
    InteractiveShell.clear_instance()


def test_px_shows_output_and_results(shell, capsys):
    shell.run_line_magic("px", "import ipengine; print('rank', ipengine.rank)")
    assert sorted(capsys.readouterr().out.splitlines()) == [f"[stdout:{e}] rank {e}" for e in range(4)]
    shell.run_cell_magic("px", "-t 2", "6 * 7")
    assert "42" in capsys.readouterr().out


def test_px_noblock_then_pxresult(shell, capsys):
    ar = shell.run_cell_magic("px", "--noblock -o kept", "print('later')")
    assert shell.user_ns["kept"] is ar
    shell.run_line_magic("pxresult", "--group-outputs=engine")
    assert capsys.readouterr().out.count("later") == 4


def test_px_raises_merged_errors(shell):
    with pytest.raises(ipsteer.CompositeError, match="ranks 0-3: ZeroDivisionError"):
        shell.run_line_magic("px", "1/0")


def test_local_and_autopx(shell, cluster):
    shell.run_cell_magic("px", "--local", "both = 1")
    assert shell.user_ns["both"] == 1
    shell.run_cell("%autopx")
    shell.run_cell("there = 2\nif there:\n    there += 1")
    shell.run_cell("%autopx")
    with ipsteer.Client(cluster=cluster.cluster_id) as client:
        assert client[:]["there"] == [3] * 4
    assert "there" not in shell.user_ns


def test_display_of_figures_is_republished(shell, capsys):
    shell.run_cell_magic(
        "px", "-t 1", "from IPython.display import display, HTML\ndisplay(HTML('<b>bold</b>'))"
    )
    assert "IPython.core.display.HTML" in capsys.readouterr().out
