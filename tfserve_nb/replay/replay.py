"""Replays captured requests onto a version of a model that is served, here or elsewhere, and keeps what was found.

How answers and latencies are compared, and why so, stands in docs/replay.md.

Thread: the caller's, which stays busy until the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..bench.environment import environment
from ..bench.load.samples import OK, status_text
from ..bench.load.schedule import Target
from ..bench.load.targets import Wish, signatures_at, target_with
from ..bench.outputs import Comparison, Rows
from ..bench.run import Nobody, Watcher
from ..bench.statistics import percentiles
from ..errors import InvalidOption, InvalidRequest, ServingError, VersionNotFound
from ..server.handle import Home, rest_url
from ..serving.admin import ModelAdmin
from ..serving.backend import ModelSpec
from ..serving.models.state_store import StateStore, new_event
from ..serving.telemetry.captured import CapturedRequest, CapturedRequests
from ..serving.versions.inputs import check_inputs
from ..types import Tensors
from .paired import paired_effects
from .result import ReplayOptions, ReplayResult
from .run import Replayed, Schedule, replay_in_turns, schedule_of

MAX_EVENT_CHARS = 200
PREDICT_S = 30.0


def replay(
    home: Home,
    name: str,
    captured: CapturedRequests,
    options: ReplayOptions,
    folder: Path,
    watcher: Watcher | None = None,
) -> ReplayResult:
    """Send captured requests to a version, and compare.

    The answers come from a pass of its own, request by request without a clock, so that they need no parsing while
    latencies are measured, and no rounding by JSON; the latencies and failures under load from a second one.

    Args:
        home: the server.
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
    core, watching, at = home.core, watcher or Nobody(), time.time()
    against = check(home, name, captured, options)
    requests, schedule = chosen(captured, options)
    runs = (options.onto,) if against in (None, options.onto) else (against, options.onto)
    targets = {version: _target(home, name, requests, options, version) for version in runs if version is not None}
    with _capture_off(core, name):
        watching.say(f"asking version {options.onto} for {len(requests)} answers")
        comparison, rows, num_reasked = _compare(core, name, requests, options, against)
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
        agreement=comparison.agreement,
        failures=dict(comparison.failures),
        disagreements=comparison.worst,
        num_reasked=num_reasked,
        recorded=percentiles(1e-3 * np.array([one.latency_ms for one in requests])),
        a=None if a is None else a.summary,
        b=b.summary,
        effects=() if a is None else paired_effects(a.rounds, b.rounds),
        environment=environment(),
        interrupted=interrupted,
        at=at,
        requests=_table(requests, rows, schedule, a, b),
    )
    own = core.base_path(name)
    return _kept(result, StateStore(own if own is not None and own.is_dir() else folder))


def check(home: Home, name: str, captured: CapturedRequests, options: ReplayOptions) -> int | None:
    """Refuse what cannot be replayed, before anything is sent.

    Returns:
        The version to compare with, or None when there is none.
    """
    loaded = home.core.available(name)
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
    _check_fits(home, name, captured, options.onto)
    against = options.against if options.against is not None else _usual(home.core, name, captured, loaded)
    if options.against is None and against is not None:
        try:
            _check_fits(home, name, captured, against)
        except InvalidOption:
            return None
    return against


def chosen(captured: CapturedRequests, options: ReplayOptions) -> tuple[Sequence[CapturedRequest], Schedule]:
    """The newest requests whose schedule is not longer than asked for, and that schedule."""
    requests = captured.requests
    schedule = schedule_of([one.arrived_s for one in requests], options.speed)
    if options.seconds is None or schedule.times_s[-1] <= options.seconds:
        return requests, schedule
    first = int(np.searchsorted(schedule.times_s, schedule.times_s[-1] - options.seconds))
    return requests[first:], schedule_of([one.arrived_s for one in requests[first:]], options.speed)


def _usual(core: ModelAdmin, name: str, captured: CapturedRequests, loaded: Sequence[int]) -> int | None:
    """Who answered most of the requests, if it is still loaded; or else who answers now."""
    most = Counter(one.version for one in captured).most_common()
    default = core.model_status(name).default_version
    return next((version for version, _ in [*most, (default, 0)] if version in loaded), None)


def _check_fits(home: Home, name: str, captured: CapturedRequests, version: int) -> None:
    """Names, dtypes and shapes of what was captured must be what the version takes."""
    signatures = signatures_at(rest_url(home, name), home.token, version)
    problems: list[str] = []
    for one in captured:
        signature = signatures.get(one.signature)
        if signature is None:
            problems.append(f"it has no signature {one.signature!r}")
            continue
        try:
            check_inputs(signature, one.inputs)
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
    """Replayed requests are no real ones: they must not push those out of the ring."""
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


def _compare(
    core: ModelAdmin, name: str, requests: Sequence[CapturedRequest], options: ReplayOptions, against: int | None
) -> tuple[Comparison, list[Rows | None], int]:
    """Ask the version for every answer; and the other one where the recorded answer belongs to inputs that are gone."""
    comparison = Comparison(options.tolerance)
    rows: list[Rows | None] = []
    num_reasked = 0
    for one in requests:
        rows.append(None)
        num_reasked += one.is_redacted
        try:
            before = _before(core, name, one, against)
        except ServingError:  # the other version has no answer to compare with
            before = None
        try:
            after = core.predict(ModelSpec(name, options.onto), one.signature, dict(one.inputs), PREDICT_S)
        except ServingError as error:
            comparison.failures[error.message[:200]] += 1
            continue
        if before is not None:
            rows[-1] = comparison.add(one.inputs, before, after, one.num_rows, one.at)
    return comparison, rows, num_reasked


def _before(core: ModelAdmin, name: str, one: CapturedRequest, against: int | None) -> Tensors | None:
    if not one.is_redacted:
        return one.outputs
    if against is None:
        return None
    return core.predict(ModelSpec(name, against), one.signature, dict(one.inputs), PREDICT_S)


def _target(home: Home, name: str, requests: Sequence[CapturedRequest], options: ReplayOptions, version: int) -> Target:
    pieces = [(one.signature, one.inputs) for one in requests]
    return target_with(rest_url(home, name), home.token, Wish(options.protocol, version), pieces, home.grpc_address)


def _table(
    requests: Sequence[CapturedRequest],
    rows: Sequence[Rows | None],
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
        "num_different": np.array([-1 if one is None else int((~one.is_same).sum()) for one in rows]),
        "difference": np.array([np.nan if one is None else float(one.difference.max(initial=0.0)) for one in rows]),
    }


def _kept(result: ReplayResult, store: StateStore) -> ReplayResult:
    """Number and store it; a store that cannot be written loses nothing but that."""
    event = new_event("replay", result.onto, str(result.verdict)[:MAX_EVENT_CHARS])
    try:
        store.path.parent.mkdir(parents=True, exist_ok=True)
        return dataclasses.replace(result, run=store.add_replay(result.name, result.stored(), event))
    except (ServingError, OSError):
        return result
