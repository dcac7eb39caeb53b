"""The Rust core of the client (PyO3). One `Session` is one connection; a thread of its own, without the GIL, does all I/O."""

from collections.abc import Sequence
from typing import Any, Literal

Buffer = bytes | bytearray | memoryview

protocol_version: int

class ConnectError(OSError):
    """No cluster answered; the message says which file or address was tried and what to do."""

class SessionClosed(OSError):
    """The session was closed, or its process forked."""

class Session:
    """One connection to one gateway. Thread-safe; every waiting call releases the GIL and checks signals."""

    client_id: str  # 32 hex digits
    @property
    def info(self) -> dict[str, Any]:
        """Facts of the Welcome, as last heard.

        {"cluster": str, "file": str | None, "url": str,
         "engines": [{"id": int, "host": str, "pid": int, "python": [3, 11, 7], "mpi": str}, ...],
         "state": "running" | "ended", "end_reason": str | None}
        """
    def submit(
        self,
        kind: Literal["execute", "apply", "push", "pull", "clear"],
        targets: Sequence[int],
        meta: str,
        blobs: Sequence[Buffer],
        each: Sequence[int] | None = None,
        one_of: bool = False,
        label: str | None = None,
    ) -> int:
        """Queue one instruction; return its counter at once (never blocks on the network).

        `meta` is the JSON of the work's header (see `ipsteer/_work.py`). `blobs` are its binary parts, shared by all
        targets; with `each`, `each[i]` consecutive blobs belong to `targets[i]` alone. `one_of`: the gateway picks the
        least-loaded of `targets`. Raises ValueError for an unknown or empty target set, SessionClosed.
        """
    def wait(self, counters: Sequence[int], timeout: float | None, first_error: bool = False) -> bool:
        """Wait until all are finished on all targets (or, `first_error`, one outcome is an error). False on timeout."""
    def wait_change(self, counter: int, seen: int, timeout: float | None) -> int:
        """Wait until more than `seen` things (outputs + outcomes + finish) are known of `counter`; return how many."""
    def finished(self, counter: int) -> bool: ...
    def outcomes(self, counter: int) -> list[Outcome | None]:
        """One entry per target, in target order (a `one_of` instruction has one entry); None while pending."""
    def running(self, counter: int) -> list[int]:
        """Engine ids that have not ended this instruction."""
    def outputs(self, counter: int, start: int = 0) -> list[Output]:
        """What was printed and displayed by it, from index `start`, in the order of arrival."""
    def submitted(self, counter: int) -> float:
        """Unix time of the submit."""
    def next_finished(self, timeout: float | None) -> list[int]:
        """Counters newly finished since the last call (for callbacks); empty on timeout."""
    def forget(self, counters: Sequence[int]) -> None:
        """Drop results held for them (they must be finished)."""
    def interrupt(
        self, counters: Sequence[int] | None, targets: Sequence[int] | None, timeout: float | None
    ) -> list[dict[str, Any]]:
        """Interrupt instructions, or whatever runs on `targets`. One report per engine:
        {"engine": int, "state": "interrupted" | "pending" | "done" | "queued" | "idle", "detail": str}."""
    def status(self, timeout: float | None) -> dict[str, Any]:
        """{"cluster": …, "engines": [{"id", "state": "idle"|"busy"|"starting"|"lost", "since": float, "instruction": str|None,
        "queue": int, "completed": int, "detail": str|None}], "clients": [...]}, answered while engines are busy."""
    def shutdown(self, timeout: float | None) -> None:
        """Stop the world and wait until the gateway reports its end."""
    def close(self) -> None: ...

class Outcome:
    """What one engine answered."""

    engine: int
    status: Literal["ok", "error", "interrupted", "aborted", "lost"]
    kind: str  # ok: "none" | "pickle" | "json" | "text" | "bytes" | "ndarray" | "mime" | "execute_reply"
    meta: str  # ok: JSON of the kind's header; otherwise JSON of the error
    started: float  # Unix time on the engine, 0.0 if it never started
    completed: float
    received: float  # Unix time on the client
    def buffers(self) -> list[memoryview]:
        """The value's binary parts: writable, owned, each handed out once (later calls give copies)."""

class Output:
    """One piece of output. kind "stdout" | "stderr": `text`. kind "display_data" | "execute_result" | "error" |
    "clear_output" | "update_display_data": `text` is the JSON of the Jupyter message's content."""

    engine: int
    kind: str
    text: str
    time: float

def connect(
    file: str | None = None,
    url: str | None = None,
    cluster: str | None = None,
    timeout: float = 10.0,
    username: str | None = None,
) -> Session:
    """Connect: to the access file given, or to the newest cluster that answers (an error lists them when several do)."""

def clusters() -> list[dict[str, Any]]:
    """The connection files found: {"cluster", "file", "size", "host", "alive": bool, "started": float, "end": str | None}."""

def main(argv: Sequence[str]) -> int:
    """The `ipsteer` command: the same Rust code as the cargo binary. Returns the exit code."""
