"""Everything that can be done from a dashboard, in one table that the widgets and the web page follow.

Each action has its texts, the choices that it needs, the function that carries it out, and the action that takes it
back.

Thread: any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any  # JSON values

from ..errors import InvalidRequest
from ..types import ModelStatus, VersionState
from .controls import DeploymentControls


@dataclass(frozen=True, slots=True)
class Choice:
    """The choices that an action was started with.

    Attributes:
        version: a version's number.
        label: a label's name.
        percent: the share of the traffic that `version` gets.
        weights: version -> percent of the traffic.
        a: the current version of an experiment.
        b: its candidate.
        engine: what is to run `version`: an engine's name, or `auto`.
    """

    version: int | None = None
    label: str = ""
    percent: float | None = None
    weights: Mapping[int, float] = field(default_factory=dict)
    a: int | None = None
    b: int | None = None
    engine: str = ""

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Choice:
        """The inverse of `to_json`; what is missing was not chosen.

        Raises:
            ValueError: for a number that is none.
        """
        numbers = {name: int(given[name]) for name in ("version", "a", "b") if given.get(name) not in (None, "")}
        return cls(
            **numbers,
            label=str(given.get("label") or "").strip(),
            engine=str(given.get("engine") or ""),
            percent=None if given.get("percent") is None else float(given["percent"]),
            weights={int(version): float(share) for version, share in (given.get("weights") or {}).items()},
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


_MISSING = {
    "version": "choose a version first",
    "label": "write the label first, such as stable or canary",
    "percent": "choose a share of the traffic first",
    "weights": "choose the shares of the traffic first",
    "a": "choose version A first",
    "b": "choose version B first",
    "engine": "choose an engine first",
}
"""What an action needs -> the error text while it is not chosen."""


@dataclass(frozen=True, slots=True)
class Undo:
    """How an action is taken back.

    Attributes:
        what: the action that is taken back, such as `promote version 3`.
        action: the name of the action that does it.
        choice: what is chosen for that one.
    """

    what: str
    action: str
    choice: Choice


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do, with everything chosen.

    Attributes:
        what: a few words, plain text.
        work: does it; may take seconds.
        done: from what `work` returned and the milliseconds that it took, the text that reports it; plain text.
        undo: how to take it back, or None.
    """

    what: str
    work: Callable[[], object]
    done: Callable[[object, float], str]
    undo: Undo | None = None

    def carry_out(self) -> str:
        """Do it; returns the text of `done`, raises what `work` raises."""
        started_s = time.perf_counter()
        result = self.work()
        return self.done(result, (time.perf_counter() - started_s) * 1e3)


Work = Callable[[DeploymentControls, Choice], object]
Done = Callable[[DeploymentControls, Choice, float], str]
Reverse = Callable[[ModelStatus, Choice], tuple[str, Choice] | None]
"""From the model before an action: the action that restores it, and what is chosen for that one; None for none."""


def sentence(text: str) -> Done:
    """A sentence about what was chosen."""
    return lambda _, choice, __: text.format_map(choice.to_json())


@dataclass(frozen=True, slots=True)
class Action:
    """One line of the table. Texts may contain the fields of `Choice` in braces, and the model's `{name}`.

    Attributes:
        name: its key in `ACTIONS`.
        text: on its button; "" for one without a button.
        title: what the button does, in a sentence.
        what: a few words that name the action, for the status line and for Undo.
        needs: fields of `Choice` that have to be chosen.
        work: does it.
        done: returns the text that reports it; gets the milliseconds that it took.
        reverse: finds the action that takes it back.
        question: asked before it is done; "" for no question.
        is_main: whether it is the button that stands out.
    """

    name: str
    text: str
    title: str
    what: str
    needs: tuple[str, ...]
    work: Work
    done: Done
    reverse: Reverse = lambda *_: None
    question: str = ""
    is_main: bool = False

    def job(self, controls: DeploymentControls, choice: Choice, status: ModelStatus | None) -> Job:
        """The action for what was chosen.

        Args:
            controls: the deployment.
            choice: what was chosen.
            status: the model now, from which Undo is derived; None for an action that cannot be taken back.

        Raises:
            InvalidRequest: if something that it needs was not chosen.
        """
        for need in self.needs:
            if getattr(choice, need) in (None, "", {}):
                raise InvalidRequest(_MISSING[need])
        what = self.what.format_map(choice.to_json())
        back = None if status is None else self.reverse(status, choice)
        return Job(
            what,
            lambda: self.work(controls, choice),
            lambda _, took_ms: self.done(controls, choice, took_ms),
            None if back is None else Undo(what, *back),
        )

    def to_json(self) -> dict[str, object]:
        """What the web page has to know of it."""
        return {name: getattr(self, name) for name in ("name", "text", "title", "what", "needs", "question", "is_main")}


# --- how to undo ------------------------------------------------------------------------------------------------------


def _same_traffic(status: ModelStatus, _: Choice) -> tuple[str, Choice] | None:
    default, traffic = status.default_version, dict(status.traffic)
    if default is None:
        return None
    if set(traffic) == {default}:
        return "promote", Choice(version=default)
    return "traffic", Choice(weights=traffic)


def _is_loaded(status: ModelStatus, choice: Choice) -> bool:
    return choice.version in loaded_versions(status)


def _unload_again(status: ModelStatus, choice: Choice) -> tuple[str, Choice] | None:
    return None if _is_loaded(status, choice) else ("unload", choice)


def _load_again(status: ModelStatus, choice: Choice) -> tuple[str, Choice] | None:
    return ("stage", choice) if _is_loaded(status, choice) else None


def _same_label(status: ModelStatus, choice: Choice) -> tuple[str, Choice]:
    before = status.labels.get(choice.label)
    return ("remove_label" if before is None else "set_label"), Choice(version=before, label=choice.label)


def _same_engine(status: ModelStatus, choice: Choice) -> tuple[str, Choice] | None:
    before = engine_of(status, choice.version)
    return None if before is None else ("set_engine", Choice(version=choice.version, engine=before))


# --- the texts and the work -------------------------------------------------------------------------------------------


def loaded_versions(status: ModelStatus) -> tuple[int, ...]:
    """The versions in state AVAILABLE, in order."""
    return tuple(sorted(found.version for found in status.versions if found.state is VersionState.AVAILABLE))


def engine_of(status: ModelStatus, version: int | None) -> str | None:
    """What runs a version; None when it is not loaded."""
    return next((found.engine for found in status.versions if found.version == version), None)


def known_versions(status: ModelStatus) -> list[int]:
    """The versions that are loaded, may be loaded or were not, newest first."""
    known = {found.version for found in status.versions if found.state is not VersionState.END}
    return sorted(known | set(status.on_disk), reverse=True)


def shares_of(status: ModelStatus) -> dict[int, int]:
    """Whole percents of the traffic of all loaded versions, 0 for those without any."""
    return {version: round(status.traffic.get(version, 0.0)) for version in loaded_versions(status)}


def rebalanced(shares: Mapping[int, int], version: int, percent: int) -> dict[int, int]:
    """Give one version a share; the others keep their proportions in what remains.

    Args:
        shares: version -> percent of all that take part, `version` among them.
        version: the one that is moved.
        percent: its new share, 0 to 100.

    Returns:
        Whole percents that sum to 100 (largest remainder method). The only version gets 100; when the others had
        nothing so far they share equally.

    Example:
        >>> rebalanced({1: 50, 2: 30, 3: 20}, 1, 90)
        {1: 90, 2: 6, 3: 4}
    """
    others = {other: share for other, share in shares.items() if other != version}
    if not others:
        return {version: 100}
    percent = min(100, max(0, percent))
    left = 100 - percent
    before = sum(others.values())
    exact = {other: left * (share / before if before else 1 / len(others)) for other, share in others.items()}
    whole = {other: int(value) for other, value in exact.items()}
    missing = left - sum(whole.values())
    for other in sorted(exact, key=lambda one: (whole[one] - exact[one], one))[:missing]:
        whole[other] += 1
    return {one: percent if one == version else whole[one] for one in shares}


def _default_version_text(controls: DeploymentControls, _: Choice, took_ms: float) -> str:
    return f"version {controls.status().default_version} answers now, switched in {took_ms:.1f} ms"


def _traffic_text(controls: DeploymentControls, *_: object) -> str:
    shares = shares_of(controls.status())
    return "traffic " + ", ".join(f"version {version}: {share} %" for version, share in shares.items())


def _engine_text(controls: DeploymentControls, choice: Choice, _: float) -> str:
    return f"{engine_of(controls.status(), choice.version)} runs version {choice.version} now"


def _share(controls: DeploymentControls, choice: Choice) -> None:
    """Give one version a share; the others keep their proportions."""
    shares = shares_of(controls.status())
    if choice.version not in shares:
        raise InvalidRequest(f"version {choice.version} is not loaded", hint="stage it first")
    moved = rebalanced(shares, choice.version, round(choice.percent or 0.0))
    controls.set_traffic({version: float(share) for version, share in moved.items() if share})


def _version(choice: Choice) -> int:
    """The version, which `needs` has made sure of."""
    return int(choice.version or 0)


def _begin_experiment(controls: DeploymentControls, choice: Choice) -> object:
    return controls.ab_test(int(choice.a or 0), int(choice.b or 0), split=choice.percent or 0.0)


_TABLE = (
    Action(
        "promote", "Promote", "Give all traffic to the chosen version", "promote version {version}", ("version",),
        lambda controls, choice: controls.promote(_version(choice)), _default_version_text, _same_traffic, is_main=True,
    ),
    Action(
        "rollback", "Roll back", "Go back to the version that answered before", "roll back", (),
        lambda controls, _: controls.rollback(), _default_version_text, _same_traffic,
    ),
    Action(
        "stage", "Stage", "Load the chosen version, and keep it loaded without traffic", "stage version {version}",
        ("version",), lambda controls, choice: controls.stage(_version(choice)),
        sentence("version {version} is loaded"), _unload_again,
    ),
    Action(
        "unload", "Unload", "Free the chosen version's memory; its files stay", "unload version {version}",
        ("version",), lambda controls, choice: controls.undeploy(_version(choice)),
        sentence("version {version} is unloaded; its files stay"), _load_again,
    ),
    Action(
        "delete", "Delete…", "Remove the chosen version's files", "delete version {version}",
        ("version",), lambda controls, choice: controls.undeploy(_version(choice), delete=True),
        sentence("version {version} is deleted"),
        question="Delete version {version} of {name} from disk? This cannot be undone.",
    ),
    Action(
        "set_label", "Set label", "Point the label to the chosen version", "label {label} → version {version}",
        ("version", "label"), lambda controls, choice: controls.set_label(choice.label, _version(choice)),
        sentence("{label} points to version {version}"), _same_label,
    ),
    Action(
        "remove_label", "Remove label", "Remove the label, whatever version it points to", "remove label {label}",
        ("label",), lambda controls, choice: controls.set_label(choice.label, None),
        sentence("label {label} is removed"), _same_label,
    ),
    Action(
        "set_engine", "Set engine", "Let the chosen engine run the chosen version, which goes on answering",
        "engine {engine} for version {version}", ("version", "engine"),
        lambda controls, choice: controls.set_engine(choice.engine, _version(choice)), _engine_text, _same_engine,
    ),
    Action(
        "measure_engines", "Measure engines", "Compare all engines with TensorFlow anew, and measure them",
        "measure the engines of version {version}", ("version",),
        lambda controls, choice: controls.measure_engines(_version(choice)),
        sentence("the engines of version {version} are measured"),
    ),
    Action("share", "", "", "traffic split", ("version", "percent"), _share, _traffic_text, _same_traffic),
    Action(
        "traffic", "", "", "traffic split", ("weights",),
        lambda controls, choice: controls.set_traffic(choice.weights), _traffic_text, _same_traffic,
    ),
    Action(
        "sample", "Sample requests", "Keep some requests from now on, in the server's memory", "sample requests", (),
        lambda controls, _: controls.sample_requests(True), sentence("requests are sampled from now on"),
    ),
    Action(
        "stop_sampling", "Stop sampling", "Keep no more requests", "stop sampling", (),
        lambda controls, _: controls.sample_requests(False),
        sentence("sampling is off; what was kept stays until undeploy"),
    ),
    Action(
        "ab_test", "Start A/B test", "Split the requests and watch", "A/B test of versions {a} and {b}",
        ("a", "b", "percent"), _begin_experiment,
        sentence("A/B test of versions {a} and {b} runs"), lambda _, choice: ("stop_test", choice),
        is_main=True,
    ),
    Action(
        "promote_b", "Promote B", "Give B all requests", "promote B", ("b",),
        lambda controls, _: controls.end_experiment("promote"), sentence("version {b} answers now"), is_main=True,
    ),
    Action(
        "back_to_a", "Roll back to A", "Take B back: A gets all requests", "roll back to A", ("a",),
        lambda controls, _: controls.end_experiment("rollback"), sentence("version {a} answers now"),
    ),
    Action(
        "stop_test", "Stop", "End without a verdict; A gets all requests", "stop the experiment", ("a",),
        lambda controls, _: controls.end_experiment("stop"),
        sentence("the experiment is stopped; version {a} answers"),
    ),
)  # fmt: skip


ACTIONS: Mapping[str, Action] = {action.name: action for action in _TABLE}
"""Name -> action."""

VERSION_ACTIONS = ("promote", "rollback", "stage", "unload", "delete")
LABEL_ACTIONS = ("set_label", "remove_label")
ENGINE_ACTIONS = ("set_engine", "measure_engines")
"""The actions whose buttons stand beside the choice of a version, a label, and an engine."""
