"""Resources: what the server's process takes of the machine.

Thread: any; pure functions.
"""

from __future__ import annotations

from ...markup import grid, note
from ...reports.html import table_html
from ...reports.report import Table, names, numbers, size_text
from ...serving.telemetry.resources import Resources
from ...types import ModelStatus
from ..charts.line import Line, line_chart
from ..charts.svg import TimeAxis

SPAN_S = 300.0


def resources_page(resources: Resources, status: ModelStatus) -> str:
    """Charts of processor and memory, and tables of versions, threads and GPUs.

    Args:
        resources: of the server's process.
        status: whose versions take memory.
    """
    span_s = max(30.0, min(SPAN_S, float(resources.age_s.max(initial=0.0))))
    keep = resources.age_s <= span_s
    axis = TimeAxis(resources.age_s[keep], span_s)
    cpu = Line("now", resources.cpu_series[keep], 0)
    memory = Line("now", resources.rss_series[keep] / 1e6, 0)
    unit = f"% of a core; there are {resources.num_cores}"
    charts = [
        line_chart(f"Processor, {unit}", "%", axis, [cpu], empty="appears with the second reading"),
        line_chart("Memory", "MB", axis, [memory], empty="appears with the second reading"),
    ]
    tables = [_process(resources), _versions(status), _threads(resources)]
    return grid(charts) + grid([*tables, _gpus(resources)])


def _process(resources: Resources) -> str:
    num, cpu, rss = resources.children
    left = f"{size_text(resources.available_bytes)} of {size_text(resources.total_bytes)}"
    rows = [
        ("processor", f"{resources.cpu_percent:.0f} % of a core"),
        ("all processes", f"{resources.system_percent:.0f} % of {resources.num_cores} cores"),
        ("memory", size_text(resources.rss_bytes)),
        ("left on the machine", left),
    ]
    if num:
        rows.append((f"{num} child process{'es' if num != 1 else ''}", f"{cpu:.0f} %, {size_text(rss)}"))
    return table_html(Table(f"Process {resources.pid}", (*names("what"), *numbers("value")), tuple(rows)))


def _versions(status: ModelStatus) -> str:
    loaded = [version for version in status.versions if version.weights_bytes]
    rows = [(str(version.version), size_text(version.weights_bytes)) for version in loaded]
    rows.append(("together", size_text(sum(version.weights_bytes for version in loaded)) or "0 B"))
    columns = (*names("version"), *numbers("about, by its files"))
    return table_html(Table(f"{status.name}: memory of loaded versions", columns, tuple(rows)))


def _threads(resources: Resources) -> str:
    rows = tuple((kind, str(count)) for kind, count in resources.threads.items())
    return table_html(Table("Threads that Python knows", (*names("threads"), *numbers("number")), rows))


def _gpus(resources: Resources) -> str:
    if not resources.gpus:
        return note("No GPU is known: there is none, or nvidia-ml-py or its driver is missing.")
    rows = [
        (
            f"{gpu.index} {gpu.name}",
            f"{gpu.utilisation:.0f} %",
            f"{size_text(gpu.used_bytes)} of {size_text(gpu.total_bytes)}",
            size_text(gpu.own_bytes),
            size_text(gpu.tensorflow_bytes or 0),
            size_text(gpu.tensorflow_peak_bytes or 0),
        )
        for gpu in resources.gpus
    ]
    columns = (*names("GPU"), *numbers("in use", "memory", "this process", "TensorFlow", "most"))
    return table_html(Table("GPUs; TensorFlow keeps memory that versions gave back", columns, tuple(rows)))
