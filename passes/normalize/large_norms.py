"""Fold BatchNormalization into large convolutions, whose weights a simplifier does not see."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.graph.model import Model
from graft.rewriter.graph.weights import outside


def fuse_large_norms(model: Model) -> None:
    """Let a Conv with a large weight do what the BatchNormalization behind it does, in place.

    In the arithmetic of onnxslim, which does it for all others: files stay the same.
    """
    large = {tensor.name for tensor in outside(model.graph)}
    ends = {id(tensor) for tensor in model.graph.outputs}
    for norm in list(model.graph.nodes):
        conv = _conv_before(norm)
        if conv is None or id(conv.outputs[0]) in ends or conv.inputs[1].name not in large:
            continue
        made = norm.outputs[0]
        weight, bias = _fused(conv, norm)
        stored = [gs.Constant(f"{made.name}_weight", weight), gs.Constant(f"{made.name}_bias", bias)]
        conv.inputs = [conv.inputs[0], *stored]
        norm.inputs.clear()
        norm.outputs.clear()
        conv.outputs = [made]
    model.tidy()


def _conv_before(norm: gs.Node) -> gs.Node | None:
    """Return the Conv that nothing reads but the BatchNormalization ``norm``, both of constants."""
    if norm.op != "BatchNormalization" or len(norm.outputs) != 1 or norm.attrs.get("training_mode", 0):
        return None
    made = norm.inputs[0]
    if len(made.inputs) != 1 or made.inputs[0].op != "Conv" or len(made.outputs) != 1:
        return None
    conv: gs.Node = made.inputs[0]
    constants = (*conv.inputs[1:], *norm.inputs[1:])
    return conv if all(isinstance(tensor, gs.Constant) for tensor in constants) else None


def _fused(conv: gs.Node, norm: gs.Node) -> tuple[np.ndarray, np.ndarray]:
    scale, offset, mean, variance = (tensor.values for tensor in norm.inputs[1:])
    bias = np.zeros_like(mean) if len(conv.inputs) == 2 else conv.inputs[2].values
    scale = scale / np.sqrt(variance + norm.attrs.get("epsilon", 1.0e-5))
    weight = conv.inputs[1].values
    return (
        weight * scale.reshape(-1, *(1,) * (weight.ndim - 1)),
        (bias - mean) * scale + offset,
    )
