"""Which version answers: the promoted one, labels, the traffic split, and what must stay loaded for them.

A `Routing` is a value. Switching and rolling back make a new one and move one pointer to it, so a request sees either
the old routing or the new one, never a mixture.

Thread: any; immutable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ...errors import InvalidOption, LabelNotFound, ModelNotFound, VersionNotFound
from ...export.layout import NAME_RULE, is_name
from ..backend import ModelSpec
from ..traffic import DEFAULT_KEY_HEADER, Shadow, check_weights, choose, choose_by_key

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2


@dataclass(frozen=True, slots=True)
class Routing:
    """How the requests of one model find their version.

    Attributes:
        name: the model's name.
        promoted: the versions that were made the default, oldest first; the last one is the default now.
        traffic: version -> percent for requests that name no version; sums to 100, or is empty before the first
            promotion.
        labels: label -> version.
        recent: versions in the order of their last use (deployed, promoted, rolled back), latest last.
        staged: versions that were loaded on purpose without traffic.
        salt: decides together with a key which client gets which version; the model's name when it is empty.
        key_header: the header (gRPC: metadata) whose value keeps a client with its version.
        arms: version -> its name in the running comparison, `a` or `b`.
        shadow: the version that gets copies of the requests that others answer, and how many.
        sole: the version that gets all traffic, when it is not split.
        is_plain: whether requests need no more than a version: no split, no comparison, no copies.
    """

    name: str
    promoted: tuple[int, ...] = ()
    traffic: Mapping[int, float] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    recent: tuple[int, ...] = ()
    staged: frozenset[int] = frozenset()
    salt: str = ""
    key_header: str = DEFAULT_KEY_HEADER
    arms: Mapping[int, str] = field(default_factory=dict)
    shadow: Shadow | None = None
    sole: int | None = field(init=False, compare=False, default=None)
    is_plain: bool = field(init=False, compare=False, default=True)

    def __post_init__(self) -> None:
        if len(self.traffic) == 1:
            object.__setattr__(self, "sole", next(iter(self.traffic)))
        object.__setattr__(self, "is_plain", len(self.traffic) < 2 and not self.arms and self.shadow is None)

    def check(self) -> None:
        """Refuse shares that no requests could be divided by.

        Raises:
            InvalidOption: naming what is wrong.
        """
        if self.traffic:
            check_weights(self.traffic)
        if self.shadow is not None:
            self.shadow.check()

    @property
    def default_version(self) -> int | None:
        """The promoted version."""
        return self.promoted[-1] if self.promoted else None

    @property
    def is_split(self) -> bool:
        """Whether more than the default version gets traffic."""
        return bool(self.promoted) and set(self.traffic) != {self.promoted[-1]}

    def version_for(
        self, spec: ModelSpec, draw: Callable[[], float], preferred: int | None = None, key: str = ""
    ) -> int:
        """The version that answers a request.

        Args:
            spec: what the request names.
            draw: gives uniform numbers on [0, 1), for the traffic split.
            preferred: the version to choose when the spec leaves the choice, as long as traffic goes to it.
            key: the client's; its requests all go to one version as long as the split stays; "" for none.

        Raises:
            LabelNotFound: for an unknown label (text and code as TensorFlow Serving).
            ModelNotFound: if nothing is promoted.
        """
        if spec.version is not None:
            return spec.version
        if spec.label is not None:
            version = self.labels.get(spec.label)
            if version is None:
                raise LabelNotFound(f"Unrecognized servable version label: {spec.label}")
            return version
        if not self.traffic:
            raise not_found(spec)
        if self.sole is not None:
            return self.sole
        if preferred is not None and preferred in self.traffic:
            return preferred
        return choose_by_key(self.traffic, self.salt or self.name, key) if key else choose(self.traffic, draw())

    def used(self, version: int) -> Routing:
        """The same with `version` as the most recently used one."""
        return replace(self, recent=(*(other for other in self.recent if other != version), version))

    def stage(self, version: int) -> Routing:
        """Keep `version` loaded without giving it traffic."""
        return replace(self.used(version), staged=self.staged | {version})

    def promote(self, version: int) -> Routing:
        """Give all traffic that names no version to `version`."""
        promoted = (*(other for other in self.promoted if other != version), version)
        routing = _uncompared(self.used(version), version)
        return replace(routing, promoted=promoted, traffic={version: 100.0}, staged=self.staged - {version})

    def roll_back(self, to: int | None = None) -> Routing:
        """Go back to an earlier version.

        Args:
            to: the version; None ends a running traffic split in favour of the default version (of a comparison: of
                its version A, which is what "back" means there, although B may have been promoted before), or else goes
                back to the version that was the default before.

        Raises:
            VersionNotFound: if there is nothing to go back to.
        """
        if to is None and self.is_split:
            to = next((version for version, arm in self.arms.items() if arm == "a"), None)
        if to is None and self.is_split:
            default = self.promoted[-1]
            return replace(_uncompared(self.used(default), default), traffic={default: 100.0})
        if to is None:
            if len(self.promoted) < 2:
                first = f"version {self.promoted[0]} is the first one that was promoted" if self.promoted else ""
                raise VersionNotFound(
                    f"{self.name} has no earlier version to roll back to; {first or 'none serves'}",
                    hint=f"%promote {self.name} VERSION to go to a version of your choice",
                )
            to = self.promoted[-2]
        earlier = self.promoted[: self.promoted.index(to)] if to in self.promoted else self.promoted
        routing = _uncompared(self.used(to), to)
        return replace(routing, promoted=(*earlier, to), traffic={to: 100.0}, staged=self.staged - {to})

    def with_label(self, label: str, version: int | None) -> Routing:
        """Point a label to a version; None removes it.

        Raises:
            InvalidOption: if the label cannot stand in a URL, or looks like a version.
            LabelNotFound: if a label that does not exist is to be removed.
        """
        is_stored = isinstance(label, str) and label in self.labels
        if version is not None or not is_stored:
            check_label(label)
            if re.search(r"\s", label):
                raise InvalidOption(f"label {label!r} must be text without spaces", hint="stable, canary")
        if version is None and not is_stored:
            raise LabelNotFound(f"Unrecognized servable version label: {label}", hint=f"labels: {dict(self.labels)}")
        labels = {other: target for other, target in self.labels.items() if other != label}
        if version is not None:
            labels[label] = version
        return replace(self, labels=labels)

    def with_traffic(self, weights: Mapping[int, float]) -> Routing:
        """Split the traffic that names no version.

        Raises:
            InvalidOption: if the weights are no percentages that sum to 100.
        """
        traffic = check_weights(weights)
        default = self.default_version
        if default not in traffic:
            default = max(traffic, key=lambda version: (traffic[version], version))
        promoted = (*(other for other in self.promoted if other != default), default)
        # The default counts as used last: when the next version comes, it and not a rejected one stays loaded.
        routing = self.used(default)
        return _settled(replace(routing, promoted=promoted, traffic=traffic, staged=self.staged - set(traffic)))

    def with_shadow(self, shadow: Shadow | None) -> Routing:
        """Give a version copies of the requests that others answer; None ends it.

        Raises:
            InvalidOption: if the share is none, or the version gets all requests itself.
        """
        if shadow is None:
            return replace(self, shadow=None)
        if set(self.traffic) <= {shadow.version}:
            raise InvalidOption(
                f"version {shadow.version} of {self.name} gets all requests: there are none of others to copy",
                hint=f"%deploy MODEL --name {self.name} --shadow",
            )
        return replace(self.used(shadow.version), shadow=shadow.check())

    def with_split(
        self,
        weights: Mapping[int, float],
        *,
        salt: str | None = None,
        key_header: str | None = None,
        arms: Mapping[int, str] | None = None,
        shadow: Shadow | None = None,
    ) -> Routing:
        """Everything of a comparison at once.

        Args:
            weights: version -> percent, summing to 100.
            salt: another one assigns all clients anew; None keeps it.
            key_header: where the key stands; None keeps it.
            arms: version -> `a` or `b`; None or empty for no comparison.
            shadow: the version that gets copies, or None; a version that gets all the traffic needs none.

        Raises:
            InvalidOption: naming the value that is not allowed.
        """
        if key_header is not None and not (isinstance(key_header, str) and _HEADER.fullmatch(key_header)):
            raise InvalidOption(f"key_header={key_header!r} must be the name of a header", hint="x-tfserve-key")
        if key_header is not None and key_header.lower() in _SECRET_HEADERS:
            raise InvalidOption(
                f"key_header={key_header!r} carries secrets, and keys are kept in records", hint="x-tfserve-key"
            )
        if salt is not None and not isinstance(salt, str):
            raise InvalidOption(f"salt={salt!r} must be text", hint="secrets.token_hex(8)")
        for version, arm in (arms or {}).items():
            if arm not in ("a", "b"):
                raise InvalidOption(f"version {version} cannot be arm {arm!r}", hint="arms={3: 'a', 4: 'b'}")
        routing = replace(
            self.with_traffic(weights),
            salt=self.salt if salt is None else salt,
            key_header=self.key_header if key_header is None else key_header.lower(),
            arms=dict(arms or {}),
        )
        is_alone = shadow is not None and routing.sole == shadow.version
        return routing.with_shadow(None if is_alone else shadow)

    def copies_of(self, version: int) -> Shadow | None:
        """The version that gets copies of the requests that `version` answers, and their share; None for none.

        While two versions are compared each gets copies of the other's requests. A copy costs the machine time just
        after the request that it is of; if only one version's requests were copied, the other's would run in the busier
        moments.
        """
        shadow = self.shadow
        if shadow is None or shadow.version != version:
            return shadow
        other = next((arm for arm in self.arms if arm != version), None) if version in self.arms else None
        return None if other is None else Shadow(other, shadow.percent)

    @property
    def copied_to(self) -> frozenset[int]:
        """The versions that get copies."""
        shadow = self.shadow
        if shadow is None:
            return frozenset()
        return frozenset({shadow.version} | (self.arms.keys() if shadow.version in self.arms else set()))

    def without(self, version: int) -> Routing:
        """Forget a version that is going away.

        Raises:
            InvalidOption: if traffic or a label still points to it.
        """
        users = [f"{self.traffic[version]:g} % of the traffic"] if version in self.traffic else []
        users += [f"label {label}" for label, target in self.labels.items() if target == version]
        users += ["copies of other versions' requests"] if self.shadow and self.shadow.version == version else []
        if users:
            raise InvalidOption(
                f"version {version} of {self.name} still has {' and '.join(users)}",
                hint=f"first %rollback {self.name}, %promote another version, move the label, or d.shadow(None)",
            )
        return replace(
            self,
            promoted=tuple(other for other in self.promoted if other != version),
            recent=tuple(other for other in self.recent if other != version),
            staged=self.staged - {version},
            arms={} if version in self.arms else self.arms,
        )

    def aspired(self, keep: int) -> frozenset[int]:
        """The versions that should be loaded.

        Args:
            keep: how many versions to keep loaded in all, counting those with traffic, a label, copies, a part in a
                comparison or on the stage; these stay whatever `keep` is, the most recently used others fill the rest.
        """
        wanted = set(self.traffic) | set(self.labels.values()) | self.staged | set(self.arms)
        wanted |= set() if self.shadow is None else {self.shadow.version}
        for version in reversed(self.recent):
            if len(wanted) >= keep:
                break
            wanted.add(version)
        return frozenset(wanted)

    def restricted_to(self, available: frozenset[int]) -> Routing:
        """The same with only the versions that are still there (files may have been deleted since it was stored)."""
        promoted = tuple(version for version in self.promoted if version in available)
        traffic = {version: percent for version, percent in self.traffic.items() if version in available}
        if traffic and len(traffic) == len(self.traffic):
            kept: Mapping[int, float] = self.traffic
        else:
            kept = {promoted[-1]: 100.0} if promoted else {}
        routing = replace(
            self,
            promoted=promoted,
            traffic=kept,
            labels={label: version for label, version in self.labels.items() if version in available},
            recent=tuple(version for version in self.recent if version in available),
            staged=self.staged & available,
            arms=self.arms if self.arms.keys() <= available else {},
            shadow=self.shadow if self.shadow is not None and self.shadow.version in available else None,
        )
        return _settled(routing)


def check_label(label: str) -> str:
    """A label that can stand in a URL as it is, and be told from a version.

    A label of an earlier time that cannot still answers, and may be removed.

    Raises:
        InvalidOption: if it is none: labels have the rule of models' names, and a whole number is a version.
    """
    if not isinstance(label, str) or not is_name(label):
        shown = f"{label!r:.300}"
        raise InvalidOption(f"label {shown} cannot be a label: needed is {NAME_RULE}", hint="stable, canary")
    try:
        number = int(label)
    except ValueError:
        return label
    raise InvalidOption(
        f"label {label!r} is a whole number, which names a version and no label", hint=f"--label v{abs(number)}"
    )


def _uncompared(routing: Routing, version: int) -> Routing:
    """The same once `version` is to get everything: the comparison is over, and so are its copies."""
    shadow = routing.shadow
    ends = shadow is not None and (shadow.version == version or shadow.version in routing.arms)
    return replace(routing, arms={}, shadow=None if ends else shadow)


def _settled(routing: Routing) -> Routing:
    """The same without copies for a version that answers everything by itself."""
    is_alone = routing.shadow is not None and routing.sole == routing.shadow.version
    return replace(routing, shadow=None) if is_alone else routing


def not_found(spec: ModelSpec) -> ModelNotFound:
    """The error for a version that does not serve, with TensorFlow Serving's text.

    Its readiness probes look for the word `Servable`.
    """
    wanted = f"Latest({spec.name})" if spec.version is None else f"Specific({spec.name}, {spec.version})"
    return ModelNotFound(f"Servable not found for request: {wanted}")
