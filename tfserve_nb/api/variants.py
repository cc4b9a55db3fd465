"""Measure the variants of a model: of one in memory, or of a version that is served.

All is written into a temporary folder, and nothing of it stays. Neither the model nor what is served is changed.

Thread: the caller's; it may be interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any  # models and arrays of the user

import numpy as np

from ..agreement.kinds import AgreementOptions, kind_for
from ..agreement.rows import num_rows
from ..agreement.summary import evidence_pairs
from ..diff.diff import version_folder
from ..errors import FailedPrecondition, InvalidOption, ServingError
from ..export.arrays import given_batch
from ..export.endpoint import ExportSource
from ..export.graph.effects import effects_of
from ..export.graph.live import LiveModel, NotRepeatable, left_alone
from ..export.provenance.keras_facts import outputs_of
from ..export.provenance.provenance import evidence_of
from ..export.provenance.variant import read_variant
from ..export.reasons import innermost
from ..export.saved_model import export_version
from ..export.signatures import SAVED_MODEL_FILE, main_signature, read_meta_graph, read_signatures
from ..export.source import owners_of, prepare_source
from ..export.variants.variants import no_variants_of
from ..export.variants.write import write_variant
from ..server.handle import ServerHandle
from ..temporary import TemporaryFolder
from ..types import PLAIN, Progress, ProgressEvent, Tensors
from ..variants.choose import choose
from ..variants.gate import Run
from ..variants.measure import Given, MadeVariant, measure_variants
from ..variants.options import VariantOptions
from ..variants.probing import ProbeFailed
from ..variants.result import VariantsResult


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
    from ..scaleout.mlflow.fetch import fetched

    with fetched(model, progress) as given, left_alone(owners_of(given.model)):
        source = prepare_source(given.model, example=options.check)
        live = None if source.call is None else LiveModel(source).run
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
    live: Run | None,
    evidence: Callable[[Path], Any],
    options: VariantOptions,
    progress: Progress,
) -> VariantsResult:
    if source.file is not None:
        raise no_variants_of(source.description)
    with TemporaryFolder("tfserve-variants") as folder:
        progress(ProgressEvent("exporting", 0, 1))
        base = export_version(source, folder.path, PLAIN).path
        if not (base / SAVED_MODEL_FILE).is_file():
            raise InvalidOption(
                f"{source.description} is no SavedModel, which variants are made of", hint="deploy it as it is"
            )
        before = read_variant(base).name
        if before != PLAIN:
            raise InvalidOption(
                f"{source.description} is a variant already ({before})",
                hint="%variants with the model it was made from",
            )
        effects = effects_of(read_meta_graph(base), base)
        if effects.lasting:
            raise FailedPrecondition(
                f"{source.description}: {effects.lasting}; to measure variants would run it many times",
                hint="deploy a variant of it by name",
            )
        rows = _rows(options, base, source)
        _check_labels(options.labels, rows)
        compared_with = "the export"
        if live is not None and rows is not None:
            live, compared_with = _checked(source, live, rows)
        known = evidence(base)
        compared_as = AgreementOptions(kind_for(None, [effects.draws]))
        given = Given(rows, options.labels, live, compared_as, evidence_pairs(known, known))
        made = [MadeVariant(PLAIN, base)]
        for number, name in enumerate(options.wanted):
            progress(ProgressEvent("optimizing", number, len(options.wanted), name))
            made.append(made_variant(name, base, folder.path / name, source, rows))
        try:
            found = measure_variants(made, given, options.engine, progress)
        except ProbeFailed as error:
            raise FailedPrecondition(f"{source.description} cannot be measured: {error}") from error
        progress(ProgressEvent("done", 1, 1, title))
    count = 0 if rows is None else num_rows(rows)
    notes = tuple(f"{one.name}: {note}" for one in made for note in one.notes)
    return VariantsResult(title, tuple(choose(found)), count, compared_with, notes)


def made_variant(name: str, base: Path, target: Path, source: ExportSource, rows: Tensors | None) -> MadeVariant:
    """A variant, written beside the model as it is, or why it was not; see `write_variant`.

    Args:
        name: which one.
        base: the folder of the model as it is.
        target: the variant's.
        source: what it was exported from.
        rows: the user's.
    """
    in_memory = None if source.call is None else source
    try:
        written = write_variant(name, base, target, source=in_memory, rows=rows)
    except ServingError as error:
        return MadeVariant(name, None, error.message)
    return MadeVariant(name, written.path, notes=written.notes)


def _checked(source: ExportSource, live: Run, rows: Tensors) -> tuple[Run | None, str]:
    """The live model, if it can be run, and what variants are compared with, in words.

    Raises:
        InvalidOption: if it does not take the rows.
    """
    try:
        live({name: array[:1] if array.ndim else array for name, array in rows.items()})
    except NotRepeatable:
        return None, "the export"
    except Exception as error:
        raise InvalidOption(
            f"check: {source.description} itself fails on these rows: {innermost(error)}",
            hint="give rows that model(x) can take",
        ) from error
    return live, "the model in memory"


def _rows(options: VariantOptions, folder: Path, source: ExportSource) -> Tensors | None:
    if options.check is None:
        return None
    return given_batch("check", options.check, source.order, main_signature(read_signatures(folder)), most=None)


def _check_labels(labels: Any, rows: Tensors | None) -> None:
    """Refuse labels of other rows before anything is measured; whether they fit the outputs shows later."""
    for one in labels.values() if isinstance(labels, Mapping) else [labels]:
        if one is not None and rows is not None and np.shape(one)[:1] != (num_rows(rows),):
            raise InvalidOption(
                f"labels has the shape {np.shape(one)}, and check has {num_rows(rows):,} rows",
                hint="one label for each row",
            )
