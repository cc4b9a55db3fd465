"""Measure the variants of a model: of one in memory, or of a version that is served.

All is written into a temporary folder, and nothing of it stays. Neither the model nor what is served is changed.

Thread: the caller's; it may be interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any  # models and arrays of the user

from ..agreement.kinds import AgreementOptions, kind_for
from ..agreement.summary import evidence_pairs
from ..diff.diff import version_folder
from ..errors import FailedPrecondition, InvalidOption, ServingError
from ..export.arrays import by_name, given_as, named_batch
from ..export.endpoint import ExportSource
from ..export.graph.effects import effects_of
from ..export.graph.live import LiveModel, NotRepeatable, left_alone
from ..export.provenance.keras_facts import outputs_of
from ..export.provenance.provenance import evidence_of
from ..export.reasons import innermost
from ..export.saved_model import export_version
from ..export.signatures import main_signature, read_meta_graph, read_signatures
from ..export.source import owners_of, prepare_source
from ..export.tracing import with_xla
from ..server.handle import ServerHandle
from ..temporary import TemporaryFolder
from ..types import Progress, ProgressEvent, Tensors
from ..variants.choose import choose
from ..variants.measure import Given, MadeVariant, measure_variants
from ..variants.options import VariantOptions
from ..variants.probing import ProbeFailed
from ..variants.result import VariantsResult

AS_IT_IS = "float32"
"""What the model is called beside its variants."""


def variants_of_model(model: Any, name: str, options: VariantOptions, progress: Progress) -> VariantsResult:
    """Measure the variants of a model in memory, or of a SavedModel folder.

    Args:
        model: what `deploy` takes.
        name: what it is called.
        options: what is measured.
        progress: called with each step.

    Raises:
        InvalidOption: if the rows do not fit.
        FailedPrecondition: if running it leaves something behind.
        ServingError: if it cannot be exported, or does not run.
    """
    with left_alone(owners_of(model)):
        source = prepare_source(model, example=options.check)
        live = None if source.call is None else _live(source)
        return _measured(source, f"Variants of {name}", live, partial(outputs_of, source), options, progress)


def variants_of_version(
    server: ServerHandle, name: str, version: int, options: VariantOptions, progress: Progress
) -> VariantsResult:
    """Measure the variants of a version that is served.

    Args:
        server: where it is served.
        name: the model.
        version: the version.
        options: what is measured.
        progress: called with each step.

    Raises:
        NotAvailable: if its files are not on this machine.
        VersionNotFound: if there are none.
        InvalidOption, FailedPrecondition, ServingError: as `variants_of_model`.
    """
    folder = version_folder(server, name, version)
    known = evidence_of(server.models.base_path(name), name, version)
    title = f"Variants of {name}, version {version}"
    return _measured(prepare_source(folder), title, None, lambda _: known, options, progress)


def _measured(
    source: ExportSource,
    title: str,
    live: Callable[[Tensors], Tensors] | None,
    evidence: Callable[[Path], Any],
    options: VariantOptions,
    progress: Progress,
) -> VariantsResult:
    with TemporaryFolder("tfserve-variants") as folder:
        progress(ProgressEvent("exporting", 0, 1))
        base = export_version(source, folder.path, AS_IT_IS).path
        effects = effects_of(read_meta_graph(base), base)
        if effects.lasting:
            raise FailedPrecondition(
                f"{source.description}: {effects.lasting}; to measure variants would run it many times",
                hint="deploy a variant of it by name",
            )
        rows = _rows(options, base, source)
        if live is not None and rows is not None:
            _check_runs(source, live, rows)
        known = evidence(base)
        options_for = AgreementOptions(kind_for(None, [effects.randomness]))
        given = Given(rows, live, options_for, evidence_pairs(known, known))
        made = [MadeVariant(AS_IT_IS, base), *(_made(source, name, folder.path) for name in options.wanted)]
        try:
            found = measure_variants(made, given, options.engine, progress)
        except ProbeFailed as error:
            raise FailedPrecondition(f"{source.description} cannot be measured: {error}") from error
        progress(ProgressEvent("done", 1, 1, title))
    num_rows = 0 if rows is None else max(map(len, rows.values()))
    with_what = "the export" if live is None else "the model in memory"
    return VariantsResult(title, tuple(choose(found)), num_rows, with_what)


def _made(source: ExportSource, name: str, folder: Path) -> MadeVariant:
    """A variant, written as a version, or why it was not."""
    try:
        return MadeVariant(name, export_version(with_xla(source), folder, name).path)
    except ServingError as error:
        return MadeVariant(name, None, error.message)


def _live(source: ExportSource) -> Callable[[Tensors], Tensors]:
    return LiveModel(source).run


def _check_runs(source: ExportSource, live: Callable[[Tensors], Tensors], rows: Tensors) -> None:
    """Refuse rows that the live model itself does not take."""
    try:
        live({name: array[:1] if array.ndim else array for name, array in rows.items()})
    except NotRepeatable:
        raise
    except Exception as error:
        raise InvalidOption(
            f"check: {source.description} itself fails on these rows: {innermost(error)}",
            hint="give rows that model(x) can take",
        ) from error


def _rows(options: VariantOptions, folder: Path, source: ExportSource) -> Tensors | None:
    if options.check is None:
        return None
    with given_as("check"):
        return named_batch(by_name(options.check, source.order), main_signature(read_signatures(folder)), most=None)
