"""Fold constants that a simplifier does not see, since they lie outside of the message that it gets."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from graft.rewriter.graph.model import Model
from graft.rewriter.graph.walk import all_graphs
from graft.rewriter.graph.weights import PROTO_BYTES, arrays, is_reference, outside
from graft.rewriter.run.constants import evaluate

FORMS = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators that exporters put behind weights."""
READERS = frozenset(
    ("MatMul", "Gemm", "Conv", "ConvTranspose", "Gather", "LSTM", "GRU", "RNN", "Einsum", "PRelu")
    + ("DequantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul", "MatMulNBits")
)
"""Operators whose weights a simplifier need not see."""


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


def hidden_weights(proto: onnx.ModelProto) -> frozenset[str]:
    """Return the weights that ``proto`` refers to and a simplifier need not see.

    It looks at what is added, say, and folds what constants alone are read for, or a normalization behind.
    """
    found = arrays(proto)
    constant = {tensor.name for tensor in proto.graph.initializer}
    normed = {node.input[0] for node in proto.graph.node if node.op_type == "BatchNormalization"}
    seen = {
        name
        for body in all_graphs(proto)
        if body is not proto.graph
        for node in body.node
        for name in node.input
    }
    for node in proto.graph.node:
        folded = constant.issuperset(node.input) and node.op_type != "DequantizeLinear"
        if folded or node.op_type not in READERS or normed.intersection(node.output):
            seen.update(node.input)
    left = sum(array.nbytes for name, (array, _) in found.items() if name in seen)
    return frozenset(found if left > PROTO_BYTES // 2 else found.keys() - seen)


def refer_again(simple: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """Let weights that a simplifier has seen, and left, be those that ``original`` refers to, in place."""
    known = {tensor.name: tensor for tensor in original.graph.initializer if is_reference(tensor)}
    for tensor in simple.graph.initializer:
        if tensor.name in known and not is_reference(tensor):
            tensor.CopyFrom(known[tensor.name])
    return simple
