"""Measure tfserve_nb on a GPU, in less than 8 minutes.

Usage: python benchmarks/gpu.py [--device /GPU:0] [--out FILE.md] [--quick] [--only SECTION]... [--model MODEL]...

Prints Markdown tables, and writes them to FILE.md and the numbers beside them as JSON. With `--device /CPU:0` it is a
dry run: all that runs without a GPU. The sections (gpu_sections/) do not depend on each other: each is a process, and
one that fails or takes too long keeps what it found until then, says why, and the next one runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import machine
from bench import HERE, say
from gpu_sections import NO_DEVICE, SECTIONS, Found, Setting
from report import part_table, table
from results import Results
from saved_models import MODELS, make_all
from server_process import last_words, stop

NAMES = ("mlp", "cnn", "mobilenet")
SIZES = (1, 8, 32, 128, 256)
QUICK_SIZES = (1, 8)
LIMIT_S = 430.0
"""For everything but ending the sections that overrun, and the tables: all of it stays below 8 minutes."""
LIMITS_S = {
    "device": 40.0,
    "answers": 50.0,
    "speed": 110.0,
    "memory": 60.0,
    "isolated": 60.0,
    "limits": 40.0,
    "engines": 70.0,
    "variants": 240.0,
}
"""How long each section may take, if the time for everything allows it; the last one gets what the others leave."""

TITLES = {
    "device": "Device and growth of memory",
    "answers": "Largest difference from the CPU's answers",
    "speed": "Latency and throughput by rows of a request",
    "memory": "Memory per version",
    "isolated": "Beside a training in the kernel: 8 clients, requests of one row",
    "limits": "Limited memory",
    "engines": "Engines",
    "variants": "Mixed precision, XLA, and weights stored in fewer bytes",
}


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="/GPU:0", help="/CPU:0 for a dry run")
    parser.add_argument("--out", type=Path, default=Path("gpu.md"), metavar="FILE.md", help="where the tables go")
    parser.add_argument("--quick", action="store_true", help="few sizes and short measurements, to see that it runs")
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}"
    )
    parser.add_argument("--model", action="append", choices=NAMES, metavar="MODEL", help=f"of {', '.join(NAMES)}")
    return parser.parse_args()


def main() -> int:
    """Measure, then report."""
    options = parse()
    begun_s = time.perf_counter()
    seconds = 0.2 if options.quick else 1.0
    results = Results(options.out.absolute().with_suffix(".json"), about(options.device, seconds))
    with tempfile.TemporaryDirectory(prefix="tfserve-nb-gpu-") as name:
        folder = Path(name)
        say("making the models")
        make_all(folder, options.model or NAMES)
        setting = Setting(
            options.device,
            name,
            tuple(options.model or NAMES),
            QUICK_SIZES if options.quick else SIZES,
            seconds,
        )
        for section in dict.fromkeys(options.only or SECTIONS):
            left_s = LIMIT_S - (time.perf_counter() - begun_s)
            say(f"{section} ({min(left_s, LIMITS_S[section]):.0f} s at most)")
            try:
                measure(section, setting, folder / section, min(left_s, LIMITS_S[section]), results)
            except NoDevice as error:
                print(error, "(--device /CPU:0 makes a dry run)", file=sys.stderr)
                return 1
    text = "\n\n".join(sections(results)) + "\n"
    options.out.write_text(text)
    print("\n" + text)
    print(f"written: {options.out} and {results.path}, {time.perf_counter() - begun_s:.0f} s")
    return 0 if results.samples else 1


class NoDevice(Exception):
    """TensorFlow has no such device."""


def about(device: str, seconds: float) -> dict[str, str]:
    """What was measured when, where and with what."""
    return {"date": time.strftime("%Y-%m-%d"), "device": device, "GPU, memory, driver": machine.gpus() or "none",
            "measured": f"once; times are medians of the calls in {seconds:g} s",
            **machine.describe()}  # fmt: skip


def measure(section: str, setting: Setting, folder: Path, limit_s: float, results: Results) -> None:
    """Run a section in a process of its own, and keep what it found.

    Raises:
        NoDevice: if TensorFlow has no such device.
    """
    if limit_s < 1:
        results.problem(section, "all", "no time was left")
        return
    folder.mkdir()
    path, log = folder / "found", folder / "log"
    command = [sys.executable, "-m", "gpu_sections", section, json.dumps(vars(setting)), str(path)]
    code = run(command, folder, log, limit_s, grows=section != "device")
    if code == NO_DEVICE:
        raise NoDevice(last_words(log))
    for line in path.read_text().splitlines() if path.exists() else ():
        keep(section, Found(**json.loads(line)), results)
    if code is None:
        results.problem(section, "the rest", f"it was stopped after {limit_s:.0f} s")
    elif code:
        results.problem(section, "the rest", f"it ended with code {code}: {last_words(log)}")


def run(command: list[str], folder: Path, log: Path, limit_s: float, *, grows: bool) -> int | None:
    """Run a process with all that it starts; its exit code, or None when it had to be stopped."""
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
    # The bare calls and Keras may use the GPU before anything is deployed, and TensorFlow would take all of its memory
    # then. How it is without this is measured in the section about the device.
    environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if grows else {}
    with log.open("w") as output, subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            stop(process)


def keep(section: str, found: Found, results: Results) -> None:
    """Put a case into the results."""
    results.about |= found.about
    if found.problem:
        results.problem(section, found.case, found.problem)
    if found.values:
        results.add(section, found.case, 0, **found.values)


def sections(results: Results) -> Iterable[str]:
    """The report: what was measured where, a table for each section, and what was not measured."""
    on_gpu = "GPU" in results.about["device"].upper()
    where = results.about["GPU, memory, driver"] if on_gpu else "a dry run on the CPU: no GPU was used"
    yield f"## {results.about['date']}: {where}"
    yield table(("what", "value"), list(results.about.items()))
    yield ", ".join(f"{name}: {MODELS[name]}" for name in NAMES) + "."
    for part, title in TITLES.items():
        if results.cases(part):
            yield f"### {title}\n\n{part_table(results, part)}"
    if results.problems:
        rows = [(*case.split("/", 1), text.replace("|", "/")) for case, text in results.problems.items()]
        yield "### Not measured\n\n" + table(("section", "case", "why"), rows)


if __name__ == "__main__":
    sys.exit(main())
