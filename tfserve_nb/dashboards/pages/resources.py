"""Resources: what the server's process takes of the machine.

Thread: any; pure functions.
"""

from __future__ import annotations

from ...markup import grid, note, table, text
from ...serving.telemetry.resources import Resources
from ...types import ModelStatus
from ..charts.line import Line, line_chart
from ..charts.svg import TimeAxis
from .versions import size

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
    rows = [
        {"what": "processor", "value": f"{resources.cpu_percent:.0f} % of a core"},
        {"what": "all processes", "value": f"{resources.system_percent:.0f} % of {resources.num_cores} cores"},
        {"what": "memory", "value": size(resources.rss_bytes)},
        {"what": "left on the machine", "value": f"{size(resources.available_bytes)} of {size(resources.total_bytes)}"},
    ]
    if num:
        rows.append({"what": f"{num} child process{'es' if num != 1 else ''}", "value": f"{cpu:.0f} %, {size(rss)}"})
    return table(f"Process {resources.pid}", ("what", "value"), rows, numbers=("value",))


def _versions(status: ModelStatus) -> str:
    loaded = [entry for entry in status.versions if entry.weights_bytes]
    rows = [{"version": str(entry.version), "about, by its files": size(entry.weights_bytes)} for entry in loaded]
    rows.append(
        {"version": "together", "about, by its files": size(sum(entry.weights_bytes for entry in loaded)) or "0 B"}
    )
    caption = f"{text(status.name)}: memory of loaded versions"
    return table(caption, ("version", "about, by its files"), rows, numbers=("about, by its files",))


def _threads(resources: Resources) -> str:
    rows = [{"threads": text(kind), "number": str(count)} for kind, count in resources.threads.items()]
    return table("Threads that Python knows", ("threads", "number"), rows, numbers=("number",))


def _gpus(resources: Resources) -> str:
    if not resources.gpus:
        return note("No GPU is known: there is none, or nvidia-ml-py or its driver is missing.")
    rows = [
        {
            "GPU": f"{gpu.index} {text(gpu.name)}",
            "in use": f"{gpu.utilisation:.0f} %",
            "memory": f"{size(gpu.used_bytes)} of {size(gpu.total_bytes)}",
            "this process": size(gpu.own_bytes),
            "TensorFlow": "" if gpu.tensorflow_bytes is None else size(gpu.tensorflow_bytes),
            "most": "" if gpu.tensorflow_peak_bytes is None else size(gpu.tensorflow_peak_bytes),
        }
        for gpu in resources.gpus
    ]
    columns = ("GPU", "in use", "memory", "this process", "TensorFlow", "most")
    return table("GPUs; TensorFlow keeps memory that versions gave back", columns, rows, numbers=columns[1:])
