"""Make of a new version the variant that was asked for, if it passes the gate; before anybody sees the version.

Thread: the caller's; it may be interrupted, which leaves nothing behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any  # arrays of the user

from ..agreement.kinds import AgreementOptions, kind_for
from ..agreement.summary import Evidences, evidence_pairs
from ..errors import VariantFailed
from ..export.arrays import given_as, given_batch
from ..export.check import VersionFacts, made_up_batches
from ..export.endpoint import ExportSource
from ..export.provenance.keras_facts import outputs_of
from ..export.provenance.provenance import noted_evidence
from ..export.provenance.variant import NotedVariant, note_variant
from ..export.signatures import main_signature
from ..export.variants.variants import VARIANTS, Variant
from ..export.variants.write import write_variant
from ..reports.agreement import agreement_table, flip_notes, kind_notes
from ..reports.report import Report, size_text
from ..reports.text import to_text
from ..serving.engines.accelerated import SavedModelLoader
from ..serving.engines.choice import gain
from ..serving.engines.engine import AUTO
from ..serving.engines.evidence import MADE_UP, Evidence
from ..serving.versions.warmup import MAX_SEEN, Seen
from ..types import PLAIN, Progress, ProgressEvent, SignatureSpec, Tensors
from ..variants.choose import choose
from ..variants.gate import VariantCheck, check_variant_rows
from ..variants.measure import Given, MadeVariant, measure_variants
from ..variants.probing import ProbeFailed
from .deploy_options import ExportOptions, ServeOptions
from .variants import made_variant


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a variant is compared on, and how.

    Attributes:
        source: what the version was exported from.
        facts: of the plain version.
        export: the user's rows and labels.
        options: how outputs are compared.
        seen: captured requests.
        serve: the engine and the TensorFlow device that are to run the version.
    """

    source: ExportSource
    facts: VersionFacts
    export: ExportOptions
    options: AgreementOptions
    seen: Seen
    serve: ServeOptions


def optimize_version(path: Path, comparison: Comparison, progress: Progress) -> None:
    """Make of a new version the variant that was asked for, if any was; see `written_variant` and `best_variant`.

    Args:
        path: the version's folder, which nobody reads yet and in which nothing but the model is yet; there is room for
            others beside it.
        comparison: what variants are compared on.
        progress: called with each step.

    Raises:
        InvalidOption: if it cannot be made of this model, or labels do not fit.
        VariantFailed: if it answers otherwise than the model.
    """
    name = comparison.export.optimize
    if name == AUTO:
        made = best_variant(path, comparison, progress)
    else:
        made = None if name in (None, PLAIN) else written_variant(str(name), path, comparison, progress)
    if made is not None:
        _become(made, path, comparison, progress)


def written_variant(name: str, path: Path, comparison: Comparison, progress: Progress) -> MadeVariant:
    """The variant that was asked for by its name, beside the plain version.

    Raises:
        InvalidOption: if it cannot be made of this model.
    """
    progress(ProgressEvent("optimizing", 0, 1, name))
    written = write_variant(name, path, path.parent / name, source=comparison.source, rows=_example(comparison))
    return MadeVariant(name, written.path, notes=written.notes)


def best_variant(path: Path, comparison: Comparison, progress: Progress) -> MadeVariant | None:
    """The variant that `--optimize auto` takes: the one rule of `%variants`, for what TensorFlow Serving loads.

    What was converted for engines while it was measured lies in its folder and is used further.

    Args:
        path: the folder of the plain version; variants are written beside it.
        comparison: what variants are compared on.
        progress: called with each step, and with the reason of the choice.

    Returns:
        None for the plain version, which is taken where no rows of the user tell whether a variant agrees.
    """
    source, effects, rows = comparison.source, comparison.facts.effects, _example(comparison)
    why = effects.lasting or effects.reach or ("" if rows is not None else "it is chosen on rows of yours (--check)")
    if why:
        progress(ProgressEvent("optimizing", 1, 1, f"{PLAIN}: auto chose none, since {why}"))
        return None
    made, names = [MadeVariant(PLAIN, path)], [one.name for one in VARIANTS.values() if _may_be_chosen(one)]
    for number, name in enumerate(names):
        progress(ProgressEvent("optimizing", number, len(names), name))
        made.append(made_variant(name, path, path.parent / name, source, rows))
    kind = kind_for(comparison.options.kind, [effects.draws])
    options = AgreementOptions(kind, comparison.options.tolerance)
    given = Given(rows, comparison.export.labels, None, options, _evidences(source, path))
    try:
        found = choose(measure_variants(made, given, comparison.serve.engine, progress))
    except ProbeFailed as error:
        progress(ProgressEvent("optimizing", 1, 1, f"{PLAIN}: auto chose none, since {error}"))
        return None
    chosen = next((row for row in found if row.is_chosen), found[0])
    speed = gain(found[0].ms, chosen.ms) if chosen.ms else 1.0
    words = f"{chosen.variant} of {', '.join(one.name for one in made)}: {size_text(chosen.disk_bytes)} of "
    words += f"{size_text(found[0].disk_bytes)}, {speed:.2g} times as fast"
    progress(ProgressEvent("optimizing", 1, 1, words))
    return next((one for one in made[1:] if one.name == chosen.variant), None)


def _become(made: MadeVariant, path: Path, comparison: Comparison, progress: Progress) -> None:
    """Put a variant in the place of the plain version, if it answers as that does: on all rows that are known.

    Raises:
        InvalidOption: if labels do not fit.
        VariantFailed: if it answers otherwise than the model.
    """
    folder, reach = made.folder, comparison.facts.effects.reach
    assert folder is not None  # noqa: S101 - it was made
    check = None if reach else _checked(made.name, path, folder, comparison)
    if check is not None and not check.passed:
        raise _failed(check)
    text = f"not compared: {reach}" if check is None else check.text
    path.rename(path.parent / "plain")
    folder.rename(path)
    note_variant(path, NotedVariant(made.name, text))
    progress(ProgressEvent("optimizing", 1, 1, "; ".join((f"{made.name}: {text}", *made.notes))))


def _example(comparison: Comparison) -> Tensors | None:
    """The user's rows for the main signature; None without any."""
    export = comparison.export
    if export.example is None:
        return None
    signature = main_signature(comparison.facts.signatures)
    return _named(export.example, export.example_option, comparison.source, signature)


def _may_be_chosen(variant: Variant) -> bool:
    """Whether `auto` may take it: what cannot be handed over to TensorFlow Serving is for those who ask for it."""
    return variant.name != PLAIN and variant.loads_in_tensorflow_serving and not variant.missing


def _checked(name: str, plain: Path, variant: Path, comparison: Comparison) -> VariantCheck:
    facts, load, device = comparison.facts, SavedModelLoader(), comparison.serve.device
    signature = main_signature(facts.signatures)
    kind = kind_for(comparison.options.kind, [facts.effects.draws])
    with (
        contextlib.closing(load(plain, device)) as before,
        contextlib.closing(load(variant, device)) as after,
        given_as("labels"),
    ):
        return check_variant_rows(
            name,
            partial(before.run, signature.name),
            partial(after.run, signature.name),
            _rows(signature, comparison),
            _evidences(comparison.source, plain),
            AgreementOptions(kind, comparison.options.tolerance),
            comparison.export.labels,
            is_batched=all(spec.is_batched for spec in signature.inputs.values()),
        )


def _rows(signature: SignatureSpec, comparison: Comparison) -> Iterator[Evidence]:
    """The user's rows, those of `--check` first, and made-up ones."""
    source, export, seen = comparison.source, comparison.export, comparison.seen
    for option, rows in (("check", export.check), ("warmup", export.warmup)):
        if rows is not None:
            yield Evidence(_named(rows, option, source, signature), f"the rows of --{option}")
    yield from (Evidence(rows, "captured requests") for rows in islice(seen(signature.name), MAX_SEEN))
    yield from (Evidence(rows, MADE_UP) for rows in made_up_batches(signature))


def _named(rows: Any, option: str, source: ExportSource, signature: SignatureSpec) -> Tensors:
    return given_batch(option, rows, source.order, signature, most=None)


def _evidences(source: ExportSource, path: Path) -> Evidences:
    """What is known of the outputs: of the model in memory, or of the version that was deployed before."""
    known = outputs_of(source, path) or noted_evidence(path)
    return evidence_pairs(known, known)


def _failed(check: VariantCheck) -> VariantFailed:
    """An error that shows what was compared."""
    report = Report(
        f"{check.variant} was not deployed: {check.reason}",
        sections=(agreement_table(f"The model (A) and its variant (B) on {check.rows_source}", check.agreement),)
        if check.agreement
        else (),
        notes=(*kind_notes(check.agreement), *flip_notes(check.agreement)),
    )
    return VariantFailed(
        to_text(report).strip(),
        hint="another --optimize, or --tolerance if so much is fine for your numbers",
    )
