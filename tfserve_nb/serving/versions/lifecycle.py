"""The manager of servables: loads and unloads until the loaded versions are the aspired ones; pins them for requests.

States go START → LOADING → AVAILABLE → UNLOADING → END. AVAILABLE is published after the version can be acquired,
UNLOADING before it no longer can; a version is freed when the last handle was released, so no request is lost.

Thread: `tfserve-manager`, a daemon, loads and unloads, one action of `next_action` at a time. Everything
else may be called from any thread; one lock guards the records and is never held while a model loads or runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...errors import Cancelled, FailedPrecondition, NotAvailable, ServingError
from ...export.arrays import named_batch
from ...export.layout import folder_bytes
from ...export.signatures import main_signature
from ...threads import start_thread
from ...types import EngineMeasurement, Progress, ProgressEvent, Tensors, VersionState, VersionStatus
from ..backend import VersionView
from ..batching.runner import Runner
from ..engines.engine import num_threads
from ..engines.evidence import worth_keeping
from ..engines.servable import Loader, Servable
from ..telemetry.model_metrics import BatchSummary, combined
from ..telemetry.observer import Observers
from .acceleration import choose_engine, load_version
from .in_use import FolderInUse, is_in_use
from .source import VersionSource
from .trial import Trial
from .version import LoadedVersion, VersionHandle, VersionRecord
from .warmup import warm_up

_log = logging.getLogger(__name__)
JOIN_S = 1.5
UNLOAD_LIMIT_S = 35.0
"""How long handles may delay an unload, in seconds, unless a request with a later deadline runs."""
SIGNAL_S = 0.2
"""How often a waiting thread wakes up: a signal may reach another thread, but only the main one handles it."""
KEPT_ENDED = 4
"""How many versions of a model that ended, well or not, are still reported."""
LONGEST_WAIT_S = 60.0
"""A deadline may lie further away than a lock can wait."""
GRACE_S = 5.0
"""How long after its deadline a request may still hold its version."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload this version."""

    version: int


def next_action(states: Mapping[int, VersionState], aspired: AbstractSet[int]) -> Load | Unload | None:
    """The next step towards the aspired versions: a pure function.

    Args:
        states: version -> state now; an unknown version is not in it.
        aspired: the versions that should be AVAILABLE.

    Returns:
        Unload of the lowest version that is not aspired, once an aspired one is AVAILABLE (or none is aspired, or more
        than one is to go); else Load of the highest aspired version in START; else None.

    Reference: tensorflow_serving/core/availability_preserving_policy.h and aspired_version_policy.h: stateless, one
    action at a time, a new version is loaded before the old one is unloaded.
    """
    available = {version for version, state in states.items() if state is VersionState.AVAILABLE}
    superfluous = sorted(available - set(aspired))
    if superfluous and (not aspired or available & set(aspired) or len(superfluous) > 1):
        return Unload(superfluous[0])
    new = [version for version in aspired if states.get(version) is VersionState.START]
    return Load(max(new)) if new else None


class ServableManager:
    """Loads the aspired versions of all models, unloads the others, and pins versions for requests.

    Args:
        loader: turns a folder into a servable.
        num_run_threads: batches that may run at the same time on one device.
        observers: get batches and warm-ups.
        seen: model and signature -> the inputs of captured requests.
        now: the clock in seconds.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        num_run_threads: int = 1,
        observers: Observers | None = None,
        seen: Callable[[str, str], Iterable[Tensors]] = lambda _, __: (),
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._loader = loader
        self._observers = observers or Observers()
        self._seen = seen
        self._num_run_threads = num_run_threads
        self._now = now
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._models: dict[str, dict[int, VersionRecord]] = {}
        self._aspired: dict[str, frozenset[int]] = {}
        self._highest: dict[str, int] = {}
        self._runners: dict[str | None, Runner] = {}
        self._choosing = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; returns when it works.

        Raises:
            ServerFailed: if it does not within two seconds.
        """
        self._thread = start_thread("tfserve-manager", self._work)

    def stop(self) -> None:
        """End the threads and free every version. Idempotent, bounded."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            runners = list(self._runners.values())
        for runner in runners:
            runner.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)
        with self._changed:
            records = [record for versions in self._models.values() for record in versions.values()]
            self._models.clear()
        for record in records:
            record.close()

    def runner_for(self, device: str | None) -> Runner:
        """The runner of a device, started with the first version on it."""
        with self._changed:
            runner = self._runners.get(device)
            if runner is None:
                name = (device or "default").strip("/").replace(":", "").lower()
                runner = Runner(name, num_threads=self._num_run_threads, num_cores=num_threads(), now=self._now)
                runner.start()
                self._runners[device] = runner
        return runner

    def set_source(self, name: str, version: int, source: VersionSource) -> None:
        """Set where a version comes from; a version that ended starts anew."""
        with self._changed:
            record = self._models.setdefault(name, {}).get(version)
            if record is None or record.state in (VersionState.START, VersionState.END):
                self._models[name][version] = VersionRecord(source)
                self._changed.notify_all()

    def set_aspired(self, name: str, aspired: frozenset[int]) -> None:
        """Set which versions of a model should be AVAILABLE; the thread loads and unloads them."""
        with self._changed:
            self._aspired[name] = aspired
            self._changed.notify_all()

    def forget(self, name: str) -> None:
        """Drop the records of a model whose versions have all ended."""
        with self._changed:
            self._aspired.pop(name, None)
            self._models.pop(name, None)
            self._highest.pop(name, None)

    def start_anew(self, name: str, version: int) -> None:
        """Load a version again that is being unloaded; waits until it has gone."""
        with self._changed:
            while True:
                record = self._models.get(name, {}).get(version)
                if record is None or record.state is not VersionState.UNLOADING or self._stopping:
                    break
                self._changed.wait(SIGNAL_S)
            if record is not None and record.state is VersionState.END and record.error is None:
                self._models[name][version] = VersionRecord(record.source)
                self._changed.notify_all()

    def wait(self, name: str, version: int, limit_s: float, progress: Progress) -> None:
        """Block until a version is AVAILABLE; may be interrupted.

        Args:
            name: the model.
            version: a version with a source.
            limit_s: how long, in seconds.
            progress: called with each step, on the calling thread.

        Raises:
            ServingError: what ended the version.
            NotAvailable: if the time is over.
        """
        until_s = self._now() + limit_s
        reported: ProgressEvent | None = None
        while True:
            with self._changed:
                record = self._models.get(name, {}).get(version)
                if record is None or record.state in (VersionState.UNLOADING, VersionState.END):
                    error = record.error if record is not None else None
                    raise error or NotAvailable(f"version {version} of {name} was unloaded meanwhile")
                if record.state is VersionState.AVAILABLE:
                    return
                left_s = until_s - self._now()
                if left_s <= 0:
                    raise NotAvailable(f"version {version} of {name} was not loaded within {limit_s:g} s")
                event = ProgressEvent(record.detail, record.done, record.total)
                if event == reported:
                    self._changed.wait(min(left_s, SIGNAL_S))
                    continue
            progress(event)
            reported = event

    def wait_until_gone(self, name: str, versions: frozenset[int], limit_s: float) -> bool:
        """Block until versions have ended; False when the time is over."""

        def has_ended() -> bool:
            records = self._models.get(name, {})
            return all(version not in records or records[version].state is VersionState.END for version in versions)

        with self._changed:
            return self._changed.wait_for(has_ended, limit_s)

    def wait_until_settled(self, name: str, versions: frozenset[int]) -> None:
        """Block until every version has been loaded or has failed for good; one loaded version outweighs retries."""

        def has_settled() -> bool:
            records = [record for version, record in self._models.get(name, {}).items() if version in versions]
            is_served = any(record.state is VersionState.AVAILABLE for record in records)
            return self._stopping or all(
                record.state in (VersionState.AVAILABLE, VersionState.END)
                or (is_served and record.retry_at_s is not None)
                for record in records
            )

        with self._changed:
            while not has_settled():
                self._changed.wait(SIGNAL_S)

    def acquire(self, name: str, version: int) -> VersionHandle | None:
        """Pin a version, or None when it is not AVAILABLE."""
        with self._lock:
            versions = self._models.get(name)
            record = None if versions is None else versions.get(version)
            if record is None or record.loaded is None or record.state is not VersionState.AVAILABLE:
                return None
            record.num_handles += 1
            return VersionHandle(version, record, record.loaded, self.release)

    def release(self, record: VersionRecord) -> None:
        """Unpin; wakes the thread when it waits for this to free the version."""
        with self._lock:
            record.num_handles -= 1
            if record.num_handles == 0 and record.state is VersionState.UNLOADING:
                self._changed.notify_all()

    def wake(self) -> None:
        """Let the runners start what was submitted without waking them."""
        for runner in list(self._runners.values()):
            runner.wake()

    def status(self, name: str) -> tuple[VersionStatus, ...]:
        """Snapshots of the versions of a model, newest first; without those that are known, but not to be loaded."""
        with self._changed:
            records, aspired = self._models.get(name, {}), self._aspired.get(name, frozenset())
            return tuple(
                records[version].status(version)
                for version in sorted(records, reverse=True)
                if records[version].state is not VersionState.START or version in aspired
            )

    def views(self, name: str) -> dict[int, VersionView]:
        """What servers in other processes have to know of the AVAILABLE versions."""
        with self._lock:
            records = self._models.get(name, {})
            return {
                version: record.loaded.view
                for version, record in records.items()
                if record.loaded is not None and record.state is VersionState.AVAILABLE
            }

    def batches(self, name: str) -> dict[int, BatchSummary]:
        """The batches of the loaded versions of a model."""
        with self._lock:
            loaded = {version: record.loaded for version, record in self._models.get(name, {}).items()}
        return {
            version: combined([] if held is None else [lane.summary() for lane in held.lanes.values()])
            for version, held in loaded.items()
        }

    def available(self, name: str) -> frozenset[int]:
        """The AVAILABLE versions of a model."""
        with self._changed:
            records = self._models.get(name, {})
            return frozenset(v for v, record in records.items() if record.state is VersionState.AVAILABLE)

    def sources(self, name: str) -> dict[int, VersionSource]:
        """Where the known versions of a model come from."""
        with self._changed:
            return {version: record.source for version, record in self._models.get(name, {}).items()}

    def highest(self, name: str) -> int:
        """The highest version of a model that was ever loaded; 0 when none was."""
        with self._lock:
            return self._highest.get(name, 0)

    def is_used_elsewhere(self, name: str, version: int, folder: Path) -> bool:
        """Whether another server uses the folder of a version."""
        with self._lock:
            record = self._models.get(name, {}).get(version)
            own = None if record is None else record.in_use
        return own.is_shared() if own is not None and own.is_for(folder) else is_in_use(folder)

    def give_rows(self, name: str, version: int, rows: Tensors) -> None:
        """Keep rows that the engines of a version are compared on, as long as it is loaded.

        Raises:
            NotAvailable: if it is not AVAILABLE any more.
            InvalidRequest: if they do not fit its signature.
        """
        handle = self.acquire(name, version)
        if handle is None:
            raise NotAvailable(f"version {version} of {name} is not loaded any more")
        try:
            signature = main_signature(handle.servable.signatures)
            kept = worth_keeping(named_batch(rows, signature), signature)
            with self._lock:
                loaded = self._models[name][version].loaded
                if loaded is not None:
                    loaded.given = kept
        finally:
            handle.release()

    def set_engine(self, name: str, version: int, engine: str | None, progress: Progress) -> list[EngineMeasurement]:
        """Let another engine run a version that is AVAILABLE, or (None) measure anew; what was measured.

        Raises:
            NotAvailable: if it is not AVAILABLE any more.
            InvalidOption: if no engine can run it, or not this one.
        """
        handle = self.acquire(name, version)
        if handle is None:
            raise NotAvailable(f"version {version} of {name} is not loaded any more")
        try:
            with self._lock:
                record = self._models[name][version]
                given = {} if record.loaded is None else record.loaded.given
            with self._choosing:
                seen = partial(self._seen, name)
                measured = choose_engine(handle.servable, record.source, engine, given, seen, progress)
                if engine is not None:
                    with self._lock:
                        record.source = replace(record.source, engine=engine)
            return measured
        finally:
            handle.release()

    def _work(self, ready: threading.Event) -> None:
        ready.set()
        while True:
            step = self._next_step()
            if step is None:
                return
            action, name, version, record = step
            if isinstance(action, Load):
                self._load(name, version, record)
            else:
                self._free(name, record)

    def _next_step(self) -> tuple[Load | Unload, str, int, VersionRecord] | None:
        """Wait for something to do; publishes LOADING and UNLOADING. None when stopping."""
        with self._changed:
            while not self._stopping:
                now_s = self._now()
                wake_s: float | None = None
                for name, records in self._models.items():
                    for version, record in records.items():
                        due_s = self._due_s(name, version, record)
                        if due_s is None:
                            continue
                        if due_s <= now_s:
                            is_retry = record.state is VersionState.LOADING
                            return (Load if is_retry else Unload)(version), name, version, record
                        wake_s = due_s if wake_s is None else min(wake_s, due_s)
                    states = {version: record.state for version, record in records.items()}
                    action = next_action(states, self._aspired.get(name, frozenset()))
                    if action is None:
                        continue
                    record = records[action.version]
                    if isinstance(action, Load):
                        record.state, record.detail = VersionState.LOADING, "loading"
                        self._changed.notify_all()
                        return action, name, action.version, record
                    record.state, record.unload_by_s = VersionState.UNLOADING, now_s + UNLOAD_LIMIT_S
                    self._changed.notify_all()
                    break
                else:
                    self._changed.wait(None if wake_s is None else min(max(0.0, wake_s - now_s), LONGEST_WAIT_S))
            return None

    def _due_s(self, name: str, version: int, record: VersionRecord) -> float | None:
        """When a version that waits (to be freed, or to be loaded again) is due; None for all others."""
        if record.state is VersionState.UNLOADING:
            return 0.0 if record.num_handles == 0 else max(record.unload_by_s, record.busy_until_s + GRACE_S)
        if record.state is not VersionState.LOADING or record.retry_at_s is None:
            return None
        if version in self._aspired.get(name, frozenset()):
            return record.retry_at_s
        record.error, record.state = Cancelled("Loading of servable cancelled"), VersionState.END
        self._changed.notify_all()
        return None

    def _load(self, name: str, version: int, record: VersionRecord) -> None:
        record.retry_at_s = None
        servable: Servable | None = None
        in_use = FolderInUse(record.source.path)  # before it is read: it must not be deleted half-way
        try:
            source = record.source = record.source.resolved()
            servable = load_version(self._loader, source, partial(self._seen, name), partial(self._note_step, record))
            record.weights_bytes = folder_bytes(source.path)
            if servable.effects.reach:
                _log.info("Servable {name: %s version: %d}: %s", name, version, servable.effects.reach)
            trial = Trial(servable)
            seen = partial(self._seen, name)
            sharing = warm_up(trial, source, partial(self._note_warmup, record), self._observers, seen)
            findings = trial.findings(is_trusted=source.is_trusted)
            servable.restore()
            loaded = LoadedVersion(
                self.runner_for(source.device), servable, source, sharing, observers=self._observers, model=name,
                version=version, findings=findings,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - whatever loading raises, the manager goes on; the status has the reason
            if servable is not None:
                servable.close()
            in_use.close()
            self._load_failed(name, version, record, error)
            return
        with self._changed:
            record.loaded, record.in_use = loaded, in_use
            is_wanted = self._models.get(name, {}).get(version) is record and not self._stopping
            if is_wanted:
                record.error, record.state = None, VersionState.AVAILABLE
                self._highest[name] = max(version, self._highest.get(name, 0))
                self._changed.notify_all()
                _log.info("Successfully loaded servable version {name: %s version: %d}", name, version)
                for note in loaded.notes:
                    _log.info("Version %d of %s: %s", version, name, note)
        if not is_wanted:  # the model was given up while it loaded
            self._free(name, record)

    def _load_failed(self, name: str, version: int, record: VersionRecord, error: Exception) -> None:
        """Try again later, or give up; other versions and models go on meanwhile. What was refused stays refused."""
        public = _load_error(name, version, error)
        may_change = not isinstance(error, FailedPrecondition)
        with self._changed:
            record.error = public
            record.num_tries += 1
            if may_change and record.num_tries <= record.source.max_num_load_retries and not self._stopping:
                record.retry_at_s = self._now() + record.source.load_retry_interval_s
                record.detail = f"failed, try {record.num_tries + 1} follows: {public.message}"
            else:
                record.state, record.ended_at_s = VersionState.END, self._now()
            self._changed.notify_all()
        self._forget_ended(name)
        _log.info("Loading servable: {name: %s version: %d} failed: %s", name, version, public.message)

    def _note_warmup(self, record: VersionRecord, done: int, total: int) -> None:
        self._note_step(record, ProgressEvent("warming up", done, total))

    def _note_step(self, record: VersionRecord, event: ProgressEvent) -> None:
        with self._changed:
            record.detail, record.done, record.total = event.phase, event.done, event.total
            self._changed.notify_all()

    def _free(self, name: str, record: VersionRecord) -> None:
        record.close()
        with self._changed:
            record.loaded = record.in_use = None
            record.state, record.ended_at_s = VersionState.END, self._now()
            self._changed.notify_all()
        self._forget_ended(name)

    def _forget_ended(self, name: str) -> None:
        """Report no more than the last few versions that ended; how the others are loaded stays known."""

        def ended() -> dict[int, VersionRecord]:
            aspired = self._aspired.get(name, frozenset())
            found = {
                version: record
                for version, record in self._models.get(name, {}).items()
                if record.state is VersionState.END and version not in aspired
            }
            return dict(sorted(found.items(), key=lambda item: item[1].ended_at_s)[:-KEPT_ENDED])

        with self._lock:
            old = ended()
        on_disk = {version for version, record in old.items() if record.source.path.exists()}
        with self._lock:
            for version, record in ended().items():
                if old.get(version) is not record:
                    continue
                if version in on_disk:
                    self._models[name][version] = VersionRecord(record.source)
                else:
                    del self._models[name][version]


def _load_error(name: str, version: int, error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    return NotAvailable(f"version {version} of {name} could not be loaded: {type(error).__name__}: {error}")
