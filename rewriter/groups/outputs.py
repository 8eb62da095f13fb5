"""Find the output of a classifier in its graph, and the features that it reads."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups, Place
from graft.rewriter.operators import operator_of


def keep_output(model: Model, name: str) -> gs.Variable:
    """Drop all outputs but ``name``."""
    model.graph.outputs = [tensor for tensor in model.graph.outputs if tensor.name == name]
    model.tidy()
    output: gs.Variable = model.graph.outputs[0]
    return output


def class_axis(shape: Sequence[int | str | None], classes: int) -> int:
    """Return the axis of the classes in an output with one label a sample; other axes have size 1.

    Args:
        shape: of the output.
        classes: number of labels.

    Raises:
        GraftError: ``output-rows`` where a sample has several scores for a class.
    """
    if len(shape) <= 2:
        return len(shape) - 1
    fitting = [axis for axis, size in enumerate(shape) if axis and size == classes]
    free = [axis for axis, size in enumerate(shape) if axis and not isinstance(size, int)]
    found = (fitting or free or [1])[0]
    several = [size for axis, size in enumerate(shape) if axis not in (0, found) and isinstance(size, int)]
    if any(size != 1 for size in several):
        raise GraftError(
            "output-rows",
            f"the output has shape {list(shape)}: several scores for each sample and class",
            "say steps: true in the card where there is one label a time step, or name another output",
        )
    return found


def flatten_output(model: Model) -> None:
    """Let an output with one label a sample be (samples, classes), whatever axes of size 1 it has."""
    card = model.require_card()
    output = next(tensor for tensor in model.graph.outputs if tensor.name == card.output.name)
    shape = list(output.shape or ())
    if card.output.steps or len(shape) <= 2:
        return
    output.name = f"graft/{card.output.name}/parent"
    build = Builder(model.graph, model.opset, f"graft/{card.output.name}")
    flat = build.node("Flatten", "flat", [output], axis=1)
    flat.name, flat.dtype = card.output.name, output.dtype
    flat.shape = [shape[0], shape[class_axis(shape, len(card.labels))]]
    model.graph.outputs = [flat if tensor is output else tensor for tensor in model.graph.outputs]


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
