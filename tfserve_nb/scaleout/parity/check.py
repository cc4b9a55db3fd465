"""Compares two servers: everything that is asked, in order.

Thread: the caller's, which stays busy until the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from ...errors import InvalidRequest
from ...export.signatures import main_signature
from ...types import Progress, ProgressEvent, no_progress
from .latency import measure
from .options import ParityOptions
from .predictions import Version, compare_version
from .refusals import compare_refusals
from .result import ParityResult
from .rows import GivenRows, given_rows, rows_for, told_rows
from .side import Address, Side
from .told import Told, compare_told, models_of
from .values import Latencies, Predictions, Verdict


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
            self._notes += [*told.notes, *_left_out(told)]
            given = self._given(name, told)
            for version in told.versions:
                self._say(f"{name}: predictions of version {version.number}", *step)
                predictions += compare_version(a, b, version, given, self._options)
            if told.versions:
                self._say(f"{name}: bad requests", *step)
                checks += compare_refusals(a, b, name)
                self._say(f"{name}: latencies", *step)
                latencies += self._latencies(told.versions[-1], given, predictions)
        self._progress(ProgressEvent("done", 1, 1))
        notes = tuple(self._all_notes(predictions))
        return ParityResult(a.url, b.url, names, tuple(checks), tuple(predictions), tuple(latencies), notes)

    def _given(self, name: str, told: Told) -> GivenRows | None:
        """The rows for a model, and a note about where they come from."""
        given = self._rows
        if given is None and told.versions:
            given = told_rows(self._a, name, told.versions[-1].number, self._options.max_rows)
        if given is None:
            self._notes.append(f"rows of {name}: made up; --rows FILE sends others")
            return None
        known = {signature for version in told.versions for signature in version.signatures}
        strange = sorted({one.signature for one in given.requests if one.signature} - known)
        if strange and self._rows is not None and told.versions:
            raise InvalidRequest(
                f"{given.origin} has requests for signature {strange[0]!r}, which {name} has not on both servers",
                hint=f"one of {', '.join(sorted(known)) or 'none'}",
            )
        self._notes.append(f"rows of {name}: {given.origin}; made up for signatures that none are for")
        return given

    def _latencies(
        self, version: Version, given: GivenRows | None, predictions: Iterable[Predictions]
    ) -> Iterator[Latencies]:
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


def _left_out(told: Told) -> Iterator[str]:
    """Calls that are not compared, of those that the signatures are for."""
    methods = {one.method_name.rpartition("/")[2] for version in told.versions for one in version.signatures.values()}
    calls = sorted(methods & {"classify", "regress"})
    if calls:
        yield f"not compared: the calls {' and '.join(calls)}; their signatures are asked to predict"
