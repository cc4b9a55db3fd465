"""The handle to what is deployed: predictions, versions and traffic, experiments, captured requests.

Thread: any.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar  # arrays and DataFrames of the user

import numpy as np

from ..agreement.kinds import AgreementOptions
from ..agreement.result import Disagreement
from ..bench.options import Options
from ..bench.report import AnyResult
from ..bench.run import Watcher
from ..bench.sweep import SweepResult
from ..diff.diff import diff_versions, provenance_of
from ..diff.result import VersionDiff
from ..errors import InvalidOption, InvalidRequest, LabelNotFound, ModelNotFound, ServingError
from ..experiment.plan import Limits, Plan
from ..experiment.state import NUM_DISAGREEMENTS, ExperimentState
from ..export.layout import version_dir
from ..export.provenance.provenance import Provenance
from ..options import takes
from ..replay.replay import replay_captured
from ..replay.result import ReplayOptions, ReplayResult, check_number
from ..scaleout.bundles.options import BundleOptions
from ..scaleout.parity.options import ParityOptions
from ..scaleout.parity.result import ParityResult
from ..server.handle import ServerHandle
from ..serving.backend import ModelSpec
from ..serving.telemetry.capture import MAX_MIB, MAX_REQUESTS, MAX_ROWS, CapturedRequests, CaptureSettings, Redact
from ..serving.telemetry.model_metrics import ModelMetrics
from ..serving.telemetry.request_samples import KEPT, RequestSample
from ..serving.telemetry.resources import Resources
from ..types import DEFAULT_SIGNATURE, PLAIN, EngineMeasurement, HistoryEvent, ModelStatus, Progress, no_progress
from ..variants.options import VariantOptions
from ..variants.result import VariantsResult
from .ab_test import ABTest, plan_of, requests_of, send_until_decided
from .benchmark import benchmark_model
from .parity import compare_with
from .servers import proxied_url, served, server_of, settle, undeploy_lost
from .variants import variants_of_version

if TYPE_CHECKING:
    from ..scaleout.bundles.bundle import Bundle

DEFAULT_BASE_PATH = "tfserve_models"

RECORDED_S = (0.0, 0.002, 0.02)
"""Pauses before a label is given: a request is counted just after its response was written; a client may be back with
the label before that."""


class Deployment:
    """A served model: its versions, how they share the traffic, and predictions without a socket.

    Handles are given by `deploy`, `deployment`, `resume` and `connect`. Those of one name are equal, and
    stay valid over later deploys of it.

    Args:
        name: the model's name.
        server: the server elsewhere that serves it; None for a server of this process.
    """

    show_steps: ClassVar[Callable[[str], AbstractContextManager[Progress]]] = staticmethod(
        lambda _: nullcontext(no_progress)
    )
    """Shows the steps of a call that takes long, given what it does; the notebook puts its bar here."""

    def __init__(self, name: str, server: ServerHandle | None = None) -> None:
        self.name = name
        self._elsewhere = server

    @property
    def rest_url(self) -> str:
        """`http://HOST:PORT/v1/models/NAME`; add `:predict`, `/metadata`, `/versions/V` or `/labels/L`."""
        return self._server.rest_url(self.name)

    @property
    def proxied_url(self) -> str | None:
        """The same for a browser elsewhere, through jupyter-server-proxy; None when that is not known."""
        port = self._server.port
        return None if port is None else proxied_url(port, f"/v1/models/{self.name}")

    @property
    def grpc_address(self) -> str | None:
        """The address of gRPC, such as `127.0.0.1:8500`; None for a server without gRPC (`--grpc-port` opens it)."""
        return self._server.grpc_address

    @property
    def is_isolated(self) -> bool:
        """Whether a child process serves it."""
        return self._server.kind == "in_child"

    @property
    def token(self) -> str | None:
        """What requests carry as `Authorization: Bearer TOKEN`, or None for a server without authentication."""
        return self._server.token

    @property
    def version(self) -> int | None:
        """The promoted version, which gets the requests that name none (unless the traffic is split)."""
        return self.status().default_version

    @property
    def versions(self) -> tuple[int, ...]:
        """The loaded versions, in increasing order."""
        return self._server.models.available(self.name)

    @property
    def variant(self) -> str:
        """What the promoted version is stored as: `float32`, or the variant that it is; see docs/variants.md."""
        status = self.status()
        return next((one.variant for one in status.versions if one.version == status.default_version), PLAIN)

    @property
    def engine(self) -> str:
        """What runs the promoted version: `tensorflow`, or the engine that was chosen; see docs/engines.md."""
        status = self.status()
        return next((one.engine for one in status.versions if one.version == status.default_version), "tensorflow")

    @property
    def labels(self) -> dict[str, int]:
        """Label -> version."""
        return dict(self.status().labels)

    @property
    def traffic(self) -> dict[int, float]:
        """Version -> percent of the requests that name no version."""
        return dict(self.status().traffic)

    @property
    def base_path(self) -> Path | None:
        """The folder that holds `NAME/VERSION` and the history, on the server's machine; None when it is not known."""
        return self._server.models.base_path(self.name)

    def status(self) -> ModelStatus:
        """States, labels and traffic now.

        Raises:
            ModelNotFound: if the model is not served any more.
        """
        return self._server.models.model_status(self.name)

    def metrics(self, span_s: int = 120, step_s: int = 2, signature: str | None = None) -> ModelMetrics:
        """Requests and latencies of the last `span_s` seconds (900 at most), in steps of `step_s` seconds.

        Args:
            span_s: seconds that the numbers cover.
            step_s: seconds between two values of the series.
            signature: count only the requests of this signature; None for all.
        """
        return self._server.models.model_metrics(self.name, span_s, step_s, signature)

    def predict(
        self,
        inputs: Any,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = DEFAULT_SIGNATURE,
        timeout_s: float = 30.0,
        key: str | None = None,
        request_id: str | None = None,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Predict through the same routing, checks and batch queue as an HTTP request.

        In the kernel no socket is involved; an isolated or remote server gets the tensors as they are, over HTTP.

        Args:
            inputs: an array, list or DataFrame for a model with one input, or a dict of input name -> array; dimension
                0 counts rows. Any number of rows; large requests are sent in pieces, all to one version.
            version: ask this version instead of the one that the traffic decides on.
            label: ask the version of this label.
            signature: the signature's name.
            timeout_s: seconds that a batch of rows may wait.
            key: who asks, such as `user-17`: while the traffic is split, all requests of one key go to one version.
            request_id: your name for the request, ASCII of up to 128 characters, for `feedback`.

        Returns:
            The output array, row i for input row i; a dict of output name -> array when there are several outputs.

        Raises:
            InvalidRequest: if the inputs do not fit the signature.
            ModelNotFound: if no such version serves.
            QueueFull: if the queue has no room.
            DeadlineExceeded: after `timeout_s`.
            RunFailed: if TensorFlow fails.
        """
        if version is not None and label is not None:
            raise InvalidOption("version and label exclude each other", hint="d.predict(x, label='canary')")
        for what, text in (("key", key), ("request_id", request_id)):
            if text is not None and not _fits_header(text):
                raise InvalidOption(
                    f"{what}={text!r} must be text for one line of a header", hint=f"d.predict(x, {what}='user-17')"
                )
        spec = ModelSpec(self.name, version, label)
        outputs = self._server.models.predict(spec, signature, inputs, timeout_s, key or "", request_id or "")
        return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)

    def promote(self, version: int) -> Deployment:
        """Give all traffic to `version`; milliseconds when it is loaded, otherwise it is loaded first."""
        self._server.models.promote(self.name, version)
        return self

    def rollback(self, to: int | None = None) -> Deployment:
        """Go back: to `to`, or to the version that was promoted before, or out of a running traffic split."""
        self._server.models.roll_back(self.name, to)
        return self

    def stage(self, version: int) -> Deployment:
        """Load a version from disk and keep it loaded, without traffic."""
        self._server.models.stage(self.name, version)
        return self

    def set_label(self, label: str, version: int | None) -> Deployment:
        """Point `label` to `version`; None removes the label."""
        self._server.models.set_label(self.name, label, version)
        return self

    def set_traffic(self, weights: Mapping[int, float]) -> Deployment:
        """Split the requests that name no version, such as `{3: 90, 4: 10}` (percent, sum 100)."""
        self._server.models.set_traffic(self.name, weights)
        return self

    def shadow(self, version: int | None, percent: float = 100.0) -> Deployment:
        """Give `version` copies of `percent` % of the requests of other versions; None ends it.

        Clients never see its predictions. Copies run only while no live request waits for the device, and are left
        out when there are too many. Requests that name a version or a label are not copied.
        """
        self._server.models.set_shadow(self.name, version, percent)
        return self

    def set_engine(self, engine: str, version: int | None = None, progress: Progress = no_progress) -> Deployment:
        """Let another engine run a version, by default the promoted one; it goes on answering meanwhile.

        Args:
            engine: `tensorflow`, `onnx`, `litert`, or `auto` for the fastest here of those that agree with TensorFlow.
            version: a loaded version.
            progress: called with each step, on the calling thread.

        Raises:
            InvalidOption: if an engine that is named cannot run it, with the reason; all is as before then.
        """
        self._server.models.set_engine(self.name, engine, version, progress)
        return self

    def measure_engines(self, version: int | None = None, *, rows: Any = None) -> list[EngineMeasurement]:
        """Compare all engines with TensorFlow anew, on the rows that are known now, and measure them on the server.

        Args:
            version: a loaded version, by default the promoted one.
            rows: to compare on first, as `predict` takes them. Like those of `deploy(check=...)`, they are remembered
                in the server's memory while the version is loaded: the first 16 of them, up to 16 MiB.

        Returns:
            Rows with `.engine`, `.signature`, `.batch_size`, `.ms`, `.agrees`, `.reason` and `.is_chosen`. Where `auto`
            was asked for, the choice follows.

        Raises:
            InvalidRequest: if the rows do not fit.
            VersionNotFound: if no such version is loaded.
        """
        if rows is not None:
            self._server.models.give_rows(self.name, rows, version)
        return self._server.models.measure_engines(self.name, version)

    @takes(VariantOptions)
    def variants(
        self, *, version: int | str | None = None, progress: Progress = no_progress, **options: Any
    ) -> VariantsResult:
        """Measure smaller and faster forms of a version, with each engine; `%variants` for scripts.

        Each is written into a temporary folder and measured on this machine in a process of its own; nothing of it
        stays, and the version is not changed. See docs/variants.md.

        Args:
            version: a version or label; by default the promoted one.
            progress: called with each step, on the calling thread.
            **options: the attributes of `variants.options.VariantOptions`: `check=x_test`,
                `optimize="xla"`, `engine="onnx"`.

        Returns:
            Rows with `.variant`, `.engine`, `.disk_bytes`, `.memory_bytes`, `.load_s`, `.ms`, `.agreement`,
            `.largest_difference`, `.accuracy`, `.in_tensorflow_serving`, `.reason`, `.is_usable` and `.is_chosen`.

        Raises:
            InvalidOption: for an option that is not allowed, and rows that do not fit.
            NotAvailable: if the version's files are not on this machine.
            FailedPrecondition: if running it leaves something behind, or it does not run.
        """
        return self.measure_variants(VariantOptions(**options), version, progress)

    def measure_variants(
        self, options: VariantOptions, version: int | str | None = None, progress: Progress = no_progress
    ) -> VariantsResult:
        """The same with options that were checked before."""
        chosen = self._version_of(version) if version is not None else self.version
        if chosen is None:
            raise ModelNotFound(f"{self.name} has no version that answers", hint="d.variants(version=1)")
        return variants_of_version(self._server, self.name, chosen, options, progress)

    def history(self, limit: int = 100) -> list[HistoryEvent]:
        """The history of the model, newest first; it outlives the kernel."""
        return self._server.models.history(self.name, limit)

    def sample_requests(self, is_on: bool = True) -> Deployment:
        """Keep a sample of the requests from now on, with inputs and outputs, in the memory of the server; or stop."""
        self._server.models.sample_requests(self.name, is_on=is_on)
        return self

    def samples(self, limit: int = KEPT) -> list[RequestSample]:
        """The newest sampled requests, newest first; empty until `sample_requests`."""
        return list(self._server.models.recent_samples(self.name, limit).samples)

    @property
    def is_sampling(self) -> bool:
        """Whether requests are sampled."""
        return self._server.models.recent_samples(self.name, 1).is_on

    def send_again(self, sample: RequestSample, version: int | None = None) -> np.ndarray | dict[str, np.ndarray]:
        """Send the rows of a sampled request once more, to a version or as the traffic decides.

        Raises:
            InvalidRequest: if the sample holds none of its inputs any more.
            ServingError: as `predict`.
        """
        if not sample.inputs:
            raise InvalidRequest(f"request {sample.number} was too large to be kept", hint="send it from its client")
        return self.predict(dict(sample.inputs), version=version, signature=sample.signature or DEFAULT_SIGNATURE)

    def resources(self) -> Resources:
        """What the server's process takes of its machine: processor, memory, threads, GPUs."""
        return self._server.models.resources()

    @takes(Options)
    def benchmark(self, *, watcher: Watcher | None = None, **options: Any) -> AnyResult:
        """Load the model from another process and measure what clients would see; `%benchmark` for scripts.

        Args:
            watcher: follows the run, on the calling thread; see `bench.run.Watcher`.
            **options: the attributes of `bench.options.Options`, such as `rate=200`, `seconds=10`, `slo_ms=20`,
                `closed=8`, `sweep=True`, `protocol="binary"`, `versions=(3, 4)`, `values=x_test`.

        Returns:
            A `BenchmarkResult`, a `SweepResult` with `sweep=True`, or a `ComparisonResult` with `versions`.

        Raises:
            InvalidOption: naming the option that is not allowed.
            ServingError: if the first request already fails.
        """
        return self.run_benchmark(Options(**options), watcher)

    def run_benchmark(self, options: Options, watcher: Watcher | None = None) -> AnyResult:
        """The same with options that were checked before."""
        folder = Path(DEFAULT_BASE_PATH).absolute()
        return benchmark_model(self._server, self.name, options, folder, watcher)

    @takes(Plan, AgreementOptions, Limits)
    def ab_test(
        self,
        a: int | str,
        b: int | str,
        *,
        values: Any = None,
        rate: float | None = None,
        seconds: float = 60.0,
        watch: Callable[[ExperimentState], None] | None = None,
        **options: Any,
    ) -> ABTest:
        """Compare two versions under real traffic: split it, observe, and reach a verdict.

        Args:
            a: the current version, a number or a label; clients get it when B is taken back.
            b: the candidate.
            values: rows to send to the model until there is a verdict, as `predict` takes them. Then the call returns
                with the verdict; without, it returns at once, and the traffic has to come from elsewhere.
            rate: with `values`: requests per second; by default 8 clients send one request after the other.
            seconds: with `values`: the longest time.
            watch: with `values`: called with the state of the experiment a few times a second, on the calling thread.
            **options: the attributes of `experiment.plan.Plan` and `experiment.plan.Limits`, such as `split=50`,
                `margin=0.05`, `metric="latency"`, `steps=(1, 5, 25, 50)`, `shadow=20`, `slo_p99_ms=50`,
                `auto_promote=True`.

        Returns:
            An `ABTest` with `verdict`, `effect`, `interval`, `samples` and `srm`, which follow the experiment.

        Raises:
            InvalidOption: if an option is not allowed, an experiment goes on, or the versions take different inputs.
            ServingError: if requests with `values` fail; the experiment does not begin then.
            VersionNotFound: if there is no such version.
        """
        plan = plan_of(self.name, self._version_of(a), self._version_of(b), options)
        requests = None if values is None else requests_of(self._server, self.name, values, rate=rate, seconds=seconds)
        self._server.experiments.start(plan)
        test = self.latest_test()
        assert test is not None  # noqa: S101 - it was just started
        if requests is not None:
            send_until_decided(test, *requests, watch)
        return test

    def ended_test(self, how: str) -> ABTest:
        """End the running experiment and keep its object: `promote`, `rollback` or `stop`."""
        return self._test_of(self.end_experiment(how))

    def latest_test(self) -> ABTest | None:
        """The object of the latest experiment, also of one that began before a restart; None when there was none."""
        state = self.experiment()
        return None if state is None else self._test_of(state)

    def experiment(self) -> ExperimentState | None:
        """Where the latest experiment stands; None when there was none."""
        return self._server.experiments.state(self.name)

    def end_experiment(self, how: str) -> ExperimentState:
        """End the running experiment: `promote` gives B all traffic, `rollback` and `stop` give it to A."""
        return self._server.experiments.end(self.name, how)

    def disagreements(self, limit: int = NUM_DISAGREEMENTS) -> list[Disagreement]:
        """The copied rows on which the versions of the experiment differed most, the worst first."""
        return self._server.experiments.disagreements(self.name, limit)

    def feedback(self, request_id: str, label: Any) -> bool:
        """Give the true label of an earlier request, for the quality that an experiment measures.

        Args:
            request_id: the request's `X-Request-Id`: sent by the client, or made by the server and returned in the
                response.
            label: the right class, number or text; one for each row of the request.

        Returns:
            Whether the request was known; it can be judged once.
        """
        for wait_s in RECORDED_S:
            time.sleep(wait_s)
            if self._server.experiments.feedback(self.name, request_id, label):
                return True
        return False

    def provenance(self, version: int | str) -> Provenance:
        """Where a version (number or label) comes from: code, commit, packages, data, seed, metrics, layers.

        Raises:
            FailedPrecondition: if the version has no provenance, or its file is damaged.
        """
        return provenance_of(self._server, self.name, self._version_of(version))

    def diff(
        self, a: int | str, b: int | str, rows: Any = None, *, kind: str | None = None, tolerance: float | None = None
    ) -> VersionDiff:
        """What two versions differ in: signatures, layers, weights, code, metrics, packages, latency, outputs.

        Args:
            a: the older or current version, a number or a label.
            b: the other.
            rows: rows to ask both with; by default those that `warmup=` stored.
            kind: what the outputs are: `classification`, `regression`, `exact` or `random`; by default found out, see
                docs/agreement.md.
            tolerance: by how much numbers of a regression may differ, relative; by default 0.001.

        Raises:
            InvalidOption: if kind or tolerance is not allowed.
            InvalidRequest: if the rows do not fit.
            VersionNotFound: if a version is not on disk.
        """
        options = AgreementOptions(kind, tolerance)
        return diff_versions(self._server, self.name, self._version_of(a), self._version_of(b), rows, options)

    def capture(
        self,
        is_on: bool = True,
        *,
        max_requests: int = MAX_REQUESTS,
        max_rows: int = MAX_ROWS,
        max_mib: float = MAX_MIB,
        redact: Sequence[str] | Redact = (),
    ) -> Deployment:
        """Keep the requests that succeed, with their arrival times, for `replay`; or stop, and keep the earlier ones.

        They lie in the memory of the server, the newest of them, within all three limits, and end with it. Headers,
        tokens, keys and ids of requests are never among them.

        Args:
            is_on: False stops.
            max_requests: requests that are kept.
            max_rows: rows of them altogether.
            max_mib: inputs and outputs of them altogether, in MiB.
            redact: names of inputs that are kept as zeros of the same shape; or, for a model that is served in this
                kernel, a function that gets name -> array and gives what may be kept, with the same names, dtypes and
                shapes, or None to leave the request out. A request that it raises for is left out.

        Raises:
            InvalidOption: naming the value that is not allowed.
        """
        names = redact if callable(redact) else (redact,) if isinstance(redact, str) else tuple(redact)
        settings = CaptureSettings(max_requests, max_rows, max_mib, names) if is_on else None
        self._server.models.capture(self.name, settings)
        return self

    def clear_captured(self) -> Deployment:
        """Drop what was captured; capturing goes on if it was on."""
        core = self._server.models
        core.capture(self.name, core.captured(self.name, 0).settings, clear=True)
        return self

    def captured(self, limit: int | None = None) -> CapturedRequests:
        """The newest captured requests, or all, in the order in which they came; empty until `capture`."""
        return self._server.models.captured(self.name, limit)

    def save_warmup(self, version: int | str | Path | None = None) -> Path:
        """Write the newest captured requests, at most 1000, as a version's warm-up file; TensorFlow Serving reads it.

        Args:
            version: a version's number, or its folder; the promoted version by default.

        Returns:
            `assets.extra/tf_serving_warmup_requests` in the version's folder; it counts when that is loaded next.

        Raises:
            InvalidOption: if nothing was captured, or the folder is not on this machine.
        """
        core = self._server.models
        wanted = core.model_status(self.name).default_version if version is None else version
        if isinstance(wanted, str | Path):
            return self.captured().save_warmup(wanted)
        base_path = core.base_path(self.name)
        if base_path is None or wanted is None:
            raise InvalidOption(f"the folder of {self.name} is not known", hint="d.save_warmup(folder)")
        return self.captured().save_warmup(version_dir(base_path, self.name, wanted))

    def replay(  # noqa: PLR0913 - the options of %replay
        self,
        onto: int,
        *,
        against: int | None = None,
        speed: float = 1.0,
        requests: int | CapturedRequests | None = None,
        seconds: float | None = None,
        tolerance: float | None = None,
        protocol: str = "json",
        kind: str | None = None,
        watcher: Watcher | None = None,
    ) -> ReplayResult:
        """Send captured requests to a version at the times at which they came, and compare; `%replay` for scripts.

        The requests go to `onto` and to `against` in turns, from another process in an open loop; clients see nothing
        of it. docs/replay.md describes the comparison.

        Args:
            onto: the version, which must be loaded.
            against: the version to compare latencies with; by default the one that served most of the requests.
            speed: how much faster than they came; 2 halves all gaps.
            requests: how many, the newest; or what `captured` or `load_captured` gave. All by default.
            seconds: the newest that take at most that long.
            tolerance: by how much numbers of a regression may differ, relative; by default 0.001.
            protocol: `json`, `binary` or `grpc`.
            kind: what the outputs are: `classification`, `regression`, `exact` or `random`; by default found out, see
                docs/agreement.md.
            watcher: follows the run, on the calling thread.

        Raises:
            InvalidOption: if nothing was captured, it does not fit the version, or a value is not allowed.
            VersionNotFound: if the version is not loaded.
        """
        options = ReplayOptions(onto, against, speed, seconds, tolerance, protocol, kind=kind)
        if not isinstance(requests, CapturedRequests):
            check_number("requests", requests, 1)
            requests = self.captured(requests)
        folder = Path(DEFAULT_BASE_PATH).absolute()
        return replay_captured(self._server, self.name, requests, options, folder, watcher)

    @takes(BundleOptions)
    def bundle(self, folder: str | Path, *, target: str, sweep: SweepResult | None = None, **options: Any) -> Bundle:
        """Write a folder with all that another kind of server needs to serve the same; see docs/production.md.

        Args:
            folder: where to; it must be empty or not there.
            target: `tf-serving`, `docker`, `kubernetes`, `kserve`, `ray`, `mlflow`, `vertex` or `sagemaker`.
            sweep: what `d.benchmark(sweep=True)` returned; its latency limits the batches and the queue. Without it,
                the run times that the queue has learned decide.
            **options: the attributes of `scaleout.bundles.options.BundleOptions`: `versions=(2,)`, `image="digits:2"`.

        Returns:
            The `folder`, its `files`, and the lines to type as text.

        Raises:
            InvalidOption: if there is no such target, or the folder is not empty.
            NotAvailable: if the versions' files are not on this machine.
            VersionNotFound: if a version is not there.
            FailedPrecondition: if the target cannot serve a version.
        """
        from ..scaleout.bundles.bundle import bundle_model

        return bundle_model(self._server, self.name, folder, target, BundleOptions(**options), sweep)

    @takes(ParityOptions)
    def parity(
        self,
        other: str | Deployment,
        *,
        token: str | None = None,
        grpc_address: str | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> ParityResult:
        """Whether another server answers for this model as this one does; `tfserve-nb parity` for scripts and cells.

        Compared are versions, states, labels, metadata, the predictions of every signature over REST, the Open
        Inference Protocol and gRPC, errors for bad requests, and latencies. A server may lack a protocol: the result
        says so.

        Args:
            other: the other server's URL, `http://HOST:PORT`, or a handle of the model there.
            token: what that server asks for, when a URL is given.
            grpc_address: where it listens for gRPC, `HOST:PORT`; `grpcs://HOST:PORT` for TLS.
            progress: called with each step, on the calling thread; by default a notebook shows them.
            **options: the attributes of `scaleout.parity.options.ParityOptions`: `rows=x_test`, `requests=0`.

        Returns:
            `.is_same`, `.verdict`, `.checks`, `.predictions` and `.latencies`; `print` and a cell show the tables.

        Raises:
            InvalidOption: for an option that is not allowed, and a token that does not do.
            NotAvailable: if the other server cannot be reached.
        """
        there = other._server if isinstance(other, Deployment) else other  # noqa: SLF001 - of this class
        given = ParityOptions(**options)
        with self._steps(f"comparing {self.name}", progress) as steps:
            return compare_with(self._server, self.name, there, token, grpc_address, given, steps)

    def undeploy(self, version: int | None = None, *, delete: bool = False, force: bool = False) -> None:
        """Stop serving: one version without traffic and labels, or (None) the model.

        The files stay, unless `delete` is true; those that another process serves stay unless `force` is true too. The
        server stops with its last model.
        """
        is_whole = version is None and self._elsewhere is None
        if not (is_whole and undeploy_lost(self.name, delete=delete, force=force)):
            self._server.models.undeploy(self.name, version, delete=delete, force=force)
        settle()

    def to_ray(  # noqa: PLR0913 - what replicas are started with
        self,
        address: str | None = None,
        *,
        min_replicas: int = 1,
        max_replicas: int = 3,
        port: int | None = None,
        grpc_port: int | None = None,
        auth_token_file: str | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
        environment: Mapping[str, str] = MappingProxyType({}),
        progress: Progress | None = None,
    ) -> Deployment:
        """Serve the model by replicas on Ray: the same versions, labels, traffic, limits and token; docs/ray.md.

        This server goes on too. The handle that is returned is like this one; its `stop` ends the replicas.

        Args:
            address: the URL of Ray's dashboard on a cluster that runs, such as `http://head:8265`; None starts a
                cluster of this machine alone, which ends with `stop` or with this process.
            min_replicas: replicas without load.
            max_replicas: replicas at most; Ray adds and removes them as requests come.
            port: of REST; by default a free one, or 8501 on another cluster.
            grpc_port: of gRPC; by default a free one, or 8500 on another cluster.
            auth_token_file: on another cluster: the file with the token, under the same path on every node.
            options: further options of Ray Serve's deployment, such as `{"max_ongoing_requests": 64}`.
            environment: further variables for the processes of a cluster that is started.
            progress: called with each step, on the calling thread; by default a notebook shows them.

        Raises:
            ConfigRejected: if a replica cannot serve it, or an option is none of Ray Serve's.
            NotAvailable: without Ray, or if the cluster does not answer.
            ServerFailed: if Ray does not start, with its reason and how long was waited.
        """
        from .to_ray import RayOptions, server_on_ray  # brings Tornado

        given = RayOptions(address, min_replicas, max_replicas, port, grpc_port, auth_token_file, options, environment)
        with self._steps(f"{self.name} on Ray", progress) as steps:
            return Deployment(self.name, server_on_ray(self._server, self.name, given, steps).handle)

    def scale(self, min_replicas: int, max_replicas: int | None = None) -> Deployment:
        """Change the number of replicas that `to_ray` started; returns when they answer. Nothing restarts.

        Args:
            min_replicas: replicas without load.
            max_replicas: replicas at most; by default as many as at least, so that Ray adds and removes none.

        Raises:
            InvalidOption: for a number that is not allowed, or if this handle is of no replicas on Ray.
            ConfigRejected: if a replica cannot be started, with the reason.
            NotAvailable: if the cluster does not answer, or it takes too long.
        """
        scale = self._server.on_scale
        if scale is None:
            raise InvalidOption(f"{self.name} is not served by replicas on Ray", hint="r = d.to_ray(max_replicas=3)")
        scale(min_replicas, min_replicas if max_replicas is None else max_replicas)
        return self

    def stop(self) -> None:
        """End the replicas that `to_ray` started. Idempotent; other servers end with their last model.

        Raises:
            InvalidOption: if this handle holds no server.
        """
        end = self._server.on_stop
        if end is None:
            raise InvalidOption(
                f"{self.name} is not served by replicas that this handle started", hint="d.undeploy() stops serving it"
            )
        end()

    def _steps(self, title: str, given: Progress | None) -> AbstractContextManager[Progress]:
        return type(self).show_steps(title) if given is None else nullcontext(given)

    def _test_of(self, state: ExperimentState) -> ABTest:
        return ABTest(self._server.experiments, self.name, state.started_at, self)

    @property
    def _server(self) -> ServerHandle:
        server = self._elsewhere or server_of(self.name)
        if server is None:
            known = ", ".join(served()) or "none"
            raise ModelNotFound(
                f"{self.name} is not served here; served: {known}",
                hint=f"%deploy MODEL --name {self.name}, or %serving --resume",
            )
        return server

    def _version_of(self, which: int | str) -> int:
        """The number of a version or label."""
        if not isinstance(which, str):
            return which
        labels = self.labels
        if which not in labels:
            known = ", ".join(sorted(labels)) or "no labels"
            raise LabelNotFound(f"{self.name} has no label {which!r}; it has {known}", hint="a version's number")
        return labels[which]

    def __repr__(self) -> str:
        try:
            status = self.status()
        except ModelNotFound:
            return f"<Deployment {self.name}: not served>"
        except ServingError as error:
            return f"<Deployment {self.name}: {error.message}>"
        traffic = ", ".join(f"version {version}: {percent:g} %" for version, percent in status.traffic.items())
        labels = ", ".join(f"{label} → {version}" for label, version in status.labels.items())
        token = "none" if self.token is None else "*** (d.token)"
        return (
            f"<Deployment {self.name} at {self.rest_url}  traffic {traffic or 'none'}"
            f"{'  labels ' + labels if labels else ''}  loaded {list(self.versions)}  token {token}>"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Deployment) and (other.name, other._elsewhere) == (self.name, self._elsewhere)

    def __hash__(self) -> int:
        return hash((self.name, self._elsewhere))


def _fits_header(text: object) -> bool:
    """Whether a value can be sent as a header field as it is."""
    return isinstance(text, str) and bool(text) and text.isprintable() and text == text.strip()
