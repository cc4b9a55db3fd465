"""Models as a configuration lists them: which there are, where they lie, and which of their versions are served.

A thread reads the folders regularly. A model whose folder is missing keeps what it serves, and never stops
the others from being updated.

Thread: `tfserve-poller`, a daemon, polls; everything else from any thread.

Reference: tensorflow_serving/model_servers/server_core.cc (ReloadConfig) and
sources/storage_path/file_system_storage_path_source.cc (PollFileSystemForServable).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigRejected
from ..types import VersionState, VersionStatus
from .batching.options import BatchingOptions
from .core import ServingCore
from .engines.engine import TENSORFLOW
from .models.followed import FollowedModel
from .models.model_config import LoggingOptions, ModelConfig, check_configs
from .versions.source import VersionSource

_log = logging.getLogger(__name__)
JOIN_S = 1.5
MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """How configured models are loaded.

    Attributes:
        batching: version folder -> its limits; may raise `ServingError` for a file in the folder that is wrong.
        poll_wait_s: seconds between two readings of the folders; 0 reads once, below 0 never.
        allow_labels_for_unavailable: a new label may name a version that is not AVAILABLE yet.
        max_num_load_retries: how often a failed load is tried again.
        load_retry_interval_s: seconds between two tries.
        num_warmup_iterations: how often each request of a warm-up file is run; 0 leaves the files alone.
        device: TensorFlow device, or None.
        engine: what is to run them; see `VersionSource`.
    """

    batching: Callable[[Path], BatchingOptions]
    poll_wait_s: float = 1.0
    allow_labels_for_unavailable: bool = False
    max_num_load_retries: int = 5
    load_retry_interval_s: float = 60.0
    num_warmup_iterations: int = 1
    device: str | None = None
    engine: str = TENSORFLOW


class ConfiguredModels:
    """Makes a core serve what a configuration lists, as the model folders change.

    Args:
        core: where the models are served.
        options: how they are loaded.
    """

    def __init__(self, core: ServingCore, options: FollowOptions) -> None:
        self._core = core
        self._options = options
        self._lock = threading.RLock()
        self._configs: dict[str, ModelConfig] = {}
        self._models: dict[str, FollowedModel] = {}
        self._problems: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the folders every `poll_wait_s` seconds from now on, if that is above 0."""
        if self._options.poll_wait_s <= 0 or self._thread is not None:
            return
        self._thread = threading.Thread(target=self._work, name="tfserve-poller", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Idempotent, bounded."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def apply(self, configs: Iterable[ModelConfig], *, at_start: bool = False) -> None:
        """Serve what a new configuration lists; returns when its new models can answer.

        Args:
            configs: all models; those that were served and are not in it are unloaded.
            at_start: whether nothing is served yet, which only changes an error's text.

        Raises:
            ConfigRejected: if the configuration cannot be followed (nothing is changed then), or a new model cannot be
                served (all others are).
        """
        wanted = list(configs)
        with self._lock:
            check_configs(wanted, self._configs)
            self._check_labels(wanted)
            new = [config for config in wanted if config.name not in self._configs]
            for name in self._configs.keys() - {config.name for config in wanted}:
                self._core.unfollow(self._models.pop(name))
            self._configs = {config.name: config for config in wanted}
            for config in wanted:
                if config.name not in self._models:
                    self._models[config.name] = self._core.follow(config.name, Path(config.base_path))
                model = self._models[config.name]
                model.base_path = Path(config.base_path)
                model.set_labels(config.labels)
                if config in new or self._options.poll_wait_s >= 0:
                    self._poll(config)
        self._wait_for(new, "servable" if at_start else "model")

    def logging_of(self, name: str) -> LoggingOptions | None:
        """Which requests of a model are written to files."""
        config = self._configs.get(name)
        return None if config is None else config.logging

    def model(self, name: str) -> FollowedModel:
        """A model that the configuration lists; `KeyError` for another."""
        return self._models[name]

    def poll(self) -> None:
        """Read all folders now."""
        with self._lock:
            for config in self._configs.values():
                self._poll(config)

    def _work(self) -> None:
        while not self._stop.wait(self._options.poll_wait_s):
            self.poll()

    def _poll(self, config: ModelConfig) -> None:
        """Aspire what one folder holds now."""
        try:
            on_disk = find_versions(config.base_path)
        except OSError as error:
            self._log_once(
                config.name,
                f"Could not find base path {config.base_path} for servable {config.name} with error "
                f"{error.strerror or error}",
            )
            return
        chosen = config.policy.choose(on_disk)
        missing = sorted(set(config.policy.specific or ()) - on_disk.keys())
        if not on_disk:
            self._log_once(
                config.name,
                f"No versions of servable {config.name} found under base path {config.base_path}. Did you forget to "
                "name your leaf directory as a number (eg. '/1/')?",
            )
        elif missing:
            self._log_once(
                config.name,
                f"Version {missing[0]} of servable {config.name}, which was requested to be served as a 'specific' "
                f"version in the servable's configuration, was not found in the file system",
            )
        else:
            self._problems.pop(config.name, None)
        self._models[config.name].set_versions({version: self._source(on_disk[version], config) for version in chosen})

    def _source(self, path: Path, config: ModelConfig) -> VersionSource:
        options = self._options
        return VersionSource(
            path=path,
            options=BatchingOptions(),
            batching=config.batching or options.batching,
            device=options.device,
            engine=options.engine,
            max_num_load_retries=options.max_num_load_retries,
            load_retry_interval_s=options.load_retry_interval_s,
            num_warmup_iterations=options.num_warmup_iterations,
            within=config.within,
        )

    def _log_once(self, name: str, problem: str) -> None:
        """Log what is wrong with a folder, once as long as it stays the same."""
        if self._problems.get(name) != problem:
            self._problems[name] = problem
            _log.warning("%s", problem)

    def _check_labels(self, wanted: Iterable[ModelConfig]) -> None:
        for config in wanted:
            before = self._configs.get(config.name)
            known = {} if before is None else before.labels
            available = self._core.available(config.name)
            for label, version in config.labels.items():
                is_new = label not in known
                is_allowed = is_new and self._options.allow_labels_for_unavailable
                if version not in available and known.get(label) != version and not is_allowed:
                    raise ConfigRejected(
                        f"Request to assign label to version {version} of model {config.name}, which is not "
                        "currently available for inference",
                        code="FAILED_PRECONDITION",
                        hint="add the label after the version is served, or start with "
                        "--allow_version_labels_for_unavailable_models",
                    )

    def _wait_for(self, new: list[ModelConfig], what: str) -> None:
        """Wait until new models can answer."""
        failures: list[str] = []
        for config in new:
            model = self._models.get(config.name)
            if model is None:
                continue
            if not model.versions:
                problem = self._problems.get(config.name) or f"no version of {config.name} is to be served"
                failures.append(f"{{name: {config.name}}} due to error: NOT_FOUND: {problem}")
                continue
            statuses = self._core.wait_until_settled(config.name, model.versions).values()
            if not any(status.state is VersionState.AVAILABLE for status in statuses):
                failures += [_failure(config.name, status) for status in statuses]
        if failures:
            raise ConfigRejected(
                f"{len(failures)} {what}(s) did not become available: {{{''.join(f'{why}, ' for why in failures)}}}",
                code="UNKNOWN",
            )


def find_versions(base_path: str | Path) -> dict[int, Path]:
    """The version folders below a base path: version -> folder. `007` is version 7; other names are no versions.

    Raises:
        OSError: if the folder cannot be read.
    """
    found: dict[int, Path] = {}
    with os.scandir(base_path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.isascii() and entry.name.isdigit() and int(entry.name) <= MAX_INT64 and entry.is_dir():
                if int(entry.name) in found:
                    _log.warning("Duplicate version directories: %s and %s", found[int(entry.name)], entry.path)
                found[int(entry.name)] = Path(entry.path)
    return found


def _failure(name: str, status: VersionStatus) -> str:
    reason = f"{status.error_code}: {status.error_message}" if status.error_message else "it was unloaded"
    return f"{{name: {name} version: {status.version}}} due to error: {reason}"
