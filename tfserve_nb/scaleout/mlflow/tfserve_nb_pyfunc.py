"""A version as MLflow loads it. This file is copied into every MLflow model that is made of a version, as it stands.

It imports nothing of tfserve_nb: whoever loads the model needs TensorFlow alone.

Thread: any; TensorFlow runs several calls at the same time.
"""

from __future__ import annotations

from typing import Any  # what MLflow gives: arrays, data frames, dicts of arrays


class Version:
    """A loaded version.

    Args:
        path: the folder with `saved_model.pb`.
    """

    def __init__(self, path: str) -> None:
        import tensorflow as tf

        self._tf = tf
        self._loaded = tf.saved_model.load(path)  # keeps the variables alive
        signatures = self._loaded.signatures
        name = "serving_default" if "serving_default" in signatures else min(signatures)
        self._run = signatures[name]
        self._inputs = self._run.structured_input_signature[1]

    def predict(self, model_input: Any) -> Any:
        """The outputs for some rows.

        Args:
            model_input: input name -> array, or a data frame with these columns; for a model with one input also an
                array.

        Returns:
            The array of the output, as the server's answers; a dict of output name -> array when there are several.
        """
        named = model_input if hasattr(model_input, "keys") else {next(iter(self._inputs)): model_input}
        tensors = {
            name: self._tf.convert_to_tensor(_plain(named[name]), dtype=spec.dtype)
            for name, spec in self._inputs.items()
            if name in named
        }
        outputs = {name: tensor.numpy() for name, tensor in self._run(**tensors).items()}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _load_pyfunc(path: str) -> Version:
    """What MLflow calls."""
    return Version(path)


def _plain(values: Any) -> Any:
    """A column of a data frame as a list of its cells, which may be arrays; everything else as it is."""
    return values.tolist() if hasattr(values, "to_numpy") else values
