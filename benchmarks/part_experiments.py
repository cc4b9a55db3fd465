"""How often verdicts of A/B tests are wrong: the full simulations, and two copies on a real device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench import Bench, say

HERE = Path(__file__).parent


def measure(bench: Bench) -> None:
    """Simulate as often as `docs/experiments.md` says; a quick run simulates a twentieth of it."""
    say("experiments: simulations of identical and of slower versions")
    folder = bench.results.path.parent
    command = [sys.executable, str(HERE / "experiments.py"), "--json", "--out", str(folder)]
    command += ["--only", "identical", "--only", "slower", *(["--quick"] if bench.is_quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        bench.results.problem("experiments", "simulations", f"experiments.py ended with {done.returncode}")
        return
    *tables, last = done.stdout.splitlines()
    print("\n".join(tables))
    for case, values in json.loads(last).items():
        bench.results.add("experiments", case, 0, **values)
