"""Where a version comes from: code, commit, packages, data, seed, metrics, layers; stored in the version itself.

The file is `assets.extra/tfserve_nb.json`. TensorFlow Serving reads nothing in that folder but its warm-up file, so
the version stays a plain SavedModel, and what is known about it travels with it. docs/versions.md describes the format.

Thread: the one that exports; reading: any.
"""

from __future__ import annotations

import contextlib
import json
import numbers
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # JSON values, numbers of the user

from ...agreement.kinds import Evidence
from ...errors import FailedPrecondition, InvalidOption
from ...serialization import TextFloat, from_json, to_json
from ...types import PLAIN
from ..endpoint import ExportSource
from ..layout import find_version
from ..reasons import disk_reason, innermost
from .code import Code, running_script
from .environment import GitState, git_state, imported_packages, random_seed
from .fingerprint import DataFingerprint, fingerprint
from .keras_facts import LayerFacts, layers_of, outputs_of
from .variant import read_variant

PROVENANCE_FILE = Path("assets.extra", "tfserve_nb.json")
FORMAT = 1
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_METRICS = 200


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a version comes from.

    Attributes:
        at: when it was exported, seconds since the epoch.
        python: version of Python, such as `3.12.4`.
        packages: distribution -> version, of those that the exporting process had imported.
        code: the cell or script; None when it is not known.
        git: commit of the current folder; None outside a repository.
        data: fingerprint of the training data, when it was given.
        seed: the seed that was given, or that of `keras.utils.set_random_seed`; None when there is none.
        metrics: name -> number, as given, or of the last epoch of `fit`.
        model: what was exported, such as `Sequential 'digits'`.
        layers: those of a Keras model; empty for anything else.
        outputs: output name -> activation and loss, of a Keras model; empty when they are not known.
        variant: what it is stored as: `float32` as it was exported, or a variant such as `float16`.
        format: version of the file's format.
    """

    at: float
    python: str
    packages: Mapping[str, str]
    code: Code | None = None
    git: GitState | None = None
    data: DataFingerprint | None = None
    seed: int | None = None
    metrics: Mapping[str, TextFloat] = field(default_factory=dict)
    model: str = ""
    layers: tuple[LayerFacts, ...] = ()
    outputs: Mapping[str, Evidence] = field(default_factory=dict)
    variant: str = PLAIN
    format: int = FORMAT

    @property
    def num_params(self) -> int:
        """Numbers in all weights; a weight that two layers share counts once."""
        variables = {variable.key or f"{place} {variable.name}": variable for place, layer in enumerate(self.layers)
                     for variable in layer.variables}  # fmt: skip
        return sum(variable.num_values for variable in variables.values())


@dataclass(frozen=True, slots=True)
class ProvenanceInput:
    """What the caller gives for a version's provenance; checked before anything is exported.

    Attributes:
        code: the cell, if it runs in one.
        data: fingerprint of the training data.
        seed: the seed.
        metrics: name -> number.
    """

    code: Code | None = None
    data: DataFingerprint | None = None
    seed: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def provenance_input(
    code: Code | None = None, data: Any = None, seed: Any = None, metrics: Any = None
) -> ProvenanceInput:
    """Check what the caller gives.

    Args:
        code: the cell.
        data: arrays, see `fingerprint`.
        seed: an integer.
        metrics: name -> number, or an object with `history`, as `fit` gives it.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, numbers.Integral)):
        raise InvalidOption(f"seed={seed!r} must be an integer", hint="--seed 42")
    return ProvenanceInput(
        code=code if code is not None else running_script(),
        data=None if data is None else fingerprint(data),
        seed=None if seed is None else int(seed),
        metrics={} if metrics is None else _metrics(metrics),
    )


def collect(source: ExportSource, folder: Path, given: ProvenanceInput) -> Provenance:
    """The provenance of a version that is being exported.

    Args:
        source: what is exported.
        folder: the SavedModel, complete but for this.
        given: what the caller gave.
    """
    earlier = _earlier(folder)
    # Loads the converter's own packages, so that the first version of a process lists the same packages as the second.
    to_json(given)
    return Provenance(
        at=time.time(),
        python=platform.python_version(),
        packages=imported_packages(),
        code=None if given.code is None else given.code.redacted(),
        git=git_state(),
        data=given.data,
        seed=given.seed if given.seed is not None else random_seed(),
        metrics=given.metrics or _last_epoch(source),
        model=source.description,
        layers=layers_of(source, folder) or (earlier.layers if earlier is not None else ()),
        outputs=outputs_of(source, folder) or (earlier.outputs if earlier is not None else {}),
        variant=read_variant(folder).name,
    )


def store(source: ExportSource, folder: Path, given: ProvenanceInput | None) -> str:
    """Collect and write what is known, or (None) see to it that nothing is there.

    Returns:
        In words why it could not be written; "" when all is well. It never keeps a model from being served.
    """
    if given is None:
        remove_provenance(folder)
        return ""
    try:
        write_provenance(folder, collect(source, folder, given))
    except Exception as error:  # noqa: BLE001 - objects of users and disks may raise anything; the model is served all the same
        remove_provenance(folder)
        return f"provenance is not stored: {disk_reason(error) or innermost(error)}"
    return ""


def write_provenance(folder: Path, provenance: Provenance) -> Path:
    """Store it in a version's folder.

    Raises:
        OSError: if it cannot be written; nothing is left of it then.
    """
    path = folder / PROVENANCE_FILE
    text = json.dumps(_to_json(provenance), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError:
        remove_provenance(folder)
        raise
    return path


def remove_provenance(folder: Path) -> None:
    """Take it out of a folder, such as a copy of an earlier version."""
    path = folder / PROVENANCE_FILE
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()  # only when nothing else is in it


def read_provenance(folder: Path) -> Provenance | None:
    """What a version's folder holds; None when it holds none.

    Raises:
        FailedPrecondition: naming the file, if it cannot be read.
    """
    path = folder / PROVENANCE_FILE
    hint = "the version serves all the same; deploy it anew to write the file again"
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FailedPrecondition(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB", hint=hint)
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be read: {error.strerror or error}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise FailedPrecondition(f"{path} is damaged: {error}", hint=hint) from error
    try:
        if int(value["format"]) > FORMAT:
            raise ValueError(f"format {value['format']} was written by a newer tfserve_nb")
        return from_json(value, Provenance)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FailedPrecondition(f"{path} is damaged: {type(error).__name__}: {error}", hint=hint) from error


def evidence_of(base_path: Path | None, name: str, version: int) -> Mapping[str, Evidence]:
    """What a version's provenance holds about its outputs; empty without provenance, or on another machine.

    Args:
        base_path: the folder of the model's versions, or the one above it.
        name: the model.
        version: its number.
    """
    folder = None if base_path is None else find_version(base_path, name, version)
    return {} if folder is None else noted_evidence(folder)


def noted_evidence(folder: Path) -> Mapping[str, Evidence]:
    """What the provenance in a version's folder holds about its outputs; empty without any."""
    with contextlib.suppress(FailedPrecondition):  # a diff reports that the file is damaged
        found = read_provenance(folder)
        return {} if found is None else found.outputs
    return {}


def _to_json(provenance: Provenance) -> dict[str, Any]:
    """The file's content; the format first, and the time for people."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(provenance.at))
    return {"format": provenance.format, **to_json(provenance), "time": at}


def _metrics(given: Any) -> dict[str, float]:
    """Name -> number; of a series of numbers, as in a history, the last."""
    given = getattr(given, "history", given)
    if not isinstance(given, Mapping):
        raise InvalidOption(
            f"metrics is a {type(given).__name__}, not a dict of numbers", hint="metrics={'val_accuracy': 0.97}"
        )
    if len(given) > MAX_METRICS:
        raise InvalidOption(f"metrics has {len(given)} entries; {MAX_METRICS} are allowed", hint="give the main ones")
    found = {}
    for name, value in given.items():
        last = value[-1] if isinstance(value, list | tuple) and value else value
        try:
            found[str(name)] = float(last)
        except (TypeError, ValueError) as error:
            raise InvalidOption(
                f"metrics[{name!r}] is {last!r:.60}, not a number", hint="metrics={'val_accuracy': 0.97}"
            ) from error
    return found


def _last_epoch(source: ExportSource) -> dict[str, float]:
    """What `fit` found in its last epoch, if the model was trained in this process."""
    model = source.tracked[0] if len(source.tracked) == 1 else None
    history = getattr(getattr(model, "history", None), "history", None)
    with contextlib.suppress(InvalidOption):
        return _metrics(history) if isinstance(history, Mapping) else {}
    return {}


def _earlier(folder: Path) -> Provenance | None:
    """That of the version which this folder is a copy of."""
    with contextlib.suppress(FailedPrecondition):
        return read_provenance(folder)
    return None
