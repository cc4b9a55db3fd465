"""Makes the core of a replica serve what its `user_config` says: all of it or nothing, and no request is lost.

A configuration is checked before anything is done, so that a wrong one fails at once and what was served goes on. What
is new is loaded beside what answers; then the routing moves, in one step for each model; then what is not needed any
more is unloaded.

Thread: any; one configuration at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ...errors import ConfigRejected
from ...serving.configured import ConfiguredModels, FollowOptions
from ...serving.core import ServingCore
from ...serving.models.model_config import ModelConfig, VersionPolicy
from ...serving.models.state_store import new_event
from ...types import VersionState
from .replica_model import ReplicaModel, check_on_this_node, list_versions_of


class ServedModels:
    """The models of one replica.

    Args:
        core: serves them.
        options: how they are loaded.
    """

    def __init__(self, core: ServingCore, options: FollowOptions) -> None:
        self._core = core
        # Ray tries again by itself what fails at a start, and a change that fails shall say so at once.
        options = replace(
            options,
            poll_wait_s=max(0.0, options.poll_wait_s),
            allow_labels_for_unavailable=True,
            max_num_load_retries=0,
        )
        self._configured = ConfiguredModels(core, options)
        self._lock = threading.Lock()
        self._models: dict[str, ReplicaModel] = {}

    def start(self) -> None:
        """Follow the folders from now on."""
        self._configured.start()

    def stop(self) -> None:
        """Stop following them. Idempotent, bounded."""
        self._configured.stop()

    @property
    def models(self) -> tuple[ReplicaModel, ...]:
        """What is served."""
        return tuple(self._models.values())

    def on_disk(self, name: str) -> tuple[int, ...]:
        """The versions of a model in its folder, as this replica sees it."""
        model = self._models.get(name)
        return () if model is None else list_versions_of(model)

    def apply(self, models: Iterable[ReplicaModel]) -> None:
        """Serve these models and no others; returns when they answer so.

        Raises:
            ServingError: what is missing or cannot be loaded; everything is served as before then.
        """
        wanted = {model.name: model for model in models}
        with self._lock:
            before = dict(self._models)
            for model in wanted.values():
                check_on_this_node(model)
            try:
                self._configured.apply(self._both(before, wanted))
                for model in wanted.values():
                    self._check_loaded(model)
                for model in wanted.values():
                    self._route(model, before.get(model.name))
                self._configured.apply(_config(model) for model in wanted.values())
            except BaseException:
                self._configured.apply(_config(model) for model in before.values())
                for model in before.values():
                    self._route(model, wanted.get(model.name))
                raise
            self._models = wanted

    def _both(self, before: Mapping[str, ReplicaModel], wanted: Mapping[str, ReplicaModel]) -> list[ModelConfig]:
        """What was served and what is wanted, side by side, with the labels as they are."""
        both = []
        for model in {**before, **wanted}.values():
            known, new = before.get(model.name), wanted.get(model.name)
            versions = set(self._core.available(model.name)) if known is not None else set()
            if new is not None:
                versions |= new.policy.choose(list_versions_of(new))
            policy = VersionPolicy(latest=None, specific=tuple(sorted(versions)))
            labels = {} if known is None else known.labels
            both.append(replace(_config(model), policy=policy, labels=labels))
        return both

    def _check_loaded(self, model: ReplicaModel) -> None:
        """Wait for the versions of a model.

        Raises:
            ConfigRejected: if one cannot be loaded, with the reason.
        """
        versions = model.policy.choose(list_versions_of(model))
        for version, status in self._core.wait_until_settled(model.name, versions).items():
            if status.state is not VersionState.AVAILABLE:
                raise ConfigRejected(
                    f"version {version} of model {model.name} cannot be loaded: "
                    f"{status.error_message or status.state.name}",
                    code="FAILED_PRECONDITION",
                )

    def _route(self, model: ReplicaModel, before: ReplicaModel | None) -> None:
        if _routes(model) == (({}, {}, ()) if before is None else _routes(before)):
            return
        shares = ", ".join(f"version {version}: {percent:g} %" for version, percent in sorted(model.traffic.items()))
        version = next(iter(model.traffic)) if len(model.traffic) == 1 else None
        self._configured.model(model.name).change(model.routed, new_event("configure", version, shares))


def _routes(model: ReplicaModel) -> tuple[object, ...]:
    return dict(model.traffic), dict(model.labels), model.promoted


def _config(model: ReplicaModel) -> ModelConfig:
    batching = model.limits_of if model.batching else None
    return ModelConfig(model.name, model.base_path, model.policy, model.labels, batching=batching)
