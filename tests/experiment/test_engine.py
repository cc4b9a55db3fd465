"""Experiments on a real core: beginning, ending, limits under load, somebody else's hands, restarts."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.eventually import eventually
from helpers.faulty_servable import Fault, FaultyLoader, drifting, far, fine, nan, raising, signature, slow

from tfserve_nb.errors import InvalidOption, InvalidRequest, ModelNotFound, ServingError, VersionNotFound
from tfserve_nb.experiment.engine.experiments import Experiments
from tfserve_nb.experiment.plan import Limits, Plan
from tfserve_nb.experiment.state import ExperimentState
from tfserve_nb.serialization import from_json, to_json
from tfserve_nb.serving.backend import ModelSpec
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.models.state_store import FILE_NAME
from tfserve_nb.serving.versions.source import VersionSource

NET = ModelSpec("net")
ROW = np.array([[3.0, 1.0]], dtype=np.float32)
LOOK_S = 0.05
PATIENCE_S = 40.0
"""How long a noisy machine may take for what takes a second or two."""


class Lab:
    """A core with versions 1 (promoted) and 2 (staged), and its experiments."""

    def __init__(self, base: Path, loader: FaultyLoader) -> None:
        self.base = base
        self.loader = loader
        self.core = ServingCore(loader)
        self.experiments = Experiments(self.core, look_s=LOOK_S)
        self.errors: list[tuple[float, ServingError]] = []
        self.core.start()

    def deploy(self) -> Lab:
        for version in (1, 2):
            path = self.base / "net" / str(version)
            path.mkdir(parents=True, exist_ok=True)
            source = VersionSource(path, BatchingOptions(max_batch_size=8))
            self.core.deploy("net", version, source, self.base, Placement(stage=version == 2, keep=2))
        return self

    def ask(self, **options: Any) -> np.ndarray:
        return self.core.predict(NET, "serving_default", ROW, 10, **options)["y"]

    @contextmanager
    def load(self, num_clients: int = 3) -> Iterator[None]:
        """Clients that ask without a pause, and note their errors."""
        is_over = threading.Event()

        def client() -> None:
            while not is_over.is_set():
                try:
                    self.ask()
                except ServingError as error:
                    self.errors.append((time.perf_counter(), error))

        threads = [threading.Thread(target=client, name=f"client-{number}") for number in range(num_clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join(10)

    def wait_for(self, phase: str) -> ExperimentState:
        until_s = time.perf_counter() + PATIENCE_S
        while time.perf_counter() < until_s:
            state = self.state()
            if state.phase == phase:
                return state
            time.sleep(0.02)
        pytest.fail(f"still {state.phase} ({state.reason}): {state.reading.verdict}; {state.reading.guardrails}")

    def state(self) -> ExperimentState:
        state = self.experiments.state("net")
        assert state is not None
        return state

    def settled(self, num_units: int) -> ExperimentState:
        """Where it stands once the sample ratio counts so many units: the latest are waited for."""
        eventually(lambda: sum(self.state().reading.srm.counts.values()) >= num_units)
        return self.state()

    def history(self) -> list[tuple[str, int | None, str]]:
        return [(event.action, event.version, event.detail) for event in self.core.history("net")]

    def stop(self) -> None:
        self.experiments.stop()
        self.core.stop()


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Any]:
    made: list[Lab] = []

    def make(fault: Fault | None = None, signatures: dict[int, Any] | None = None, *, is_resumed: bool = False) -> Lab:
        lab = Lab(tmp_path, FaultyLoader({2: fault} if fault else {}, signatures))
        made.append(lab)
        if is_resumed:
            lab.core.resume(tmp_path)
            return lab
        return lab.deploy()

    yield make
    for lab in made:
        lab.stop()


@pytest.fixture
def lab(labs: Any) -> Lab:
    return labs()


def limits(**given: Any) -> Limits:
    return Limits(**{"window_s": 0.3, "windows": 3, "breaches": 2, **given})


def test_an_experiment_splits_the_traffic_and_ends_as_it_was(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2, split=50))
    for _ in range(200):
        lab.ask()

    state = lab.state()
    assert lab.core.model_status("net").traffic == {1: 50.0, 2: 50.0}
    assert sum(state.reading.samples.values()) == 200
    assert state.reading.samples.keys() == {1, 2}
    assert not state.reading.srm.is_mismatch

    ended = lab.experiments.end("net", "stop")

    assert (ended.phase, ended.is_over) == ("stopped", True)
    assert lab.core.model_status("net").traffic == {1: 100.0}
    assert lab.experiments.state("net") is not None


@pytest.mark.parametrize(("how", "winner", "phase"), [("promote", 2, "promoted"), ("rollback", 1, "rolled back")])
def test_a_person_can_end_it(lab: Lab, how: str, winner: int, phase: str) -> None:
    lab.experiments.start(Plan("net", 1, 2))

    state = lab.experiments.end("net", how)

    assert (state.phase, state.reason) == (phase, f"{phase} by hand")
    assert lab.core.model_status("net").traffic == {winner: 100.0}
    assert lab.history()[0][:2] == ({"promote": "promote", "rollback": "rollback"}[how], winner)
    with pytest.raises(InvalidOption, match="no running experiment"):
        lab.experiments.end("net", "stop")


def test_keys_stay_with_their_version(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2))
    for _ in range(3):
        for number in range(40):
            lab.ask(key=f"user-{number}")

    srm = lab.settled(40).reading.srm
    assert srm.unit == "keys"
    assert sum(srm.counts.values()) == 40


def test_versions_with_other_inputs_are_refused_and_nothing_changes(labs: Any) -> None:
    lab = labs(signatures={2: signature(name="z")})
    before = lab.core.model_status("net").traffic

    with pytest.raises(InvalidOption, match="version 1 of net gives y float32"):
        lab.experiments.start(Plan("net", 1, 2))

    assert lab.core.model_status("net").traffic == before
    assert lab.experiments.state("net") is None


def test_a_candidate_without_a_signature_that_clients_may_call_is_refused(labs: Any) -> None:
    lab = labs(signatures={2: replace(signature(), name="other")})

    with pytest.raises(InvalidOption, match="version 2 of net has no signature 'serving_default'"):
        lab.experiments.start(Plan("net", 1, 2))

    assert lab.core.model_status("net").traffic == {1: 100.0}


def test_versions_with_inputs_of_another_size_are_refused_with_both_in_words(labs: Any) -> None:
    lab = labs(signatures={2: signature(width=3)})

    with pytest.raises(
        InvalidOption, match=r"version 1 of net takes x float32\[\?, 2\], version 2 takes x float32\[\?, 3\]"
    ):
        lab.experiments.start(Plan("net", 1, 2))

    assert lab.experiments.state("net") is None


def test_what_cannot_be_compared_is_refused(lab: Lab) -> None:
    with pytest.raises(InvalidOption, match="both version 1"):
        Plan("net", 1, 1)
    with pytest.raises(VersionNotFound, match="no version 7"):
        lab.experiments.start(Plan("net", 1, 7))
    with pytest.raises(ModelNotFound):
        lab.experiments.start(Plan("other", 1, 2))
    with pytest.raises(InvalidOption, match="shadow=0 makes no copies"):
        Plan("net", 1, 2, shadow=0, limits=Limits(max_disagreement=0.1))

    lab.experiments.start(Plan("net", 1, 2))
    with pytest.raises(InvalidOption, match="has a running experiment"):
        lab.experiments.start(Plan("net", 1, 2))


def test_somebody_elses_switch_ends_the_experiment(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2))

    lab.core.promote("net", 2)

    state = lab.wait_for("stopped")
    assert "the traffic was changed from outside" in state.reason
    assert lab.core.model_status("net").traffic == {2: 100.0}


def test_somebody_elses_split_ends_the_experiment_too(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2))

    lab.core.set_traffic("net", {1: 80, 2: 20})

    assert lab.state().phase == "stopped"
    assert lab.core.model_status("net").traffic == {1: 80.0, 2: 20.0}


def test_the_candidate_cannot_be_taken_away_while_it_gets_copies(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2, split=0))
    assert lab.core.model_status("net").traffic == {1: 100.0}

    with pytest.raises(InvalidOption, match="still has copies"):
        lab.core.undeploy("net", 2)

    assert lab.state().phase == "running"


def test_one_of_two_that_begin_at_once_wins(lab: Lab) -> None:
    refused: list[InvalidOption] = []

    def begin() -> None:
        try:
            lab.experiments.start(Plan("net", 1, 2))
        except InvalidOption as error:
            refused.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(refused) == 3
    assert lab.state().phase == "running"


def test_a_model_that_is_undeployed_ends_its_experiment(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2))

    lab.core.undeploy("net")

    with pytest.raises(ModelNotFound):
        lab.experiments.state("net")
    lab.deploy()
    assert lab.wait_for("stopped").reason.startswith("the traffic was changed from outside")
    assert Experiments(lab.core).state("net").phase == "stopped"  # type: ignore[union-attr]  # there is one


@pytest.mark.parametrize(
    ("fault", "given", "said"),
    [
        (nan, {}, "NaN"),
        (raising, {}, "fail"),
        (slow, {}, "slower"),
        (fine, {"slo_p99_ms": 0.001}, "took longer than 0.001 ms"),
        (drifting, {"max_disagreement": 0.1}, "differ"),
        (far, {"output_range": (0.0, 10.0)}, "outside 0 to 10"),
    ],
    ids=["nan", "raising", "slow", "too slow for its limit", "drifting", "out of range"],
)
def test_a_fault_is_taken_back_once_and_clients_are_safe_from_then_on(
    labs: Any, caplog: pytest.LogCaptureFixture, fault: Fault, given: dict[str, Any], said: str
) -> None:
    lab = labs(fault)
    lab.experiments.start(Plan("net", 1, 2, split=30, shadow=50, limits=limits(**given)))
    lab.loader.is_on.set()

    # Copies run in time that is left over: clients that leave none would leave nothing to compare.
    with lab.load(1 if "max_disagreement" in given else 3):
        state = lab.wait_for("rolled back")
        switched_s = time.perf_counter()
        for _ in range(50):
            lab.ask()

    assert lab.core.model_status("net").traffic == {1: 100.0}
    # A request that had its version before the switch may still fail; after that nobody meets version 2.
    assert [error for at_s, error in lab.errors if at_s > switched_s + 0.5] == []
    assert said.lower() in state.reason.lower()
    assert str(state.verdict).endswith(": rolled back")
    rollbacks = [event for event in lab.history() if event[0] == "rollback"]
    assert len(rollbacks) == 1
    assert rollbacks[0][1] == 1
    assert state.reason in rollbacks[0][2]
    assert [record.levelname for record in caplog.records if state.reason in record.getMessage()] == ["WARNING"]


@pytest.mark.parametrize("fault", [fine, raising], ids=["too slow", "failing"])
def test_a_candidate_that_gets_everything_is_watched_as_well(
    labs: Any, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    lab = labs(fault)
    limit = 0.001 if fault is fine else None
    lab.experiments.start(Plan("net", 1, 2, split=100, shadow=0, limits=limits(slo_p99_ms=limit)))
    lab.loader.is_on.set()

    with lab.load():
        state = lab.wait_for("rolled back")

    assert "of B's requests" in state.reason
    assert len(caplog.records) == 1
    assert lab.core.model_status("net").traffic == {1: 100.0}


def test_going_back_once_more_does_not_lead_to_the_version_that_was_taken_back(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2, split=100, shadow=0))

    lab.experiments.end("net", "rollback")

    with pytest.raises(VersionNotFound, match="no earlier version"):
        lab.core.roll_back("net")
    assert lab.core.model_status("net").traffic == {1: 100.0}


def test_without_auto_rollback_a_person_decides(labs: Any) -> None:
    lab = labs(raising)
    lab.experiments.start(Plan("net", 1, 2, auto_rollback=False, limits=limits()))
    lab.loader.is_on.set()

    with lab.load():
        state = lab.wait_for("held")

    assert "nothing was changed" in state.reason
    assert lab.core.model_status("net").traffic == {1: 50.0, 2: 50.0}


def test_a_canary_goes_from_step_to_step_and_is_promoted_when_asked(lab: Lab) -> None:
    plan = Plan("net", 1, 2, steps=(10, 50), hold_s=0.2, margin=1.0, auto_promote=True, limits=limits())
    lab.experiments.start(plan)
    assert lab.core.model_status("net").traffic == {1: 90.0, 2: 10.0}

    with lab.load():
        state = lab.wait_for("promoted")

    assert lab.core.model_status("net").traffic == {2: 100.0}
    assert [event[0] for event in lab.history()[:3]] == ["promote", "traffic", "experiment"]
    assert str(state.verdict).endswith(": promoted")


def test_a_canary_up_to_a_hundred_promotes_itself() -> None:
    plan = Plan("net", 1, 2, steps=(1, 5, 25, 50, 100))

    assert (plan.steps, plan.auto_promote) == ((1, 5, 25, 50), True)
    assert from_json(json.loads(json.dumps(to_json(plan))), Plan) == plan
    with pytest.raises(InvalidOption, match="everything at once"):
        Plan("net", 1, 2, steps=(100,))


def test_a_restart_goes_on_with_counts_salt_and_step(labs: Any) -> None:
    lab = labs()
    plan = Plan("net", 1, 2, split=40, margin=0.0002)  # too narrow to be decided here
    lab.experiments.start(plan)
    for number in range(60):
        lab.ask(key=f"user-{number}")
    before = lab.settled(60)
    lab.stop()

    again = labs(is_resumed=True)
    for number in range(60):
        again.ask(key=f"user-{number}")

    state = again.state()
    assert (state.plan, state.phase, state.percent) == (plan, "running", 40)
    assert state.started_at == before.started_at
    # The same salt sends the same keys to the same versions: every count is doubled.
    assert state.reading.samples == {version: 2 * num for version, num in before.reading.samples.items()}
    assert state.reading.srm.counts == before.reading.srm.counts


def test_a_step_that_was_routed_but_not_noted_before_a_restart_is_taken_over(labs: Any) -> None:
    lab = labs()
    plan = Plan("net", 1, 2, steps=(10, 50), hold_s=1000)
    lab.experiments.start(plan)
    lab.experiments.stop()  # the process ends between the two
    shadow = (2, plan.shadow)
    arms = {1: "a", 2: "b"}
    lab.core.set_split("net", {1: 50, 2: 50}, salt=plan.salt, key_header=plan.key, arms=arms, shadow=shadow)
    lab.stop()

    state = labs(is_resumed=True).state()

    assert (state.phase, state.step, state.percent) == ("running", 1, 50)


def test_feedback_is_joined_by_request_and_counts_once(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2, metric="quality"))
    for number in range(50):
        lab.ask(request_id=f"r{number}")

    known = [lab.experiments.feedback("net", f"r{number}", 0) for number in range(50)]

    assert all(known)
    assert not lab.experiments.feedback("net", "r0", 0)
    assert not lab.experiments.feedback("net", "who", 0)
    assert lab.state().reading.quality is not None


def test_requests_without_rows_and_odd_keys_keep_nothing_from_being_seen(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2, split=50, shadow=100))

    for number in range(10):
        lab.core.predict(NET, "serving_default", np.zeros((0, 2), np.float32), 10, request_id=f"none{number}")
        lab.ask(key="\ud800")
        lab.ask()

    assert sum(lab.state().reading.samples.values()) == 30
    assert lab.experiments.feedback("net", "none0", [])


def test_labels_of_another_form_are_refused_and_the_request_can_still_be_judged(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2))
    lab.ask(request_id="r")

    with pytest.raises(InvalidRequest, match="had 1 rows, and labels of shape"):
        lab.experiments.feedback("net", "r", [[1, 0]])

    assert lab.experiments.feedback("net", "r", 0)


def test_a_person_who_ends_it_undoes_nothing_that_another_did(labs: Any) -> None:
    lab = labs()
    lab.experiments.stop()  # nobody looks
    lab.experiments = Experiments(lab.core, look_s=60)
    lab.experiments.start(Plan("net", 1, 2))
    lab.core.promote("net", 2)

    with pytest.raises(InvalidOption, match="the traffic was changed from outside"):
        lab.experiments.end("net", "stop")

    assert lab.core.model_status("net").traffic == {2: 100.0}
    assert lab.state().phase == "stopped"


def test_what_was_not_taken_up_again_does_not_look_as_if_it_ran(lab: Lab) -> None:
    lab.experiments.start(Plan("net", 1, 2))
    lab.experiments.stop()

    state = Experiments(lab.core).state("net")

    assert state is not None
    assert (state.phase, state.is_over) == ("stopped", True)
    assert "its server ended" in state.reason


def test_a_deploy_into_a_new_process_takes_the_experiment_up_again(labs: Any, tmp_path: Path) -> None:
    lab = labs()
    lab.experiments.start(Plan("net", 1, 2))
    lab.stop()
    again = Lab(tmp_path, FaultyLoader({}, None))
    try:
        path = tmp_path / "net" / "3"
        path.mkdir()
        again.core.deploy("net", 3, VersionSource(path, BatchingOptions()), tmp_path, Placement(stage=True))

        for _ in range(10):
            again.ask()

        assert again.state().phase == "running"
        assert sum(again.state().reading.samples.values()) == 10
        assert again.core.model_status("net").traffic == {1: 50.0, 2: 50.0}
    finally:
        again.stop()


@pytest.mark.parametrize("damage", ["{}", "[]", "no JSON", '{"state": {}, "running": {}}'])
def test_what_cannot_be_read_any_more_keeps_no_model_from_being_served(
    labs: Any, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    lab = labs()
    lab.experiments.start(Plan("net", 1, 2))
    lab.stop()
    with sqlite3.connect(lab.base / FILE_NAME) as connection:
        connection.execute("UPDATE experiments SET state = ?", (damage,))

    again = labs(is_resumed=True)

    assert again.ask().shape == (1, 2)
    assert again.experiments.state("net") is None
    assert caplog.records


def test_nobody_looks_any_more_once_nothing_goes_on(lab: Lab) -> None:
    def looking() -> int:
        return sum(thread.name == "tfserve-experiment" for thread in threading.enumerate())

    for _ in range(3):
        lab.experiments.start(Plan("net", 1, 2))
        assert looking() == 1
        lab.experiments.end("net", "stop")
    eventually(lambda: looking() == 0)
    lab.experiments.start(Plan("net", 1, 2))
    lab.core.promote("net", 2)
    assert lab.wait_for("stopped")
