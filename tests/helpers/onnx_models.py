"""Small ONNX models, made with the package `onnx` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Sizes: TypeAlias = Sequence[int | str | None] | None
"""A name or None for a free dimension; None altogether for an unknown rank."""


def onnx_model(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[str, Sizes]],
    outputs: Mapping[str, tuple[str, Sizes]],
    weights: Mapping[str, Any] | None = None,
    **graph: Any,
) -> Any:
    """A model of nodes.

    Args:
        nodes: as `onnx.helper.make_node` makes them.
        inputs: name -> (type as numpy calls it, or `string`; shape).
        outputs: the same.
        weights: name -> array.
        graph: `opset`, `ir_version`, `domains`.
    """
    from onnx import helper, numpy_helper

    def value(name: str, dtype: str, shape: Sizes) -> Any:
        kind = np.dtype(object if dtype == "string" else dtype)
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), shape)

    made = helper.make_graph(
        nodes,
        "made_by_hand",
        [value(name, *spec) for name, spec in inputs.items()],
        [value(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    domains = {"": graph.get("opset", 18), "ai.onnx.ml": 3, **graph.get("domains", {})}
    imports = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(made, opset_imports=imports, ir_version=graph.get("ir_version", 9), producer_name="tests")


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node; the names of inputs and outputs stand in one text."""
    from onnx import helper

    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def linear(offset: float = 0.0, rows: int | str | None = "batch") -> Any:
    """`scores = softmax(x W + offset)` of `x: float32[?, 4]`, three of them."""
    weights = {"W": np.arange(12, dtype=np.float32).reshape(4, 3) / 10, "b": np.array([offset, 0, 0], np.float32)}
    nodes = [node("MatMul", "x W", "product"), node("Add", "product b", "sum"), node("Softmax", "sum", "scores")]
    return onnx_model(nodes, {"x": ("float32", [rows, 4])}, {"scores": ("float32", [rows, 3])}, weights)


def linear_scores(x: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """What `linear` answers."""
    sums = x @ (np.arange(12).reshape(4, 3) / 10) + [offset, 0, 0]
    exponentials = np.exp(sums - sums.max(axis=1, keepdims=True))
    scores: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scores


def echo(dtype: str, shape: Sizes = ("batch", 2)) -> Any:
    """`y = x`."""
    return onnx_model([node("Identity", "x", "y")], {"x": (dtype, shape)}, {"y": (dtype, shape)})


def counting_loop() -> Any:
    """`y = x + n`, by a loop of `n` steps."""
    from onnx import helper

    body = onnx_model(
        [node("Identity", "go_on", "goes_on"), node("Add", "sum one", "next")],
        {"step": ("int64", []), "go_on": ("bool", []), "sum": ("float32", ["batch"])},
        {"goes_on": ("bool", []), "next": ("float32", ["batch"])},
        {"one": np.float32(1)},
    ).graph
    return onnx_model(
        [helper.make_node("ReduceMax", ["n"], ["steps"], keepdims=0), node("Loop", "steps true x", "y", body=body)],
        {"x": ("float32", ["batch"]), "n": ("int64", ["batch"])},
        {"y": ("float32", ["batch"])},
        {"true": np.bool_(True)},
    )


def recurrent(kind: str) -> Any:
    """An `LSTM` or a `GRU` over `x: float32[steps, rows, 2]`, which ONNX Runtime cannot run without rows."""
    gates = {"LSTM": 4, "GRU": 3}[kind]
    weights = {"W": np.ones((1, 3 * gates, 2), np.float32), "R": np.ones((1, 3 * gates, 3), np.float32)}
    turned = [node("Transpose", "x", "turned", perm=[1, 0, 2]), node(kind, "turned W R", "all last", hidden_size=3)]
    return onnx_model(
        [*turned, node("Squeeze", "last zero", "y")],
        {"x": ("float32", ["batch", "steps", 2])},
        {"y": ("float32", ["batch", 3])},
        {**weights, "zero": np.array([0])},
    )
