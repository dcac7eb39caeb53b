"""What a forked child finds in place of its parent's connection."""

from __future__ import annotations

from typing import Any

from ipsteer import _native


class ForkedSession:
    """Takes the place of a session in a forked child, where the connection must not be touched."""

    def __init__(self, session: Any) -> None:
        # kept so that the child never runs the destructor of a connection that its parent still uses
        self._kept = session

    def close(self) -> None:
        """Nothing to close: the connection is the parent's."""

    def __getattr__(self, name: str) -> Any:
        raise _native.SessionClosed(
            "this process was forked; the connection stays with its parent: make a new Client"
        )
