"""The goals of the project's performance, and by how much each was reached or missed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from contenders import ISOLATED, KERNEL, KERNEL_AUTO, ONNX, SERVE, TWO_WORKERS
from results import Results, Series, median, ratios, spread

MLP = "servers mlp"


@dataclass(frozen=True)
class Goal:
    """A number to reach.

    Attributes:
        part: the part of the benchmark that measures it.
        name: what is measured.
        bound: the number.
        find: the measured values by round; empty when it was not measured.
        is_ceiling: whether smaller is better.
        unit: of the number.
        limit: what the same run measured of what bounds it, in words.
    """

    part: str
    name: str
    bound: float
    find: Callable[[Results], Series]
    is_ceiling: bool = False
    unit: str = "×"
    limit: Callable[[Results], str] = lambda results: ""

    @property
    def wanted(self) -> str:
        """The goal as text."""
        return f"{'≤' if self.is_ceiling else '≥'} {self.bound:,g} {self.unit}".replace(",", " ")

    def verdict(self, results: Results) -> tuple[str, str, str]:
        """What was measured, whether that is enough, and by how much; what bounds it when it is not."""
        series = self.find(results)
        if not series:
            return "–", "not measured", ""
        value = median(series)
        is_reached = value <= self.bound if self.is_ceiling else value >= self.bound
        by = f"{abs(value - self.bound) / abs(self.bound):.0%} {'below' if value < self.bound else 'above'} the bound"
        if not is_reached and (limit := self.limit(results)):
            by += f"; {limit}"
        return f"{spread(series)} {self.unit}", "reached" if is_reached else "**not reached**", by


def of(part: str, case: str, what: str, base: str, base_what: str = "") -> Callable[[Results], Series]:
    """A ratio of two cases, round by round."""
    return lambda results: ratios(results.series(part, case, what), results.series(part, base, base_what or what))


def value(part: str, case: str, what: str) -> Callable[[Results], Series]:
    """A measured value itself."""
    return lambda results: results.series(part, case, what)


def dashboard_loss(results: Results) -> Series:
    """Throughput with a dashboard over that without, as a loss in percent."""
    kept = ratios(results.series("dashboard", "with", "rate"), results.series("dashboard", "without", "rate"))
    return {number: 100 * (1 - ratio) for number, ratio in kept.items()}


def dashboard_core(results: Results) -> Series:
    """What the dashboard adds to the processor time of an idle kernel, in percent of a core."""
    without = results.series("dashboard", "without", "core")
    return {
        number: 100 * (share - without[number])
        for number, share in results.series("dashboard", "with", "core").items()
        if number in without
    }


def generator_difference(results: Results) -> Series:
    """How far our generator's throughput in a closed loop is from wrk's, in percent."""
    ours, theirs = (results.series("generator", case, "rate@64") for case in ("tfserve-nb bench", "wrk"))
    return {number: 100 * abs(ratio - 1) for number, ratio in ratios(ours, theirs).items()}


def memory_growth(results: Results) -> Series:
    """Memory at the end of the version swaps over that after the tenth, as a growth in percent."""
    after_10 = results.series("memory", "version swaps", "mib_after_10")
    grown = ratios(results.series("memory", "version swaps", "mib_at_end"), after_10)
    return {number: 100 * (ratio - 1) for number, ratio in grown.items()}


RATES = (("cnn", 3), ("lstm", 2), ("transformer", 2), ("mobilenet", 2.5))
RUNS = (("cnn", 3), ("lstm", 5), ("transformer", 2), ("mobilenet", 3))
NAMES = {"cnn": "CNN", "lstm": "LSTM", "transformer": "transformer", "mobilenet": "MobileNetV2"}
TF_ALONE, ENGINE_ALONE = "TensorFlow alone", "engine alone"
"""Calls without a server; see engine_call.py."""
SMALLER = ("mlp", "cnn", "transformer", "mobilenet")


def worst_agreement(results: Results) -> Series:
    """The smallest agreement of all models."""
    found = [results.series("agreement", case, "agreement") for case in results.cases("agreement")]
    return {0: min(series[0] for series in found)} if found else {}


def calls_alone(name: str) -> Callable[[Results], str]:
    """By how much the engine's call is faster than TensorFlow's without any server, in words."""

    def limit(results: Results) -> str:
        texts = []
        for size in (1, 32):
            found = [
                ratios(
                    *(results.series(f"same {name}", case, f"{what}_ms@{size}") for case in (TF_ALONE, ENGINE_ALONE))
                )
                for what in ("wall", "cpu")
            ]
            texts.append(f"{spread(found[0], 2)} (processor time {spread(found[1], 2)}) with {size}")
        return f"without a server the calls differ by {' and '.join(texts)} rows"

    return limit


def processor_time(name: str, rows: str, ours: str, other: str) -> Callable[[Results], str]:
    """The processor time of a row in another server relative to ours, which other processes hardly change, in words."""

    def limit(results: Results) -> str:
        part = f"same {name}"
        times = ratios(results.series(part, other, f"cpu@{rows}"), results.series(part, ours, f"cpu@{rows}"))
        return f"processor time of a row: {spread(times, 3)} ×" if times else ""

    return limit


def both(*limits: Callable[[Results], str]) -> Callable[[Results], str]:
    """Several texts as one."""
    return lambda results: "; ".join(text for limit in limits if (text := limit(results)))


def above_the_call(results: Results) -> Series:
    """The median latency of one connection minus the engine's own call, in milliseconds."""
    calls = results.series("call", "engine", "call_ms")
    alone = results.series("call", KERNEL_AUTO, "p50_ms")
    return {number: alone[number] - took_ms for number, took_ms in calls.items() if number in alone}


ENGINE_GOALS = (
    *(
        Goal("same", f"{NAMES[name]}, 32 rows, binary, 8 connections: `auto` over TensorFlow's session", bound,
             of(f"same {name}", KERNEL_AUTO, "rows@32", KERNEL),
             limit=both(processor_time(name, "32", KERNEL_AUTO, KERNEL), calls_alone(name)))
        for name, bound in RATES
    ),
    *(
        Goal("same", f"{NAMES[name]}, one row: time of a run, TensorFlow's session over `auto`", bound,
             of(f"same {name}", KERNEL, "run@alone", KERNEL_AUTO), limit=calls_alone(name))
        for name, bound in RUNS
    ),
    *(
        Goal("same", f"{NAMES[name]}, 32 rows, binary, 8 connections: `auto` over {peer}", bound,
             of(f"same {name}", KERNEL_AUTO, "rows@32", peer), limit=processor_time(name, "32", KERNEL_AUTO, peer))
        for peer, bound in (("PyTriton", 3), (f"PyTriton{ONNX}", 1.5))
        for name in NAMES
    ),
    Goal("cnn", "CNN, 32 rows, binary: rows/s of `auto` over its engine's best loop", 0.9,
         of("cnn", "auto, requests of 32, binary", "rows_per_s", "auto, offline batch loop")),
    Goal("same", "MLP, JSON, 64 connections: requests/s over PyTriton's", 6,
         of("same mlp", KERNEL, "rows@1", "PyTriton"), limit=processor_time("mlp", "1", KERNEL, "PyTriton")),
    Goal("same", "MLP, JSON, 64 connections: `tfserve-nb serve` as it starts over the kernel's server", 0.95,
         of("same mlp", SERVE, "rows@1", KERNEL), limit=processor_time("mlp", "1", SERVE, KERNEL)),
    *(
        Goal("tabular", f"ten inputs, JSON objects of {what}, {rows} row{'s' if rows > 1 else ''}: over one input", 0.8,
             of("tabular", case, f"rows@{rows}", "tabular_one"))
        for case, what in (("tabular_scalars", "numbers"), ("tabular", "lists"))
        for rows in (1, 32)
    ),
    Goal("call", "MLP, one connection, `auto`: p50 minus the engine's call", 0.15, above_the_call, is_ceiling=True,
         unit="ms"),
    *(
        Goal("size", f"{name}: {what} over Keras' own export", 0.55,
             of("size", f"{name}, tfserve_nb", key, f"{name}, keras"), is_ceiling=True)
        for what, key in (("disk", "disk_mib"), ("memory of a loaded version", "memory_mib"))
        for name in SMALLER
    ),
    *(
        Goal("start", f"`serve --engine onnx` of the MLP: {what} over `--engine tensorflow`", 0.3,
             of("start", f"{SERVE}, onnx", key, SERVE), is_ceiling=True)
        for what, key in (("memory", "mib"), ("time to the first answer", "first_answer_s"))
    ),
    Goal("agreement", "engines chosen by `auto`, digits: smallest agreement of four models", 1.0, worst_agreement),
)  # fmt: skip

OTHER_GOALS = (
    Goal("servers", "MLP, JSON, 64 connections: requests/s over MLServer's", 13,
         of(MLP, KERNEL, "rate@64", "MLServer")),
    Goal("servers", "the same over LitServe's", 20, of(MLP, KERNEL, "rate@64", "LitServe")),
    Goal("servers", "256 connections, 2 workers over one process", 1.5, of(MLP, TWO_WORKERS, "rate@256", SERVE)),
    Goal("servers", "256 connections, 2 workers over PyTriton", 11, of(MLP, TWO_WORKERS, "rate@256", "PyTriton")),
    Goal("servers", "p99 at 64 connections over PyTriton's", 0.25, of(MLP, KERNEL, "p99@64", "PyTriton"),
         is_ceiling=True),
    Goal("call", "one connection: p50 minus the bare call of the model", 0.25, value("call", KERNEL, "over_ms"),
         is_ceiling=True, unit="ms"),
    Goal("core", "the core alone, on one core", 250_000, value("core", "core alone", "rate"), unit="requests/s"),
    *(
        Goal("cnn", f"small CNN, {case}: rows/s over the best offline loop", 0.9,
             of("cnn", f"tensorflow, {case}", "rows_per_s", "tensorflow, offline batch loop"))
        for case in ("requests of 1, JSON", "requests of 32, JSON", "requests of 32, binary")
    ),
    Goal("image", "224×224×3, JSON to array: time over orjson and NumPy's", 0.125,
         of("image", "ours", "ms", "orjson and NumPy"), is_ceiling=True),
    Goal("image", "224×224×3, binary body to array", 0.2, value("image", "binary", "ms"),
         is_ceiling=True, unit="ms"),
    Goal("grpc", "gRPC Predict, 64 in flight: calls/s over an empty handler's", 0.8,
         of("grpc", KERNEL, "rate", "empty handler")),
    Goal("busy", "in the kernel, a cell spins: p99 of 1 connection", 5, value("busy", f"{KERNEL}, spin", "p99@1"),
         is_ceiling=True, unit="ms"),
    Goal("busy", "in the kernel, a cell spins: requests/s at 64 connections over idle", 0.5,
         of("busy", f"{KERNEL}, spin", "rate@64", f"{KERNEL}, idle")),
    Goal("busy", "in the kernel, model.fit runs: requests/s at 64 connections over idle", 0.5,
         of("busy", f"{KERNEL}, fit", "rate@64", f"{KERNEL}, idle")),
    Goal("busy", "isolated, a cell spins: requests/s at 64 connections over idle", 0.9,
         of("busy", f"{ISOLATED}, spin", "rate@64", f"{ISOLATED}, idle")),
    Goal("memory", "growth of memory from 10 to 200 version swaps", 5, memory_growth, is_ceiling=True, unit="%"),
    Goal("generator", "closed loop of 64: our throughput against wrk's", 5, generator_difference, is_ceiling=True,
         unit="%"),
    Goal("experiments", "identical versions, watched all the time: comparisons that roll back", 5,
         value("experiments", "identical versions", "rolled_back_pct"), is_ceiling=True, unit="%"),
    Goal("experiments", "the same: an interval of run times that excludes 0 at any look", 5,
         value("experiments", "identical versions", "alarmed_pct"), is_ceiling=True, unit="%"),
    Goal("experiments", "B takes 10 % longer: requests of each version until it is rolled back, median", 600,
         value("experiments", "B takes 10 % longer", "requests_per_arm"), is_ceiling=True, unit="requests"),
    Goal("dashboard", "requests/s lost to a dashboard at 5 Hz, 6 versions", 2, dashboard_loss, is_ceiling=True,
         unit="%"),
    Goal("dashboard", "processor time of a dashboard at 5 Hz, 6 versions", 1, dashboard_core, is_ceiling=True,
         unit="% of a core"),
)  # fmt: skip

GOALS = (*ENGINE_GOALS, *OTHER_GOALS)
