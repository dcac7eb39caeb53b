"""One submitted instruction as the client knows it: its outcomes, values and output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ipsteer import _work
from ipsteer.display import ExecuteReply
from ipsteer.error import RemoteError
from ipsteer.restore import restore_json

if TYPE_CHECKING:
    from ipsteer import _native
    from ipsteer.client import Client

# Smaller values are bounded by the number of records alone.
COUNTED_BYTES = 1024

METADATA_KEYS = (
    "msg_id",
    "submitted",
    "started",
    "completed",
    "received",
    "engine_uuid",
    "engine_id",
    "status",
    "execute_input",
    "execute_result",
    "error",
    "stdout",
    "stderr",
    "outputs",
    "label",
)


class Metadata(dict):
    """What is known about one task; attribute access works on keys."""

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(key) from None


class Record:
    """One instruction, with one slot per target (one slot in all when the gateway chooses the engine)."""

    __slots__ = (
        "__weakref__",
        "_outcomes",
        "_outputs",
        "_submitted",
        "_values",
        "client",
        "code",
        "counter",
        "kind",
        "label",
        "name",
        "nbytes",
        "one_of",
        "size",
        "targets",
    )

    def __init__(
        self,
        client: Client,
        counter: int,
        kind: str,
        targets: tuple[int, ...],
        name: str,
        one_of: bool,
        label: str | None,
    ) -> None:
        self.client = client
        self.counter = counter
        self.kind = kind
        self.targets = targets
        self.name = name
        self.one_of = one_of
        self.label = label
        self.code: str | None = None
        self.size = 1 if one_of else len(targets)
        self.nbytes = 0
        self._outcomes: list[_native.Outcome] | None = None
        self._outputs: list[_native.Output] | None = None
        self._submitted = 0.0
        self._values: dict[int, tuple[bool, Any]] = {}

    # --- state ---

    def finished(self) -> bool:
        """Whether every target has answered."""
        return self._outcomes is not None or self.client._session.finished(self.counter)

    def outcomes(self) -> Sequence[_native.Outcome | None]:
        """One entry per slot, None while it is pending."""
        if self._outcomes is not None:
            return self._outcomes
        outcomes = self.client._session.outcomes(self.counter)
        if all(outcome is not None for outcome in outcomes):
            self._outcomes = outcomes  # type: ignore[assignment]
        return outcomes

    def running(self) -> list[int]:
        """Engines that have not ended it."""
        return [] if self._outcomes is not None else self.client._session.running(self.counter)

    def keep(self) -> None:
        """Take over everything the session holds, so that it may forget this instruction."""
        self.outcomes()
        self._outputs = self.outputs()
        self._submitted = self.submitted()

    # --- results ---

    def slot(self, index: int) -> tuple[bool, Any]:
        """(True, value) or (False, exception) of a finished slot; decoded once."""
        known = self._values.get(index)
        if known is None:
            outcome = self.outcomes()[index]
            assert outcome is not None, "slot asked for before it finished"
            known = self._values[index] = self._decode(outcome, index)
        return known

    def _decode(self, outcome: _native.Outcome, index: int) -> tuple[bool, Any]:
        if outcome.status != "ok":
            return False, restore_json(outcome.meta, outcome.status, self.kind, outcome.engine)
        if outcome.kind == "none":
            return True, None
        buffers = outcome.buffers()
        self._count(buffers)
        try:
            if outcome.kind == "execute_reply":
                content = json.loads(bytes(buffers[0]))
                return True, ExecuteReply(self.msg_id(index), content, self, index)
            return True, _work.decode(outcome.kind, outcome.meta, buffers)
        except Exception as cause:
            return False, self._undecodable(cause, outcome.engine)

    def _count(self, buffers: Sequence[memoryview]) -> None:
        size = sum([buffer.nbytes for buffer in buffers])
        if size >= COUNTED_BYTES:
            self.nbytes += size
            self.client._ledger.decoded(self, size)

    def _undecodable(self, cause: Exception, engine: int) -> RemoteError:
        text = f"its result could not be read here: {cause}"
        error = RemoteError(
            type(cause).__name__, text, "", {"engine_id": engine, "host": "", "method": self.kind}
        )
        error.__cause__ = cause
        return error

    # --- names and times ---

    def msg_id(self, index: int) -> str:
        """The id by which `Client.get_result` finds one slot again."""
        return message_id(self.client, self.counter, None if self.one_of else self.targets[index])

    def msg_ids(self) -> list[str]:
        """The ids of all slots."""
        return [self.msg_id(index) for index in range(self.size)]

    def submitted(self) -> float:
        """Unix time of the submit."""
        return self._submitted or self.client._session.submitted(self.counter)

    def engine(self, index: int) -> int | None:
        """The engine of a slot; None while the gateway has not said which it chose."""
        if not self.one_of:
            return self.targets[index]
        outcome = self.outcomes()[index]
        return None if outcome is None else outcome.engine

    def outputs(self, start: int = 0) -> list[_native.Output]:
        """Output in the order of arrival, from index `start`."""
        if self._outputs is not None:
            return self._outputs[start:]
        return self.client._session.outputs(self.counter, start)

    # --- metadata ---

    def metadata(self, index: int) -> Metadata:
        """Times, status and output of one slot, as far as known."""
        outcome = self.outcomes()[index]
        engine = self.engine(index)
        made = Metadata.fromkeys(METADATA_KEYS)
        made.update(
            msg_id=self.msg_id(index),
            submitted=_time(self.submitted()),
            engine_id=engine,
            engine_uuid=None if engine is None else f"{self.client._info['cluster']}-{engine}",
            execute_input=self.code,
            label=self.label,
        )
        if outcome is not None:
            made.update(
                started=_time(outcome.started),
                completed=_time(outcome.completed),
                received=_time(outcome.received),
                status="ok" if outcome.status == "ok" else "error",
            )
            if outcome.status != "ok":
                made["error"] = self.slot(index)[1]
        made.update(self._output_of(engine))
        if outcome is not None and made["execute_result"] is None and outcome.kind == "execute_reply":
            reply = self.slot(index)[1]
            if isinstance(reply, ExecuteReply) and reply.data:
                made["execute_result"] = {
                    "data": reply.data,
                    "metadata": reply.mime_metadata,
                    "execution_count": reply.execution_count,
                }
        return made

    def _output_of(self, engine: int | None) -> dict[str, Any]:
        """What one engine printed and displayed."""
        text = {"stdout": [], "stderr": []}
        displays: list[dict[str, Any]] = []
        result = None
        for output in self.outputs():
            if not self.one_of and output.engine != engine:
                continue
            if output.kind in text:
                text[output.kind].append(output.text)
            elif output.kind == "display_data":
                displays.append(json.loads(output.text))
            elif output.kind == "execute_result":
                result = json.loads(output.text)
            elif output.kind == "clear_output":
                text, displays = {"stdout": [], "stderr": []}, []
        streams = {name: "".join(parts) for name, parts in text.items()}
        return {**streams, "outputs": displays, "execute_result": result}


def message_id(client: Client, counter: int, engine: int | None) -> str:
    """Text form of (client, counter, engine)."""
    stem = f"{client._session_id}_{counter}"
    return stem if engine is None else f"{stem}_{engine}"


def _time(stamp: float) -> datetime | None:
    return datetime.fromtimestamp(stamp, timezone.utc) if stamp else None
