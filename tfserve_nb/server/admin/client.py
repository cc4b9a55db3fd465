"""The models and experiments of another server, through its admin and REST APIs.

The methods follow from `operations`: each is named here once, and has the signature that `ModelAdmin` and
`ExperimentAdmin` give it.

Thread: any.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast  # JSON values, what users predict
from urllib.parse import quote, urlencode

import numpy as np

from ...errors import InvalidOption, InvalidRequest, ModelNotFound, NotAvailable, ServingError
from ...experiment.admin import ExperimentAdmin
from ...export.arrays import columns_of, named_batch, read_rows
from ...export.signatures import main_signature
from ...serving.admin import ModelAdmin
from ...serving.backend import ModelSpec, as_header
from ...serving.engines.evidence import worth_keeping
from ...serving.telemetry.capture import CaptureSettings
from ...serving.versions.inputs import signature_named
from ...types import Progress, ProgressEvent, SignatureSpec, Tensors, VersionState, VersionStatus, no_progress
from ..calls import TIMEOUT
from ..rest.metadata_json import ORDER_FIELD, SIGNATURES_FIELD
from ..rest.v2_tensors import HEADER_LENGTH
from .connection import ServerConnection, SignaturesChanged
from .operations import OPERATIONS, PREFIX, READ_S, Operation
from .predict_body import binary_outputs, binary_request, parse_signatures

POLL_S = 0.2
ROWS_OF_ONE_REQUEST = 4096
MOST_TRIES = 3

P = ParamSpec("P")
R = TypeVar("R")


def asks(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A method that asks the server to carry out an operation, with the same signature."""
    operation = OPERATIONS[method]
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: RemoteAdmin, *args: P.args, **kwargs: P.kwargs) -> R:
        arguments = signature.bind(self, *args, **kwargs).arguments
        return cast("R", self.carry_out(operation, arguments))

    return cast("Callable[Concatenate[Any, P], R]", call)


class RemoteAdmin:
    """What the clients of models and of experiments share.

    Args:
        connection: to the server.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection

    def carry_out(self, operation: Operation, arguments: Mapping[str, Any]) -> Any:
        """Ask for an operation; what it returns.

        Args:
            operation: what the server shall do.
            arguments: name -> value, those that were given. A `progress` among them is called meanwhile with what
                the server is doing, on the calling thread.
        """
        body = operation.body_of(arguments)
        name = str(arguments.get("name") or body.get("name", ""))
        path = f"{PREFIX}/{operation.path.format(name=quote(name, safe=''))}"

        def ask() -> Any:
            if operation.http_method == "GET":
                query = urlencode({key: value for key, value in body.items() if value is not None})
                answer, _ = self.connection.call("GET", f"{path}{'?' * bool(query)}{query}", None, operation.limit_s)
            else:
                answer, _ = self.connection.call("POST", path, body, operation.limit_s)
            return operation.result_of(answer)

        progress: Progress = arguments.get("progress", no_progress)
        if progress is no_progress:
            return ask()
        version = arguments.get("version", arguments.get("to"))
        return self._with_progress(ask, progress, lambda: self._load_event(name, version))

    def _with_progress(
        self, ask: Callable[[], Any], progress: Progress, read_event: Callable[[], ProgressEvent | None]
    ) -> Any:
        """What `ask` returns; `progress` gets the events of `read_event` meanwhile."""
        results: list[Any] = []

        def work() -> None:
            try:
                results.append(ask())
            except ServingError as error:
                results.append(error)

        thread = threading.Thread(target=work, name="tfserve-remote-change", daemon=True)
        thread.start()
        latest: ProgressEvent | None = None
        while thread.is_alive():
            thread.join(POLL_S)
            event = read_event()
            if event is not None and event != latest and thread.is_alive():
                progress(event)
                latest = event
        (result,) = results or (NotAvailable(f"{self.connection.url} gave no answer"),)
        if isinstance(result, ServingError):
            raise result
        return result

    def _load_event(self, name: str, version: int | None) -> ProgressEvent | None:
        """What the server does to load a version, or any; None when nothing is loaded."""
        status = OPERATIONS[ModelAdmin.model_status]
        try:
            versions = self.carry_out(status, {"name": name}).versions
        except ServingError:
            return None
        loading = [one for one in versions if _is_loading(one, version)]
        return ProgressEvent(loading[0].detail or "loading", loading[0].done, loading[0].total) if loading else None


@dataclass(frozen=True, slots=True)
class KnownSignatures:
    """What a server reports of the version that answers at a path.

    Attributes:
        version: its number.
        signatures: name -> what it takes and gives.
        mark: the server's name for these signatures; "" for a server that has no name for them.
    """

    version: int
    signatures: Mapping[str, SignatureSpec]
    mark: str


class RemoteModels(RemoteAdmin):
    """A `ModelAdmin` for the models of another server.

    Args:
        url: such as `http://127.0.0.1:8501`, without a path.
        token: what requests must carry, or None.
        unavailable_reason: returns why the server cannot be reached, when that is known; "" otherwise.
    """

    def __init__(self, url: str, token: str | None, *, unavailable_reason: Callable[[], str] = lambda: "") -> None:
        super().__init__(ServerConnection(url, token, unavailable_reason=unavailable_reason))
        self._known: dict[str, KnownSignatures] = {}

    model_status = asks(ModelAdmin.model_status)
    model_metrics = asks(ModelAdmin.model_metrics)
    history = asks(ModelAdmin.history)
    recent_samples = asks(ModelAdmin.recent_samples)
    sample_requests = asks(ModelAdmin.sample_requests)
    captured = asks(ModelAdmin.captured)
    resources = asks(ModelAdmin.resources)
    deploy = asks(ModelAdmin.deploy)
    promote = asks(ModelAdmin.promote)
    roll_back = asks(ModelAdmin.roll_back)
    stage = asks(ModelAdmin.stage)
    set_label = asks(ModelAdmin.set_label)
    set_traffic = asks(ModelAdmin.set_traffic)
    set_split = asks(ModelAdmin.set_split)
    set_shadow = asks(ModelAdmin.set_shadow)
    set_engine = asks(ModelAdmin.set_engine)
    measure_engines = asks(ModelAdmin.measure_engines)
    undeploy = asks(ModelAdmin.undeploy)

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are served."""
        answer, _ = self.connection.call("GET", f"{PREFIX}/models", None, READ_S)
        return tuple(answer["models"])

    def uses(self, name: str, version: int) -> bool:
        """Whether traffic, a label or the stage needs a version."""
        return version in self.model_status(name).used

    def available(self, name: str) -> tuple[int, ...]:
        """The loaded versions of a model, in increasing order."""
        versions = self.model_status(name).versions
        return tuple(sorted(one.version for one in versions if one.state is VersionState.AVAILABLE))

    def base_path(self, name: str) -> Path | None:
        """The folder that a served model's versions lie in, or None when it is not served."""
        try:
            return self.model_status(name).base_path
        except ModelNotFound:
            return None

    def highest_version(self, name: str) -> int:
        """The highest version that was ever served; 0 when there is none."""
        try:
            return self.model_status(name).highest_version
        except ModelNotFound:
            return 0

    def capture(self, name: str, settings: CaptureSettings | None, *, clear: bool = False) -> None:
        """Begin or end capturing a model's requests; a function cannot redact there."""
        if settings is not None and callable(settings.redact):
            raise InvalidOption(
                "a function that redacts works only for a model that is served in this kernel",
                hint='redact=["name", ...], the inputs to replace by zeros',
            )
        arguments = {"name": name, "settings": settings, "clear": clear}
        self.carry_out(OPERATIONS[ModelAdmin.capture], arguments)

    def resume(
        self, base_path: Path, only: str | None = None, progress: Progress = no_progress
    ) -> dict[str, list[str]]:
        """Serve again what was served from a folder; model -> what could not be brought back."""
        progress(ProgressEvent("loading", 0, 1))
        arguments = {"base_path": base_path, "only": only}
        problems: dict[str, list[str]] = self.carry_out(OPERATIONS[ModelAdmin.resume], arguments)
        return problems

    def predict(
        self, spec: ModelSpec, signature: str, value: Any, limit_s: float, key: str = "", request_id: str = ""
    ) -> Tensors:
        """Predict over HTTP, with raw tensors; large requests are sent in pieces, all to one version.

        The version's signatures are read once and kept. Each request names the signatures it was made for, and the
        server refuses to run it with others; then they are read again.
        """
        path = _predict_path(spec)
        headers = {TIMEOUT: f"{max(limit_s, 1e-3):.3f}"}
        if key:
            headers[self.model_status(spec.name).key_header] = as_header(key)
        if request_id:
            headers["X-Request-Id"] = request_id
        for number in range(MOST_TRIES):
            known = self._known.get(path)
            if known is None or signature not in known.signatures:
                known = self._read_signatures(path, headers)
            spec_of_signature = signature_named(known.signatures, signature)
            inputs = read_rows(spec_of_signature, value)
            # Versions between which the traffic is split may have different signatures: the last try takes any, but
            # a list, which another version may take in another order.
            is_list = len(inputs) > 1 and columns_of(value) is None
            mark = known.mark if is_list or number < MOST_TRIES - 1 else ""
            more = {**headers, SIGNATURES_FIELD: mark} if mark else headers
            try:
                return self._run(spec, path, spec_of_signature, inputs, limit_s, more)
            except SignaturesChanged:
                self._known.pop(path, None)
        raise NotAvailable(f"{self.connection.url} changes what it serves of {spec.name}", hint="try again")

    def _run(
        self,
        spec: ModelSpec,
        path: str,
        signature: SignatureSpec,
        inputs: Tensors,
        limit_s: float,
        headers: Mapping[str, str],
    ) -> Tensors:
        num_rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
        version = None
        if num_rows > ROWS_OF_ONE_REQUEST:
            version = self._read_signatures(path, headers).version
        if version is None or self._runs_whole(spec.name, version, signature.name):
            # One request goes wherever the traffic decides; several must not be spread over versions.
            return self._infer(path, signature, inputs, limit_s, headers)
        pinned = f"/v1/models/{quote(spec.name, safe='')}/versions/{version}"
        pieces = []
        for start in range(0, num_rows, ROWS_OF_ONE_REQUEST):
            rows = {name: array[start : start + ROWS_OF_ONE_REQUEST] for name, array in inputs.items()}
            pieces.append(self._infer(pinned, signature, rows, limit_s, headers))
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def give_rows(self, name: str, rows: Any, version: int | None = None) -> None:
        """See `ModelAdmin.give_rows`; no more is sent than the server keeps."""
        found = self._read_signatures(_predict_path(ModelSpec(name, version)), {}).signatures
        signature = main_signature(found)
        kept = worth_keeping(named_batch(rows, signature), signature)
        if kept:
            self.carry_out(OPERATIONS[ModelAdmin.give_rows], {"name": name, "rows": kept, "version": version})

    def _runs_whole(self, name: str, version: int, signature: str) -> bool:
        """Whether requests for a signature must not be cut: their rows belong together."""
        known = {status.version: status for status in self.model_status(name).versions}
        return version not in known or signature in known[version].alone

    def _infer(
        self, path: str, signature: SignatureSpec, inputs: Tensors, limit_s: float, headers: Mapping[str, str]
    ) -> Tensors:
        """One request with raw tensors; `path` is that of the model below `/v1`."""
        body, fields = binary_request(signature.name, inputs)
        path = f"/v2{path.removeprefix('/v1')}/infer"
        answer, found = self.connection.call("POST", path, body, limit_s, {**headers, **fields}, is_raw=True)
        try:
            return binary_outputs(answer, found.get(HEADER_LENGTH))
        except (InvalidRequest, KeyError, TypeError, ValueError) as error:
            raise NotAvailable(f"{self.connection.url}{path} gave no tensors: {error}") from error

    def _read_signatures(self, path: str, headers: Mapping[str, str]) -> KnownSignatures:
        """What the version that answers takes and gives; kept when the server has a name for it."""
        answer, fields = self.connection.call("GET", f"{path}/metadata", None, READ_S, headers)
        signatures, version = parse_signatures(answer, fields.get(ORDER_FIELD))
        known = KnownSignatures(version, signatures, fields.get(SIGNATURES_FIELD, ""))
        if known.mark:
            self._known[path] = known
        return known


class RemoteExperiments(RemoteAdmin):
    """An `ExperimentAdmin` for the experiments of another server.

    Args:
        models: of that server; their connections are used.
    """

    def __init__(self, models: RemoteModels) -> None:
        super().__init__(models.connection)

    start = asks(ExperimentAdmin.start)
    state = asks(ExperimentAdmin.state)
    end = asks(ExperimentAdmin.end)
    disagreements = asks(ExperimentAdmin.disagreements)

    def feedback(self, name: str, request_id: str, label: Any) -> bool:
        """Record the right label of an earlier request."""
        arguments = {"name": name, "request_id": request_id, "label": _plain(label)}
        is_known: bool = self.carry_out(OPERATIONS[ExperimentAdmin.feedback], arguments)
        return is_known


def _plain(label: Any) -> Any:
    """Labels as JSON values; bytes as the text that they are compared as."""
    if isinstance(label, Mapping):
        return {str(name): _plain(item) for name, item in label.items()}
    if isinstance(label, list | tuple):
        return [_plain(item) for item in label]
    if isinstance(label, bytes):
        return label.decode("utf-8", "surrogateescape")
    if isinstance(label, np.generic):
        return label.item()
    return _plain(np.asarray(label, dtype=object).tolist()) if hasattr(label, "shape") else label


def _predict_path(spec: ModelSpec) -> str:
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.version is not None:
        return f"{path}/versions/{spec.version}"
    return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"


def _is_loading(status: VersionStatus, version: int | None) -> bool:
    is_meant = version is None or status.version == version
    return is_meant and status.state in (VersionState.START, VersionState.LOADING)
