"""What is said of variants: which one is chosen, and the table and figure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tfserve_nb.errors import InvalidOption
from tfserve_nb.reports.html import to_html
from tfserve_nb.reports.text import to_text
from tfserve_nb.types import VariantMeasurement
from tfserve_nb.variants.choose import choose
from tfserve_nb.variants.figure import png_of
from tfserve_nb.variants.options import NAMES, VariantOptions
from tfserve_nb.variants.report import report_of
from tfserve_nb.variants.result import VariantsResult

MIB = 2**20
PLAIN = VariantMeasurement("float32", "tensorflow", 4 * MIB, 7 * MIB, 0.2, {1: 0.4, 32: 2.0}, 1.0, 0.0, 0.9811)
ONNX = replace(PLAIN, engine="onnx", disk_bytes=8 * MIB, ms={1: 0.1, 32: 0.5}, in_tensorflow_serving=False)
INT8 = replace(PLAIN, variant="int8", disk_bytes=MIB, largest_difference=0.02)
REFUSED = replace(INT8, agreement=0.75, accuracy=0.75, is_usable=False, reason="25 of 100 rows disagree, 1 % may")
NOT_MADE = VariantMeasurement("xla", "", in_tensorflow_serving=False, reason="it has no <signature>", is_usable=False)


def unknown(row: VariantMeasurement) -> VariantMeasurement:
    return replace(row, agreement=None, accuracy=None)


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([PLAIN], 0),
        ([PLAIN, ONNX, INT8], 1),  # four times as fast
        ([PLAIN, INT8], 1),  # as fast, and smaller
        ([PLAIN, replace(INT8, ms={1: 0.43, 32: 2.1})], 1),  # about as fast
        ([PLAIN, replace(INT8, ms={1: 0.6, 32: 3.0})], 0),  # smaller, and slower
        ([PLAIN, REFUSED, NOT_MADE], 0),
        ([PLAIN, replace(INT8, agreement=0.999)], 0),  # may be deployed by its name
        ([unknown(PLAIN), unknown(INT8)], 0),  # nobody knows what it predicts for real rows
        ([unknown(PLAIN), unknown(ONNX)], 1),  # exact by its making
        ([PLAIN, replace(ONNX, engine="litert"), ONNX], 1),
        ([PLAIN, replace(PLAIN, variant="xla"), INT8], 2),
        ([PLAIN, replace(ONNX, variant="tflite-int8", engine="litert")], 0),  # not for TensorFlow Serving
    ],
)
def test_the_fastest_that_predicts_the_same_is_chosen_and_of_equals_the_smallest(
    rows: list[VariantMeasurement], chosen: int
) -> None:
    found = choose(rows)

    assert [number for number, row in enumerate(found) if row.is_chosen] == [chosen]
    assert [replace(row, is_chosen=False) for row in found] == rows


def test_the_table_shows_what_was_measured_and_the_notes_why_the_rest_is_out() -> None:
    rows = tuple(choose([PLAIN, ONNX, REFUSED, NOT_MADE]))
    result = VariantsResult("Variants of digits", rows, 1797, "the model in memory", ("int8: dense stays float32",))
    report = report_of(result)

    text, page = to_text(report), to_html(report)

    cells = {tuple(line.split()[:2]): line.split() for line in text.splitlines()}
    assert cells["float32", "tensorflow"] == (
        "float32 tensorflow 4 7 0.2 0.4 2 100 % 0 98.11 % yes".split()  # noqa: SIM905 - as the table shows it
    )
    assert cells["float32", "onnx"][-2:] == ["no", "chosen"]
    assert cells["int8", "tensorflow"][-1] == "refused"
    assert cells["xla", "not"] == ["xla", "not", "made"]
    for words in ("chosen: float32 by onnx", "4 × its speed", "int8 by tensorflow: 25 of 100 rows disagree",
                  "1,797 rows, with the model in memory", "int8: dense stays float32"):  # fmt: skip
        assert words in " ".join(text.split())
        assert words in page
    assert "it has no <signature>" in text
    assert "it has no &lt;signature&gt;" in page


def test_without_rows_the_agreement_is_unknown() -> None:
    text = to_text(report_of(VariantsResult("Variants of digits", tuple(choose([unknown(PLAIN), unknown(INT8)])))))

    assert text.count("unknown") == 3
    assert "--check VAR" in text
    assert "accuracy" not in text
    assert "nothing that agrees is faster or smaller" in text


@pytest.mark.parametrize("rows", [[PLAIN, ONNX, REFUSED, NOT_MADE], [unknown(PLAIN)], [PLAIN]])
def test_the_figure_is_drawn_whatever_is_known(rows: list[VariantMeasurement]) -> None:
    figure = png_of(VariantsResult("Variants of $digits", tuple(choose(rows))))

    assert figure is not None
    assert figure[:4] == b"\x89PNG"


def test_there_is_no_figure_of_nothing() -> None:
    assert png_of(VariantsResult("Variants", (NOT_MADE,))) is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"optimize": "int4"}, "optimize='int4' must be one of float32, float16"),
        ({"optimize": "int8,float8"}, "optimize='float8'"),
        ({"labels": [1]}, "there are none"),
        ({"engine": "tensorrt"}, "engine='tensorrt'"),
    ],
)
def test_options_that_are_not_allowed_are_named(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidOption) as error:
        VariantOptions(**options)  # type: ignore[arg-type]

    assert complaint in error.value.message


@pytest.mark.parametrize("optimize", ["int8, float16,int8", ["int8", "float16"], ("int8", "float32", "float16")])
def test_variants_are_named_in_a_list_or_with_commas(optimize: object) -> None:
    assert VariantOptions(optimize=optimize).wanted == ("int8", "float16")  # type: ignore[arg-type]
    assert VariantOptions().wanted == NAMES
    assert VariantOptions(optimize="float32").wanted == ()  # the model as it is, with every engine
