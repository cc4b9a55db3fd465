"""One version: what it holds while it is loaded, and the handle that pins it.

Thread: a `VersionRecord` is guarded by its manager's lock; a `VersionHandle` belongs to one request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ...errors import InvalidRequest, NotAvailable, ServingError
from ...types import SignatureDefs, SignatureSpec, Tensors, VersionState, VersionStatus
from ..backend import Assignment, Outcome, Ticket, VersionView
from ..batching.options import BatchingOptions
from ..batching.queue import Task
from ..batching.runner import Lane, Runner
from .inputs import Check
from .lanes import Lanes
from .servable import Servable
from .source import VersionSource


class RequestCopier(Protocol):
    """Copies submitted requests for another version; `shadow.Copier` does."""

    def copying(self, signature: str, inputs: Tensors, on_done: Callable[[Outcome], None]) -> Callable[[Outcome], None]:
        """What to call with the outcome instead of `on_done`."""


class VersionRecord:
    """One version and what it holds while it is loaded. Guarded by the manager's lock."""

    __slots__ = (
        "busy_until_s",
        "checks",
        "detail",
        "done",
        "error",
        "lanes",
        "live_lanes",
        "num_handles",
        "num_tries",
        "retry_at_s",
        "runner",
        "servable",
        "source",
        "state",
        "total",
        "unload_by_s",
        "view",
        "weights_bytes",
    )

    def __init__(self, source: VersionSource) -> None:
        self.source = source
        self.state = VersionState.START
        self.servable: Servable | None = None
        self.runner: Runner | None = None
        self.lanes: Lanes | None = None
        self.live_lanes: Mapping[str, Lane] = {}
        self.checks: dict[str, Check] = {}
        self.view: VersionView | None = None
        self.num_handles = 0
        self.error: ServingError | None = None
        self.detail = "loading"
        self.done, self.total = 0, 1
        self.unload_by_s = 0.0
        self.busy_until_s = 0.0
        self.weights_bytes = 0
        self.num_tries = 0
        self.retry_at_s: float | None = None

    def status(self, version: int) -> VersionStatus:
        """The snapshot for others."""
        ended_by = self.error if self.state is VersionState.END else None
        return VersionStatus(
            version=version,
            state=self.state,
            error_code="OK" if ended_by is None else ended_by.code,
            error_message="" if ended_by is None else ended_by.message,
            detail=self.detail if self.state in (VersionState.START, VersionState.LOADING) else "",
            deployed_at=self.source.deployed_at,
            weights_bytes=0 if self.servable is None else self.weights_bytes,
            done=self.done,
            total=self.total,
        )


def view_of(
    signatures: Mapping[str, SignatureSpec], batchable: Mapping[str, bool], options: BatchingOptions
) -> VersionView:
    """What servers in other processes have to know of a version."""
    return VersionView(
        dict(signatures), dict(batchable), options.max_batch_size, options.max_enqueued_rows, options.checks_shapes
    )


class VersionHandle:
    """A `Handle`: one pinned version.

    Args:
        version: its number.
        record: what is loaded.
        release: called once, when the handle is released.

    Attributes:
        assignment: how the request came here, while traffic is split or compared.
        copier: copies what is submitted for another version, or None.
        wants_tensors: whether an observer wants the request's tensors.
    """

    __slots__ = (
        "_record",
        "_release",
        "assignment",
        "copier",
        "signature_defs",
        "signatures",
        "version",
        "wants_tensors",
    )

    def __init__(self, version: int, record: VersionRecord, release: Callable[[VersionRecord], None]) -> None:
        self.version = version
        self.assignment: Assignment | None = None
        self.copier: RequestCopier | None = None
        self.wants_tensors = False
        servable = record.servable
        self.signatures: Mapping[str, SignatureSpec] = {} if servable is None else servable.signatures
        self.signature_defs = SignatureDefs(b"", {}) if servable is None else servable.signature_defs
        self._record = record
        self._release: Callable[[VersionRecord], None] | None = release

    def submit(
        self,
        signature: str,
        inputs: Tensors,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
        wakes: bool = True,
    ) -> Ticket:
        """Check the inputs and queue them; see `Handle.submit`."""
        record = self._record
        if record.runner is None:
            raise NotAvailable(f"version {self.version} was unloaded")
        # An unload waits for the latest deadline of those who hold the version; only a later one matters.
        if deadline_s > record.busy_until_s:  # noqa: PLR1730 - a call of max costs three times as much
            record.busy_until_s = deadline_s
        num_rows = record.checks[signature](inputs)
        if self.copier is not None:
            on_done = self.copier.copying(signature, inputs, on_done)
        return record.runner.submit(
            record.live_lanes[signature],
            inputs,
            1 if num_rows is None else num_rows,
            deadline_s=deadline_s,
            on_done=on_done,
            is_alone=num_rows is None,
            wakes=wakes,
        )

    def submit_copy(
        self, signature: str, inputs: Tensors, *, deadline_s: float, on_done: Callable[[Outcome], None]
    ) -> Task:
        """Queue a shadow copy, to be run when no request wants the device; as `submit`."""
        record = self._record
        if record.runner is None or record.lanes is None:
            raise NotAvailable(f"version {self.version} was unloaded")
        if signature not in self.signatures:
            raise InvalidRequest(f'Serving signature name: "{signature}" not found in signature def')
        num_rows = record.checks[signature](inputs)
        return record.runner.submit(
            record.lanes.background(signature),
            inputs,
            1 if num_rows is None else num_rows,
            deadline_s=deadline_s,
            on_done=on_done,
            is_alone=num_rows is None,
        )

    def release(self) -> None:
        """Unpin the version; further calls do nothing."""
        release, self._release = self._release, None
        if release is not None:
            release(self._record)
