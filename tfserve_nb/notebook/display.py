"""How deployments, dashboards and results are displayed: text, live widgets, and HTML that a saved notebook keeps.

IPython asks its own table of printers before the object, so the rich views are registered from here and `deployment.py`
needs no widgets.

A dashboard is shown as two outputs: its widgets, and a still page. While the widgets live they hide the still page,
which is brought up to date behind them every few seconds; once the kernel is gone, it is what remains.

Thread: the kernel's main thread; the still page is updated on the dashboards' thread.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any  # IPython's MIME bundles, results of any type

from IPython.core.interactiveshell import InteractiveShell

from ..api.ab_test import ABTest
from ..api.deployment import Deployment
from ..bench import figure as bench_figure
from ..bench import report as bench_report
from ..bench.comparison import ComparisonResult
from ..bench.result import BenchmarkResult
from ..bench.sweep import SweepResult
from ..diff.result import VersionDiff
from ..errors import ServingError
from ..experiment.views import figure as experiment_figure
from ..experiment.views import report as experiment_report
from ..replay import figure as replay_figure
from ..replay import report as replay_report
from ..replay.result import ReplayResult
from ..reports.html import to_html
from ..reports.report import Report
from ..reports.text import to_text
from ..scaleout.parity.result import ParityResult
from ..types import no_progress
from ..variants import figure as variants_figure
from ..variants import report as variants_report
from ..variants.result import VariantsResult
from .cells import record_cells, stop_recording
from .overview import Overview
from .progress import progress_view

_DASHBOARD = ("tfserve_nb.dashboards.view", "Dashboard")


@dataclass(frozen=True, slots=True)
class View:
    """How results of one type are shown.

    Attributes:
        report_of: makes the report of a result.
        png_of: makes its figure as PNG, or gives None while there is nothing to draw; None for results without figures.
    """

    report_of: Callable[[Any], Report]
    png_of: Callable[[Any], bytes | None] | None = None


def _experiment_png(test: ABTest) -> bytes | None:
    state = test.state
    return experiment_figure.png_of(state) if state.moments else None


_BENCHMARK = View(bench_report.report_of, bench_figure.png_of)
VIEWS: dict[type, View] = {
    BenchmarkResult: _BENCHMARK,
    SweepResult: _BENCHMARK,
    ComparisonResult: _BENCHMARK,
    ABTest: View(lambda test: experiment_report.report_of(test.state), _experiment_png),
    ReplayResult: View(replay_report.report_of, replay_figure.png_of),
    VariantsResult: View(variants_report.report_of, variants_figure.png_of),
    VersionDiff: View(operator.attrgetter("report")),
    ParityResult: View(operator.attrgetter("report")),
    Overview: View(operator.attrgetter("report")),
}


def register(shell: InteractiveShell) -> None:
    """Show deployments as dashboards, long calls as bars, results as tables and figures; in a terminal all are text."""
    Deployment.show_steps = staticmethod(functools.partial(progress_view, shell))
    if shell.display_formatter is None:
        return
    formatters = shell.display_formatter.formatters
    for kind, view in VIEWS.items():
        formatters["text/plain"].for_type(kind, functools.partial(_print_result, view))
        formatters["text/html"].for_type(kind, functools.partial(_page_of, view))
    if hasattr(shell, "kernel"):
        formatter = shell.display_formatter.ipython_display_formatter
        formatter.for_type(Deployment, lambda handle: _show_deployment(shell, handle))
        formatter.for_type_by_name(*_DASHBOARD, lambda dashboard: show(shell, dashboard))
        for kind, view in VIEWS.items():
            if view.png_of is not None:
                formatter.for_type(kind, functools.partial(_show_result, shell, view))
        formatter.for_type(ABTest, functools.partial(_show_test, shell))


def unregister(shell: InteractiveShell) -> None:
    """The inverse of `register`; open dashboards become static."""
    Deployment.show_steps = staticmethod(lambda _: contextlib.nullcontext(no_progress))
    if shell.display_formatter is not None:
        formatter = shell.display_formatter.ipython_display_formatter
        for kind in (Deployment, ".".join(_DASHBOARD), *VIEWS):
            formatter.pop(kind, None)
        for kind in VIEWS:
            for mime_type in ("text/plain", "text/html"):
                shell.display_formatter.formatters[mime_type].pop(kind, None)
    stop_recording(shell)
    # Only if a dashboard was ever shown: unloading must not import ipywidgets.
    dashboards = sys.modules.get("tfserve_nb.dashboards")
    if dashboards is not None:
        dashboards.close_all()


def show(shell: InteractiveShell, dashboard: Any) -> None:
    """Publish a dashboard into the output of the running cell."""
    record_cells(shell)
    dashboard.let_bind(lambda name, value: shell.push({name: value}))  # draws anew: the still page is as of now
    bundle = dashboard._repr_mimebundle_()
    still = bundle.pop("text/html")
    publish = shell.display_pub.publish
    publish(data=bundle, metadata={})
    transient = {"display_id": dashboard.still_id}
    publish(data=_page(still), metadata={}, transient=transient)

    def update(page: str) -> None:
        publish(data=_page(page), metadata={}, transient=transient, update=True)

    dashboard.keep_still(update)


def _show_deployment(shell: InteractiveShell, handle: Deployment) -> None:
    try:
        handle.status()
    except ServingError:
        shell.display_pub.publish(data={"text/plain": repr(handle)}, metadata={})
        return
    from ..dashboards import dashboard_for

    show(shell, dashboard_for(handle))


def _show_result(shell: InteractiveShell, view: View, result: Any) -> None:
    """Tables and a figure, as two outputs, which stay in the notebook."""
    report = view.report_of(result)
    publish = shell.display_pub.publish
    publish(data={"text/plain": to_text(report), "text/html": to_html(report)}, metadata={})
    figure = None if view.png_of is None else view.png_of(result)
    if figure is not None:
        publish(data={"text/plain": f"(figure: {report.title})", "image/png": figure}, metadata={})


def _print_result(view: View, result: Any, printer: Any, _: bool) -> None:
    printer.text(to_text(view.report_of(result)))


def _page_of(view: View, result: Any) -> str:
    return to_html(view.report_of(result))


def _show_test(shell: InteractiveShell, test: ABTest) -> None:
    """The report of an experiment, which stays; while it goes on, its live view too."""
    _show_result(shell, VIEWS[ABTest], test)
    if not test.state.is_over:
        from ..dashboards import dashboard_for

        dashboard = dashboard_for(test.deployment)
        dashboard.open("A/B")
        show(shell, dashboard)


def _page(still: str) -> dict[str, str]:
    return {"text/plain": "(the dashboard as it was)", "text/html": still}
