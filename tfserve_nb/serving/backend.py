"""`InferenceBackend`: the interface of the core for servers and `Deployment.predict`.

The core may live in the same process (`core.ServingCore`) or in another one (an HTTP worker's `LinkBackend`). A request
acquires a `Handle`, which pins one version (it is not unloaded while the handle is held), makes its tensors fit the
handle's signature, submits them, and releases the handle.

Thread: any thread may call; `on_done` is called once, on the model runner's thread or on the submitting one, and must
neither block nor raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Protocol, TypeAlias

from ..errors import ServingError
from ..types import SignatureDefs, SignatureSpec, Tensors, VersionStatus
from .telemetry.records import RequestRecord, RequestTensors
from .traffic import DEFAULT_KEY_HEADER, choose, choose_by_key


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model a request is for, as TensorFlow Serving's `ModelSpec`.

    Attributes:
        name: the model's name.
        version: a version number, or None.
        label: a version label, or None; never together with `version`. With neither, the traffic split decides.
    """

    name: str
    version: int | None = None
    label: str | None = None


MAX_KEY_CHARS = 256
"""A longer key is kept as its hash: records of many requests hold their keys."""

Key: TypeAlias = str | Callable[[str], str | None]
"""What keeps a client with its version: the key itself, or a function that returns the value of a header, which is only
called for a model whose traffic is split, or that is compared or shadowed."""


class Assignment(NamedTuple):
    """How a request came to its version, while traffic is split or compared.

    Attributes:
        key: its client's key, or "".
        arm: the version's name in the running comparison, `a` or `b`; or "".
        is_assigned: whether the traffic split, and not the request, chose the version.
    """

    key: str = ""
    arm: str = ""
    is_assigned: bool = False


class Answer(NamedTuple):
    """The outputs of one request. A tuple, because a frozen dataclass costs a microsecond more to make.

    Attributes:
        outputs: name -> array; row i answers input row i; read-only.
        started_s: `perf_counter` when the request's first batch started.
        done_s: `perf_counter` when its last batch was done.
    """

    outputs: Tensors
    started_s: float
    done_s: float


Outcome: TypeAlias = Answer | ServingError
"""What `on_done` gets: the outputs, or the error."""


class Ticket(Protocol):
    """A submitted request, as its caller holds it."""

    def cancel(self) -> None:
        """Give up: if the request is not done yet, `on_done` gets `Cancelled` and its rows are not run."""


class Handle(Protocol):
    """A pinned version; release it exactly once, after the outcome."""

    @property
    def version(self) -> int:
        """The version's number."""

    @property
    def signatures(self) -> Mapping[str, SignatureSpec]:
        """The signatures of the version by name."""

    @property
    def signature_defs(self) -> SignatureDefs:
        """The signatures as the model's file has them."""

    @property
    def assignment(self) -> Assignment | None:
        """How the request came here; None while all traffic goes to one version that nothing is compared with."""

    @property
    def wants_tensors(self) -> bool:
        """Whether `InferenceBackend.record` is to get the request's tensors: an observer wants them."""

    def shares_runs(self, signature: str) -> bool:
        """Whether rows of a signature may run together; if not, nothing may put requests together or cut one."""

    def submit(
        self,
        signature: str,
        inputs: Tensors,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
        wakes: bool = True,
    ) -> Ticket:
        """Put a request into the batch queue of one signature.

        Args:
            signature: a key of `signatures`.
            inputs: every input of the signature: name -> array of exactly the spec's numpy dtype, shape `(b, ...)`
                with the same b for all inputs.
            deadline_s: `perf_counter` time after which the request is not started any more.
            on_done: called once with the outcome.
            wakes: False when more is about to be submitted: nothing need start before `InferenceBackend.wake`.

        Raises:
            InvalidRequest: if the inputs do not fit the signature; `on_done` is not called then.
            QueueFull: if the queue has no room; `on_done` is not called then.
        """

    def release(self) -> None:
        """Let the version be unloaded once no other request holds it; further calls do nothing."""


@dataclass(frozen=True, slots=True)
class VersionView:
    """What a server in another process has to know of a loaded version to make requests fit it.

    Attributes:
        signatures: by name.
        batchable: signature -> whether rows of several requests may share a run.
        max_batch_size: most rows of one run.
        max_enqueued_rows: rows that may wait.
        checks_shapes: whether shapes are checked before a request is queued.
    """

    signatures: Mapping[str, SignatureSpec]
    batchable: Mapping[str, bool]
    max_batch_size: int
    max_enqueued_rows: int
    checks_shapes: bool


@dataclass(frozen=True, slots=True)
class ModelView:
    """What a server in another process has to know of a model.

    Attributes:
        traffic: version -> percent of the requests that name no version.
        labels: label -> version.
        versions: the AVAILABLE ones.
        salt: decides together with a key which client gets which version.
        key_header: the header whose value is the key.
        arms: version -> its name in the running comparison.
        wants_tensors: whether finished requests are wanted with their tensors.
    """

    traffic: Mapping[int, float]
    labels: Mapping[str, int]
    versions: Mapping[int, VersionView]
    salt: str = ""
    key_header: str = DEFAULT_KEY_HEADER
    arms: Mapping[int, str] = field(default_factory=dict)
    wants_tensors: bool = False

    def version_for(self, spec: ModelSpec, draw: Callable[[], float], key: str = "") -> int | None:
        """The version that a request is for, if it can answer; `draw` gives uniform numbers on [0, 1)."""
        version = spec.version
        if spec.label is not None:
            version = self.labels.get(spec.label)
        elif version is None and self.traffic:
            if len(self.traffic) == 1:
                version = next(iter(self.traffic))
            else:
                version = choose_by_key(self.traffic, self.salt, key) if key else choose(self.traffic, draw())
        return version if version in self.versions else None

    def key_of(self, key: Key | None) -> str:
        """A request's key, or "" when it has none or the traffic has no use for one."""
        if len(self.traffic) < 2 and not self.arms:
            return ""
        return found_key(key, self.key_header)


def found_key(key: Key | None, header: str) -> str:
    """The key that a request carries, or "".

    Args:
        key: the key, or what finds it.
        header: the name of the header (gRPC: metadata) that it stands in.
    """
    value = key if key is None or isinstance(key, str) else _from_header(key(header) or "")
    if value is None or len(value) <= MAX_KEY_CHARS:
        return value or ""
    return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _from_header(value: str) -> str:
    """The inverse of `as_header`; other values stay as they are."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        return value


def as_header(key: str) -> str:
    """A key as the value of a header: UTF-8 bytes, which HTTP's libraries read and write as latin-1."""
    return key.encode().decode("latin-1")


def assignment_of(
    spec: ModelSpec, version: int, key: str, traffic: Mapping[int, float], arms: Mapping[int, str]
) -> Assignment | None:
    """How a request came to its version; None while traffic is neither split nor compared.

    Args:
        spec: what it named.
        version: the version that answers.
        key: its client's key, or "".
        traffic: version -> percent.
        arms: version -> its name in the running comparison.
    """
    if len(traffic) < 2 and not arms:
        return None
    # Also when one arm gets everything: its requests are what an experiment watches then.
    return Assignment(key, arms.get(version, ""), spec.version is None and spec.label is None)


class InferenceBackend(Protocol):
    """Where servers send requests: the core, in this process or in another one.

    For each request: `acquire`, `Handle.submit`, `Handle.release` after the outcome, and `record` once the response
    is written.
    """

    def acquire(self, spec: ModelSpec, preferred: int | None = None, key: Key | None = None) -> Handle:
        """Choose and pin the version that answers a request.

        Args:
            spec: what the request names.
            preferred: the version to choose when the spec leaves the choice, as long as traffic goes to it.
            key: keeps its client with one version.

        Raises:
            ModelNotFound: `Servable not found for request: Latest(NAME)` or `Specific(NAME, V)`.
            LabelNotFound: `Unrecognized servable version label: L`.
        """

    @property
    def coming(self) -> frozenset[str]:
        """Models that are being resumed: requests for them get `NotAvailable`, and the server is not ready yet."""

    def wake(self) -> None:
        """Start what was submitted with `wakes=False`."""

    def status(self, spec: ModelSpec) -> tuple[VersionStatus, ...]:
        """The versions of a model, newest first; one only when the spec names a version (a label is ignored).

        Raises:
            ModelNotFound: `Could not find any versions of model NAME`.
            VersionNotFound: `Could not find version V of model NAME`.
        """

    def record(self, record: RequestRecord, tensors: RequestTensors | None = None) -> None:
        """Count a finished request; never raises.

        Args:
            record: its numbers.
            tensors: its inputs and outputs, if its handle `wants_tensors` and it was decoded.
        """

    def catalog(self) -> Mapping[str, ModelView]:
        """What is served now, by model."""
