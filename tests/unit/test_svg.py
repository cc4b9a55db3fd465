"""Charts as text: well-formed, labelled in words, honest about gaps."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfserve_nb.dashboards.charts.line import Line, line_chart
from tfserve_nb.dashboards.charts.svg import DASHES, HEIGHT, LABEL_GAP, TimeAxis, format_number, nice_ceiling, path

AGE_S = np.array([8.0, 6.0, 4.0, 2.0, 0.0])
SVG = "{http://www.w3.org/2000/svg}"


def chart(*lines: Line, title: str = "Latency") -> ET.Element:
    text = line_chart(title, "ms", TimeAxis(AGE_S, 10.0), lines, empty="no requests yet")
    return ET.fromstring(text)  # noqa: S314 - our own text


def line(label: str, *values: float, style: int = 0) -> Line:
    return Line(label, np.array(values), style)


def texts(svg: ET.Element) -> list[str]:
    return [one.text or "" for one in svg.iter("text")]


@given(st.lists(st.lists(st.floats(0, 1e6) | st.just(float("nan")), min_size=5, max_size=5), max_size=9))
@example([[0.0, float("nan"), float("nan"), float("nan"), 5e-324]])
def test_any_values_make_a_well_formed_drawing_inside_its_frame(values: list[list[float]]) -> None:
    svg = chart(*(line(f"v{number}", *row, style=number) for number, row in enumerate(values)))

    drawn = [row for row in values if np.isfinite(row).any()]
    paths = [one.get("d") or "" for one in svg.iter("path")]
    assert len(paths) == len(drawn)
    assert not any("nan" in one or "inf" in one for one in paths)
    for one in svg.iter("text"):
        assert 0 < float(one.get("y") or "nan") <= HEIGHT


def test_the_last_values_are_said_in_words() -> None:
    svg = chart(line("v1 p50", 1, 2, 3, 4, 5.25), line("v2 p50", 1, 1, 1, 1, float("nan"), style=1))

    assert svg.get("role") == "img"
    assert svg.get("aria-label") == "Latency: v1 p50 5.25 ms, v2 p50 1 ms"


def test_an_empty_chart_says_why() -> None:
    svg = chart(line("v1", *[float("nan")] * 5))

    assert "no requests yet" in texts(svg)
    assert svg.get("aria-label") == "Latency: no requests yet"


def test_versions_differ_by_dashes_not_by_colour_alone() -> None:
    svg = chart(*(line(f"v{style}", 1, 2, 3, 4, 5, style=style) for style in range(len(DASHES))))

    assert len({one.get("stroke-dasharray") for one in svg.iter("path")}) == len(DASHES)


def test_labels_at_the_same_height_are_moved_apart() -> None:
    svg = chart(*(line(f"v{style}", 1, 1, 1, 1, 1, style=style) for style in range(4)))

    heights = sorted(float(one.get("y") or 0) for one in svg.iter("text") if (one.text or "").startswith("v"))
    assert all(after - before >= LABEL_GAP - 0.11 for before, after in itertools.pairwise(heights))


def test_text_of_users_cannot_become_markup() -> None:
    svg = chart(line("<script>", 1, 2, 3, 4, 5), title='"><script>alert(1)</script>')

    assert list(svg.iter("script")) == []


def test_a_gap_interrupts_the_line_and_a_lone_point_shows() -> None:
    x = np.arange(5.0)

    assert path(x, np.array([1.0, 2.0, np.nan, 3.0, np.nan])) == "M0.0 1.0L1.0 2.0M3.0 3.0h1.5"


@given(st.floats(1e-6, 1e9))
def test_the_top_of_the_axis_is_just_above_the_values(value: float) -> None:
    top = nice_ceiling(value)

    assert value * (1 - 1e-6) <= top <= value * 2.51


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_the_top_of_an_axis_without_values_is_one(value: float) -> None:
    assert nice_ceiling(value) == 1.0


@given(st.floats(1e-4, 1e6))
def test_numbers_keep_three_digits(value: float) -> None:
    text = format_number(value)

    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=0.006)


def test_a_chart_of_four_versions_stays_small() -> None:
    lines = [Line(f"v{number}", np.random.default_rng(number).random(60), number) for number in range(4)]

    text = line_chart("Latency", "ms", TimeAxis(np.arange(118.0, -2.0, -2.0), 120.0), lines, empty="")

    assert len(text) < 24_000
