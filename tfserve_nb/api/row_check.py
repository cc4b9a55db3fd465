"""What the rows of `--check` show about rows that run together, noted in the version for whatever serves it.

Thread: the caller's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any  # rows of the user

from ..export.arrays import named_batch
from ..export.signatures import main_signature
from ..serving.engines.accelerated import SavedModelLoader
from ..serving.versions.row_evidence import note_rows
from ..serving.versions.sharing import noted_from


def note_check_rows(path: Path, rows: Any, sizes: Sequence[int], device: str | None = None) -> None:
    """Run the user's rows alone and together, and note in a version's folder what that showed.

    Args:
        path: the folder.
        rows: what `--check` gave, or None.
        sizes: the batch sizes that will be used.
        device: the TensorFlow device that it will be served on.
    """
    if rows is None:
        return
    with contextlib.closing(SavedModelLoader()(path, device)) as servable:
        signature = main_signature(servable.signatures)
        name = signature.name
        batch = named_batch(rows, signature)
        if name in servable.effects.states or servable.effects.outside_ops:
            return  # its requests run alone in any case
        noted = noted_from(partial(servable.run, name), servable.signatures[name], batch, sizes)
    if noted is not None:
        note_rows(path, {name: noted})
