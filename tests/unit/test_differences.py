"""A version diff in words, from values."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from tfserve_nb.agreement.result import Agreement, OutputAgreement
from tfserve_nb.diff.result import MAX_LAYERS, LatencyChange, LayerChange, SignatureChange, VersionDiff
from tfserve_nb.export.provenance.code import Code
from tfserve_nb.export.provenance.environment import GitState
from tfserve_nb.export.provenance.fingerprint import DataFingerprint
from tfserve_nb.export.provenance.provenance import Provenance, read_provenance, write_provenance
from tfserve_nb.reports.html import to_html


def provenance(**options: object) -> Provenance:
    return Provenance(at=1.7e9, python="3.12.1", packages={"numpy": "2.0.0"}, **options)  # type: ignore[arg-type]


def test_many_layers_show_those_that_changed_most_in_their_order() -> None:
    layers = [LayerChange(f"layer_{place}", "Dense", "changed", 2, 2, place / 1000) for place in range(MAX_LAYERS + 20)]
    layers.insert(3, LayerChange("new", "Dense", "added", None, 5))

    shown = repr(VersionDiff("net", 1, 2, layers=tuple(layers)))
    names = re.findall(r"^ +(layer_\d+|new) ", shown, re.MULTILINE)

    assert names == ["new", *(f"layer_{place}" for place in range(21, MAX_LAYERS + 20))]
    assert "… 21 more that changed less" in shown
    assert "Layers: 160 → 165 parameters" in shown


def test_what_is_not_known_is_left_out_or_said() -> None:
    diff = VersionDiff("net", 1, 2, notes=("version 1 has no provenance",))

    shown = str(diff)

    assert "net: version 2 (B) compared with version 1 (A)" in shown
    assert "Code: not known of both versions" in shown
    assert "version 1 has no provenance" in shown
    assert "Metrics" not in shown
    assert diff.packages == diff.metrics == {}


def test_everything_that_is_known_is_shown_in_both_forms() -> None:
    diff = VersionDiff(
        "net", 3, 4,
        signatures=(SignatureChange("serving_default", "changed", ("input x: none → float32[?]",)),),
        layers=(LayerChange("dense", "Dense", "changed", 6, 6, math.inf),),
        code="--- a\n+++ b\n@@ -1 +1 @@\n-x = '<b>'\n+x = 2",
        provenance_a=provenance(metrics={"acc": 0.5, "same": 0.0}, seed=1),
        provenance_b=Provenance(1.7e9, "3.13.0", {"numpy": "2.1.0", "scipy": "1.13"},
                                metrics={"acc": 0.75, "same": 0.0}, git=GitState("a" * 40, "main", is_dirty=True),
                                data=DataFingerprint("ndarray", "float32", (3, 2), "b" * 64)),
        bytes_a=2048, bytes_b=3 * 2**20,
        latency=(LatencyChange("p95 of requests", None, 2.0), LatencyChange("a run of 8 rows", 1.0, 1.5)),
        rows_from="given rows",
        agreement=Agreement(200, 190, {"y": OutputAgreement("regression", "because", 200, 190, largest_difference=0.25,
                                                            bias=-0.125, error=0.5)}),
    )  # fmt: skip

    text = str(diff)
    html = to_html(diff.report)

    for words in (
        "2.05 kB", "3.15 MB", "aaaaaaaaaa main (dirty)", "ndarray 3 × 2, float32, sha256 bbbbbbbbbbbb", "~ changed",
        "input x: none → float32[?]", "from zero", "+50.0 %", "Latency of live traffic, ms", "p95 of requests",
        "190 of 200 (95 %)",
        "Outputs, given rows", "0.25", "-0.125", "because", "2.1.0", "3.13.0", "scipy",
    ):  # fmt: skip
        assert words in text
        assert words in html
    assert "x = '<b>'" in text
    assert "<b>'" not in html
    assert diff.packages == {"python": ("3.12.1", "3.13.0"), "numpy": ("2.0.0", "2.1.0"), "scipy": ("", "1.13")}


def test_provenance_makes_the_round_trip_through_its_file(tmp_path: Path) -> None:
    told = provenance(
        code=Code("x = 1", "cell", "id", 3, num_redacted=2), git=GitState("a", "b", is_dirty=False), seed=3,
        data=DataFingerprint("dict", "a: float32", (3,), "c", is_sampled=True),
        metrics={"loss": math.inf, "acc": 0.5}, model="Sequential 'net'",
    )  # fmt: skip

    written = json.loads(write_provenance(tmp_path, told).read_text(encoding="utf-8"))

    assert read_provenance(tmp_path) == told
    assert written["metrics"]["loss"] == "inf"
    assert written["time"] == "2023-11-14T22:13:20Z"
