"""Runs of a session that end at their time: `RunOptions.timeout_in_ms`, as TensorFlow Serving sets it.

TensorFlow gives up a run between two operations that look for it: those of loops, and those that wait for something. So
this is for graphs that have such operations. All others run on the thread that calls, which is faster and cannot be
stopped; a limit would change nothing for them.

Thread: any.
"""

from __future__ import annotations

import math
import time
from typing import Any  # TensorFlow's protos and sessions

import numpy as np

from ....errors import DeadlineExceeded
from ....types import SignatureSpec

STOPPABLE = frozenset(
    {
        "BarrierTakeMany",
        "For",
        "IteratorGetNext",
        "LoopCond",
        "MapDefun",
        "QueueDequeueManyV2",
        "QueueDequeueUpToV2",
        "QueueDequeueV2",
        "QueueEnqueueManyV2",
        "QueueEnqueueV2",
        "ReduceDataset",
        "StatelessWhile",
        "While",
    }
)
"""Operations whose time depends on the values in a request, and that end when their run is given up."""

LONGEST_MS = 2**31 - 1


def can_be_stopped(meta_graph: Any) -> bool:
    """Whether a graph, or a function of it, has an operation that ends when its run is given up."""
    graph = meta_graph.graph_def
    functions = graph.library.function
    return any(node.op in STOPPABLE for nodes in (graph.node, *(f.node_def for f in functions)) for node in nodes)


def with_own_threads(config: Any, num_threads: int) -> None:
    """Give a session threads of its own: a run that hangs on them must not take those of other sessions.

    Args:
        config: the session's `ConfigProto`.
        num_threads: how many.
    """
    if not config.session_inter_op_thread_pool:
        config.session_inter_op_thread_pool.add(num_threads=num_threads)


class LimitedRun:
    """Runs one signature for a limited time.

    Args:
        session: TensorFlow's session, with the graph loaded.
        signature: what is fed and fetched.
    """

    def __init__(self, session: Any, signature: SignatureSpec) -> None:
        graph = session.graph

        def tensor(name: str) -> Any:
            return graph.get_tensor_by_name(name)._as_tf_output()  # noqa: SLF001 - see `__call__`

        self._session = session
        self._feeds = {name: tensor(spec.tensor_name) for name, spec in signature.inputs.items()}
        self._fetches = [tensor(spec.tensor_name) for spec in signature.outputs.values()]
        session._extend_graph()  # noqa: SLF001

    def __call__(self, inputs: dict[str, np.ndarray], limit_s: float) -> list[Any]:
        """The values of all outputs.

        Raises:
            DeadlineExceeded: if the run was given up.
        """
        from tensorflow.core.protobuf.config_pb2 import RunOptions
        from tensorflow.python.client import pywrap_tf_session
        from tensorflow.python.framework.errors import DeadlineExceededError

        limit_ms = LONGEST_MS if limit_s * 1e3 > LONGEST_MS else max(1, math.ceil(limit_s * 1e3))
        options = pywrap_tf_session.TF_NewBufferFromString(RunOptions(timeout_in_ms=limit_ms).SerializeToString())
        until_s = time.perf_counter() + limit_s
        feeds = {self._feeds[name]: np.asarray(array) for name, array in inputs.items()}
        try:
            # What `Session.run` calls after it has looked up every name anew, which takes longer than a small model.
            return self._session._call_tf_sessionrun(options, feeds, self._fetches, [], None)  # type: ignore[no-any-return]  # noqa: SLF001
        except DeadlineExceededError as error:
            if time.perf_counter() < until_s:
                raise  # the model's own
            raise DeadlineExceeded("Timed out waiting for notification") from error
        finally:
            pywrap_tf_session.TF_DeleteBuffer(options)
