"""The experiments of a server: begins and evaluates them, carries out their changes, stores them beside the models.

Thread: `tfserve-experiment`, a daemon, evaluates twice a second while an experiment runs; everything else may be called
from any thread. One lock guards the experiments; it is held while traffic is moved, never while a version loads.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any  # labels, JSON

from ...agreement.kinds import kind_for
from ...agreement.result import Disagreement
from ...agreement.summary import Evidences, evidence_pairs
from ...errors import InvalidOption, ModelNotFound, ServingError
from ...export.provenance.provenance import evidence_of
from ...serialization import from_json, to_json
from ...serving.core import ServingCore
from ...serving.models.state_store import StateStore, new_event
from ...serving.telemetry.observer import Observer
from ...threads import start_thread
from ...types import HistoryEvent
from ..plan import Plan
from ..state import BY_HAND, NUM_DISAGREEMENTS, ExperimentState
from .checks import check_signatures
from .predictions import Predictions
from .running import Change, Running

_log = logging.getLogger(__name__)
LOOK_S = 0.5
SAVE_S = 5.0
JOIN_S = 1.5


class Experiments(Observer):
    """An `ExperimentAdmin` beside a core.

    Args:
        core: serves the versions.
        now: the clock of the core's records, in seconds.
        look_s: how often experiments are evaluated, in seconds.
    """

    def __init__(
        self, core: ServingCore, *, now: Callable[[], float] = time.perf_counter, look_s: float = LOOK_S
    ) -> None:
        self._core = core
        self._now = now
        self._look_s = look_s
        self._lock = threading.RLock()
        self._running: dict[str, Running] = {}
        self._numbers: dict[str, int | None] = {}
        self._stores: dict[str, StateStore] = {}
        self._earlier: dict[tuple[str, Path | None], ExperimentState | None] = {}
        self._predictions = Predictions()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        core.observers.add(self)

    # --- ExperimentAdmin ----------------------------------------------------------------------------------------

    def start(self, plan: Plan) -> ExperimentState:
        """Begin; see `ExperimentAdmin.start`."""
        self._check_free(plan.name)
        # Both are loaded first, without a lock and without traffic, so that nothing is half done when one cannot be.
        with self._core.holding(plan.name, (plan.a, plan.b)):
            check_signatures(self._core, plan)
            versions = self._core.model_status(plan.name).versions
            draws = [status.draws for status in versions if status.version in (plan.a, plan.b)]
            return self._begin(replace(plan, kind=kind_for(plan.kind, draws)))

    def _begin(self, plan: Plan) -> ExperimentState:
        with self._lock:
            self._check_free(plan.name)  # another caller may have begun while the versions were loaded
            self._ensure_thread()
            running = Running(plan, now=self._now, started_at=time.time(), evidence=self._evidence(plan))
            self._listen(running)
            try:
                event = new_event("experiment", plan.b, f"compared with version {plan.a}: {in_words(plan)}")
                self._split(plan, plan.first_percent, event)
            except BaseException:
                self._unlisten(running)
                raise
            self._keep_in(plan.name, None)
            self._running[plan.name] = running
            self._save(running)
            return running.snapshot()

    def state(self, name: str) -> ExperimentState | None:
        """The state of the latest experiment, evaluated now and not at the last tick."""
        self._core.model_status(name)
        with self._lock:
            running = self._running.get(name)
            if running is None:
                where = name, self._core.base_path(name)
                if where not in self._earlier:  # dashboards call this often, and only this process writes it
                    self._earlier[where] = self._stored(name)
                return self._earlier[where]
            if running.is_over:
                running.look()  # labels may have come
            self._tick(running)
            return running.snapshot()

    def end(self, name: str, how: str) -> ExperimentState:
        """End the running experiment; see `ExperimentAdmin.end`."""
        actions = {
            "promote": Change("promote", 100.0, f"promoted {BY_HAND}"),
            "rollback": Change("rollback", 0.0, f"rolled back {BY_HAND}"),
            "stop": Change("rollback", 0.0, f"stopped {BY_HAND}"),
        }
        if how not in actions:
            raise InvalidOption(f"how={how!r} must be one of {', '.join(actions)}", hint="stop")
        self._core.model_status(name)
        with self._lock:
            running = self._running.get(name)
            if running is None or running.is_over:
                raise InvalidOption(f"{name} has no running experiment", hint=f"%abtest {name} --a 1 --b 2")
            if not self._is_ours(running):  # changes from outside the experiment are not undone
                self._tick(running)
                raise InvalidOption(f"the experiment on {name} is over: {running.reason}", hint=f"%serving {name}")
            running.look()
            self._carry_out(running, actions[how])
            if how == "stop":
                running.phase = "stopped"
            self._save(running)
            return running.snapshot()

    def feedback(self, name: str, request_id: str, label: Any) -> bool:
        """Note the right label of an earlier request; see `ExperimentAdmin.feedback`."""
        self._core.model_status(name)
        with self._lock:
            running = self._running.get(name)
            if running is None:
                raise InvalidOption(
                    f"{name} has no experiment that could take labels", hint=f"%abtest {name} --a 1 --b 2"
                )
            judged = self._predictions.judge(name, request_id, label)
            for row in judged or ():
                arm = "a" if row.version == running.plan.a else "b"
                running.observations.add_feedback(arm, row.key, row.is_right, row.confidence)
            return judged is not None

    def disagreements(self, name: str, limit: int = NUM_DISAGREEMENTS) -> list[Disagreement]:
        """The rows on which both versions differed most."""
        self._core.model_status(name)
        with self._lock:
            running = self._running.get(name)
            return [] if running is None else running.disagreements(limit)

    # --- life ---------------------------------------------------------------------------------------------------

    def resume(self, name: str) -> bool:
        """Go on with the experiment that an earlier process left; False when there is none.

        Its counts, its salt and its step are as they were; the time in between does not count.
        """
        with self._lock:
            with self._log_unreadable(name):
                found = self._latest(name)
                if found is None or "running" not in found[1]:
                    return False
                number, value = found
                state = from_json(value["state"], ExperimentState)
                if state.plan.name != name:  # not what we wrote
                    return False
                running = Running.from_json(state, value["running"], self._now, self._evidence(state.plan))
                running.catch_up(self._core.model_status(name).traffic)
                if running.is_over or not self._is_ours(running):
                    return False
                self._ensure_thread()
                self._keep_in(name, number)
                self._running[name] = running
                self._listen(running)
                return True
            return False

    def on_resumed(self, model: str) -> None:
        """A model is served again: its split may be that of an experiment."""
        self.resume(model)

    def stop(self) -> None:
        """End the thread and keep what goes on for the next process. Idempotent, bounded."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_S)
        with self._lock:
            for running in self._running.values():
                if not running.is_over:
                    self._unlisten(running)
                    self._save(running)
            self._running = {}

    # --- inner workings -----------------------------------------------------------------------------------------

    def _evidence(self, plan: Plan) -> Evidences:
        """Loss and activation of the outputs, from both versions' provenance."""
        folder = self._core.base_path(plan.name)
        return evidence_pairs(*(evidence_of(folder, plan.name, version) for version in (plan.a, plan.b)))

    def _ensure_thread(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._stop.clear()
        self._thread = start_thread("tfserve-experiment", self._work)

    def _work(self, ready: threading.Event) -> None:
        ready.set()
        saved_s = self._now()
        while not self._stop.wait(self._look_s):
            is_due = self._now() - saved_s >= SAVE_S
            with self._lock:
                for running in list(self._running.values()):
                    if not running.is_over:
                        self._tick(running, is_saved=is_due)
                    if running.is_over and running.plan.name not in self._core.names:
                        del self._running[running.plan.name]  # with the rows that it holds; how it ended is kept
                if all(running.is_over for running in self._running.values()):
                    self._thread = None  # under the lock: the next experiment starts another one
                    return
            if is_due:
                saved_s = self._now()

    def _tick(self, running: Running, *, is_saved: bool = False) -> None:
        """Evaluate an experiment, and carry out its change; never raises, the thread must not die."""
        try:
            if running.is_over:
                return
            if not self._is_ours(running):
                running.look()
                why = "the traffic was changed from outside the experiment, or a version is no longer served"
                self._over(running, "stopped", why)
                return
            running.note_dropped(self._core.copies.num_dropped(running.plan.name))
            change = running.look()
            if change is not None:
                self._carry_out(running, change)
            if change is not None or is_saved:
                self._save(running)
        except ServingError as error:
            _log.warning("the experiment on %s: %s", running.plan.name, error.message)
        except Exception:  # noqa: BLE001 - a defect of ours: the other experiments are evaluated all the same
            _log.exception("the experiment on %s could not be evaluated", running.plan.name)

    def _is_ours(self, running: Running) -> bool:
        """Whether the traffic is still what the experiment made of it."""
        plan = running.plan
        try:
            traffic = self._core.model_status(plan.name).traffic
            return self._core.arms(plan.name) == {plan.a: "a", plan.b: "b"} and traffic == shares(plan, running.percent)
        except ModelNotFound:
            return False

    def _carry_out(self, running: Running, change: Change) -> None:
        plan = running.plan
        if change.action == "traffic":
            event = new_event("traffic", plan.b, f"{change.reason}: {change.percent:g} %")
            self._split(plan, change.percent, event)
        elif change.action in ("rollback", "promote"):
            winner = plan.a if change.action == "rollback" else plan.b
            event = new_event(change.action, winner, f"experiment: {change.reason}")
            if winner == plan.a:
                # Not a split: B must not become what `%rollback` leads to.
                self._core.roll_back(plan.name, plan.a, event=event)
            else:
                self._core.set_split(plan.name, {winner: 100.0}, event=event)
            is_alarm = change.action == "rollback" and not change.reason.endswith(BY_HAND)
            level = logging.WARNING if is_alarm else logging.INFO
            _log.log(level, "%s: version %d answers now; %s", plan.name, winner, change.reason)
        running.changed(change)
        if running.is_over:
            self._over(running, running.phase, change.reason)

    def _split(self, plan: Plan, percent: float, event: HistoryEvent) -> None:
        """Give B a share; both stay loaded, whatever it is."""
        self._core.set_split(
            plan.name,
            shares(plan, percent),
            salt=plan.salt,
            key_header=plan.key,
            arms={plan.a: "a", plan.b: "b"},
            shadow=(plan.b, plan.shadow) if plan.shadow else None,
            event=event,
        )

    def _over(self, running: Running, phase: str, reason: str) -> None:
        running.finish(phase, reason, time.time())
        self._unlisten(running)
        self._save(running)

    def _listen(self, running: Running) -> None:
        plan = running.plan
        self._predictions.begin(plan.name, running.inbox.versions, plan.agreement, running.evidence)
        self._core.observers.add(running.inbox)
        self._core.observers.add(self._predictions)

    def _unlisten(self, running: Running) -> None:
        self._predictions.end(running.plan.name)
        self._core.observers.remove(running.inbox)
        if not self._predictions.is_on:
            self._core.observers.remove(self._predictions)

    def _check_free(self, name: str) -> None:
        with self._lock:
            current = self._running.get(name)
            if current is not None and not current.is_over:
                raise InvalidOption(
                    f"{name} has a running experiment: version {current.plan.b} compared with version {current.plan.a}",
                    hint=f"%abtest {name} --stop",
                )

    # --- the state file -----------------------------------------------------------------------------------------

    def _store(self, name: str) -> StateStore | None:
        folder = self._core.base_path(name)
        return None if folder is None else StateStore(folder)

    def _keep_in(self, name: str, number: int | None) -> None:
        """Set the store of an experiment, also when its model is no longer served; `number` if it was."""
        self._numbers[name] = number
        store = self._store(name)
        if store is not None:
            self._stores[name] = store

    def _save(self, running: Running) -> None:
        """Keep an experiment; a file that cannot be written only makes a warning in the log."""
        name = running.plan.name
        value: dict[str, Any] = {"state": to_json(running.snapshot())}
        if not running.is_over:
            value["running"] = running.to_json()
        try:
            store = self._stores.get(name)
            if store is not None:
                self._numbers[name] = store.save_experiment(name, value, self._numbers.get(name))
        except (ServingError, OSError) as error:
            _log.warning("the experiment on %s continues, but is not stored: %s", name, error)

    def _latest(self, name: str) -> tuple[int, Mapping[str, Any]] | None:
        store = self._store(name)
        return None if store is None else store.latest_experiment(name)

    def _stored(self, name: str) -> ExperimentState | None:
        """The latest experiment, which does not go on: what was running when its process ended has stopped."""
        with self._log_unreadable(name):
            found = self._latest(name)
            state = None if found is None else from_json(found[1]["state"], ExperimentState)
            if state is not None and not state.is_over:
                return replace(state, phase="stopped", reason="its server ended, or no longer served the model")
            return state
        return None

    @contextlib.contextmanager
    def _log_unreadable(self, name: str) -> Iterator[None]:
        """Log a warning when the stored experiment cannot be read; the model is served all the same."""
        try:
            yield
        except (ServingError, LookupError, TypeError, ValueError, AttributeError) as error:
            _log.warning("the latest experiment on %s cannot be read: %s: %s", name, type(error).__name__, error)


def shares(plan: Plan, percent: float) -> dict[int, float]:
    """Version -> percent of the traffic while B gets so many; versions without any are left out."""
    return {version: share for version, share in ((plan.a, 100.0 - percent), (plan.b, percent)) if share > 0}


def in_words(plan: Plan) -> str:
    """The plan in one line."""
    share = f"{plan.first_percent:g} % of the traffic" if plan.first_percent else "copies only"
    steps = f", then {', '.join(f'{step:g}' for step in plan.steps[1:])} %" if len(plan.steps) > 1 else ""
    return f"{share}{steps}; {plan.metric}, margin {100 * plan.margin:g} %"
