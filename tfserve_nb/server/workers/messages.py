"""The messages between a worker and the core.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...errors import ServingError
from ...serving.backend import ModelSpec, ModelView
from ...serving.telemetry.records import RequestRecord, RequestTensors
from ...types import Tensors
from ..config_files import TlsFiles
from ..http.message import RequestHead
from ..settings import ServerSettings


class Hello(NamedTuple):
    """Core to worker, first: what it serves with."""

    settings: ServerSettings


class Catalog(NamedTuple):
    """Core to worker: what is served, whenever that changed. The core has the last word for each request."""

    models: Mapping[str, ModelView]


class Bundle(NamedTuple):
    """Worker to core: requests for the same signature, put together.

    Attributes:
        number: unique within the worker.
        spec: what the requests named.
        version: the version whose signature they were decoded by.
        signature: its name.
        row_counts: rows of each request, in order.
        deadline_s: the latest of their deadlines, on `perf_counter`'s clock, which processes of a machine share.
        inputs: name -> array of all rows.
    """

    number: int
    spec: ModelSpec
    version: int
    signature: str
    row_counts: tuple[int, ...]
    deadline_s: float
    inputs: Tensors


class Piece(NamedTuple):
    """The outcome of requests that ran together.

    Attributes:
        num_requests: how many, in order.
        outputs: name -> array of all their rows; None for an error.
        started_s: when their batch started.
        done_s: when it was done.
        error: why there are no outputs.
    """

    num_requests: int
    outputs: Tensors | None
    started_s: float
    done_s: float
    error: ServingError | None


class BundleAnswer(NamedTuple):
    """Core to worker: what became of a bundle, and the version that answered."""

    number: int
    version: int
    pieces: tuple[Piece, ...]


class Forward(NamedTuple):
    """Worker to core: a whole request that the core shall answer."""

    number: int
    head: RequestHead
    body: bytes
    peer: tuple[str, bool]
    """Address, and whether it came over TLS."""


class Forwarded(NamedTuple):
    """Core to worker: the response's bytes; None to cut the client off."""

    number: int
    data: bytes | None
    keeps_alive: bool


class GiveUp(NamedTuple):
    """Worker to core: the client of a forwarded request left."""

    number: int


class GiveUpBundle(NamedTuple):
    """Worker to core: all clients of a bundle have left; it gets no response."""

    number: int


class Records(NamedTuple):
    """Worker to core: finished requests, without their tensors."""

    records: tuple[RequestRecord, ...]


class ObservedRequest(NamedTuple):
    """Worker to core: a finished request with its tensors, while an observer wants them."""

    record: RequestRecord
    tensors: RequestTensors


class LogLine(NamedTuple):
    """Worker to core: a line for the server's log."""

    level: int
    text: str


class Renew(NamedTuple):
    """Core to worker: other certificates for new connections; None for those that did not change."""

    rest: TlsFiles | None
    grpc: TlsFiles | None


class Ready(NamedTuple):
    """Worker to core: it answers requests now."""


class Drain(NamedTuple):
    """Core to worker: take no new requests, finish those that run, and end."""


Message = (
    Hello
    | Catalog
    | Bundle
    | BundleAnswer
    | Forward
    | Forwarded
    | GiveUp
    | GiveUpBundle
    | Records
    | ObservedRequest
    | LogLine
    | Ready
    | Renew
    | Drain
)
