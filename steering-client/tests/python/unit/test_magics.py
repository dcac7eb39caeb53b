"""``%px`` and its kin in an IPython shell."""

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell


@pytest.fixture
def shell(rc):
    """A shell whose magics belong to a blocking view of all engines."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    rc.activate()
    yield shell
    InteractiveShell.clear_instance()


def magics(shell):
    return shell.magics_manager.magics["line"]["px"].__self__


def test_the_first_client_registers_the_magics(session, monkeypatch):
    import ipsteer.client

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    monkeypatch.setattr(ipsteer.client._native, "connect", lambda **_: session)
    first = ipsteer.Client()
    bound = magics(shell)
    assert bound.view.client is first
    assert bound.view.block is True
    ipsteer.Client()
    assert magics(shell) is bound
    InteractiveShell.clear_instance()


def test_px_runs_a_line_and_shows_tagged_output(shell, session, capsys):
    assert shell.run_line_magic("px", "print('on', engine_id)") is None
    assert capsys.readouterr().out == "".join(f"[stdout:{e}] on {e}\n" for e in range(4))
    assert session.log[0].meta["silent"] is False
    assert session.log[0].meta["store_history"] is True


def test_px_does_not_expand_variables(shell, session):
    shell.user_ns["name"] = "here"
    shell.run_line_magic("px", "s = f'{engine_id}' + '$name'")
    assert session.namespaces[2]["s"] == "2$name"


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("2", (2,)),
        ("1::2", (1, 3)),
        ("[3,0]", (3, 0)),
        ("0,1", (0, 1)),
        ("all", (0, 1, 2, 3)),
        (":", (0, 1, 2, 3)),
    ],
)
def test_targets(shell, session, text, targets):
    shell.run_cell_magic("px", f"-t {text}", "a = 1")
    assert session.log[-1].targets == targets
    assert magics(shell).view.targets == "all"


@pytest.mark.parametrize("text", ["9", "[0,9]", "zero", "__import__('os')", "1.5", "9::"])
def test_bad_targets_send_nothing(shell, session, text):
    with pytest.raises((UsageError, ValueError)):
        shell.run_cell_magic("px", f"-t {text}", "a = 1")
    assert session.log == []


def test_noblock_returns_the_result_and_pxresult_shows_it(shell, session, capsys):
    ar = shell.run_cell_magic("px", "--noblock", "print('later')")
    assert ar.wait(20)
    assert capsys.readouterr().out == ""
    shell.run_line_magic("pxresult", "")
    assert capsys.readouterr().out.count("later") == 4
    shell.run_line_magic("pxresult", "-o kept")
    assert shell.user_ns["kept"] is ar


def test_pxresult_before_any_px(shell):
    with pytest.raises(UsageError):
        shell.run_line_magic("pxresult", "")


def test_out_local_and_grouping(shell, session, capsys):
    shell.run_cell_magic(
        "px", "-o kept --local --no-stream --group-outputs=engine", "both = 6 * 7\nprint(both)"
    )
    assert shell.user_ns["both"] == 42
    assert session.namespaces[3]["both"] == 42
    assert shell.user_ns["kept"].ready()
    assert "[stdout:3] 42" in capsys.readouterr().out


def test_pxconfig_is_the_default_of_later_cells(shell, session, capsys):
    shell.run_line_magic("pxconfig", "--noblock -t 0:2 --verbose --progress-after 5 --no-stream")
    ar = shell.run_line_magic("px", "a = 1")
    assert session.log[-1].targets == (0, 1)
    assert ar.get()
    assert "Async parallel execution on engine(s): [0, 1]" in capsys.readouterr().out
    shell.run_line_magic("pxconfig", "--block --stream --no-verbose")
    assert shell.run_line_magic("px", "a = 1") is None


def test_errors_are_raised_with_all_ranks(shell):
    import ipsteer

    with pytest.raises(ipsteer.CompositeError, match="ranks 0-3: ZeroDivisionError") as failed:
        shell.run_line_magic("px", "1/0")
    assert any("ZeroDivisionError" in line for line in failed.value._render_traceback_())


@pytest.mark.parametrize(("signal", "interrupted"), [("SIGINT", True), ("2", True), ("0", False)])
def test_ctrl_c_interrupts_the_engines_and_is_raised(shell, session, signal, interrupted):
    session.hold = True
    session.ctrl_c_in_wait = 1
    with pytest.raises(KeyboardInterrupt):
        shell.run_cell_magic("px", f"--no-stream --signal-on-interrupt {signal}", "a = 1")
    assert bool(session.interrupts) is interrupted


@pytest.mark.parametrize(("signal", "interrupted"), [("SIGINT", True), ("0", False)])
def test_ctrl_c_behind_the_progress_bar_means_the_same(shell, session, monkeypatch, signal, interrupted):
    session.hold = True
    wait, waits = session.wait, []

    def press_in_the_second_wait(*args):
        waits.append(args)
        if len(waits) == 2:
            raise KeyboardInterrupt
        return wait(*args)

    monkeypatch.setattr(session, "wait", press_in_the_second_wait)
    line = f"--no-stream --progress-after 0 --signal-on-interrupt {signal}"
    with pytest.raises(KeyboardInterrupt, match="ranks 0-3: interrupted" if interrupted else None):
        shell.run_cell_magic("px", line, "a = 1")
    assert bool(session.interrupts) is interrupted


def test_other_signals_are_refused(shell):
    with pytest.raises(UsageError):
        shell.run_line_magic("pxconfig", "--signal-on-interrupt SIGKILL")


def test_suffixes_keep_views_apart(shell, rc, session):
    even = rc[::2]
    even.block = True
    even.activate("_even")
    shell.run_line_magic("px_even", "a = 1")
    assert session.log[-1].targets == (0, 2)
    shell.run_cell_magic("px_even", "", "b = 2")
    shell.run_line_magic("pxconfig_even", "--noblock")
    assert magics(shell).view.block is True


def test_autopx_sends_every_cell_until_told_otherwise(shell, session, capsys):
    shell.run_cell("%autopx")
    shell.run_cell("there = 'engines'\nfor i in range(2):\n    there += str(i)")
    shell.run_cell("%autopx")
    shell.run_cell("here = 1")
    assert session.namespaces[1]["there"] == "engines01"
    assert "there" not in shell.user_ns
    assert shell.user_ns["here"] == 1
    assert capsys.readouterr().out == "%autopx enabled\n%autopx disabled\n"
