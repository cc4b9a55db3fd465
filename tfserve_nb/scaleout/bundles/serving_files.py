"""TensorFlow Serving's configuration files and flags, which `tfserve-nb serve` takes too, for what is in a bundle.

Thread: any.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...errors import ExportFailed, FailedPrecondition
from ...server.config_files import DEFAULT_METRICS_PATH, read_batching, read_metrics_path, read_model_configs
from ...serving.batching.options import BatchingOptions
from ...serving.models.model_config import ModelConfig, VersionPolicy, check_configs
from .app import installed
from .contents import BundleContents, BundledModel, BundledVersion
from .files import write_text
from .options import BundleOptions

MODELS_FILE, BATCHING_FILE, MONITORING_FILE = "models.config", "batching.config", "monitoring.config"
GRPC_PORT, REST_PORT = 8500, 8501
SERVING_VERSION = "2.20.0"
"""The newest image of TensorFlow Serving."""

SERVING_IMAGE = f"tensorflow/serving:{SERVING_VERSION}"
MAX_REQUEST_ROWS = 1000
"""TensorFlow Serving's own default for `max_batch_size`, which limits the rows of one request."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as a server of the bundle will serve it.

    Attributes:
        model: the model.
        versions: those that it serves.
        base_path: where their folders lie on that server.
    """

    model: BundledModel
    versions: tuple[BundledVersion, ...]
    base_path: str

    @property
    def labels(self) -> dict[str, int]:
        """Label -> number, of the versions that it serves."""
        numbers = {version.number for version in self.versions}
        return {label: number for label, number in sorted(self.model.labels.items()) if number in numbers}

    @property
    def config(self) -> ModelConfig:
        """What `models.config` says of it."""
        numbers = tuple(version.number for version in self.versions)
        return ModelConfig(
            self.model.name, self.base_path, VersionPolicy(latest=None, specific=numbers), labels=self.labels
        )


def served_models(contents: BundleContents, options: BundleOptions, root: str | None) -> tuple[ServedModel, ...]:
    """What a server that follows `models.config` serves.

    Such a server answers with the highest version, so versions above the promoted one stay out unless they were asked
    for.

    Args:
        contents: what is bundled.
        options: whether versions were asked for.
        root: the folder that holds a folder for each model on that server; None where the versions lie now.
    """
    return tuple(
        ServedModel(
            model,
            model.versions if options.versions else model.served,
            str(model.model_dir.absolute()) if root is None else f"{root}/{model.name}",
        )
        for model in contents.models
    )


def model_path(name: str) -> str:
    """The path of a model's status; it is answered while TensorFlow Serving has the model."""
    return f"/v1/models/{quote(name, safe='')}"


def check_for_tensorflow_serving(models: tuple[ServedModel, ...]) -> None:
    """Refuse what TensorFlow Serving does not load.

    Raises:
        FailedPrecondition: naming the version, and what serves it.
    """
    for one in models:
        for version in one.versions:
            if version.file:
                kind = "an ONNX" if version.file.endswith(".onnx") else "a TensorFlow Lite"
                raise FailedPrecondition(
                    f"version {version.number} of {one.model.name} is {kind} file, which TensorFlow Serving does not "
                    "serve",
                    hint="target docker or kubernetes, whose `tfserve-nb serve` does; or versions that are SavedModels",
                )


def write_serving_files(
    contents: BundleContents, models: tuple[ServedModel, ...], folder: Path, place: str, *, has_metrics: bool = True
) -> tuple[str, ...]:
    """Write `models.config`, `batching.config` and `monitoring.config`, and read them back.

    Args:
        contents: how requests are batched.
        models: what is served.
        folder: where they are written.
        place: that folder on the server.
        has_metrics: whether the server reports metrics.

    Returns:
        The flags that name them.

    Raises:
        ExportFailed: if what was read is not what was meant.
        ConfigRejected: if it cannot be read, or no server would follow it.
    """
    flags = [f"--port={GRPC_PORT}", f"--rest_api_port={REST_PORT}", f"--model_config_file={place}/{MODELS_FILE}"]
    configs = tuple(one.config for one in models)
    path = write_text(folder / MODELS_FILE, models_text(configs))
    check_configs(configs, {})
    if read_model_configs(str(path)) != configs:
        raise ExportFailed(f"{MODELS_FILE} does not say what was meant", hint="report this as a defect of tfserve_nb")
    if any(config.labels for config in configs):
        # Labels are checked before the versions are loaded: at the start none is.
        flags.append("--allow_version_labels_for_unavailable_models")
    batching = contents.batching
    if batching.options is not None:
        keeps_sizes = any(version.variant == "xla" for one in models for version in one.versions)
        text = batching.text or batching_text(batching.options, batching.origin, keeps_sizes=keeps_sizes)
        path = write_text(folder / BATCHING_FILE, text)
        if read_batching(path).max_batch_size != batching.options.max_batch_size:
            raise ExportFailed(
                f"{BATCHING_FILE} does not say what was meant", hint="report this as a defect of tfserve_nb"
            )
        flags += ["--enable_batching", f"--batching_parameters_file={place}/{BATCHING_FILE}"]
    if has_metrics:
        text = f'prometheus_config {{ enable: true path: "{DEFAULT_METRICS_PATH}" }}\n'
        path = write_text(folder / MONITORING_FILE, text)
        read_metrics_path(str(path))
        flags.append(f"--monitoring_config_file={place}/{MONITORING_FILE}")
    return tuple(flags)


CHECKED = "The configuration files were parsed as TensorFlow Serving's own messages, and hold what was meant."


def models_text(configs: tuple[ModelConfig, ...]) -> str:
    """A `ModelServerConfig` in text form."""
    lines = ["model_config_list {"]
    for config in configs:
        lines += [
            "  config {",
            f"    name: {quoted(config.name)}",
            f"    base_path: {quoted(config.base_path)}",
            '    model_platform: "tensorflow"',
            "    model_version_policy {",
            "      specific {",
            *(f"        versions: {number}" for number in config.policy.specific or ()),
            "      }",
            "    }",
            *(
                f"    version_labels {{ key: {quoted(label)} value: {number} }}"
                for label, number in config.labels.items()
            ),
            "  }",
        ]
    return "\n".join([*lines, "}", ""])


def batching_text(options: BatchingOptions, origin: str, *, keeps_sizes: bool) -> str:
    """A `BatchingParameters` in text form.

    Without `allowed_batch_sizes`, a request may have more rows than a batch, and is split as it is here. TensorFlow
    Serving cannot do both: with them, the last one limits the rows of a request.

    Args:
        options: the limits.
        origin: where they come from.
        keeps_sizes: whether only the allowed sizes may run, since each new one is compiled first.
    """
    lines = [f"# {line}" for line in origin.splitlines()]
    if keeps_sizes:
        lines += [f"max_batch_size {{ value: {options.max_batch_size} }}"]
        lines += [f"allowed_batch_sizes: {size}" for size in options.allowed_batch_sizes]
    else:
        lines += [
            f"max_batch_size {{ value: {max(MAX_REQUEST_ROWS, options.max_batch_size)} }}",
            "enable_large_batch_splitting { value: true }",
            f"max_execution_batch_size {{ value: {options.max_batch_size} }}",
        ]
    return "\n".join(
        [
            *lines,
            f"batch_timeout_micros {{ value: {options.batch_timeout_micros} }}",
            f"max_enqueued_batches {{ value: {options.max_enqueued_batches} }}",
            "",
        ]
    )


def quoted(text: str) -> str:
    """A text for protobuf's text form."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def notes_on(models: tuple[ServedModel, ...]) -> tuple[str, ...]:
    """What is not the same on a server that follows `models.config`."""
    notes = []
    for one in models:
        name, highest = one.model.name, one.versions[-1].number
        left_out = [version.number for version in one.model.versions if version not in one.versions]
        if left_out:
            numbers = ", ".join(map(str, left_out))
            notes.append(
                f"Version {numbers} of {name} is not in this bundle: the server answers with the highest version, "
                "which would promote it. `versions=` takes it in."
            )
        elif highest != one.model.default_version:
            notes.append(
                f"Requests for {name} that name no version are answered by version {highest}, the highest; here it is "
                f"version {one.model.default_version}."
            )
        if len(one.model.traffic) > 1:
            shares = ", ".join(
                f"version {number} {percent:g} %" for number, percent in sorted(one.model.traffic.items())
            )
            notes.append(f"The split of the traffic ({shares}) stays behind: the server has none.")
    return tuple(notes)


def version_note() -> tuple[str, ...]:
    """What TensorFlow Serving's version means for models of the TensorFlow that is installed here."""
    there = installed("tensorflow")
    here = "" if there is None else there[1]
    if not here or _numbers(here) <= _numbers(SERVING_VERSION):
        return ()
    return (
        f"TensorFlow Serving's newest image is {SERVING_VERSION}, behind TensorFlow {here}, which is "
        "installed where this was bundled: run the parity check there before clients move.",
    )


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor."""
    return tuple(int(part) for part in version.split(".")[:2])
