"""The examples of a classify or regress request, as the tensor that its signature takes.

Thread: any; pure.

Reference: tensorflow_serving/apis/input.proto.
"""

from __future__ import annotations

from typing import Any  # protobuf messages

import numpy as np


def serialized_examples(value: Any) -> np.ndarray:
    """The examples of a `tensorflow.serving.Input`, each with its context, as serialized `tf.Example`s.

    Args:
        value: an `Input` message.

    Returns:
        object array `(n,)` of bytes; n is 0 for an input without examples.
    """
    kind = value.WhichOneof("kind")
    if kind == "example_list_with_context":
        group = value.example_list_with_context
        # Two serialized messages, one after the other, are their merger.
        context = group.context.SerializeToString()
        texts = [context + example.SerializeToString() for example in group.examples]
    else:
        texts = [example.SerializeToString() for example in value.example_list.examples]
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array
