"""One model as replicas on Ray serve it: an entry of `user_config`, which replaces the one before without a restart.

Thread: any; immutable.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any  # JSON values

from ...errors import ConfigRejected, InvalidOption, ServingError, VersionNotFound
from ...export.layout import check_name, check_version
from ...serving.batching.options import BatchingOptions
from ...serving.configured import find_versions
from ...serving.models.model_config import ModelConfig, VersionPolicy
from ...serving.models.routing import Routing, check_label
from ...serving.traffic import check_weights

LATEST, ALL = "latest", "all"
_LATEST = re.compile(r"latest(?: ([1-9][0-9]{0,3}))?")
KEEP = 2
"""Versions that stay loaded once traffic was moved by hand, for a rollback without a load."""


@dataclass(frozen=True, slots=True)
class ReplicaModel:
    """A model, which of its versions are loaded, and who answers.

    Attributes:
        name: the name that clients use.
        base_path: the folder that holds the version folders; absolute, and the same on every node.
        versions: these; `all`; or `latest` and `latest 3` for the highest ones, followed as the folder changes.
        traffic: version -> percent of the requests that name no version; empty for the highest version.
        labels: label -> version.
        promoted: what a rollback goes back to, oldest first; the last one is promoted now.
        batching: version -> the limits of its batch queues. A version that is not listed has those of the highest one
            that is; when none is, the flags of the replicas decide. They count from a version's next load.

    Raises:
        ConfigRejected: naming the model and the value that is not allowed.
    """

    name: str
    base_path: str
    versions: tuple[int, ...] | str = LATEST
    traffic: Mapping[int, float] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    promoted: tuple[int, ...] = ()
    batching: Mapping[int, BatchingOptions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            check_name(self.name)
            self._check_versions()
            self._check_places()
        except InvalidOption as error:
            raise ConfigRejected(f"model {self.name!r:.200}: {error.message}", hint=error.hint) from error

    def _check_versions(self) -> None:
        if not isinstance(self.base_path, str) or not Path(self.base_path).is_absolute():
            raise InvalidOption(f"base_path={self.base_path!r:.200} must be an absolute path", hint="/models/digits")
        if isinstance(self.versions, str):
            if self.versions != ALL and not _LATEST.fullmatch(self.versions):
                raise InvalidOption(
                    f"versions={self.versions!r:.100} must be numbers, 'all', 'latest' or 'latest N'",
                    hint="versions: [1, 2]",
                )
        elif not self.versions:
            raise InvalidOption("versions is empty", hint="versions: [1, 2], or leave it out for the latest")
        for version in (*self.named, *self.batching):
            check_version(version)

    def _check_places(self) -> None:
        if self.traffic:
            check_weights(self.traffic)
        for label in self.labels:
            check_label(label)
        missing = sorted(set(self.needed) - set(self.named)) if not isinstance(self.versions, str) else []
        if missing:
            raise InvalidOption(
                f"version {missing[0]} has traffic or a label and is not among versions={list(self.named)}",
                hint=f"versions: {sorted({*self.named, *missing})}",
            )

    @property
    def named(self) -> tuple[int, ...]:
        """The versions that are listed; none when the folder decides."""
        return () if isinstance(self.versions, str) else tuple(self.versions)

    @property
    def needed(self) -> tuple[int, ...]:
        """The versions that traffic or a label needs."""
        return tuple(sorted({*(v for v, percent in self.traffic.items() if percent > 0), *self.labels.values()}))

    @property
    def policy(self) -> VersionPolicy:
        """Which versions of the folder are loaded."""
        if not isinstance(self.versions, str):
            return VersionPolicy(latest=None, specific=tuple(self.versions))
        found = _LATEST.fullmatch(self.versions)
        return VersionPolicy(latest=None if found is None else int(found[1] or 1))

    def limits_of(self, version_dir: Path) -> BatchingOptions:
        """How the version in a folder batches; only when `batching` is not empty."""
        version = int(version_dir.name)
        return self.batching[version if version in self.batching else max(self.batching)]

    def routed(self, routing: Routing) -> Routing:
        """The routing of this configuration, in place of what it was before."""
        weights = check_weights(self.traffic) if self.traffic else {}
        promoted = self.promoted
        if weights and (not promoted or promoted[-1] not in weights):
            promoted = (*promoted, max(weights, key=lambda version: (weights[version], version)))
        return replace(routing, traffic=weights, labels=dict(self.labels), promoted=promoted if weights else ())

    def routing(self, loaded: Iterable[int]) -> Routing:
        """The routing that changes start from.

        Args:
            loaded: the versions that the replicas have loaded, of which the highest answers without any traffic.
        """
        known = sorted(loaded)
        routing = self.routed(Routing(self.name))
        if not routing.traffic and known:
            routing = routing.promote(known[-1])
        unused = (version for version in known if version not in routing.promoted)
        return replace(routing, recent=(*unused, *routing.promoted))

    def changed_to(self, routing: Routing) -> ReplicaModel:
        """The model with another routing, made from `routing`; the versions that it needs are listed from then on.

        As many as before stay loaded, the most recently used ones, and at least `KEEP`.
        """
        kept = routing.aspired(max(KEEP, len(self.named)))
        return replace(
            self,
            versions=ALL if self.versions == ALL else tuple(sorted(kept)),
            traffic=dict(routing.traffic),
            labels=dict(routing.labels),
            promoted=routing.promoted[-10:],
        )

    def to_json(self) -> dict[str, Any]:
        """The entry of `user_config`; what is as by default is left out."""
        entry: dict[str, Any] = {"name": self.name, "base_path": self.base_path}
        if self.versions != LATEST:
            entry["versions"] = self.versions if isinstance(self.versions, str) else list(self.versions)
        if self.traffic:
            entry["traffic"] = {str(version): percent for version, percent in self.traffic.items()}
        if self.labels:
            entry["labels"] = dict(self.labels)
        if self.promoted:
            entry["promoted"] = list(self.promoted)
        if self.batching:
            entry["batching"] = {str(version): limits.to_json() for version, limits in self.batching.items()}
        return entry

    @classmethod
    def from_json(cls, entry: object) -> ReplicaModel:
        """The inverse of `to_json`.

        Raises:
            ConfigRejected: naming what is missing, unknown or not allowed.
        """
        known = [one.name for one in fields(cls)]
        if not isinstance(entry, Mapping):
            raise ConfigRejected(f"models holds {entry!r:.100}, needed is an object with {', '.join(known)}")
        check_keys(entry, known, "an entry of models")
        for key in ("name", "base_path"):
            if not isinstance(entry.get(key), str):
                raise ConfigRejected(f"an entry of models needs {key!r} as text: {dict(entry)!r:.200}")
        versions = entry.get("versions", LATEST)
        try:
            return cls(
                name=entry["name"],
                base_path=entry["base_path"],
                versions=versions if isinstance(versions, str) else tuple(int(version) for version in versions),
                traffic={int(version): float(percent) for version, percent in entry.get("traffic", {}).items()},
                labels={str(label): int(version) for label, version in entry.get("labels", {}).items()},
                promoted=tuple(int(version) for version in entry.get("promoted", ())),
                batching={int(version): _limits(value) for version, value in entry.get("batching", {}).items()},
            )
        except InvalidOption as error:
            raise ConfigRejected(f"model {entry['name']!r:.200}: {error.message}", hint=error.hint) from error
        except ServingError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigRejected(
                f"model {entry['name']!r:.200}: {error}",
                hint='versions: [1, 2], traffic: {"2": 100}, labels: {stable: 1}, promoted: [1, 2]',
            ) from error

    @classmethod
    def of(cls, config: ModelConfig) -> ReplicaModel:
        """A model of TensorFlow Serving's configuration.

        Raises:
            ConfigRejected: for what replicas do not do.
        """
        if config.logging is not None:
            raise ConfigRejected(
                f"Model {config.name} logs requests, which replicas on Ray do not", hint="remove logging_config"
            )
        policy = config.policy
        if policy.specific is not None:
            versions: tuple[int, ...] | str = tuple(sorted(policy.specific))
        else:
            versions = ALL if policy.latest is None else f"{LATEST} {policy.latest}" if policy.latest > 1 else LATEST
        return cls(config.name, config.base_path, versions, {}, dict(config.labels))


def _limits(value: Any) -> BatchingOptions:
    """The limits that an entry of `batching` holds.

    Raises:
        ServingError: naming what is unknown or not allowed.
    """
    check_keys(value, [one.name for one in fields(BatchingOptions)], "an entry of batching")
    return BatchingOptions.from_json(value)


def models_of(user_config: object) -> tuple[ReplicaModel, ...]:
    """The models of a `user_config`.

    Raises:
        ConfigRejected: naming what is missing, unknown or not allowed.
    """
    if not isinstance(user_config, Mapping):
        raise ConfigRejected(f"user_config is {user_config!r:.100}, needed is an object with models")
    check_keys(user_config, ("models", "revision"), "user_config")
    entries = user_config.get("models")
    if not isinstance(entries, list | tuple) or not entries:
        raise ConfigRejected("user_config lists no models", hint="models: [{name: digits, base_path: /models/digits}]")
    models = tuple(ReplicaModel.from_json(entry) for entry in entries)
    names = [model.name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigRejected(f"user_config lists model {twice} more than once")
    return models


def list_versions_of(model: ReplicaModel) -> tuple[int, ...]:
    """The versions in a model's folder; none when it cannot be read."""
    try:
        return tuple(sorted(find_versions(model.base_path)))
    except OSError:
        return ()


def check_on_this_node(model: ReplicaModel) -> None:
    """Refuse a model whose folder, or a version of it, this node does not have.

    Raises:
        ConfigRejected: if there are no versions, with what is there instead; or if one that is needed is not chosen.
        VersionNotFound: naming the versions that there are.
    """
    found, path, node = list_versions_of(model), Path(model.base_path), socket.gethostname()
    if not found:
        inner = replace(model, base_path=str(path / model.name))
        raise ConfigRejected(
            f"model {model.name}: {path} {'holds no versions' if path.is_dir() else 'is no folder'} on the node {node}",
            code="NOT_FOUND",
            hint=f"{inner.base_path}, which holds versions"
            if list_versions_of(inner)
            else "a folder that every node sees under the same path, with folders 1, 2, ... in it",
        )
    chosen = model.policy.choose(found)
    for version in sorted({*model.named, *model.needed} - chosen):
        if version in found:
            raise ConfigRejected(
                f"model {model.name}: version {version} has traffic or a label, and versions={model.versions!r} does "
                "not load it",
                hint=f"versions: {sorted({*chosen, *model.needed})}",
            )
        raise VersionNotFound(
            f"model {model.name} has no version {version} in {path} on the node {node}; "
            f"it has {', '.join(map(str, found))}",
            hint="copy it there first; nothing was changed",
        )


def check_keys(given: Iterable[object], known: Iterable[str], where: str) -> None:
    """Refuse keys that nobody reads: Ray would pass over a misspelt one.

    Raises:
        ConfigRejected: naming the first unknown one, and the nearest that there is.
    """
    allowed = sorted(known)
    for key in given:
        if key not in allowed:
            near = get_close_matches(str(key), allowed, n=1)
            raise ConfigRejected(
                f"{where} has no {key!r}; it has {', '.join(allowed)}", hint=f"{near[0]}: ..." if near else ""
            )
