"""`Client`: one connection to a cluster, and the views made from it."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ipsteer import _native, _work
from ipsteer.asyncresult import AsyncResult
from ipsteer.callbacks import Callbacks
from ipsteer.directview import DirectView
from ipsteer.display import ipython
from ipsteer.error import EngineError, NoEnginesRegistered, PythonVersionError
from ipsteer.forked import ForkedSession
from ipsteer.lbview import LoadBalancedView
from ipsteer.ledger import Ledger, SlotMapping
from ipsteer.record import Record
from ipsteer.targets import resolve, select

if TYPE_CHECKING:
    from ipsteer.cluster import Cluster

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """A connection to a running cluster.

    Parameters
    ----------
    connection_info : str or path, optional
        A connection file. Without it, and without `url` and `cluster`, the newest cluster that answers is
        taken.
    url : str, optional
        Address of a gateway, instead of the one in the file.
    cluster : str, optional
        Name of a cluster.
    timeout : float
        Seconds to wait for an answer.
    cluster_id : str, optional
        Another name for `cluster`.
    username : str, optional
        How other users of the cluster see this client.

    Raises
    ------
    ConnectError
        No cluster answered, or several did and none was named.
    """

    def __init__(
        self,
        connection_info: str | os.PathLike[str] | None = None,
        *,
        url: str | None = None,
        cluster: str | None = None,
        timeout: float = 10,
        cluster_id: str | None = None,
        username: str | None = None,
    ) -> None:
        self.block = False
        self.cluster: Cluster | None = None
        self._callbacks = Callbacks(self)
        self._ledger = Ledger(self)
        file = None if connection_info is None else os.fspath(connection_info)
        name = cluster_id if cluster is None else cluster
        self._session = _native.connect(file=file, url=url, cluster=name, timeout=timeout, username=username)
        self._session_id: str = self._session.client_id
        self._refresh()
        _clients.add(self)
        self._register_magics()

    def _register_magics(self) -> None:
        shell = ipython()
        if shell is not None and "px" not in shell.magics_manager.magics["line"]:
            with contextlib.suppress(NoEnginesRegistered):
                self.activate()

    def _refresh(self) -> dict[str, Any]:
        self._info = self._session.info
        self._ids = tuple(sorted(engine["id"] for engine in self._info["engines"]))
        self._pythons = {engine["id"]: engine["python"] for engine in self._info["engines"]}
        # the usual case in one look: the engines of a world run one Python
        self._same_python = all(list(python[:2]) == _work.PYTHON for python in self._pythons.values())
        return self._info

    # --- engines and views ---

    @property
    def ids(self) -> list[int]:
        """Engine ids, which are the ranks in the MPI world."""
        self._refresh()
        return list(self._ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[DirectView]:
        for engine in self.ids:
            yield self.direct_view(engine)

    def __getitem__(self, key: Any) -> DirectView:
        if not isinstance(key, int | slice | tuple | list | range) and not hasattr(key, "__index__"):
            raise TypeError(f"key by int/slice/iterable of ints only, not {type(key)}")
        return self.direct_view(key)

    def direct_view(self, targets: Any = "all", **kwargs: Any) -> DirectView:
        """A `DirectView` of `targets`; ``'all'`` is evaluated at each call.

        Raises
        ------
        IndexError
            An engine that the cluster does not have.
        NoEnginesRegistered
            The cluster has none.
        """
        ids = self.ids
        if not ids:
            raise NoEnginesRegistered(f"cluster {self._info['cluster']} has no engines")
        if targets is not None and not isinstance(targets, str):
            targets = select(targets, ids)
        else:
            resolve(targets, ids)
        return DirectView(self, targets, **kwargs)

    def load_balanced_view(self, targets: Any = None, **kwargs: Any) -> LoadBalancedView:
        """A `LoadBalancedView` of all engines, or of `targets`."""
        ids = self.ids
        if targets is not None:
            chosen = select(targets, ids)
            targets = [chosen] if isinstance(chosen, int) else chosen
        return LoadBalancedView(self, targets, **kwargs)

    def activate(self, targets: Any = "all", suffix: str = "") -> DirectView:
        """Bind the ``%px`` magics to a blocking view of `targets` and return that view."""
        view = self.direct_view(targets, block=True)
        view.activate(suffix)
        return view

    def __repr__(self) -> str:
        return f"<Client {self._info['cluster']}: {len(self._ids)} engines>"

    def wait_for_engines(
        self,
        n: int | None = None,
        *,
        timeout: float = -1,
        block: bool = True,
        interactive: bool | None = None,
        widget: Any = None,
    ) -> None:
        """Return at once: a cluster has all of its engines when it can be connected to.

        Raises
        ------
        EngineError
            It has fewer than `n`, and an MPI world cannot grow.
        """
        if n is not None and n > len(self):
            raise EngineError(
                f"cluster {self._info['cluster']} has {len(self)} engines, and an MPI world cannot grow"
            )

    # --- submitting ---

    def _submit(
        self,
        kind: Any,
        targets: tuple[int, ...],
        meta: str,
        blobs: Sequence[Any],
        name: str,
        each: Sequence[int] | None,
        one_of: bool,
        label: str | None,
    ) -> Record:
        counter = self._session.submit(kind, targets, meta, blobs, each, one_of, label)
        record = Record(self, counter, kind, targets, name, one_of, label)
        self._ledger.add(record)
        return record

    def _refuse_code(self, engines: Iterable[int], name: str) -> None:
        """Raise if code by value would reach an engine of another Python minor (it would crash there)."""
        if self._same_python:
            return
        for engine in engines:
            python = self._pythons.get(engine)
            if python is not None and list(python[:2]) != _work.PYTHON:
                raise PythonVersionError(_work.code_refusal(name, engine, python))

    def _as_finished(self, records: Sequence[Record], timeout: float | None = None) -> Iterator[Record]:
        """Records as they finish; ends early when nothing finishes for `timeout` seconds."""
        finished: queue.SimpleQueue[Record] = queue.SimpleQueue()
        for record in records:
            pending = [record.counter] if record._outcomes is None else []
            self._callbacks.when_finished(pending, lambda record=record: finished.put(record), quick=True)
        for _ in records:
            try:
                yield finished.get(timeout=timeout)
            except queue.Empty:
                return

    # --- what was submitted ---

    @property
    def history(self) -> list[str]:
        """Message ids of everything submitted in this session, in order."""
        return self._ledger.names(self._ledger.keys)

    @property
    def outstanding(self) -> set[str]:
        """Message ids that have not ended."""
        return self._ledger.outstanding()

    @property
    def results(self) -> SlotMapping:
        """Results still held by message id: the newest 1024 instructions, 64 MiB of values at most."""
        return SlotMapping(self._ledger, lambda record, index: record.slot(index)[1], finished_only=True)

    @property
    def metadata(self) -> SlotMapping:
        """Times, status and output by message id."""
        return SlotMapping(self._ledger, lambda record, index: record.metadata(index), finished_only=False)

    def get_result(
        self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True
    ) -> Any:
        """The result of what this session submitted.

        Parameters
        ----------
        indices_or_msg_ids : int, str, AsyncResult or list of them, optional
            Index in `history` or message id; the last one by default.
        block : bool, optional
            Wait for it and return the result's value.
        owner : bool
            Accepted for ipyparallel's sake.

        Raises
        ------
        KeyError
            An unknown id, or a result that is no longer held.
        """
        wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        ar = self._result_of(wanted)
        return ar.get() if (self.block if block is None else block) else ar

    def _result_of(self, job: Any) -> AsyncResult:
        if isinstance(job, AsyncResult):
            return job
        if isinstance(job, int):
            job = self.history[job]
        if isinstance(job, list | tuple | set):
            parts = [self._result_of(each) for each in job]
            if not parts:
                raise ValueError("no results named")
            slots = [slot for part in parts for slot in part._children]
            records = list(dict.fromkeys(record for record, _ in slots))
            return AsyncResult(self, records, parts[0]._fname, slots=slots)
        if not isinstance(job, str):
            raise TypeError(f"indices must be str or int, not {job!r}")
        record, index = self._ledger.find(job)
        if index is None:
            return AsyncResult(self, [record], record.name, record.one_of)
        return AsyncResult(self, [record], record.name, True, slots=[(record, index)])

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for `jobs` (indices of `history`, message ids, results), by default for all outstanding.

        Returns
        -------
        bool
            Whether they all ended.
        """
        if jobs is None:
            jobs = sorted(self.outstanding)
        if isinstance(jobs, list | tuple | set) and not jobs:
            return True
        return self._result_of(jobs).wait(timeout)

    # --- control ---

    def queue_status(self, targets: Any = "all", verbose: bool = False, timeout: float | None = 10) -> dict:
        """How busy the engines are; answered while they compute.

        Returns
        -------
        dict
            Per engine id ``queue`` (waiting), ``completed`` and ``tasks`` (running); with `verbose` also
            ``state``, ``since``, ``instruction`` and ``detail``. ``'unassigned'`` is 0: the gateway assigns
            at once.
        """
        wanted, _ = resolve(targets, self.ids)
        status: dict[Any, Any] = {}
        for engine in self._session.status(timeout)["engines"]:
            if engine["id"] not in wanted:
                continue
            row = {
                "queue": engine["queue"],
                "completed": engine["completed"],
                "tasks": int(engine["state"] == "busy"),
            }
            if verbose:
                row |= {key: engine[key] for key in ("state", "since", "instruction", "detail")}
            status[engine["id"]] = row
        return {**status, "unassigned": 0}

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Empty the namespaces of `targets` (all by default)."""
        return self.direct_view("all" if targets is None else targets).clear(
            block=self.block if block is None else block
        )

    def interrupt(self, targets: Any = "all", timeout: float | None = 10) -> list[dict[str, Any]]:
        """Interrupt whatever runs on `targets`.

        Returns
        -------
        list of dict
            Per engine: ``engine``, ``state`` (``interrupted``, ``pending``, ``done``, ``queued`` or
            ``idle``), ``detail``.
        """
        return self._session.interrupt(None, resolve(targets, self.ids)[0], timeout)

    def shutdown(
        self,
        targets: Any = "all",
        restart: bool = False,
        hub: bool = False,
        block: bool | None = None,
        timeout: float | None = 60,
    ) -> None:
        """Stop the cluster: all engines and the gateway.

        Parameters
        ----------
        targets : optional
            Must be all engines, since an MPI world ends as one.
        restart : bool
            Not possible here.
        hub : bool
            Accepted for ipyparallel's sake; the gateway always ends with its engines.
        block : bool, optional
            False does not wait for the end.
        timeout : float, optional
            Seconds to wait.
        """
        if restart:
            raise NotImplementedError("a world cannot be restarted from a client: start a new cluster")
        if targets is not None and set(resolve(targets, self.ids)[0]) != set(self._ids):
            raise ValueError("an MPI world ends as one: shutdown takes all engines or none")
        if block is False:
            with contextlib.suppress(TimeoutError):
                self._session.shutdown(0.0)
        else:
            self._session.shutdown(timeout)

    # --- lifetime ---

    def close(self, linger: float | None = None) -> None:
        """Close the connection; the cluster and what runs there go on."""
        self._session.close()
        self._callbacks.join()
        _clients.discard(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        session = self.__dict__.get("_session")
        if session is not None:
            with contextlib.suppress(Exception):
                session.close()


_left_to_parent: list[Any] = []


def _after_fork() -> None:
    for client in list(_clients):
        forked = ForkedSession(client._session)
        _left_to_parent.append(forked)
        client._session = forked
        client._callbacks = Callbacks(client)


def _close_all() -> None:
    for client in list(_clients):
        with contextlib.suppress(Exception):
            client.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)
