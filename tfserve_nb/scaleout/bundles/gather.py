"""From what is served, or from a configuration, to what a bundle holds.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...bench.sweep import SweepResult
from ...diff.diff import version_folder
from ...errors import ModelNotFound, ModelNotServable, NotAvailable, VersionNotFound
from ...export.layout import list_versions, version_dir
from ...export.provenance.variant import read_variant
from ...export.signatures import SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE
from ...export.single_file.source import single_file
from ...server.handle import ServerHandle
from ...serving.models.model_config import ModelConfig, check_configs
from ...serving.telemetry.model_metrics import BatchSummary
from ...types import ModelStatus, VersionStatus
from .batching import measured, unbatched
from .contents import Batching, BundleContents, BundledModel, BundledVersion


def contents_of_server(
    server: ServerHandle, name: str, versions: Sequence[int] = (), sweep: SweepResult | None = None
) -> BundleContents:
    """What is served under a name, with the batching values that were measured.

    Args:
        server: where it is served; its files must lie on this machine.
        name: the model.
        versions: those to bundle; none for those that traffic or a label needs.
        sweep: what `%benchmark --sweep` found, or None.

    Raises:
        ModelNotFound: if it has no version that answers.
        NotAvailable: if its files are not on this machine.
        VersionNotFound: if a version is not there.
    """
    status = server.models.model_status(name)
    wanted = sorted(set(versions)) or list(_needed(status))
    if not wanted:
        raise ModelNotFound(f"{name} has no version that answers", hint="d.bundle(folder, target=..., versions=(1,))")
    base = server.models.base_path(name)
    if base is not None and server.is_on_this_machine:
        _check_visible(base, name)
    known = {one.version: one for one in status.versions}
    found = tuple([_version(version_folder(server, name, number), number, known.get(number)) for number in wanted])
    default = status.default_version
    promoted = default if default is not None and default in wanted else wanted[-1]
    traffic = {number: percent for number, percent in status.traffic.items() if number in wanted}
    captured = server.models.captured(name)
    model = BundledModel(
        name=name,
        versions=found,
        labels={label: number for label, number in status.labels.items() if number in wanted},
        default_version=promoted,
        traffic=traffic if len(traffic) == len(status.traffic) else {promoted: 100.0},
        model_dir=found[0].folder.parent,
        captured=captured if captured.requests else None,
    )
    metrics = server.models.model_metrics(name, 2, 1).versions.get(promoted)
    batches = BatchSummary() if metrics is None else metrics.batches
    return BundleContents((model,), unbatched(found) or measured(batches, sweep))


def contents_of_configs(
    configs: Sequence[ModelConfig], batching: Batching, versions: Sequence[int] = ()
) -> BundleContents:
    """The models of a configuration.

    Args:
        configs: as `tfserve-nb serve` would follow them.
        batching: how they batch; files alone do not tell it.
        versions: of the only model: those to bundle; none for those that the configuration chooses.

    Raises:
        ConfigRejected: if the configuration cannot be meant.
        NotAvailable: if a base path is not visible on this machine.
        VersionNotFound: if a version is not there.
    """
    check_configs(configs, {})
    models = tuple([_configured(config, versions) for config in sorted(configs, key=lambda config: config.name)])
    if not models:
        raise ModelNotFound("the configuration names no model", hint="--model_name and --model_base_path")
    contents = BundleContents(models, batching)
    if versions:
        _ = contents.model  # versions are those of one model
    return contents


def _configured(config: ModelConfig, versions: Sequence[int]) -> BundledModel:
    base = Path(config.base_path)
    _check_visible(base, config.name)
    on_disk = list_versions(base)
    wanted = sorted(set(versions) or config.policy.choose(on_disk))
    asked = sorted({*wanted, *(config.policy.specific or ()), *config.labels.values()})
    missing = [number for number in asked if number not in on_disk]
    if missing or not wanted:
        which = f"version {missing[0]}" if missing else "any version"
        raise VersionNotFound(
            f"Could not find {which} of model {config.name} in {base}",
            hint=f"on disk: {', '.join(map(str, on_disk)) or 'none'}",
        )
    found = tuple([_version(version_dir(base.parent, base.name, number), number) for number in wanted])
    labels = {label: number for label, number in config.labels.items() if number in wanted}
    return BundledModel(config.name, found, labels, wanted[-1], {wanted[-1]: 100.0}, base)


def _check_visible(base: Path, name: str) -> None:
    if not base.is_dir():
        raise NotAvailable(
            f"the base path of {name}, {base}, is not visible on this machine",
            hint="bundle where the folder is, or mount it here",
        )


def _needed(status: ModelStatus) -> tuple[int, ...]:
    """The versions that requests can reach now."""
    promoted = () if status.default_version is None else (status.default_version,)
    return tuple(sorted({*promoted, *status.traffic, *status.labels.values()}))


def _version(folder: Path, number: int, status: VersionStatus | None = None) -> BundledVersion:
    """What lies in a version's folder.

    Raises:
        ModelNotServable: if that is no model.
    """
    file = single_file(folder)
    if file is None and not any((folder / one).is_file() for one in (SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE)):
        raise ModelNotServable(f"{folder} holds neither a SavedModel nor an ONNX or TensorFlow Lite file", hint="ls -l")
    variant = read_variant(folder).name
    if status is None:
        return BundledVersion(number, folder, file.name if file else "", variant)
    return BundledVersion(number, folder, file.name if file else "", variant, status.engine, status.alone)
