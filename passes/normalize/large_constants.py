"""Fold constants that a simplifier does not see, since they lie outside of the message that it gets."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from graft.rewriter.graph.model import Model
from graft.rewriter.graph.weights import outside
from graft.rewriter.run.constants import evaluate

FORMS = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators that exporters put behind weights."""


def fold_large_constants(model: Model) -> None:
    """Let weights of a large model that nodes bring to another form be weights of that form, in place."""
    large = {tensor.name for tensor in outside(model.graph)}
    if large:
        fold_forms(model, large)


def fold_forms(model: Model, large: set[str]) -> None:
    """Let weights that nodes bring to another form be weights of that form, in place.

    Args:
        model: is changed.
        large: names of the weights; those that are made of them are added.
    """
    ends = {tensor.name for tensor in model.graph.outputs}
    for node in list(model.graph.nodes):
        if node.op not in FORMS or not any(tensor.name in large for tensor in node.inputs):
            continue
        if node.outputs[0].name in ends or not all(isinstance(each, gs.Constant) for each in node.inputs):
            continue
        (values,) = evaluate(node, [each.values for each in node.inputs], model.opset)
        made = node.outputs[0]
        folded = gs.Constant(made.name, values)
        large.add(folded.name)
        for reader in list(made.outputs):
            reader.inputs = [folded if each is made else each for each in reader.inputs]
        node.outputs = []
    model.tidy()
