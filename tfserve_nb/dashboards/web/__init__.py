"""The dashboard as a web page, for models that are served without a notebook: the same views, drawn by the server.

`page.html`, `app.js` and `app.css` are sent as they are; the views are fragments of HTML that the page fetches, and
its buttons are the actions of the widgets' table.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any  # JSON values

from ...errors import InvalidRequest, ModelNotFound
from ...serving.engines.kinds import NAMES
from ..actions import ACTIONS, ENGINE_ACTIONS, LABEL_ACTIONS, VERSION_ACTIONS, Choice
from ..charts.svg import STYLE
from ..controls import DeploymentControls
from ..pages.compare import compare_page
from ..pages.disagreements import disagreements_page
from ..pages.experiment import experiment_page
from ..pages.latency import latency_page
from ..pages.requests import again_page, named, request_page, requests_table
from ..pages.resources import resources_page
from ..pages.versions import versions_page
from ..sections.context import SPANS
from ..snapshot import Snapshot

_ASSETS = {"page.html": "text/html", "app.js": "text/javascript", "app.css": "text/css"}
NUM_EVENTS = 50
NUM_DISAGREEMENTS = 5


class WebPages:
    """Everything that the page fetches.

    Args:
        controls_of: the deployment of a model's name.
    """

    def __init__(self, controls_of: Callable[[str], DeploymentControls]) -> None:
        self._controls_of = controls_of

    def asset(self, name: str) -> tuple[str, bytes]:
        """Content type and bytes of `page.html`, `app.js` or `app.css`.

        Raises:
            ModelNotFound: for any other name.
        """
        kind = _ASSETS.get(name)
        if kind is None:
            raise ModelNotFound(f"no file {name}")
        return f"{kind}; charset=utf-8", Path(__file__).with_name(name).read_bytes()

    def page(self, model: str, page: str, query: Mapping[str, str]) -> dict[str, object]:
        """A view as `{"html": ...}`, or the table of actions as `{"actions": ..., "rows": ..., "engines": ...}`.

        Raises:
            ServingError: if the model is not served.
            InvalidRequest: if there is no such view, or a number is not one.
        """
        controls = self._controls_of(model)
        try:
            if page == "actions":
                known = {name: action.to_json() for name, action in ACTIONS.items()}
                return {"actions": known, "rows": [VERSION_ACTIONS, LABEL_ACTIONS, ENGINE_ACTIONS], "engines": NAMES}
            if page == "requests":
                return {"html": _requests(controls, query), "is_on": controls.is_sampling}
            snapshot = _snapshot(controls, query)
            html = STYLE + _html(controls, snapshot, page, query)
            return {"html": html, "signatures": list(snapshot.metrics.signatures)}
        except (KeyError, ValueError) as error:
            raise InvalidRequest(f"{page}: {error}") from error

    def act(self, model: str, action: str, given: Mapping[str, Any]) -> dict[str, object]:
        """Carry out an action.

        Args:
            model: its name.
            action: a key of `ACTIONS`.
            given: a `Choice` as JSON.

        Returns:
            The text that reports it as `said`, and how to take it back as `undo`: an `Undo` as JSON, or None.

        Raises:
            ServingError: if it cannot be done.
        """
        found = ACTIONS.get(action)
        if found is None:
            raise InvalidRequest(f"there is no action {action!r}", hint=", ".join(ACTIONS))
        controls = self._controls_of(model)
        job = found.job(controls, Choice.from_json(given), controls.status())
        return {"said": job.carry_out(), "undo": None if job.undo is None else asdict(job.undo)}


def _snapshot(controls: DeploymentControls, query: Mapping[str, str]) -> Snapshot:
    span_s, step_s = SPANS[query.get("span", "2 minutes")]
    metrics = controls.metrics(span_s, step_s, query.get("signature") or None)
    return Snapshot(controls.status(), metrics, tuple(controls.history(NUM_EVENTS)))


def _html(controls: DeploymentControls, snapshot: Snapshot, page: str, query: Mapping[str, str]) -> str:
    if page == "versions":
        return versions_page(snapshot)
    if page == "latency":
        only = query.get("only", "")
        return latency_page(snapshot, (int(only),) if only else None)
    if page == "compare":
        sides = compare_page(snapshot, _number(query.get("a", "")), _number(query.get("b", "")))
        return _experiment(controls, snapshot) + sides
    if page == "resources":
        return resources_page(controls.resources(), snapshot.status)
    raise InvalidRequest(f"there is no view {page!r}")


def _experiment(controls: DeploymentControls, snapshot: Snapshot) -> str:
    """The latest experiment and some of its disagreements; nothing when there was none."""
    state = controls.experiment()
    if state is None:
        return ""
    agreement = state.reading.agreement
    found = controls.disagreements(NUM_DISAGREEMENTS) if agreement else []
    return experiment_page(state, snapshot.events) + disagreements_page(state, found)


def _requests(controls: DeploymentControls, query: Mapping[str, str]) -> str:
    """Sampled requests, the chosen one in full, and, with `to`, the response when it is sent again."""
    samples = controls.samples()
    number = _number(query.get("request", ""))
    chosen = next((sample for sample in samples if sample.number == number), samples[0] if samples else None)
    page = requests_table(samples, chosen, is_on=controls.is_sampling)
    if chosen is None:
        return page
    again = ""
    if query.get("to"):
        version = None if query["to"] == "default" else int(query["to"])
        where = "the model" if version is None else f"version {version}"
        again = again_page(chosen, named(controls.send_again(chosen, version), chosen), where)
    return page + request_page(chosen) + again


def _number(text: str) -> int | None:
    return int(text) if text else None
