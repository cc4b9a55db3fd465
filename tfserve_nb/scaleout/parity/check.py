"""Compares two servers: everything that is asked, in order.

Thread: the caller's, which stays busy until the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

from ...export.signatures import main_signature
from ...types import Progress, ProgressEvent, no_progress
from .findings import Latencies, Predictions, Verdict
from .latency import measure
from .options import ParityOptions
from .predictions import compare_version
from .refusals import compare_refusals
from .result import ParityResult
from .rows import GivenRows, check_signatures, given_rows, rows_for, told_rows
from .side import Address, Side
from .told import Version, compare_told, models_of


def compare_servers(
    a: Address,
    b: Address,
    models: Iterable[str] = (),
    options: ParityOptions | None = None,
    progress: Progress = no_progress,
) -> ParityResult:
    """Compare two servers.

    Args:
        a: the measure.
        b: the other one.
        models: those that are compared; none for all that a server lists.
        options: what is compared, and how closely.
        progress: called with each step, on the calling thread.

    Raises:
        NotAvailable: if a server cannot be reached.
        InvalidOption: if one asks for another token, or an option is not allowed.
        ModelNotFound: if there is nothing to compare.
        InvalidRequest: if rows that were given do not fit.
    """
    wanted = options or ParityOptions()
    rows = None if wanted.rows is None else given_rows(wanted.rows)
    with closing(Side("A", a, wanted.timeout_s)) as left, closing(Side("B", b, wanted.timeout_s)) as right:
        for side in (left, right):
            if wanted.wait_s:
                progress(ProgressEvent("waiting", 0, 1, f"for {side.url}"))
            side.wait(wanted.wait_s)
        return _Comparison(left, right, wanted, rows, progress).run(models)


class _Comparison:
    """One comparison of two servers, as it goes on."""

    def __init__(self, a: Side, b: Side, options: ParityOptions, rows: GivenRows | None, progress: Progress) -> None:
        self._a = a
        self._b = b
        self._options = options
        self._rows = rows
        self._progress = progress
        self._notes: list[str] = []

    def run(self, models: Iterable[str]) -> ParityResult:
        """Compare everything."""
        a, b = self._a, self._b
        names, checks = models_of(a, b, models)
        predictions: list[Predictions] = []
        latencies: list[Latencies] = []
        for place, name in enumerate(names):
            step = (place, len(names))
            self._say(f"{name}: what both tell", *step)
            told = compare_told(a, b, name, self._options)
            checks += told.checks
            self._notes += told.notes
            if not told.versions:
                continue
            given = self._given(name, told.versions)
            for version in told.versions:
                self._say(f"{name}: predictions of version {version.number}", *step)
                predictions += compare_version(a, b, version, given, self._options)
            self._say(f"{name}: bad requests", *step)
            checks += compare_refusals(a, b, name)
            self._say(f"{name}: latencies", *step)
            latencies += self._latencies(told.versions[-1], given, predictions)
        self._progress(ProgressEvent("done", 1, 1))
        notes = tuple(self._all_notes(predictions))
        return ParityResult(a.url, b.url, names, tuple(checks), tuple(predictions), tuple(latencies), notes)

    def _given(self, name: str, versions: Sequence[Version]) -> GivenRows:
        """The rows for a model, and a note about where they come from."""
        if self._rows is not None:
            given = self._rows
            check_signatures(given, name, versions)
        else:
            given = told_rows(self._a, name, versions[-1].number, self._options.max_rows)
        others = "; made up for signatures that none are for" if given.requests else ""
        self._notes.append(f"rows of {name}: {given.origin}{others}")
        return given

    def _latencies(self, version: Version, given: GivenRows, predictions: Iterable[Predictions]) -> Iterator[Latencies]:
        """Of the main signature, if its rows can be run."""
        if not self._options.requests or not version.signatures:
            return
        signature = main_signature(version.signatures)
        is_run = any(
            one.num_rows and one.verdict is not Verdict.NOT_COMPARED
            for one in predictions
            if (one.where.model, one.where.signature) == (version.model, signature.name)
        )
        if is_run:
            inputs = rows_for(signature, version.signatures, given, 1).pieces[0]
            yield from measure(self._a, self._b, version.model, signature, inputs, self._options.requests)

    def _all_notes(self, predictions: Iterable[Predictions]) -> Iterator[str]:
        yield from self._notes
        if any(one.num_rows for one in predictions):
            kind = f"as {self._options.kind}" if self._options.kind else "one by one"
            yield (
                f"floating-point numbers are compared {kind}, within {self._options.tolerance:g} of A's number plus "
                "the spread of A's numbers; whole numbers and texts must be equal"
            )

    def _say(self, what: str, done: int, total: int) -> None:
        self._progress(ProgressEvent("comparing", done, total, what))
