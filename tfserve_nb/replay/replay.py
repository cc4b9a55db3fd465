"""Replays captured requests onto a version of a model that is served, here or elsewhere, and stores the result.

docs/replay.md describes how outputs and latencies are compared.

Thread: the caller's, which stays busy until the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..agreement.kinds import kind_for
from ..agreement.rows import Judged
from ..agreement.summary import Agreeing, evidence_pairs, whole_rows
from ..bench.environment import environment
from ..bench.load.samples import OK, status_text
from ..bench.load.schedule import Target
from ..bench.load.targets import RequestOptions, describe, target_with
from ..bench.run import Watcher
from ..bench.statistics import percentiles
from ..errors import InvalidOption, InvalidRequest, ServingError, VersionNotFound
from ..export.provenance.provenance import evidence_of
from ..server.handle import ServerHandle
from ..serving.admin import ModelAdmin
from ..serving.backend import ModelSpec
from ..serving.models.state_store import StateStore, new_event
from ..serving.telemetry.capture import CapturedRequest, CapturedRequests
from ..serving.versions.inputs import check_inputs
from ..types import Tensors
from .result import ReplayOptions, ReplayResult
from .run import Replayed, Schedule, paired_effects, replay_in_turns, schedule_of

MAX_EVENT_CHARS = 200
KEPT_ROWS = 20
"""Of those that differ most."""
PREDICT_S = 30.0


def replay_captured(
    server: ServerHandle,
    name: str,
    captured: CapturedRequests,
    options: ReplayOptions,
    folder: Path,
    watcher: Watcher | None = None,
) -> ReplayResult:
    """Send captured requests to a version, and compare.

    The outputs come from a pass of its own, request by request without a clock, so that they need no parsing while
    latencies are measured, and no rounding by JSON; the latencies and failures under load from a second one.

    Args:
        server: the server.
        name: the model.
        captured: the requests.
        options: how.
        folder: where the result is kept when the model's own folder is not on this machine.
        watcher: follows it.

    Raises:
        InvalidOption: if nothing was captured, or what was captured does not fit the version.
        VersionNotFound: if the version is not loaded.
        ServingError: if the server cannot be reached.
    """
    core, watching, at = server.models, watcher or Watcher(), time.time()
    against = check(server, name, captured, options)
    compared_with = {against, *(request.version for request in captured)}
    draws = [one.draws for one in core.model_status(name).versions if one.version in {options.onto, *compared_with}]
    options = dataclasses.replace(options, kind=kind_for(options.kind, draws))
    requests, schedule = chosen(captured, options)
    runs = (options.onto,) if against in (None, options.onto) else (against, options.onto)
    targets = {version: _target(server, name, requests, options, version) for version in runs if version is not None}
    with _capture_off(core, name):
        watching.say(f"comparing the outputs of version {options.onto} for {len(requests)} requests")
        compared = _compare(server, name, requests, options, against)
        replayed, interrupted = replay_in_turns(targets, schedule.times_s, options.timeout_s, watching)
    a = replayed[against] if against is not None and against != options.onto else None
    b = replayed[options.onto]
    result = ReplayResult(
        name=name,
        onto=options.onto,
        against=against,
        protocol=options.protocol,
        speed=options.speed,
        num_requests=len(requests),
        num_rows=sum(one.num_rows for one in requests),
        seconds=float(schedule.times_s[-1]),
        num_shortened=schedule.num_shortened,
        agreement=compared.agreeing.agreement,
        failures=dict(compared.failures),
        disagreements=compared.agreeing.worst(KEPT_ROWS),
        num_reasked=compared.num_reasked,
        recorded=percentiles(1e-3 * np.array([one.latency_ms for one in requests])),
        a=None if a is None else a.summary,
        b=b.summary,
        effects=() if a is None else paired_effects(a.rounds, b.rounds),
        environment=environment(),
        interrupted=interrupted,
        at=at,
        requests=_table(requests, compared.judged(), schedule, a, b),
    )
    own = core.base_path(name)
    return _kept(result, StateStore(own if own is not None and own.is_dir() else folder))


def check(server: ServerHandle, name: str, captured: CapturedRequests, options: ReplayOptions) -> int | None:
    """Refuse what cannot be replayed, before anything is sent.

    Returns:
        The version to compare with, or None when there is none.
    """
    loaded = server.models.available(name)
    for version in (options.onto, options.against):
        if version is not None and version not in loaded:
            known = ", ".join(str(one) for one in loaded) or "none"
            raise VersionNotFound(
                f"version {version} of {name} is not loaded; loaded: {known}", hint=f"d.stage({version}), then again"
            )
    if not captured.requests:
        state = "no request was answered since" if captured.is_on else "nothing is captured"
        raise InvalidOption(
            f"there are no captured requests of {captured.model}: {state}",
            hint=f"%serving {name} --capture on, then send requests",
        )
    changes = {status.version: status.changes for status in server.models.model_status(name).versions}
    for version in (options.onto, options.against):
        if version is not None and changes.get(version):
            raise InvalidOption(
                f"nothing can be replayed onto version {version} of {name}: {changes[version]}, and a replay would do "
                "that once more for each request",
                hint="deploy it without --check-replay, and compare with %serving --diff, which loads it once more",
            )
    _check_fits(server, name, captured, options.onto)
    against = (
        options.against if options.against is not None else _default_against(server.models, name, captured, loaded)
    )
    if options.against is None and against is not None:
        if changes.get(against):
            return None
        try:
            _check_fits(server, name, captured, against)
        except InvalidOption:
            return None
    return against


def chosen(captured: CapturedRequests, options: ReplayOptions) -> tuple[Sequence[CapturedRequest], Schedule]:
    """The newest requests whose schedule is at most `options.seconds` long, and that schedule."""
    requests = captured.requests
    schedule = schedule_of([one.arrived_s for one in requests], options.speed)
    if options.seconds is None or schedule.times_s[-1] <= options.seconds:
        return requests, schedule
    first = int(np.searchsorted(schedule.times_s, schedule.times_s[-1] - options.seconds))
    return requests[first:], schedule_of([one.arrived_s for one in requests[first:]], options.speed)


def _default_against(core: ModelAdmin, name: str, captured: CapturedRequests, loaded: Sequence[int]) -> int | None:
    """The version that answered most of the requests, if it is still loaded; or else the default version."""
    most = Counter(one.version for one in captured).most_common()
    default = core.model_status(name).default_version
    return next((version for version, _ in [*most, (default, 0)] if version in loaded), None)


def _check_fits(server: ServerHandle, name: str, captured: CapturedRequests, version: int) -> None:
    """Names, dtypes and shapes of what was captured must be what the version takes."""
    signatures = describe(server.rest_url(name), server.token, version).signatures
    problems: list[str] = []
    for request in captured:
        signature = signatures.get(request.signature)
        if signature is None:
            problems.append(f"it has no signature {request.signature!r}")
            continue
        try:
            check_inputs(signature, request.inputs)
        except InvalidRequest as error:
            problems.append(error.message)
    if problems:
        raise InvalidOption(
            f"{len(problems)} of {len(captured)} captured requests do not fit version {version} of {name}: "
            f"{problems[0]}",
            hint=f"%serving {name} --capture clear, and capture requests of its kind",
        )


@contextlib.contextmanager
def _capture_off(core: ModelAdmin, name: str) -> Iterator[None]:
    """Stop capturing: replayed requests must not push real ones out of the buffer."""
    settings = core.captured(name, 0).settings
    if settings is None:
        yield
        return
    core.capture(name, None)
    try:
        yield
    finally:
        with contextlib.suppress(ServingError):  # undeployed meanwhile
            core.capture(name, settings)


@dataclasses.dataclass(slots=True)
class _Compared:
    """How the version's outputs compare with those that were recorded.

    Attributes:
        agreeing: sums of all requests.
        pairs: for each request both outputs and their rows; None when they could not be compared.
        failures: error message of the version -> how many requests got it.
        num_reasked: requests whose inputs were redacted.
    """

    agreeing: Agreeing
    pairs: list[tuple[Tensors, Tensors, int] | None] = dataclasses.field(default_factory=list)
    failures: Counter[str] = dataclasses.field(default_factory=Counter)
    num_reasked: int = 0

    def judged(self) -> list[Mapping[str, Judged] | None]:
        """Each request once more, by what is known of the outputs after all of them."""
        return [None if pair is None else self.agreeing.judge(*pair) for pair in self.pairs]


def _compare(
    server: ServerHandle, name: str, requests: Sequence[CapturedRequest], options: ReplayOptions, against: int | None
) -> _Compared:
    """Run every request with the version; redacted ones with the other too, as their recorded outputs do not fit."""
    core = server.models
    folder = core.base_path(name) if server.is_on_this_machine else None
    evidence = [{} if version is None else evidence_of(folder, name, version) for version in (against, options.onto)]
    found = _Compared(Agreeing(options.agreement, evidence_pairs(*evidence), KEPT_ROWS))
    for request in requests:
        found.pairs.append(None)
        found.num_reasked += request.is_redacted
        try:
            before = _reference(core, name, request, against)
        except ServingError:  # the other version gives no outputs to compare with
            before = None
        try:
            after = core.predict(ModelSpec(name, options.onto), request.signature, dict(request.inputs), PREDICT_S)
        except ServingError as error:
            found.failures[error.message[:200]] += 1
            continue
        if before is not None:
            found.pairs[-1] = (before, after, request.num_rows)
            found.agreeing.add(request.inputs, before, after, request.num_rows, request.at)
    return found


def _reference(core: ModelAdmin, name: str, request: CapturedRequest, against: int | None) -> Tensors | None:
    if not request.is_redacted:
        return request.outputs
    if against is None:
        return None
    return core.predict(ModelSpec(name, against), request.signature, dict(request.inputs), PREDICT_S)


def _target(
    server: ServerHandle, name: str, requests: Sequence[CapturedRequest], options: ReplayOptions, version: int
) -> Target:
    pieces = [(one.signature, one.inputs) for one in requests]
    return target_with(
        server.rest_url(name), server.token, RequestOptions(options.protocol, version), pieces, server.grpc_address
    )


def _table(
    requests: Sequence[CapturedRequest],
    rows: Sequence[Mapping[str, Judged] | None],
    schedule: Schedule,
    a: Replayed | None,
    b: Replayed,
) -> dict[str, np.ndarray]:
    """See `ReplayResult.to_dataframe`."""
    unknown = np.full(len(requests), np.nan)
    return {
        "request": np.array([one.number for one in requests]),
        "due_s": schedule.times_s,
        "num_rows": np.array([one.num_rows for one in requests]),
        "recorded_ms": np.array([one.latency_ms for one in requests]),
        "a_ms": unknown if a is None else 1e3 * a.latency_s,
        "b_ms": 1e3 * b.latency_s,
        "b_status": np.array(["ok" if one == OK else status_text(int(one)) for one in b.status], dtype=object),
        "num_different": np.array(
            [
                -1 if outputs is None else int((~whole_rows(outputs, request.num_rows)).sum())
                for outputs, request in zip(rows, requests, strict=True)
            ]
        ),
        "difference": np.array(
            [
                np.nan
                if outputs is None
                else max((float(part.difference.max(initial=0.0)) for part in outputs.values()), default=np.nan)
                for outputs in rows
            ]
        ),
    }


def _kept(result: ReplayResult, store: StateStore) -> ReplayResult:
    """Number and store it; a store that cannot be written loses nothing but that."""
    event = new_event("replay", result.onto, str(result.verdict)[:MAX_EVENT_CHARS])
    try:
        store.path.parent.mkdir(parents=True, exist_ok=True)
        return dataclasses.replace(result, run=store.add_replay(result.name, result.stored(), event))
    except (ServingError, OSError):
        return result
