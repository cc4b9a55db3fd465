"""Experiments over the admin API: `/tfserve/v1/models/NAME/experiment[/ACTION]`.

Thread: handlers on the server's loop; what they ask for runs on `tfserve-admin`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any  # Tornado's handler arguments, JSON

from ...agreement.result import Disagreement
from ...experiment.admin import ExperimentAdmin
from ...experiment.json_state import state_to_json
from ...experiment.plan import Plan
from ...experiment.state import ExperimentState
from .handlers import PREFIX, ActionHandler
from .wire_samples import tensors_from_json, tensors_to_json

MAX_DISAGREEMENT_BYTES = 16 << 20
"""Of all tensors of an answer: a client waits for it, and the server's loop writes it at once."""

Action = Callable[[ExperimentAdmin, str, Mapping[str, Any]], object]


def _state(experiments: ExperimentAdmin, name: str, _: Mapping[str, Any]) -> object:
    return _told(experiments.state(name))


def _start(experiments: ExperimentAdmin, name: str, given: Mapping[str, Any]) -> object:
    experiments.start(Plan.from_json({**given, "name": name}))
    return _told(experiments.state(name))


def _end(experiments: ExperimentAdmin, name: str, given: Mapping[str, Any]) -> object:
    return _told(experiments.end(name, str(given["how"])))


def _feedback(experiments: ExperimentAdmin, name: str, given: Mapping[str, Any]) -> object:
    return {"is_known": experiments.feedback(name, str(given["request_id"]), given["label"])}


def _disagreements(experiments: ExperimentAdmin, name: str, given: Mapping[str, Any]) -> object:
    found = experiments.disagreements(name, int(given.get("limit", 24)))
    return {"disagreements": [disagreement_to_json(one) for one in fitting(found)]}


_ACTIONS: dict[tuple[str, str], Action] = {
    ("GET", ""): _state,
    ("POST", ""): _start,
    ("POST", "end"): _end,
    ("POST", "feedback"): _feedback,
    ("GET", "disagreements"): _disagreements,
}


class ExperimentHandler(ActionHandler):
    """`/tfserve/v1/models/NAME/experiment[/ACTION]`."""

    path = "experiment/"

    def initialize(self, experiments: ExperimentAdmin, **values: Any) -> None:  # type: ignore[override]  # Tornado's way
        """Called by Tornado with the values of the route."""
        super().initialize(**values)
        self.works = {key: partial(action, experiments) for key, action in _ACTIONS.items()}


def experiment_routes(experiments: ExperimentAdmin, admin_values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The routes of experiments.

    Args:
        experiments: those of the server.
        admin_values: what the admin API's handlers get.
    """
    values = {"experiments": experiments, **admin_values}
    return [(rf"{PREFIX}/models/([^/]+)/experiment(?:/([a-z]+))?", ExperimentHandler, values)]


def fitting(found: Iterable[Disagreement]) -> list[Disagreement]:
    """The worst rows, as many as an answer has room for; the first one in any case."""
    kept: list[Disagreement] = []
    num_bytes = 0
    for one in found:
        tensors = (one.inputs, one.outputs_a, one.outputs_b)
        num_bytes += sum(array.nbytes for part in tensors for array in part.values())
        if kept and num_bytes > MAX_DISAGREEMENT_BYTES:
            break
        kept.append(one)
    return kept


def disagreement_to_json(one: Disagreement) -> dict[str, Any]:
    """A JSON object that `disagreement_from_json` reads."""
    tensors = {name: tensors_to_json(getattr(one, name)) for name in ("inputs", "outputs_a", "outputs_b")}
    return {"score": one.score, "at": one.at, **tensors}


def disagreement_from_json(value: Mapping[str, Any]) -> Disagreement:
    """The inverse of `disagreement_to_json`."""
    tensors = {name: tensors_from_json(value[name]) for name in ("inputs", "outputs_a", "outputs_b")}
    return Disagreement(score=float(value["score"]), at=float(value["at"]), **tensors)


def _told(state: ExperimentState | None) -> dict[str, Any]:
    return {"experiment": None if state is None else state_to_json(state)}
