"""Bytes of a model: of its file, and of the files beside it that hold its weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx


def stored_bytes(path: Path) -> tuple[int, int]:
    """Return the bytes of an ONNX file, and of the files with external data that it names.

    Args:
        path: an ONNX file that can be read.
    """
    proto = onnx.load(path, load_external_data=False)
    found = {
        path.parent / entry.value
        for tensor in _tensors(proto)
        for entry in tensor.external_data
        if entry.key == "location" and tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    beside = {file.resolve(): file.stat().st_size for file in found if file.is_file()}
    return path.stat().st_size, sum(beside.values())


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _of_node(node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _of_graph(graph)
