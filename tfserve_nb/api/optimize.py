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

from ..agreement.kinds import AgreementOptions, kind_for
from ..agreement.summary import Evidences, evidence_pairs
from ..errors import FailedPrecondition, VariantFailed
from ..export.arrays import by_name, given_as, named_batch
from ..export.check import VersionFacts, made_up_batches
from ..export.endpoint import ExportSource
from ..export.provenance.keras_facts import outputs_of
from ..export.provenance.provenance import read_provenance
from ..export.provenance.variant import NotedVariant, note_variant
from ..export.signatures import main_signature
from ..export.variants.write import write_variant
from ..reports.agreement import agreement_table, flip_notes, kind_notes
from ..reports.report import Report
from ..reports.text import to_text
from ..serving.engines.accelerated import SavedModelLoader
from ..serving.engines.evidence import MADE_UP, Evidence
from ..serving.versions.warmup import MAX_SEEN, Seen
from ..types import Progress, ProgressEvent, SignatureSpec
from .deploy_options import ExportOptions
from .variant_gate import VariantCheck, check_variant_rows


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a variant is compared on, and how.

    Attributes:
        source: what the version was exported from.
        facts: of the plain version.
        export: the user's rows and labels.
        options: how outputs are compared.
        seen: captured requests.
        device: the TensorFlow device that the version will be served on.
    """

    source: ExportSource
    facts: VersionFacts
    export: ExportOptions
    options: AgreementOptions
    seen: Seen
    device: str | None


def become_variant(name: str, path: Path, comparison: Comparison, progress: Progress) -> None:
    """Put a variant in the place of the plain version, in whose folder nothing but the model is yet.

    Args:
        name: the variant.
        path: the version's folder, which nobody reads yet; there is room for others beside it.
        comparison: what it is compared on.
        progress: called with each step.

    Raises:
        InvalidOption: if it cannot be made of this model, or labels do not fit.
        VariantFailed: if it answers otherwise than the model.
    """
    progress(ProgressEvent("optimizing", 0, 1, name))
    written = write_variant(name, path, path.parent / "variant")
    reach = comparison.facts.effects.reach
    check = None if reach else _checked(name, path, written.path, comparison)
    if check is not None and not check.passed:
        raise _failed(check)
    text = f"not compared: {reach}" if check is None else check.text
    path.rename(path.parent / "plain")
    written.path.rename(path)
    note_variant(path, NotedVariant(name, text))
    progress(ProgressEvent("optimizing", 1, 1, "; ".join((f"{name}: {text}", *written.notes))))


def _checked(name: str, plain: Path, variant: Path, comparison: Comparison) -> VariantCheck:
    facts, load, device = comparison.facts, SavedModelLoader(), comparison.device
    signature = main_signature(facts.signatures)
    kind = kind_for(comparison.options.kind, [facts.effects.randomness])
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
            with given_as(option):
                given = named_batch(by_name(rows, source.order), signature, most=None)
            yield Evidence(given, f"the rows of --{option}")
    yield from (Evidence(rows, "captured requests") for rows in islice(seen(signature.name), MAX_SEEN))
    yield from (Evidence(rows, MADE_UP) for rows in made_up_batches(signature))


def _evidences(source: ExportSource, path: Path) -> Evidences:
    """What is known of the outputs: of the model in memory, or of the version that was deployed before."""
    known = outputs_of(source, path)
    if not known:
        with contextlib.suppress(FailedPrecondition):  # a damaged file is nobody's evidence
            found = read_provenance(path)
            known = {} if found is None else dict(found.outputs)
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
