"""Multiply-accumulates and parameters as another package, onnx-tool, counts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_tool
import onnxruntime as ort
from numpy.typing import NDArray

from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import operator_of

MATRIX = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def matrix_macs(proto: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Multiply-accumulates of each node with a matrix, for these inputs.

    onnx-tool counts the addition of a bias as one more for each output, and pooling, activations and
    normalization too; neither is a multiply-accumulate of a matrix product, so they are left out. Its
    formulas get the shapes that onnxruntime sees: its own inference fails on some exported graphs.
    """
    graph = onnx_tool.Model(proto, {"verbose": False}).graph
    nodes = [node for node in proto.graph.node if node.op_type in MATRIX]
    for name, shape in _shapes(proto, nodes, inputs).items():
        graph.tensormap[name].update_shape(list(shape))
    found = {}
    for node in nodes:
        ends = [[graph.tensormap[name] for name in names if name] for names in (node.input, node.output)]
        counted = int(graph.nodemap[node.name].profile(*ends)[0])
        if len(node.input) > 2 and node.input[2]:
            counted -= int(np.prod(ends[1][0].get_shape()))
        found[node.name] = counted
    return found


def _shapes(
    proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """Shapes of everything that ``nodes`` read and write, constants aside."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    made = {name for node in proto.graph.node for name in node.output}
    names = {name for node in nodes for name in (*node.input, *node.output) if name in made - stored}
    tapped = onnx.ModelProto()
    tapped.CopyFrom(proto)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(tapped.SerializeToString(), options, ["CPUExecutionProvider"])
    found = dict(zip(sorted(names), session.run(sorted(names), dict(inputs)), strict=True))
    return {name: values.shape for name, values in {**inputs, **found}.items()}


def our_macs(groups: ChannelGroups) -> dict[str, int]:
    """Multiply-accumulates of each node with a matrix, as Graft counts them."""
    found = {}
    for node in groups.nodes:
        if node.op in MATRIX:
            work = operator_of(node).work(node, groups)
            total = sum(each.times * float(np.prod([len(c) for c in each.channels])) for each in work)
            found[node.name] = round(total / groups.samples)
    return found


def parameters(proto: onnx.ModelProto) -> int:
    """Numbers in floating-point constants, as onnx-tool counts them."""
    graph = onnx_tool.Model(proto, {"verbose": False}).graph
    stored = (tensor.name for tensor in proto.graph.initializer if tensor.data_type in FLOATS)
    return sum(int(np.prod(graph.tensormap[name].get_shape())) for name in stored if name in graph.tensormap)


FLOATS = (
    *(onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16),
    *(onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16),
)
