"""What warm-up decided about rows that run together, noted beside a version's engines for whatever loads it later.

To decide it, rows run beside strange ones, which engines leave to TensorFlow: who knows the decision needs none for it.
It counts for the engine that ran the rows, for batch sizes that were tried, where no rows are known that were not, and
in the same version of this package.

Thread: one at a time for each version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from ..._version import __version__
from ...types import Tensors
from ..batching.options import BatchingOptions
from ..engines.accelerated import EngineServable
from ..engines.artefacts import Decision, EngineRecord
from ..engines.servable import Servable
from .row_evidence import NotedRows
from .sharing import RowSharing

MOST_KEPT = 8
"""Decisions of a signature: a kernel and `tfserve-nb serve` have other batch sizes."""


class NotedSharing:
    """The decisions that are known of a version.

    Args:
        servable: the version; of one without engines, nothing is noted.
        options: its batching limits.
    """

    def __init__(self, servable: Servable, options: BatchingOptions) -> None:
        self._servable = servable if isinstance(servable, EngineServable) else None
        self._sizes = options.allowed_batch_sizes
        self._pads_lengths = options.pad_variable_length_inputs
        record = self._servable.engine_folder.read() if self._servable is not None else None
        self._known = {} if record is None else record.decisions
        self._new: dict[str, Decision] = {}

    def known(self, signature: str, rows: Iterable[str]) -> RowSharing | None:
        """The decision about a signature, if there is one for what runs it now.

        Args:
            signature: its name.
            rows: the digests of what is known of the user's rows.
        """
        found = set(rows)
        for one in self._known.get(signature, ()):
            is_same = one.engine == self._engine(signature) and one.package == __version__
            is_tried = found <= {*one.rows} and {*self._sizes} <= {*one.sizes}
            if is_same and is_tried and not (self._pads_lengths and one.pads_lengths is None):
                return RowSharing(one.is_allowed, one.reason, bool(one.pads_lengths) and self._pads_lengths)
        return None

    def add(self, signature: str, rows: Iterable[str], decided: RowSharing) -> None:
        """Note a decision, if an engine runs the signature."""
        engine = self._engine(signature)
        if engine:
            pads_lengths = decided.pads_lengths if self._pads_lengths else None
            self._new[signature] = Decision(
                engine, self._sizes, tuple(rows), decided.is_allowed, decided.reason, pads_lengths, __version__
            )

    def write(self) -> None:
        """Keep what was noted in the version's folder, where that can be written."""
        if self._new and self._servable is not None:
            self._servable.engine_folder.update(self._with_new)

    def _with_new(self, record: EngineRecord) -> EngineRecord:
        decisions = {name: (new, *record.decisions.get(name, ())) for name, new in self._new.items()}
        return replace(
            record, decisions={**record.decisions, **{name: all_[:MOST_KEPT] for name, all_ in decisions.items()}}
        )

    def _engine(self, signature: str) -> str:
        engine = None if self._servable is None else self._servable.answering(signature)
        return "" if engine is None else engine.name


def digests(rows: Iterable[Tensors], noted: NotedRows | None) -> list[str]:
    """What is known of the user's rows, each piece as text that differs where it differs."""
    found = [] if noted is None else [f"noted: {noted.are_independent}"]
    for piece in rows:
        digest = hashlib.sha256()
        for name, array in sorted(piece.items()):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
        found.append(digest.hexdigest())
    return found
