"""Models as a configuration names them: where they lie, and which of their versions are served.

Thread: any; immutable.

Reference: tensorflow_serving/config/model_server_config.proto; the checks and their texts are those of
model_servers/server_core.cc.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ConfigRejected, InvalidOption
from .routing import check_label


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which of the versions on disk are served, as `ServableVersionPolicy`.

    Attributes:
        latest: this many of the highest; None for one of the others.
        specific: exactly these; None for `latest` or for all.
    """

    latest: int | None = 1
    specific: tuple[int, ...] | None = None

    def choose(self, on_disk: Iterable[int]) -> frozenset[int]:
        """The versions to serve of those on disk."""
        found = frozenset(on_disk)
        if self.specific is not None:
            return found & frozenset(self.specific)
        if self.latest is None:
            return found
        return frozenset(sorted(found, reverse=True)[: max(1, self.latest)])


@dataclass(frozen=True, slots=True)
class LoggingOptions:
    """Which requests of a model are written to files.

    Attributes:
        filename_prefix: path and start of the files' names.
        sampling_rate: the share of requests, 0 to 1.
    """

    filename_prefix: str
    sampling_rate: float


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model, as `tensorflow.serving.ModelConfig`.

    Attributes:
        name: the name that clients use.
        base_path: the folder that holds the version folders, absolute.
        policy: which versions are served.
        labels: label -> version.
        platform: must be `tensorflow`.
        logging: which requests are written to files, or None.
    """

    name: str
    base_path: str
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)
    platform: str = "tensorflow"
    logging: LoggingOptions | None = None


def check_configs(wanted: Iterable[ModelConfig], served: Mapping[str, ModelConfig]) -> None:
    """Refuse a configuration that cannot be meant.

    Args:
        wanted: the new one.
        served: name -> the model as it is configured now.

    Raises:
        ConfigRejected: with TensorFlow Serving's text.
    """
    seen: set[str] = set()
    for config in wanted:
        if config.name in seen:
            raise ConfigRejected(f"Illegal to list model {config.name} multiple times in config list")
        seen.add(config.name)
        if not config.platform:
            raise ConfigRejected(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                f"ModelServerConfig::model_platform, model name is {config.name}",
                hint='model_platform: "tensorflow"',
            )
        before = served.get(config.name)
        if before is not None and before.platform != config.platform:
            raise ConfigRejected(
                f"Illegal to change a model's platform. For model {config.name} platform was {before.platform} and new "
                f"platform requested is {config.platform}"
            )
        if config.platform != "tensorflow":
            raise ConfigRejected(f"Model {config.name} requests unsupported platform {config.platform}")
        _check_labels(config)
        if "://" in config.base_path:
            raise ConfigRejected(f"Model {config.name} lies at {config.base_path}, only local paths are supported")
        if not Path(config.base_path).is_absolute():
            raise ConfigRejected(
                f"Expected model {config.name} to have an absolute path or URI; got base_path()={config.base_path}"
            )


def _check_labels(config: ModelConfig) -> None:
    try:
        for label in config.labels:
            check_label(label)
    except InvalidOption as error:
        raise ConfigRejected(
            f"Model {config.name}: {error.message}", hint='version_labels { key: "stable" value: 1 }'
        ) from error
