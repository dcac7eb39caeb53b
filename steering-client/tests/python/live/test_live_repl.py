"""`ipsteer repl` in a real terminal: editing, history, live tagged output, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import os
import re
import signal
import sys

import pexpect
import pytest

UP = "\x1b[A"
LEFT = "\x1b[D"
CTRL_C = "\x03"
CTRL_D = "\x04"
# What a terminal does with text, and not the text.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A prompt on engines 0 and 1."""

    def __init__(self, cluster, targets="0,1"):
        self.prompt = f"[{targets}]: "
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "ipsteer", "--connect", str(cluster.connection_file), "repl", "-t", targets],
            encoding="utf-8",
            timeout=30,
            dimensions=(40, 200),
            env={**os.environ, "TERM": "xterm"},
        )

    def text_until(self, wanted):
        """What is shown up to and with `wanted`."""
        self.child.expect_exact(wanted)
        return CONTROL.sub("", self.child.before + self.child.after)

    def wait_prompt(self):
        """What is shown until the prompt stands there, ready for a cell."""
        # The editor draws the prompt again with each key: a new one follows the switch to bracketed paste.
        self.child.expect_exact("\x1b[?2004h")
        return CONTROL.sub("", self.child.before) + self.text_until(self.prompt)

    def run(self, cell):
        """Type a cell; what is shown until the next prompt."""
        self.child.send(cell + "\r")
        return self.wait_prompt()

    def leave(self):
        self.child.send(CTRL_D)
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus


@pytest.fixture
def terminal(cluster, rc):
    terminal = Terminal(cluster)
    terminal.wait_prompt()
    yield terminal
    terminal.child.close(force=True)


def test_cells_results_and_the_end(terminal, rc):
    terminal.run("x = 40")
    shown = terminal.run("x + 2")
    assert "[Out:0] 42\n" in shown
    assert "[Out:1] 42\n" in shown
    assert terminal.leave() == 0
    assert rc[0]["x"] == 40, "the engines keep everything"


def test_a_block_ends_with_an_empty_line(terminal):
    shown = terminal.run("for i in range(2):\r    print('line', i)\r")
    for rank in (0, 1):
        assert f"[stdout:{rank}] line 0\n[stdout:{rank}] line 1\n" in shown


def test_editing_and_history(terminal):
    terminal.run("y = 11")
    # Typed before the last digit.
    assert "[Out:0] 32\n" in terminal.run("y + 1" + LEFT + "2")
    assert "[Out:0] 32\n" in terminal.run(UP)


def test_output_comes_live_and_ctrl_c_interrupts(terminal):
    terminal.child.send("import time; print('before'); time.sleep(300)\r")
    for _ in range(2):
        terminal.child.expect(r"\[stdout:[01]\] before")
    terminal.child.send(CTRL_C)
    assert "KeyboardInterrupt" in terminal.wait_prompt()
    assert "[Out:0] 7\n" in terminal.run("3 + 4"), "the engines go on"


def test_an_error_shows_its_line_and_the_prompt_returns(terminal):
    shown = terminal.run("1 / 0")
    assert "ZeroDivisionError: division by zero" in shown
    assert "[Out:0] 9\n" in terminal.run("4 + 5")


def test_targets_change(terminal):
    assert "engine 7" in terminal.run("%targets 7")
    terminal.prompt = "[3]: "
    terminal.run("%targets 3")
    assert "[Out:3] 3\n" in terminal.run("import ipengine; ipengine.rank")


def test_a_terminal_that_goes_away_ends_it(cluster, rc):
    terminal = Terminal(cluster)
    terminal.wait_prompt()
    terminal.child.kill(signal.SIGHUP)
    terminal.child.expect(pexpect.EOF)
    terminal.child.close()
    assert rc[:].apply_sync(int) == [0] * 4
