"""A Keras callback that turns epochs into versions, while training goes on.

Thread: the one that trains. The export runs there, because the weights must not move meanwhile: the next epoch waits
for it. Loading and warming up run there too, since whether a version can serve decides what becomes of it.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias  # Keras' objects, options of `deploy`

from ..errors import FailedPrecondition, InvalidOption, ServingError, VersionNotFound
from ..export.layout import check_name
from ..types import ProgressEvent, no_progress
from .deploy import deploy
from .deploy_options import check_options
from .deployment import Deployment

OWN = frozenset({"model", "name", "version", "label", "stage", "shadow", "keep", "metrics", "code"})
"""Options of `deploy` that the callback sets itself."""


Logs: TypeAlias = Mapping[str, float]
"""Name -> number, as Keras gives them at the end of an epoch."""

Rule: TypeAlias = Callable[[Logs, Logs | None], bool]
"""Decides from the logs of this epoch and of the epoch that was promoted last (None: none was)."""

_SMALLER = re.compile(
    r"loss|error|(?:^|_)(?:mse|ma[p]?e|msle|rmse|logcosh|perplexity|wer|cer|entropy|divergence)(?:_|$)"
)
"""Metrics of which less is better."""


@dataclass(frozen=True, slots=True)
class EpochVersion:
    """An epoch that was deployed.

    Attributes:
        epoch: its number, as Keras counts: from 0.
        version: the version that it became.
        logs: its metrics.
        is_promoted: whether it was given all traffic.
        held_up_s: how long the next epoch had to wait for it, in seconds.
    """

    epoch: int
    version: int
    logs: Logs
    is_promoted: bool
    held_up_s: float


class DeployCallback:
    """Deploys the model as it is at the end of an epoch, without stopping training.

    Each such version is loaded without traffic, or given copies of others' requests, or promoted when it is better. A
    deploy that fails shows one warning for each cause, and training goes on. The weights, the optimizer and
    the random state of the training are not touched.

    Args:
        name: the name to serve it under.
        every: deploy after every so many epochs.
        stage: load it without traffic; False gives each version all traffic at once.
        promote_if: a metric's name: promote an epoch that improves it (smaller for losses and errors, else larger). Or
            a function of the epoch's logs and the logs of the epoch promoted last (None at first) that decides.
        keep: how many of its staged versions stay, loaded and on disk; older ones are removed, unless they have
            traffic, copies or a label, or are the one to roll back to.
        label: point this label to the newest version.
        shadow: percent of the requests of the current version that are copied to the newest.
        strict: let an error of a deploy end the training.
        **deploy_options: as for `tfserve_nb.deploy`, such as `base_path`, `max_batch_size`, `isolate`, `seed`.

    Attributes:
        model: the model that trains; Keras sets it.
        versions: the versions that it deployed and did not remove, oldest first.
        epochs: what became of each epoch that was deployed.

    Raises:
        InvalidOption: naming the option that is not allowed.

    Example:
        model.fit(x, y, epochs=10, validation_data=(x_test, y_test),
                  callbacks=[tfserve_nb.DeployCallback("digits", promote_if="val_accuracy")])
    """

    model: Any

    def __init__(
        self, name: str, every: int = 1, stage: bool = True, promote_if: str | Rule | None = None, keep: int = 3,
        label: str | None = None, shadow: float | None = None, *, strict: bool = False, **deploy_options: Any,
    ) -> None:  # fmt: skip
        self._become_a_keras_callback()
        super().__init__()
        self.name = check_name(name)
        self.versions: list[int] = []
        self.epochs: list[EpochVersion] = []
        self._every = _at_least_one("every", every)
        self._keep = _at_least_one("keep", keep)
        self._rule = rule_of(promote_if)
        self._strict = strict
        _check_options(deploy_options)
        self._options = {**deploy_options, "label": label, "stage": stage, "shadow": shadow}
        check_options(self._options)
        if self._rule is not None and not stage:
            raise InvalidOption("stage=False and promote_if exclude each other", hint="leave stage out")
        self._progress = self._options.pop("progress", no_progress)
        self._best: Logs | None = None
        self._promoted: list[int] = []
        self._told: set[tuple[str, str]] = set()

    def _become_a_keras_callback(self) -> None:
        """Take Keras' class among the bases only now: Tab and Shift-Tab read this class without importing Keras."""
        import keras

        if not isinstance(self, keras.callbacks.Callback):
            own = type(self)
            self.__class__ = type(own.__name__, (own, keras.callbacks.Callback), {"__module__": own.__module__})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Called by Keras after each epoch."""
        if (epoch + 1) % self._every:
            return
        try:
            self._deploy(epoch, _numbers(logs or {}))
        except Exception as error:
            if self._strict:
                raise
            self._tell(epoch, error)

    def _deploy(self, epoch: int, logs: Logs) -> None:
        started_s = time.perf_counter()
        found: list[int] = []

        def progress(event: ProgressEvent) -> None:
            if event.version is not None:
                found.append(event.version)
            self._progress(event)

        handle = deploy(self.model, self.name, metrics=logs, progress=progress, **self._options)
        version = found[-1]
        self.versions.append(version)
        self._tell_problem(epoch, handle, version)
        is_promoted = False
        try:
            is_promoted = self._promote(handle, version, logs)
        finally:
            with contextlib.suppress(ServingError):  # what cannot be removed now is tried again after the next epoch
                self._remove_old(handle)
            held_up_s = time.perf_counter() - started_s
            self.epochs.append(EpochVersion(epoch, version, logs, is_promoted, held_up_s))

    def _tell_problem(self, epoch: int, handle: Deployment, version: int) -> None:
        """Warn of a version that is loaded and cannot answer."""
        problem = next((one.problem for one in handle.status().versions if one.version == version), "")
        if problem:
            error = FailedPrecondition(
                f"version {version} stays without traffic, since no row that was tried could be run: {problem}",
                hint="check=ROWS or warmup=ROWS with rows that it takes, or force=True",
            )
            self._tell(epoch, error)

    def _promote(self, handle: Deployment, version: int, logs: Logs) -> bool:
        if self._rule is None or not self._rule(logs, self._best):
            return False
        handle.promote(version)
        self._best = logs
        self._promoted.append(version)
        return True

    def _remove_old(self, handle: Deployment) -> None:
        """Remove versions of ours beyond the newest `keep` that are not in use."""
        status = handle.status()
        copied_to = () if status.shadow is None else status.shadow[:1]
        needed = {*status.traffic, *status.labels.values(), *copied_to, *self._promoted[-2:]}
        free = [version for version in self.versions if version not in needed]
        for version in free[: -self._keep]:
            try:
                handle.undeploy(version, delete=True)
            except InvalidOption:  # it came into use in this moment: stays
                continue
            except VersionNotFound:  # it was removed by hand
                pass
            self.versions.remove(version)

    def _tell(self, epoch: int, error: Exception) -> None:
        """Warn, once for each cause."""
        message = getattr(error, "message", "") or f"{type(error).__name__}: {error}"
        cause = type(error).__name__, re.sub(r"\d+", "#", message)
        if cause in self._told:
            return
        self._told.add(cause)
        hint = f" (try: {error.hint})" if isinstance(error, ServingError) and error.hint else ""
        warnings.warn(
            f"epoch {epoch + 1} is not fully deployed as {self.name}: {message}{hint}; training goes on, and this "
            "warning is not repeated",
            RuntimeWarning,
            stacklevel=3,
        )


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are numbers."""
    found = {}
    for name, value in logs.items():
        with contextlib.suppress(TypeError, ValueError):
            found[name] = float(value)
    return found


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(f"{name}={value!r} must be an integer of at least 1", hint=f"{name}=3")
    return value


def _check_options(given: Mapping[str, Any]) -> None:
    allowed = inspect.signature(deploy).parameters.keys() - OWN
    unknown = sorted(given.keys() - allowed)
    if unknown:
        raise InvalidOption(
            f"{', '.join(unknown)}: no such option of a callback; there are {', '.join(sorted(allowed))}",
            hint="see help(tfserve_nb.deploy)",
        )


@dataclass(frozen=True, slots=True)
class Improvement:
    """Promotes an epoch whose metric is better than that of the epoch that was promoted last.

    Attributes:
        metric: the name in the logs; for losses and errors smaller is better, for other metrics larger.
    """

    metric: str

    @property
    def is_smaller_better(self) -> bool:
        """Whether the name is that of a loss or an error."""
        return _SMALLER.search(self.metric.lower()) is not None

    def __call__(self, logs: Logs, best_logs: Logs | None) -> bool:
        """Whether this epoch is better; a metric that is no number is never.

        Raises:
            InvalidOption: if the epoch has no such metric.
        """
        if self.metric not in logs:
            raise InvalidOption(
                f"promote_if={self.metric!r} is not among the metrics of this epoch: {', '.join(logs) or 'none'}",
                hint="val_... needs model.fit(..., validation_data=...)",
            )
        value = logs[self.metric]
        best = math.nan if best_logs is None else best_logs.get(self.metric, math.nan)
        if math.isnan(value):
            return False
        return math.isnan(best) or (value < best if self.is_smaller_better else value > best)


def rule_of(promote_if: str | Rule | None) -> Rule | None:
    """The rule that `promote_if` stands for.

    Raises:
        InvalidOption: if it is neither a name nor a function.
    """
    if promote_if is None:
        return None
    if isinstance(promote_if, str) and promote_if:
        return Improvement(promote_if)
    if callable(promote_if):
        return promote_if
    raise InvalidOption(
        f"promote_if={promote_if!r} must be a metric's name or a function of (logs, best_logs)",
        hint="promote_if='val_accuracy'",
    )
