"""The experiments of another server, through its admin API.

Thread: any.
"""

from __future__ import annotations

from typing import Any  # labels, JSON
from urllib.parse import quote

import numpy as np

from ...agreement.result import Disagreement
from ...errors import InvalidOption
from ...experiment.admin import ExperimentAdmin
from ...experiment.json_state import state_from_json
from ...experiment.plan import Plan
from ...experiment.state import ExperimentState
from .experiment_handlers import disagreement_from_json
from .remote_core import RemoteCore


class RemoteExperiments(ExperimentAdmin):
    """An `ExperimentAdmin` whose server is elsewhere.

    Args:
        core: asks that server.
    """

    def __init__(self, core: RemoteCore) -> None:
        self._core = core

    def start(self, plan: Plan) -> None:
        """Begin an experiment."""
        self._core.ask("POST", _path(plan.name), plan.to_json(), is_slow=True)

    def state(self, name: str) -> ExperimentState | None:
        """Where the model's latest experiment stands."""
        return _told(self._core.ask("GET", _path(name)))

    def end(self, name: str, how: str) -> ExperimentState:
        """End the running experiment."""
        found = _told(self._core.ask("POST", _path(name, "end"), {"how": how}))
        if found is None:
            raise InvalidOption(f"{name} has no experiment", hint=f"%abtest {name} --a 1 --b 2")
        return found

    def feedback(self, name: str, request_id: str, label: Any) -> bool:
        """What the right answer to an earlier request was."""
        given = {"request_id": request_id, "label": np.asarray(label).tolist()}
        return bool(self._core.ask("POST", _path(name, "feedback"), given)["is_known"])

    def disagreements(self, name: str, limit: int = 24) -> list[Disagreement]:
        """The rows on which both versions differed most."""
        found = self._core.ask("GET", f"{_path(name, 'disagreements')}?limit={limit}")
        return [disagreement_from_json(one) for one in found["disagreements"]]


def _path(name: str, action: str = "") -> str:
    return f"/models/{quote(name, safe='')}/experiment{'/' + action if action else ''}"


def _told(value: Any) -> ExperimentState | None:
    told = value["experiment"]
    return None if told is None else state_from_json(told)
