"""The experiments of a server: begins them, looks at them, carries out what they ask for, keeps them beside the models.

Thread: `tfserve-experiment`, a daemon, looks twice a second while an experiment goes on; everything else may be called
from any thread. One lock guards the experiments; it is held while traffic is moved, never while a version loads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any  # labels, JSON

from ..errors import InvalidOption, ModelNotFound, ServerFailed, ServingError, VersionNotFound
from ..serving.core import ServingCore
from ..serving.port import ModelSpec
from ..serving.state_store import StateStore, new_event
from ..types import DEFAULT_SIGNATURE, HistoryEvent, SignatureSpec, TensorSpec
from .answers import Answers
from .json_state import state_from_json, state_to_json
from .plan import Plan
from .running import Change, Running
from .state import BY_HAND, Disagreement, ExperimentState

_log = logging.getLogger(__name__)
LOOK_S = 0.5
SAVE_S = 5.0
JOIN_S = 1.5
NUM_DISAGREEMENTS = 24


class Experiments:
    """An `ExperimentPort` beside a core.

    Args:
        core: serves the versions.
        now: the clock of the core's records, in seconds.
        look_s: how often experiments are looked at, in seconds.
    """

    def __init__(
        self, core: ServingCore, *, now: Callable[[], float] = time.perf_counter, look_s: float = LOOK_S
    ) -> None:
        self._core = core
        self._now = now
        self._look_s = look_s
        self._lock = threading.RLock()
        self._running: dict[str, Running] = {}
        self._numbers: dict[str, int] = {}
        self._earlier: dict[str, ExperimentState | None] = {}
        self._answers = Answers()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        core.on_resumed = self.resume
        core.taps.attach(self._answers)

    # --- the port -----------------------------------------------------------------------------------------------

    def start(self, plan: Plan) -> None:
        """Begin; see `ExperimentPort.start`."""
        self._check_free(plan.name)
        self._check_limits(plan)
        # Both are loaded first, without a lock and without traffic, so that nothing is half done when one cannot be.
        with self._core.holding(plan.name, (plan.a, plan.b)):
            self._check_signatures(plan)
            self._begin(plan)

    def _begin(self, plan: Plan) -> None:
        with self._lock:
            self._check_free(plan.name)  # while the versions were loaded, somebody else may have begun
            running = Running(plan, now=self._now, started_at=time.time())
            self._listen(running)
            try:
                event = new_event("experiment", plan.b, f"against version {plan.a}: {in_words(plan)}")
                self._split(plan, plan.first_percent, event)
            except BaseException:
                self._unlisten(running)
                raise
            self._running[plan.name] = running
            self._numbers.pop(plan.name, None)
            self._save(running)
            self._ensure_thread()

    def state(self, name: str) -> ExperimentState | None:
        """Where the latest experiment stands; looked at now, not at the last tick."""
        self._core.model_status(name)
        with self._lock:
            running = self._running.get(name)
            if running is None:
                if name not in self._earlier:  # dashboards ask often, and nobody else writes it
                    self._earlier[name] = self._stored(name)
                return self._earlier[name]
            if running.is_over:
                running.look()  # labels may have come
            self._tick(running)
            return running.snapshot()

    def end(self, name: str, how: str) -> ExperimentState:
        """End the running experiment; see `ExperimentPort.end`."""
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
                raise InvalidOption(f"{name} has no experiment that goes on", hint=f"%abtest {name} --a 1 --b 2")
            running.look()
            self._carry_out(running, actions[how])
            if how == "stop":
                running.phase = "stopped"
            self._save(running)
            return running.snapshot()

    def feedback(self, name: str, request_id: str, label: Any) -> bool:
        """Note the right answer to an earlier request; see `ExperimentPort.feedback`."""
        self._core.model_status(name)
        with self._lock:
            running = self._running.get(name)
            if running is None:
                raise InvalidOption(
                    f"{name} has no experiment that could use feedback", hint=f"%abtest {name} --a 1 --b 2"
                )
            judged = self._answers.judge(name, request_id, label)
            for one in judged or ():
                arm = "a" if one.version == running.plan.a else "b"
                running.observations.add_feedback(arm, one.key, one.is_right, one.confidence)
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
            found = self._latest(name)
            if found is None or "running" not in found[1]:
                return False
            number, value = found
            state = state_from_json(value["state"])
            running = Running.from_json(state, value["running"], self._now)
            if running.is_over or not self._is_ours(running):
                return False
            self._running[name] = running
            self._numbers[name] = number
            self._listen(running)
            self._ensure_thread()
            return True

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

    def _ensure_thread(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._stop.clear()
        ready = threading.Event()
        thread = threading.Thread(target=self._work, args=(ready,), name="tfserve-experiment", daemon=True)
        thread.pydev_do_not_trace = True  # type: ignore[attr-defined]
        thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
        thread.start()
        if not ready.wait(2):
            raise ServerFailed("the experiments' thread did not start within 2 s", hint="restart the kernel")
        self._thread = thread

    def _work(self, ready: threading.Event) -> None:
        ready.set()
        saved_s = self._now()
        while not self._stop.wait(self._look_s):
            is_due = self._now() - saved_s >= SAVE_S
            with self._lock:
                for running in list(self._running.values()):
                    if not running.is_over:
                        self._tick(running, is_saved=is_due)
            if is_due:
                saved_s = self._now()

    def _tick(self, running: Running, *, is_saved: bool = False) -> None:
        """Look at one experiment, and do what it asks for; never raises, the thread must not die."""
        try:
            if running.is_over:
                return
            if not self._is_ours(running):
                running.look()
                self._over(running, "stopped", "somebody changed the traffic, or a version is no longer served")
                return
            running.note_dropped(self._core.pairs.num_dropped(running.plan.name))
            change = running.look()
            if change is not None:
                self._carry_out(running, change)
            if change is not None or is_saved:
                self._save(running)
        except ServingError as error:
            _log.warning("the experiment on %s: %s", running.plan.name, error.message)
        except Exception:  # noqa: BLE001 - a defect of ours: the other experiments are looked at all the same
            _log.exception("the experiment on %s could not be looked at", running.plan.name)

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
        self._core.observers.add(running.inbox)
        self._core.pairs.add(running.inbox.on_pair)
        self._answers.begin(running.plan.name, running.inbox)
        self._core.taps.refresh()

    def _unlisten(self, running: Running) -> None:
        self._core.observers.remove(running.inbox)
        self._core.pairs.remove(running.inbox.on_pair)
        self._answers.end(running.plan.name)
        self._core.taps.refresh()

    def _check_free(self, name: str) -> None:
        with self._lock:
            current = self._running.get(name)
            if current is not None and not current.is_over:
                raise InvalidOption(
                    f"{name} has an experiment that goes on: version {current.plan.b} against {current.plan.a}",
                    hint=f"%abtest {name} --stop",
                )

    def _check_limits(self, plan: Plan) -> None:
        if plan.limits.max_disagreement is not None and not plan.shadow:
            raise InvalidOption(
                "max_disagreement compares answers to the same rows, and shadow=0 makes no copies",
                hint="--shadow 20",
            )

    def _check_signatures(self, plan: Plan) -> None:
        """Both versions must take the same inputs and give outputs of the same names; of another size they may be."""
        a, b = (self._signature(plan.name, version) for version in (plan.a, plan.b))
        for what, ours, theirs in (("takes", a.inputs, b.inputs), ("gives", a.outputs, b.outputs)):
            if ours.keys() == theirs.keys() and all(
                _fit(ours[name], theirs[name], with_sizes=what == "takes") for name in ours
            ):
                continue
            raise InvalidOption(
                f"version {plan.a} of {plan.name} {what} {_in_words(ours)}, version {plan.b} {what} "
                f"{_in_words(theirs)}: clients could not be given either of them",
                hint="deploy a version with the same signature",
            )

    def _signature(self, name: str, version: int) -> SignatureSpec:
        handle = self._core.acquire(ModelSpec(name, version))
        try:
            signatures = handle.signatures
        finally:
            handle.release()
        found = signatures.get(DEFAULT_SIGNATURE) or next(iter(signatures.values()), None)
        if found is None:
            raise VersionNotFound(f"version {version} of {name} has no signature that can be called")
        return found

    # --- the state file -----------------------------------------------------------------------------------------

    def _store(self, name: str) -> StateStore | None:
        folder = self._core.base_path(name)
        return None if folder is None else StateStore(folder)

    def _save(self, running: Running) -> None:
        """Keep an experiment; a file that cannot be written ends nothing, it is told in the log."""
        name = running.plan.name
        value: dict[str, Any] = {"state": state_to_json(running.snapshot())}
        if not running.is_over:
            value["running"] = running.to_json()
        try:
            store = self._store(name)
            if store is not None:
                self._numbers[name] = store.save_experiment(name, value, self._numbers.get(name))
        except (ServingError, OSError) as error:
            _log.warning("the experiment on %s goes on, but is not kept: %s", name, error)

    def _latest(self, name: str) -> tuple[int, Mapping[str, Any]] | None:
        store = self._store(name)
        return None if store is None else store.latest_experiment(name)

    def _stored(self, name: str) -> ExperimentState | None:
        found = self._latest(name)
        return None if found is None else state_from_json(found[1]["state"])


def shares(plan: Plan, percent: float) -> dict[int, float]:
    """Version -> percent of the traffic while B gets so many; versions without any are left out."""
    return {version: share for version, share in ((plan.a, 100.0 - percent), (plan.b, percent)) if share > 0}


def in_words(plan: Plan) -> str:
    """What was asked for, in one line."""
    share = f"{plan.first_percent:g} % of the traffic" if plan.first_percent else "copies only"
    steps = f", then {', '.join(f'{step:g}' for step in plan.steps[1:])} %" if len(plan.steps) > 1 else ""
    return f"{share}{steps}; {plan.metric}, margin {100 * plan.margin:g} %"


def _fit(ours: TensorSpec, theirs: TensorSpec, *, with_sizes: bool) -> bool:
    """Whether an array of one is one of the other; where a size is not fixed, any fits."""
    if ours.dtype != theirs.dtype:
        return False
    if ours.shape is None or theirs.shape is None:
        return True
    sizes = [size for size in zip(ours.shape, theirs.shape, strict=False) if None not in size]
    return len(ours.shape) == len(theirs.shape) and not (with_sizes and any(one != other for one, other in sizes))


def _in_words(specs: Mapping[str, TensorSpec]) -> str:
    """Tensors, such as `image float32[?, 8, 8]`."""
    return ", ".join(f"{name} {spec}" for name, spec in specs.items())
