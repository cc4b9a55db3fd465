"""How deployments and dashboards show themselves: text, the live widgets, and still HTML that a saved notebook keeps.

IPython asks its own table of printers before the object, so the rich view is registered from here and `deployment.py`
needs to know nothing of widgets.

A dashboard is shown as two outputs: its widgets, and a still page. While the widgets live they hide the still page,
which is brought up to date behind them every few seconds; once the kernel is gone, it is what remains.

Thread: the kernel's main thread; the still page is updated on the dashboards' thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any  # IPython's MIME bundles

from IPython.core.interactiveshell import InteractiveShell

from ..api.deployment import Deployment
from ..errors import ServingError
from . import cell_times

_DASHBOARD = ("tfserve_nb.dashboards.view", "Dashboard")
_RESULTS = (
    ("tfserve_nb.bench.result", "BenchmarkResult"),
    ("tfserve_nb.bench.sweep", "SweepResult"),
    ("tfserve_nb.bench.comparison", "ComparisonResult"),
)
_TEST = ("tfserve_nb.api.ab_test", "ABTest")
_REPLAY = ("tfserve_nb.replay.result", "ReplayResult")


def register(shell: InteractiveShell) -> None:
    """Show deployments as dashboards; in a terminal they stay text."""
    if shell.display_formatter is None:
        return
    for kind in (*_RESULTS, _REPLAY):
        shell.display_formatter.formatters["text/plain"].for_type_by_name(*kind, _print_result)
    shell.display_formatter.formatters["text/plain"].for_type_by_name(*_TEST, _print_test)
    if hasattr(shell, "kernel"):
        formatter = shell.display_formatter.ipython_display_formatter
        formatter.for_type(Deployment, lambda handle: _show_deployment(shell, handle))
        formatter.for_type_by_name(*_DASHBOARD, lambda dashboard: show(shell, dashboard))
        for kind in (*_RESULTS, _REPLAY):
            formatter.for_type_by_name(*kind, lambda result: _show_result(shell, result))
        formatter.for_type_by_name(*_TEST, lambda test: _show_test(shell, test))


def unregister(shell: InteractiveShell) -> None:
    """The inverse of `register`; open dashboards become static."""
    if shell.display_formatter is not None:
        formatter = shell.display_formatter.ipython_display_formatter
        formatter.pop(Deployment, None)
        for kind in (_DASHBOARD, *_RESULTS, _REPLAY, _TEST):
            formatter.pop(".".join(kind), None)
        for kind in (*_RESULTS, _REPLAY, _TEST):
            shell.display_formatter.formatters["text/plain"].pop(".".join(kind), None)
    cell_times.unwatch(shell)
    # Only if a dashboard was ever shown: unloading must not import ipywidgets.
    dashboards = sys.modules.get("tfserve_nb.dashboards")
    if dashboards is not None:
        dashboards.close_all()


def show(shell: InteractiveShell, dashboard: Any) -> None:
    """Publish a dashboard into the output of the running cell."""
    cell_times.watch(shell)
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


def _show_result(shell: InteractiveShell, result: Any) -> None:
    """A table and a figure, which stay in the notebook."""
    to_text, to_html, png_of = _views_of(result)
    publish = shell.display_pub.publish
    publish(data={"text/plain": to_text(result), "text/html": to_html(result)}, metadata={})
    publish(data={"text/plain": f"(figure: {result.title})", "image/png": png_of(result)}, metadata={})


def _print_result(result: Any, printer: Any, _: bool) -> None:
    printer.text(_views_of(result)[0](result))


def _views_of(result: Any) -> tuple[Callable[[Any], str], Callable[[Any], str], Callable[[Any], bytes]]:
    """What makes text, HTML and PNG of a result."""
    if type(result).__name__ == _REPLAY[1]:
        from ..replay import figure as replay_report
        from ..replay import report as replay_tables

        return replay_tables.to_text, replay_tables.to_html, replay_report.png_of
    from ..bench import figure as report
    from ..bench import report as tables

    return tables.to_text, tables.to_html, report.png_of


def _show_test(shell: InteractiveShell, test: Any) -> None:
    """The report of an experiment, which stays; while it goes on, its live view too."""
    from ..experiment.views.figure import png_of
    from ..experiment.views.report import to_html, to_text

    state = test.state
    publish = shell.display_pub.publish
    publish(data={"text/plain": to_text(state), "text/html": to_html(state)}, metadata={})
    if state.moments:
        publish(data={"text/plain": "(figure of the experiment)", "image/png": png_of(state)}, metadata={})
    if not state.is_over:
        from ..dashboards import dashboard_for

        dashboard = dashboard_for(test.deployment)
        dashboard.open("A/B")
        show(shell, dashboard)


def _print_test(test: Any, printer: Any, _: bool) -> None:
    from ..experiment.views.report import to_text

    printer.text(to_text(test.state))


def _page(still: str) -> dict[str, str]:
    return {"text/plain": "(the dashboard as it was)", "text/html": still}
