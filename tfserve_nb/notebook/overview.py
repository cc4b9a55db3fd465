"""What `%serving` shows: one row for each version of each model of this kernel.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from IPython.core.interactiveshell import InteractiveShell

from ..api.deployment import Deployment
from ..errors import ServingError
from ..reports.engines import engine_table
from ..reports.html import to_html
from ..reports.report import Report, Table, names, numbers, prose, size_text
from ..reports.text import to_text
from ..types import ModelStatus, VersionStatus

COLUMNS = (*names("model", "version", "state"), *numbers("traffic"), *names("labels"), *numbers("weights"),
           *prose("remarks"))  # fmt: skip

_LEFT = {
    "full": "the batch was full",
    "free": "nothing else ran",
    "timeout": "the first request had waited long enough",
    "deadline": "the first request could wait no longer",
}
"""Why a batch left the queue, in words."""


@dataclass(frozen=True)
class Overview:
    """The served models; prints as a report.

    Attributes:
        deployments: the handles, by name.
    """

    deployments: tuple[Deployment, ...]

    @property
    def report(self) -> Report:
        """A table of the versions, then the addresses and what needs attention."""
        if not self.deployments:
            return Report("nothing is served in this kernel (try: %deploy MODEL, or %serving --resume)")
        return Report(
            "Served in this kernel",
            sections=(Table("", COLUMNS, tuple(self._rows())), *self._engines()),
            notes=tuple(note for handle in self.deployments for note in _notes(handle)),
        )

    def __repr__(self) -> str:
        return to_text(self.report)

    def _engines(self) -> list[Table]:
        """What was measured of the engines of each version that has some."""
        tables: list[Table] = []
        for handle in self.deployments:
            with contextlib.suppress(ServingError):
                tables += [
                    engine_table(f"Engines of {handle.name}, version {version.version}", version.engines)
                    for version in handle.status().versions
                    if version.engines
                ]
        return tables

    def _rows(self) -> list[tuple[str, ...]]:
        """The cells of the table, as plain text."""
        rows: list[tuple[str, ...]] = []
        for handle in self.deployments:
            try:
                status = handle.status()
            except ServingError as error:  # an isolated server that is being started again, for one
                rows.append((handle.name, "", "", "", "", "", error.message))
                continue
            rows += [(status.name, *_cells(status, version)) for version in status.versions]
        return rows


def show_engines(shell: InteractiveShell, handle: Deployment, version: int | None = None) -> None:
    """Show what was measured of the engines of a version, by default the newest, if any was asked for."""
    status = handle.status()
    shown = [one for one in status.versions if version in (None, one.version)]
    if not shown or not shown[0].engines:
        return
    newest = shown[0]
    table = engine_table("", newest.engines)
    report = Report(f"Engines of {handle.name}, version {newest.version}", sections=(table,), notes=newest.notes)
    shell.display_pub.publish(data={"text/plain": to_text(report), "text/html": to_html(report)}, metadata={})


def _notes(handle: Deployment) -> list[str]:
    """The addresses of a model, and what needs attention."""
    name = handle.name
    notes = [f"{name}: {handle.rest_url}  (token: {'none' if handle.token is None else 'd.token'})"]
    if handle.proxied_url is not None:
        notes.append(f"{name}, from your browser, with jupyter-server-proxy: {handle.proxied_url}")
    if handle.grpc_address is not None:
        notes.append(f"{name}, gRPC: {handle.grpc_address}")
    if handle.is_isolated:
        notes.append(f"{name} is served by a process of its own")
    with contextlib.suppress(ServingError):
        notes += _batch_notes(handle)
        experiment = handle.experiment()
        if experiment is not None and not experiment.is_over:
            plan = experiment.plan
            versions = f"version {plan.b} (B) compared with version {plan.a} (A)"
            notes.append(f"{name}: experiment, {versions}, {experiment.phase}; {experiment.verdict}")
        captured = handle.captured(0)
        if captured.is_on:  # a reminder, since they stay in memory
            notes.append(
                f"{name}: requests are captured, {captured.num_kept:,} are kept (%serving {name} --capture off)"
            )
        status = handle.status()
        notes += [f"{name}, version {one.version}: {note}" for one in status.versions for note in one.notes]
        if status.problem:
            notes.append(f"{name}: {status.problem}")
    return notes


def _batch_notes(handle: Deployment) -> list[str]:
    """How each version batched."""
    notes = []
    for version, metrics in handle.metrics().versions.items():
        batches = metrics.batches
        if not batches.num_batches:
            continue
        shares = [
            f"{_LEFT.get(reason, reason)} ({100 * count / batches.num_batches:.0f} %)"
            for reason, count in batches.reasons.items()
            if count
        ]
        largest = max(batches.run_ms, default=None)
        run = "" if largest is None else f"; a run of {largest} takes {batches.run_ms[largest]:.2g} ms"
        notes.append(
            f"{handle.name}, version {version}: {batches.num_batches:,} "
            f"{'batch' if batches.num_batches == 1 else 'batches'} of {_rows(batches.mean_rows)}, "
            f"{batches.queue_ms:.2g} ms in the queue; sent because {', '.join(shares)}{run}"
        )
    return notes


def _rows(mean: float) -> str:
    return "1 row" if mean == 1 else f"{round(mean, 1):g} rows"


def _cells(status: ModelStatus, version: VersionStatus) -> tuple[str, ...]:
    percent = status.traffic.get(version.version)
    labels = ", ".join(sorted(label for label, target in status.labels.items() if target == version.version))
    remark = (
        version.error_message or version.detail or ("promoted" if version.version == status.default_version else "")
    )
    traffic = "" if percent is None else f"{percent:g} %"
    if status.shadow is not None and status.shadow[0] == version.version:
        traffic = f"{traffic}, shadow {status.shadow[1]:g} %".removeprefix(", ")
    size = ", ".join(filter(None, [size_text(version.weights_bytes), version.named_variant]))
    return str(version.version), version.state.name, traffic, labels, size, remark
