"""A version diff as text and as HTML.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from ..export.provenance.provenance import Provenance
from ..markup import COLOUR, note, table, text
from .result import ADDED, CHANGED, REMOVED, SAME, VersionDiff

MAX_LAYERS = 60
SYMBOLS = {SAME: "=", CHANGED: "~", ADDED: "+", REMOVED: "-"}
"""Change -> what stands before it, so that colour never says it alone."""
_TINTS = {"+": "rgba(46,160,67,.18)", "-": "rgba(248,81,73,.18)", "@": "rgba(127,127,127,.15)"}
"""First character of a line of a diff -> its background; see-through, for light and dark themes."""

Rows = list[dict[str, str]]


def to_text(diff: VersionDiff) -> str:
    """For terminals."""
    lines = [title_of(diff)]
    for heading, rows in sections_of(diff):
        lines += ["", f"  {heading}", *_aligned(rows)]
    lines += ["", f"  {code_line(diff)}"]
    lines += [f"    {line}" for line in (diff.code or "").splitlines()]
    return "\n".join([*lines, *(f"  ({remark})" for remark in diff.notes)])


def to_html(diff: VersionDiff) -> str:
    """For notebooks; everything that comes from users is escaped."""
    parts = [f"<div><b>{text(title_of(diff))}</b></div>"]
    for heading, rows in sections_of(diff):
        columns = list(rows[0])
        escaped = [{column: text(cell) for column, cell in row.items()} for row in rows]
        numbers = [name for name in columns if name in ("A", "B")] if "change" in columns else []
        parts.append(table(text(heading), columns, escaped, numbers=numbers))
    parts += [f'<div style="font-weight:600;{COLOUR}">{text(code_line(diff))}</div>', _code_html(diff.code)]
    return f"<div>{''.join(parts)}{''.join(note(remark) for remark in diff.notes)}</div>"


def title_of(diff: VersionDiff) -> str:
    """The model and its versions."""
    return f"{diff.name}: version {diff.b} (B) against version {diff.a} (A)"


def sections_of(diff: VersionDiff) -> list[tuple[str, Rows]]:
    """Headings and rows of everything that is known; empty tables are left out."""
    found = [
        ("Origin", origin_rows(diff)),
        ("Signatures", signature_rows(diff)),
        (f"Layers: {diff.params_a:,} → {diff.params_b:,} parameters", layer_rows(diff)),
        ("Metrics", metric_rows(diff)),
        ("Live latency", latency_rows(diff)),
        ("Answers", answer_rows(diff)),
        ("Packages that differ", package_rows(diff)),
    ]
    return [(heading, rows) for heading, rows in found if rows]


def origin_rows(diff: VersionDiff) -> Rows:
    """When, from what and how large."""
    pair = diff.provenance_a, diff.provenance_b
    rows = [
        _row("exported", *(_when(one) for one in pair)),
        _row("model", *("" if one is None else one.model for one in pair)),
        _row("size on disk", _size(diff.bytes_a), _size(diff.bytes_b)),
        _row("git", *("" if one is None or one.git is None else str(one.git) for one in pair)),
        _row("data", *("" if one is None or one.data is None else str(one.data) for one in pair)),
        _row("seed", *("" if one is None or one.seed is None else str(one.seed) for one in pair)),
    ]
    same = {"model", "git", "data", "seed"}
    return [
        {**row, "B": "the same"} if row["A"] == row["B"] and row[" "] in same else row
        for row in rows
        if row["A"] or row["B"]
    ]


def signature_rows(diff: VersionDiff) -> Rows:
    """One row for each signature, and one for each tensor that changed."""
    rows = []
    for one in diff.signatures:
        rows.append({"signature": one.name, "change": f"{SYMBOLS[one.change]} {one.change}"})
        rows += [{"signature": "", "change": detail} for detail in one.details]
    return rows


def layer_rows(diff: VersionDiff) -> Rows:
    """One row for each layer; of very many, those that changed most."""
    shown = diff.layers
    if len(shown) > MAX_LAYERS:
        order = {ADDED: math.inf, REMOVED: math.inf, SAME: -1.0}
        weight = [order.get(one.change, one.weight_change or 0.0) for one in shown]
        chosen = sorted(sorted(range(len(shown)), key=lambda place: -weight[place])[:MAX_LAYERS])
        shown = tuple(shown[place] for place in chosen)
    rows = [
        {
            "layer": one.name,
            "class": one.class_name,
            "A": "–" if one.params_a is None else f"{one.params_a:,}",
            "B": "–" if one.params_b is None else f"{one.params_b:,}",
            "weights": _moved(one.weight_change, one.change),
            "change": f"{SYMBOLS[one.change]} {one.change}{': ' + one.note if one.note else ''}",
        }
        for one in shown
    ]
    left = len(diff.layers) - len(shown)
    return [*rows, *([{**dict.fromkeys(rows[0], ""), "layer": f"… {left} more that changed less"}] if left else [])]


def metric_rows(diff: VersionDiff) -> Rows:
    """The metrics that were stored with the versions."""
    return [_numbers(name, a, b) for name, (a, b) in diff.metrics.items()]


def latency_rows(diff: VersionDiff) -> Rows:
    """Latencies of live traffic in milliseconds."""
    return [_numbers(f"{one.what}, ms", one.a_ms, one.b_ms) for one in diff.latency]


def answer_rows(diff: VersionDiff) -> Rows:
    """How they answered the same rows."""
    found = diff.answers
    if found is None:
        return []
    share = f"{found.num_agreeing} of {found.num_rows} ({100 * found.num_agreeing / max(1, found.num_rows):.1f} %)"
    rows = [{" ": f"same decision, {found.rows_from}", "result": share}]
    return [
        *rows,
        *({" ": f"largest difference of {name}", "result": f"{value:.3g}"}
          for name, value in found.max_difference.items()),
    ]  # fmt: skip


def package_rows(diff: VersionDiff) -> Rows:
    """Packages whose versions differ."""
    return [_row(name, a or "–", b or "–") for name, (a, b) in diff.packages.items()]


def code_line(diff: VersionDiff) -> str:
    """Whether the code differs, in words."""
    if diff.code is None:
        return "Code: not known of both versions"
    return "Code" if diff.code else "Code: the same"


def _code_html(code: str | None) -> str:
    if not code:
        return ""
    lines = [
        f'<span style="display:block;background:{_TINTS.get(line[:1], "none")}">{text(line) or " "}</span>'
        for line in code.splitlines()
    ]
    style = f"overflow-x:auto;max-height:30em;margin:4px 0;line-height:1.35;{COLOUR}"
    return f'<pre style="{style}">{"".join(lines)}</pre>'


def _row(name: str, a: str, b: str) -> dict[str, str]:
    return {" ": name, "A": a, "B": b}


def _numbers(name: str, a: float | None, b: float | None) -> dict[str, str]:
    change = f"{100 * (b - a) / abs(a):+.1f} %" if a and b is not None and math.isfinite(a) and math.isfinite(b) else ""
    return {**_row(name, *("–" if one is None else f"{one:.4g}" for one in (a, b))), "change": change}


def _moved(value: float | None, change: str) -> str:
    if value is None:
        return "equal" if change == SAME else ""
    return "from zero" if math.isinf(value) else f"moved {100 * value:.3g} %"


def _when(provenance: Provenance | None) -> str:
    return "" if provenance is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(provenance.at))


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.0f} KiB"


def _aligned(rows: Sequence[dict[str, str]]) -> list[str]:
    columns = list(rows[0])
    lines = [dict(zip(columns, columns, strict=True)), *rows]
    widths = {column: max(len(row.get(column, "")) for row in lines) for column in columns}
    return [
        "    " + "  ".join(row.get(column, "").ljust(widths[column]) for column in columns).rstrip() for row in lines
    ]
