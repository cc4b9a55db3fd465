"""Compare two versions of a served model by their files, metrics and outputs.

Thread: any; the models are loaded one after the other when rows are compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple  # the user's rows

import numpy as np

from ..agreement.kinds import AgreementOptions, kind_for
from ..agreement.summary import Agreeing, evidence_pairs
from ..errors import FailedPrecondition, InvalidRequest, NotAvailable, ServingError, VersionNotFound
from ..export.arrays import read_rows
from ..export.check import VersionFacts
from ..export.graph.effects import Effects
from ..export.layout import find_version, folder_bytes, list_versions
from ..export.provenance.code import Code
from ..export.provenance.provenance import Provenance, read_provenance
from ..export.signatures import main_signature
from ..export.single_file.source import single_file
from ..export.warmup_requests import read_warmup_requests
from ..export.weights import Weights
from ..server.handle import ServerHandle
from ..serving.engines.accelerated import SavedModelLoader
from ..serving.versions.inputs import check_inputs
from ..serving.versions.sharing import may_cut
from ..types import SignatureSpec, Tensors, TensorSpec
from .layers import layer_changes
from .result import ADDED, CHANGED, REMOVED, SAME, LatencyChange, LayerChange, SignatureChange, VersionDiff

ROWS_OF_A_RUN = 64
SPAN_S = 900


class _Run(NamedTuple):
    """One run: its inputs and outputs by name, and how many rows they have."""

    inputs: Tensors
    outputs: Tensors
    num_rows: int


def version_folder(server: ServerHandle, name: str, version: int) -> Path:
    """The folder of a version, which must lie on this machine.

    Raises:
        VersionNotFound: naming the versions that are there.
        NotAvailable: if the server runs on another machine.
    """
    base = server.models.base_path(name)
    if base is None or not server.is_on_this_machine:
        raise NotAvailable(
            f"the files of {name} are not on this machine", hint="ask on the server's machine, or copy the folders"
        )
    folder = find_version(base, name, version)
    if folder is None:
        on_disk = ", ".join(map(str, list_versions(base / name) or list_versions(base))) or "none"
        raise VersionNotFound(f"Could not find version {version} of model {name}", hint=f"on disk: {on_disk}")
    return folder


def provenance_of(server: ServerHandle, name: str, version: int) -> Provenance:
    """The provenance of a version.

    Raises:
        FailedPrecondition: if it has none, or its file cannot be read.
    """
    found = read_provenance(version_folder(server, name, version))
    if found is None:
        raise FailedPrecondition(
            f"version {version} of {name} has no provenance",
            hint="it was deployed with --no-provenance, or made by another program",
        )
    return found


def diff_versions(
    server: ServerHandle, name: str, a: int, b: int, rows: Any = None, options: AgreementOptions | None = None
) -> VersionDiff:
    """Everything that two versions differ in.

    Args:
        server: where the model is served.
        name: the model.
        a: the older or current version.
        b: the other.
        rows: the rows to run both on, as `predict` takes it; by default the rows that were stored to warm them up.
        options: how outputs are compared.

    Raises:
        VersionNotFound: if one is not on disk.
        InvalidRequest: if the given rows fit neither.
    """
    folders = version_folder(server, name, a), version_folder(server, name, b)
    notes: list[str] = []
    provenances = [_provenance(folder, version, notes) for folder, version in zip(folders, (a, b), strict=True)]
    facts = [_facts(folder, version, notes) for folder, version in zip(folders, (a, b), strict=True)]
    signatures, effects = [dict(one.signatures) for one in facts], [one.effects for one in facts]
    options = options or AgreementOptions()
    options = dataclasses.replace(options, kind=kind_for(options.kind, (one.draws for one in effects)))
    agreeing = Agreeing(options, evidence_pairs(*({} if one is None else one.outputs for one in provenances)))
    reach = next((one.reach for one in effects if one.reach), "")
    rows_from = _compare_outputs(folders, signatures, rows, agreeing, notes, reach)
    return VersionDiff(
        name=name,
        a=a,
        b=b,
        signatures=tuple(signature_changes(*signatures)),
        layers=_layers(folders, (a, b), provenances, notes),
        code=_code(provenances[0], provenances[1], a, b),
        provenance_a=provenances[0],
        provenance_b=provenances[1],
        bytes_a=folder_bytes(folders[0]),
        bytes_b=folder_bytes(folders[1]),
        latency=tuple(_latency(server, name, a, b)),
        rows_from=rows_from,
        agreement=agreeing.agreement,
        disagreements=agreeing.worst(),
        notes=tuple(notes),
    )


def _layers(
    folders: tuple[Path, Path], versions: tuple[int, int], provenances: Sequence[Provenance | None], notes: list[str]
) -> tuple[LayerChange, ...]:
    """The layers of both, where both have theirs in the variables of a SavedModel."""
    for folder, version in zip(folders, versions, strict=True):
        file = single_file(folder)
        if file is not None:
            notes.append(f"layers were not compared: version {version} is a file, {file.name}")
            return ()
    return layer_changes(Weights(folders[0]), Weights(folders[1]), *provenances)


def _provenance(folder: Path, version: int, notes: list[str]) -> Provenance | None:
    try:
        found = read_provenance(folder)
    except FailedPrecondition as error:
        notes.append(error.message)
        return None
    if found is None:
        notes.append(f"version {version} has no provenance: its code, commit, packages, data and metrics are not known")
    return found


def _facts(folder: Path, version: int, notes: list[str]) -> VersionFacts:
    try:
        return SavedModelLoader().facts(folder)
    except ServingError as error:
        notes.append(f"the signatures of version {version} are not known: {error.message}")
        return VersionFacts({}, Effects())


def signature_changes(a: Mapping[str, SignatureSpec], b: Mapping[str, SignatureSpec]) -> list[SignatureChange]:
    """The changes of inputs and outputs, signature by signature."""
    changes = []
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            changes.append(SignatureChange(name, ADDED if name in b else REMOVED))
            continue
        details = (
            *_tensor_changes("input", a[name].inputs, b[name].inputs),
            *_tensor_changes("output", a[name].outputs, b[name].outputs),
            *_order_changes(a[name].order, b[name].order),
        )
        changes.append(SignatureChange(name, CHANGED if details else SAME, details))
    return changes


def _tensor_changes(kind: str, a: Mapping[str, TensorSpec], b: Mapping[str, TensorSpec]) -> list[str]:
    found = []
    for name in dict.fromkeys([*a, *b]):
        before, after = (str(side[name]) if name in side else "none" for side in (a, b))
        if before != after:
            found.append(f"{kind} {name}: {before} → {after}")
    return found


def _order_changes(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Of the inputs that both have, as a list of them is taken."""
    before, after = ([name for name in one if name in other] for one, other in ((a, b), (b, a)))
    return [f"inputs as a list: {', '.join(before)} → {', '.join(after)}"] if before != after else []


def _code(provenance_a: Provenance | None, provenance_b: Provenance | None, a: int, b: int) -> str | None:
    """Unified diff of what deployed them; None when one is not known."""
    before, after = (provenance.code if provenance is not None else None for provenance in (provenance_a, provenance_b))
    if before is None or after is None:
        return None
    lines = difflib.unified_diff(
        before.source.splitlines(), after.source.splitlines(), _called(before, a), _called(after, b), lineterm=""
    )
    return "\n".join(lines)


def _called(code: Code, version: int) -> str:
    count = "" if code.execution_count is None else f" [{code.execution_count}]"
    return f"version {version}, {code.path or f'cell{count}'}"


def _latency(server: ServerHandle, name: str, a: int, b: int) -> list[LatencyChange]:
    """Run times at equal batch sizes, and percentiles of requests, of the last 15 minutes."""
    versions = server.models.model_metrics(name, SPAN_S, SPAN_S // 15).versions
    of_a, of_b = versions.get(a), versions.get(b)
    if of_a is None or of_b is None:
        return []
    found = [
        LatencyChange(f"a run of {size} rows", of_a.batches.run_ms[size], of_b.batches.run_ms[size])
        for size in sorted(set(of_a.batches.run_ms) & set(of_b.batches.run_ms))
    ]
    for quantile in ("p50", "p95"):
        values = getattr(of_a, f"{quantile}_ms"), getattr(of_b, f"{quantile}_ms")
        if values != (None, None):
            found.append(LatencyChange(f"{quantile} of requests", *values))
    return found


def _compare_outputs(
    folders: tuple[Path, Path],
    signatures: list[dict[str, SignatureSpec]],
    rows: Any,
    agreeing: Agreeing,
    notes: list[str],
    reach: str,
) -> str:
    """Run both versions on the same rows; returns whose rows they were, "" when nothing could be compared."""
    shared = {name: spec for name, spec in signatures[0].items() if name in signatures[1]}
    if not shared:
        has = (", ".join(one) or "none" for one in signatures)
        notes.append(f"outputs were not compared: the versions have no signature in common ({' and '.join(has)})")
        return ""
    if rows is None and reach:
        notes.append(f"outputs were not compared, because {reach}, and no rows were given to run: d.diff(A, B, rows=x)")
        return ""
    name = main_signature(shared).name
    stored = None if rows is not None else _stored_rows(folders, name, notes)
    where, values = ("given rows", rows) if rows is not None else ("stored warm-up rows", stored)
    if values is None:
        notes.append("outputs were not compared, because there are no rows: d.diff(A, B, rows=x_test), or --values VAR")
        return ""
    orders = [one[name].order for one in signatures]
    if orders[0] != orders[1] and isinstance(values, list | tuple):
        taken = " and ".join(", ".join(order) or "none that is known" for order in orders)
        raise InvalidRequest(
            f"a list does not fit: the versions take their inputs in different orders ({taken})",
            hint="a dict of the inputs by name",
        )
    runs: list[_Run] = []
    for folder, one in zip(folders, signatures, strict=True):
        spec = one[name]
        try:
            runs.append(_run(folder, spec, _tensors(spec, values)))
        except InvalidRequest as error:
            if rows is not None and not runs:
                raise
            notes.append(f"outputs were not compared: {where} do not fit version {folder.name}: {error.message}")
            return ""
        except ServingError as error:
            notes.append(f"outputs were not compared: version {folder.name}: {error.message}")
            return ""
    a, b = runs
    agreeing.add(a.inputs, a.outputs, b.outputs, a.num_rows, time.time())
    return where


def _stored_rows(folders: tuple[Path, Path], signature: str, notes: list[str]) -> Tensors | None:
    """The warm-up rows of B for a signature, or else of A."""
    for folder in reversed(folders):
        try:
            for request in read_warmup_requests(folder):
                if request.signature == signature and not request.is_examples:
                    return request.inputs
        except ServingError as error:
            notes.append(error.message)
    return None


def _tensors(spec: SignatureSpec, values: Any) -> Tensors:
    """Rows as tensors of a signature."""
    tensors = read_rows(spec, values)
    if not all(one.is_batched for one in spec.inputs.values()):
        return tensors
    if check_inputs(spec, tensors) < 1:
        raise InvalidRequest("there are no rows to compare the versions on", hint="rows=x_test[:100]")
    return tensors


def _run(folder: Path, spec: SignatureSpec, inputs: Tensors) -> _Run:
    """Load a version, run it, and free it again: requests that are served meanwhile keep their numbers clean."""
    with contextlib.closing(SavedModelLoader()(folder, None)) as servable:
        run = partial(servable.run, spec.name)
        if not all(one.is_batched for one in spec.inputs.values()):
            return _Run(inputs, run(inputs), 1)
        num_rows = len(next(iter(inputs.values())))
        runs_whole = num_rows <= ROWS_OF_A_RUN or spec.name in servable.effects.states
        if (
            runs_whole
            or servable.effects.outside_ops
            or not may_cut(run, servable.signatures[spec.name], inputs, folder, ROWS_OF_A_RUN)
        ):
            return _Run(inputs, run(inputs), num_rows)
        found = [
            run({name: array[first : first + ROWS_OF_A_RUN] for name, array in inputs.items()})
            for first in range(0, num_rows, ROWS_OF_A_RUN)
        ]
        return _Run(inputs, {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}, num_rows)
