"""Models as a configuration names them: where they lie, and which of their versions are served.

Thread: any; immutable.

Reference: tensorflow_serving/config/model_server_config.proto; the checks and their texts are those of
model_servers/server_core.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import ConfigRejected, InvalidOption
from ...export.layout import check_name, is_below
from ..batching.options import BatchingOptions
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
        within: links in its versions may lead to these folders and below; None for anywhere.
        batching: version folder -> its limits, in place of those of all models; or None.
    """

    name: str
    base_path: str
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)
    platform: str = "tensorflow"
    logging: LoggingOptions | None = None
    within: tuple[str, ...] | None = None
    batching: Callable[[Path], BatchingOptions] | None = None


@dataclass(frozen=True, slots=True)
class ReloadLimits:
    """What a configuration may name when it is not known who sends it.

    A SavedModel is a program, and logged requests are files that are written: both stay where the server's owner put
    them. Links in a folder that the owner named are the owner's.

    Attributes:
        base_paths: models must lie in these folders or below them.
        own_paths: those that the owner's configuration names itself.
        log_prefixes: requests may be logged there, as `LoggingOptions.filename_prefix`.
    """

    base_paths: tuple[str, ...]
    own_paths: frozenset[str] = frozenset()
    log_prefixes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, configs: Iterable[ModelConfig], base_paths: Iterable[str] = ()) -> ReloadLimits:
        """What the owner's configuration names, and further folders."""
        known = tuple(configs)
        return cls(
            (*(config.base_path for config in known), *base_paths),
            frozenset(config.base_path for config in known),
            frozenset(config.logging.filename_prefix for config in known if config.logging is not None),
        )

    def restricted(self, wanted: Iterable[ModelConfig]) -> tuple[ModelConfig, ...]:
        """A configuration whose models are kept from leaving these folders by links later.

        Raises:
            ConfigRejected: as `_check`.
        """
        configs = tuple(wanted)
        self._check(configs)
        return tuple(
            config if config.base_path in self.own_paths else replace(config, within=self.base_paths)
            for config in configs
        )

    def _check(self, wanted: Iterable[ModelConfig]) -> None:
        """Refuse a configuration that names anything else; links are followed.

        Raises:
            ConfigRejected: naming the model and the path.
        """
        roots = [Path(path).resolve() for path in self.base_paths]
        for config in wanted:
            _check_texts(config)
            is_absolute = Path(config.base_path).is_absolute()  # `check_configs` has the words for others
            if is_absolute and not is_below(config.base_path, roots):
                raise ConfigRejected(
                    f"Model {config.name} lies at {config.base_path}, outside of the configured base paths; reloads "
                    "without a token stay below them. Start the server with --reload_base_paths=FOLDER or "
                    "--auth_token_file=FILE",
                    code="PERMISSION_DENIED",
                )
            if config.logging is not None and config.logging.filename_prefix not in self.log_prefixes:
                raise ConfigRejected(
                    f"Model {config.name} logs requests to {config.logging.filename_prefix}, which the server's own "
                    "configuration does not; reloads without a token cannot add it. Start the server with "
                    "--auth_token_file=FILE",
                    code="PERMISSION_DENIED",
                )


def _check_texts(config: ModelConfig) -> None:
    """Refuse names and paths that no model and no file can have.

    Raises:
        ConfigRejected: naming the text.
    """
    try:
        check_name(config.name)
    except InvalidOption as error:
        raise ConfigRejected(error.message, hint=error.hint.replace("--name", "a name such as")) from error
    for label in config.labels:
        if not label.isprintable():
            raise ConfigRejected(f"label {label!r} of model {config.name} has control characters", hint="stable")
    if not config.base_path.isprintable():
        raise ConfigRejected(
            f"Model {config.name} lies at {config.base_path!r}, which has control characters",
            hint="a path without them",
        )


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
        _check_texts(config)
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
