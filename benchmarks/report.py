"""The samples of a run as Markdown.

Usage: python benchmarks/report.py RESULTS.json
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from contenders import KERNEL, KERNEL_AUTO
from goals import GOALS
from part_open import RATES
from part_same import MANY_ROWS, ONE_ROW
from part_same import part_of as same_part_of
from part_servers import CONNECTIONS, part_of
from results import Results, Series, ratios, spread
from saved_models import MODELS

SUBJECTS = {
    "p50_ms": "p50, ms",
    "over_ms": "p50 minus bare model, ms",
    "our_run_us_1": "our runner's call of 1 row, µs",
    "our_run_us_64": "of 64 rows, µs",
    "mib_at_end_trimmed": "MiB without what the C library keeps",
    "best_rows_per_s": "best rows/s in a loop",
    "best_batch": "at batch size",
    "call_ms": "call of one row, ms",
    "mib": "MiB",
    "first_answer_s": "to the first answer, s",
    "disk_mib": "on disk, MiB",
    "memory_mib": "loaded, MiB",
    "average": "runnable processes",
    "rate": "requests/s",
    "rows_per_s": "rows/s",
    "ms": "ms",
    "core": "cores used when idle",
    "mib_after_10": "MiB after 10 swaps",
    "mib_at_end": "MiB at the end",
    "swaps": "swaps",
    "requests_per_arm": "requests of each version, median",
    "rolled_back_pct": "rolled back, %",
    "alarmed_pct": "run times called different, %",
    "naive_pct": "Mann-Whitney on requests alarmed, %",
}
TITLES = {
    "load": "Load average of the machine while the servers were compared",
    "tabular": "Ten numbers as one input or as ten, JSON, 64 connections",
    "start": "`tfserve-nb serve` with the MLP",
    "size": "A version on disk and in memory",
    "agreement": "Engines and TensorFlow on digits",
    "call": "One connection, and the bare model",
    "core": "Our own code on one core, without sockets and TensorFlow",
    "cnn": "Small CNN: rows per second",
    "image": "224×224×3 from text to array",
    "grpc": "gRPC Predict, 64 in flight",
    "busy": "A busy kernel",
    "memory": "Memory over version swaps",
    "dashboard": "A dashboard, five times a second",
    "jobs": "The jobs of a notebook",
    "experiments": "Verdicts of A/B comparisons, simulated",
}


def write(results: Results) -> Path:
    """Write the Markdown beside the JSON; returns where."""
    path = results.path.with_suffix(".md")
    path.write_text("\n\n".join(sections(results)) + "\n")
    return path


def sections(results: Results) -> Iterable[str]:
    """All sections that there are samples for."""
    yield "# Benchmark"
    yield table(("what", "value"), list(results.about.items()))
    yield (
        "Each number is the median of all rounds, with smallest and largest in brackets; ratios were taken round "
        "by round. Client and server shared the machine."
    )
    yield "## Goals\n\n" + goals_table(results)
    if any(results.cases(same_part_of(name)) for name in MODELS):
        yield "## The same SavedModel in every server\n\n" + same_tables(results)
    for name, title in MODELS.items():
        if results.cases(part_of(name)):
            yield f"## {title}: closed loop, requests of one row\n\n" + servers_table(results, part_of(name))
    if results.cases("open loop"):
        yield "## MLP: open loop, Poisson arrivals, latency from the scheduled moment\n\n" + open_table(results)
    for part, title in TITLES.items():
        if results.cases(part):
            yield f"## {title}\n\n" + part_table(results, part)
    if results.problems:
        rows = [(*case.split("/", 1), text.replace("|", "/")) for case, text in results.problems.items()]
        yield "## Not measured\n\n" + table(("part", "case", "why"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def goals_table(results: Results) -> str:
    """Every goal of the parts that were measured."""
    rows = []
    measured_parts = {part.partition(" ")[0] for part in results.parts()}
    for goal in GOALS:
        if goal.part not in measured_parts:
            continue
        measured, verdict, by = goal.verdict(results)
        rows.append((goal.part, goal.name, goal.wanted, measured, verdict, by))
    return table(("part", "goal", "wanted", "measured", "", "by how much"), rows)


def same_tables(results: Results) -> str:
    """Rows per second of all servers with all models, processor time of a row, and our rate over theirs."""
    blocks = []
    for load, text in ((ONE_ROW, "1 row, JSON, 64 connections (MobileNetV2: binary, 8)"),
                       (MANY_ROWS, "32 rows, binary, 8 connections")):  # fmt: skip
        for what, unit in (("rows", "rows/s"), ("cpu", "µs of processor time a row, client not counted")):
            blocks.append(_by_model(results, f"{text}: {unit}", lambda part, case, key=f"{what}@{load.name}":
                                    results.series(part, case, key)))  # fmt: skip
        blocks.append(_by_model(
            results, f"{text}: rows/s of “{KERNEL_AUTO}” over those of the server",
            lambda part, case, key=f"rows@{load.name}": ratios(results.series(part, KERNEL_AUTO, key),
                                                               results.series(part, case, key)),
        ))  # fmt: skip
    return "\n\n".join(blocks)


def _by_model(results: Results, title: str, find: Callable[[str, str], Series]) -> str:
    parts = [name for name in MODELS if results.cases(same_part_of(name))]
    servers = list(dict.fromkeys(case for name in parts for case in results.cases(same_part_of(name))))
    rows = [(server, *(spread(find(same_part_of(name), server)) for name in parts)) for server in servers]
    return table((title, *(MODELS[name] for name in parts)), [row for row in rows if set(row[1:]) != {"–"}])


def servers_table(results: Results, part: str) -> str:
    """Rates and latencies of all servers at all numbers of connections."""
    used = [number for number in CONNECTIONS if any(results.series(part, one, f"rate@{number}")
                                                    for one in results.cases(part))]  # fmt: skip
    blocks = []
    for number in used:
        rate = f"rate@{number}"
        base = results.series(part, KERNEL, rate)
        measured = [one for one in results.cases(part) if results.series(part, one, rate)]
        rows = [
            (
                one,
                spread(results.series(part, one, rate)),
                spread(results.series(part, one, f"p50@{number}")),
                spread(results.series(part, one, f"p99@{number}")),
                spread(ratios(results.series(part, one, rate), base)),
            )
            for one in measured
        ]
        head = (f"{number} connection{'s' if number > 1 else ''}", "requests/s", "p50, ms", "p99, ms",
                f"requests/s over “{KERNEL}”")  # fmt: skip
        blocks.append(table(head, rows))
    return "\n\n".join(blocks)


def open_table(results: Results) -> str:
    """p50 and p99 at each rate; runs whose generator was late, or with failed requests, are left out."""
    rows = [
        (
            one,
            *(
                f"{spread(results.series('open loop', one, f'p50@{rate}'))} / "
                f"{spread(results.series('open loop', one, f'p99@{rate}'))}"
                for rate in RATES
            ),
        )
        for one in results.cases("open loop")
    ]
    return table(("p50 / p99, ms", *(f"{rate} requests/s" for rate in RATES)), rows)


def part_table(results: Results, part: str) -> str:
    """Cases by what was measured of them."""
    subjects = list(dict.fromkeys(sample.what for sample in results.samples if sample.part == part))
    rows = [(case, *(spread(results.series(part, case, what), 4) for what in subjects)) for case in results.cases(part)]
    return table(("", *(_title(what) for what in subjects)), rows)


def _title(what: str) -> str:
    name, _, connections = what.partition("@")
    if name == "rows":
        return f"rows/s, requests of {connections}"
    if not connections:
        return SUBJECTS.get(what, what)
    unit = "requests/s" if name == "rate" else f"{name}, ms"
    return f"{unit}, {connections} connection{'s' if connections != '1' else ''}"


if __name__ == "__main__":
    print(write(Results.load(Path(sys.argv[1]))))
