"""Find the output of a classifier in its graph, its logits, and the features that they read."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups, Place
from graft.rewriter.operators import operator_of
from graft.rewriter.operators.base import positive

TINY = 1e-7
"""Probabilities are taken to be at least this before their logarithm: in float32 many are exactly 0."""


def keep_output(model: Model, name: str) -> gs.Variable:
    """Drop all outputs but ``name``."""
    model.graph.outputs = [tensor for tensor in model.graph.outputs if tensor.name == name]
    model.tidy()
    output: gs.Variable = model.graph.outputs[0]
    return output


def logits_behind(probabilities: gs.Variable, axis: int, build: Builder) -> gs.Variable:
    """Return what the softmax reads that makes probabilities; their logarithm where none does.

    Before the softmax nothing is rounded to 0; the logarithm takes :data:`TINY` for what is.

    Args:
        probabilities: a tensor of the graph.
        axis: of the classes.
        build: adds nodes for the logarithm.
    """
    maker, rank = probabilities.inputs[0], len(probabilities.shape or ())
    along = maker.attrs.get("axis", -1 if build.opset >= 13 else 1)
    if maker.op == "Softmax" and positive(along, rank) == axis:
        return maker.inputs[0]
    floor = build.constant("floor", np.array(TINY, probabilities.dtype))
    return build.node("Log", "log", [build.node("Max", "above_zero", [probabilities, floor])])


def last_features(model: Model, groups: ChannelGroups, name: str) -> Place | None:
    """Find the last features: what the node reads whose weights make an output.

    Args:
        model: a model.
        groups: its analysis.
        name: of the output.

    Returns:
        The tensor (samples, features), or ``None`` where it has other axes, or no such node is there.
    """
    tensor = next(each for each in model.graph.outputs if each.name == name)
    while tensor.inputs:
        node = tensor.inputs[0]
        reads = [read for read in operator_of(node).reads(node, groups) if read.recurrent_weight is None]
        if reads:
            features, axis = node.inputs[reads[0].index], reads[0].axis
            flat = axis == 1 and len(groups.shape(features) or ()) == 2
            return Place(features.name, axis, reads[0].channels) if flat else None
        tensor = next((each for each in node.inputs if isinstance(each, gs.Variable) and each.name), None)
        if tensor is None:
            return None
    return None
