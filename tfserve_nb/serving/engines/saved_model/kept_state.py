"""The variables and tables of a session that runs write: read when the version was loaded, put back after warm-up.

Warm-up runs a version on rows that no client sent. A counter, a running mean or the state of a random generator would
begin where they left it, and not where the export had it.

Thread: the manager's, while nothing else runs in the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any  # TensorFlow's sessions and tensors

from ....export.graph.state import GraphState, Written, added_keys

PutBack = Callable[[], object]


def keep(session: Any, states: Iterable[GraphState]) -> tuple[PutBack, ...]:
    """Read what runs change.

    Args:
        session: where the version is loaded; its graph is the default one.
        states: what runs of its signatures change.

    Returns:
        Functions that put each of it back.
    """
    written = dict.fromkeys(entry for state in states for entry in state.written if entry.can_be_kept)
    nodes = {entry.node: entry for entry in written}
    return tuple(_kept(session, entry) for entry in nodes.values())


def _kept(session: Any, entry: Written) -> PutBack:
    import tensorflow as tf

    holder = session.graph.get_tensor_by_name(f"{entry.node}:0")
    if entry.kind == "table":
        return _kept_table(session, holder, entry)
    read, write, fed = _variable(tf, holder, entry)
    try:
        values = session.run(read)
    except tf.errors.OpError:  # a variable without a value, which fails the requests that need it
        return lambda: None
    return lambda: session.run(write, dict(zip(fed, values, strict=True)))


def _kept_table(session: Any, holder: Any, entry: Written) -> PutBack:
    import tensorflow as tf

    keys, values = (tf.compat.v1.placeholder(dtype) for dtype in entry.dtypes)
    read = tf.raw_ops.LookupTableExportV2(table_handle=holder, Tkeys=entry.dtypes[0], Tvalues=entry.dtypes[1])
    remove = tf.raw_ops.LookupTableRemoveV2(table_handle=holder, keys=keys)
    write = tf.raw_ops.LookupTableImportV2(table_handle=holder, keys=keys, values=values)
    # Copies: a table may write into the memory that was read.
    before = [part.copy() for part in session.run(read)]

    def put_back() -> None:
        added = added_keys(before[0], session.run(read.keys))
        if len(added):
            session.run(remove, {keys: added})
        session.run(write, {keys: before[0], values: before[1]})

    return put_back


def _variable(tf: Any, holder: Any, entry: Written) -> tuple[list[Any], Any, list[Any]]:
    fed = tf.compat.v1.placeholder(entry.dtypes[0])
    if holder.dtype != tf.resource:  # the first versions of TensorFlow hold variables in tensors
        return [tf.identity(holder)], tf.raw_ops.Assign(ref=holder, value=fed, validate_shape=False), [fed]
    read = tf.raw_ops.ReadVariableOp(resource=holder, dtype=entry.dtypes[0])
    return [read], tf.raw_ops.AssignVariableOp(resource=holder, value=fed), [fed]
