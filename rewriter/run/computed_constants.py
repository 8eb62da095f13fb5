"""Constants that a model computes: onnxruntime computes them when it opens a model, whatever they take."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnxruntime as ort

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.walk import DRAWS
from graft.rewriter.graph.weights import arrays
from graft.rewriter.interrupts import stopped_with
from graft.rewriter.memory import gigabytes
from graft.rewriter.run.bounds import CONSTANT_BYTES, QUIET, limited, out_of_memory, released
from graft.rewriter.run.external import add_external
from graft.rewriter.run.sample_rows import NODE

MOST = 512 << 20
"""Computed constants may take so many bytes more than four times the weights."""
_NO_CONSTANTS = DRAWS | {"Dropout"}
_LEFT_ALONE = frozenset(("Constant", "DequantizeLinear", "QuantizeLinear"))
"""These make nothing that is much larger than what they read."""


def refuse_large_constants(proto: onnx.ModelProto) -> None:
    """Raise where a model computes constants that are much larger than its file: nobody exports such a one.

    Raises:
        GraftError: ``constants-large``.
    """
    nodes = _constant_nodes(proto.graph)
    if not nodes:
        return
    most = MOST + 4 * weight_bytes(proto)
    try:
        _compute(_piece(proto, nodes), most)
    except Exception as error:  # what onnxruntime cannot run it says when it opens the model
        if out_of_memory(error):
            raise GraftError(
                "constants-large",
                f"{_name(str(error), nodes)} computes a constant: all take more than {gigabytes(most)}",
                "export the model without it",
            ) from None


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Return the bytes of a model with its weights."""
    return int(proto.ByteSize()) + sum(array.nbytes for array, _ in arrays(proto).values())


def foldable_bytes(proto: onnx.ModelProto) -> int:
    """Return how many bytes may be taken to compute constants that are stored in a graph."""
    return CONSTANT_BYTES + 4 * weight_bytes(proto)


def _constant_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes of the main graph that read nothing but constants, as onnxruntime folds them."""
    known = {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input} | {""}
    found = []
    for node in graph.node:
        bodies = any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)
        if bodies or node.op_type in _NO_CONSTANTS or not known.issuperset(node.input):
            continue
        known.update(node.output)
        found.append(node)
    return found if any(node.op_type not in _LEFT_ALONE for node in found) else []


def _piece(proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """Return the nodes as a model of their own, whose outputs are what no other of them reads."""
    read = {name for node in nodes for name in node.input}
    ends = [name for node in nodes for name in node.output if name and name not in read]
    piece = onnx.ModelProto(ir_version=proto.ir_version)
    piece.opset_import.extend(proto.opset_import)
    piece.functions.extend(proto.functions)
    piece.graph.name = "constants"
    piece.graph.node.extend(nodes)
    piece.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in read)
    piece.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ends)
    return piece


def _compute(piece: onnx.ModelProto, most: int) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    limited(options, most)
    held = add_external(piece, options)
    try:
        session = ort.InferenceSession(piece.SerializeToString(), options, providers=["CPUExecutionProvider"])
    finally:
        released()
    run = ort.RunOptions()
    run.log_severity_level = QUIET
    with stopped_with(run):
        session.run_with_ort_values([value.name for value in piece.graph.output], {}, run)
    del held


def _name(reason: str, nodes: Sequence[onnx.NodeProto]) -> str:
    found = NODE.search(reason)
    return f"{found[1]} {found[2]}".strip() if found else f"{nodes[0].op_type} {nodes[0].name}".strip()
