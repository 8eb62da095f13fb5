"""Find the output of a classifier in its graph, and the features that it reads."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups, Place
from graft.rewriter.operators import operator_of


def keep_output(model: Model, name: str) -> gs.Variable:
    """Drop all outputs but ``name``."""
    model.graph.outputs = [tensor for tensor in model.graph.outputs if tensor.name == name]
    model.tidy()
    output: gs.Variable = model.graph.outputs[0]
    return output


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
