"""The tab with sampled requests: show them, send them again.

Thread: the updater's.
"""

from __future__ import annotations

from typing import Any  # ipywidgets is untyped

from ...serving.telemetry.request_samples import RequestSample
from ..actions import ACTIONS, Choice, Job
from ..pages.requests import again_page, label_of, named, request_page, requests_table
from ..snapshot import Snapshot
from .context import Section, TabContext, action_button, button, choose_from, row

DEFAULT = "the model"


class RequestsSection(Section):
    """A switch, a list, a choice, and a button that sends a request again.

    Args:
        context: the dashboard.
    """

    title = "Requests"

    def __init__(self, context: TabContext) -> None:
        import ipywidgets as widgets

        self._context = context
        self._samples: dict[int, RequestSample] = {}
        self._shown: object = None
        self._is_on = False
        self._switch = action_button(context, "sample", self._turn)
        self._choice = widgets.Dropdown(options=[], description="Request", layout=widgets.Layout(width="260px"))
        self._to = widgets.Dropdown(
            options=[(DEFAULT, DEFAULT)], description="Send to", layout=widgets.Layout(width="230px")
        )
        self._again = button(context, "Send again", "Send the chosen request once more", self._send)
        self._choice.observe(lambda _: context.updater.post(self._draw), "value")
        self._table, self._request, self._answer = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.widget: Any = widgets.VBox(
            [row(self._switch, self._choice, self._to, self._again), self._table, self._request, self._answer]
        )

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        self._is_on = self._context.controls.is_sampling
        self._switch.description = ACTIONS[self._turning].text
        self._switch.tooltip = ACTIONS[self._turning].title
        found = self._context.controls.samples()
        self._samples = {sample.number: sample for sample in found}
        choose_from(self._choice, [(label_of(sample), sample.number) for sample in found], None)
        versions = [(f"version {version}", version) for version in snapshot.metrics.versions]
        choose_from(self._to, [(DEFAULT, DEFAULT), *versions], DEFAULT)
        self._draw()

    def enable(self, is_enabled: bool) -> None:
        """Let people click, or not."""
        self._switch.disabled = not is_enabled
        self._again.disabled = not is_enabled or self._chosen() is None

    def _chosen(self) -> RequestSample | None:
        return self._samples.get(self._choice.value)

    def _draw(self) -> None:
        chosen = self._chosen()
        what = (tuple(self._samples), None if chosen is None else chosen.number, self._is_on)
        if what != self._shown:
            self._shown = what
            self._table.value = requests_table(list(self._samples.values()), chosen, is_on=self._is_on)
            self._request.value = "" if chosen is None else request_page(chosen)

    def _turn(self) -> None:
        self._context.actions.start(self._turning, Choice(), None)

    @property
    def _turning(self) -> str:
        """The action that changes whether requests are sampled."""
        return "stop_sampling" if self._is_on else "sample"

    def _send(self) -> None:
        sample = self._chosen()
        if sample is None:
            return
        version = None if self._to.value == DEFAULT else int(self._to.value)
        where = DEFAULT if version is None else f"version {version}"

        def done(outputs: Any, took_ms: float) -> str:
            page = again_page(sample, named(outputs, sample), where)
            self._context.updater.post_if_running(lambda: setattr(self._answer, "value", page))
            return f"request {sample.number} was answered by {where} in {took_ms:.1f} ms"

        self._context.actions.run(
            Job(
                f"sending request {sample.number} to {where}",
                lambda: self._context.controls.send_again(sample, version),
                done,
            )
        )
