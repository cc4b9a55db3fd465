"""What `%serving` shows: one row for each version of each model of this kernel.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import contextlib
import html
from dataclasses import dataclass

from ..api.deployment import Deployment
from ..errors import ServingError
from ..types import ModelStatus, VersionStatus

COLUMNS = ("model", "version", "state", "traffic", "labels", "weights", "remarks")


@dataclass(frozen=True)
class Overview:
    """The served models; shows itself as text and as HTML.

    Attributes:
        deployments: the handles, by name.
    """

    deployments: tuple[Deployment, ...]

    def rows(self) -> list[tuple[str, ...]]:
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

    def notes(self) -> list[str]:
        """Where each model answers, and what needs a person."""
        notes = []
        for handle in self.deployments:
            notes.append(f"{handle.name}: {handle.rest_url}  (token: {'none' if handle.token is None else 'd.token'})")
            if handle.proxied_url is not None:
                notes.append(f"{handle.name}, from your browser, with jupyter-server-proxy: {handle.proxied_url}")
            if handle.grpc_address is not None:
                notes.append(f"{handle.name}, gRPC: {handle.grpc_address}")
            if handle.is_isolated:
                notes.append(f"{handle.name} is served by a process of its own")
            with contextlib.suppress(ServingError):
                notes += _batch_notes(handle)
                experiment = handle.experiment()
                if experiment is not None and not experiment.is_over:
                    plan = experiment.plan
                    notes.append(
                        f"{handle.name}: experiment, version {plan.b} (B) against {plan.a} (A), {experiment.phase}; "
                        f"{experiment.verdict}"
                    )
                notes += _capture_notes(handle)
                problem = handle.status().problem
                if problem:
                    notes.append(f"{handle.name}: {problem}")
        return notes

    def __repr__(self) -> str:
        if not self.deployments:
            return "nothing is served in this kernel (try: %deploy MODEL, or %serving --resume)"
        rows = [COLUMNS, *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self.notes()])

    def _repr_html_(self) -> str:
        if not self.deployments:
            return f"<p>{html.escape(repr(self))}</p>"
        head = "".join(f'<th scope="col">{column}</th>' for column in COLUMNS)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows())
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self.notes())
        return f"<table><caption>Served in this kernel</caption><tr>{head}</tr>{body}</table>{notes}"


def _capture_notes(handle: Deployment) -> list[str]:
    """That requests are kept is not to be forgotten."""
    found = handle.captured(0)
    if not found.is_on:
        return []
    return [f"{handle.name}: requests are captured, {found.num_kept:,} are kept (%serving {handle.name} --capture off)"]


def _batch_notes(handle: Deployment) -> list[str]:
    """How each version batched."""
    notes = []
    for version, one in handle.metrics().versions.items():
        batches = one.batches
        if not batches.num_batches:
            continue
        shares = [
            f"{reason} {100 * count / batches.num_batches:.0f} %" for reason, count in batches.reasons.items() if count
        ]
        largest = max(batches.run_ms, default=None)
        run = "" if largest is None else f"; a run of {largest} takes {batches.run_ms[largest]:.2g} ms"
        notes.append(
            f"{handle.name}, version {version}: {batches.num_batches:,} batches of {batches.mean_rows:.1f} rows, "
            f"{batches.queue_ms:.2g} ms in the queue; left because: {', '.join(shares)}{run}"
        )
    return notes


def _cells(status: ModelStatus, version: VersionStatus) -> tuple[str, ...]:
    percent = status.traffic.get(version.version)
    labels = ", ".join(sorted(label for label, target in status.labels.items() if target == version.version))
    remark = (
        version.error_message or version.detail or ("promoted" if version.version == status.default_version else "")
    )
    weights = _size(version.weights_bytes) if version.weights_bytes else ""
    traffic = "" if percent is None else f"{percent:g} %"
    if status.shadow is not None and status.shadow[0] == version.version:
        traffic = f"{traffic}, shadow {status.shadow[1]:g} %".removeprefix(", ")
    return str(version.version), version.state.name, traffic, labels, weights, remark


def _size(num_bytes: int) -> str:
    """A size for people, such as `4.2 MiB`."""
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.0f} KiB"
