"""What lies inside an ONNX message: the graphs, nodes and tensors, those of bodies and functions included."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

DRAWS = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)
"""Operators whose output is another every time."""


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node of control flow holds."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def nested(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield ``graph`` and all bodies inside it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from nested(body)


def nodes_of(function: onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a function, and of all bodies inside it."""
    for node in function.node:
        yield node
        for body in bodies(node):
            for graph in nested(body):
                yield from graph.node


def all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of the graph, of all bodies inside it, and of all functions."""
    for graph in nested(proto.graph):
        yield from graph.node
    for function in proto.functions:
        yield from nodes_of(function)


def all_graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph, and all bodies inside it and inside functions."""
    yield from nested(proto.graph)
    for function in proto.functions:
        for node in function.node:
            for body in bodies(node):
                yield from nested(body)


def sparse_tensors(proto: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    """Yield the sparse weights of all graphs, and those in attributes of all nodes."""
    for graph in all_graphs(proto):
        yield from graph.sparse_initializer
    for node in all_nodes(proto):
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor
            yield from attribute.sparse_tensors


def tensors(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield every tensor that holds values, with what a message calls it."""
    for graph in all_graphs(proto):
        for tensor in graph.initializer:
            yield f"weight '{tensor.name}'", tensor
    for node in all_nodes(proto):
        for attribute in node.attribute:
            place = f"'{attribute.name}' of node '{node.name}' ({node.op_type})"
            if attribute.HasField("t"):
                yield place, attribute.t
            for tensor in attribute.tensors:
                yield place, tensor
    for sparse in sparse_tensors(proto):
        place = f"sparse weight '{sparse.values.name}'"
        yield place, sparse.values
        yield place, sparse.indices
