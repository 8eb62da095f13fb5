"""The masked parent, built from a module's weights alone: an oracle that knows neither groups nor operators.

What a module keeps of a weight is found in the parent's by its values. The weight with zeros everywhere else
takes the place of the whole one then: a removed channel is neither made nor read, which is what the law says
of a cut. No plan, no channel group and no operator's rule is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


class UnknownError(Exception):
    """The module's weights cannot be told from one another, or are not the parent's."""


def embedded(parent: onnx.ModelProto, module: onnx.ModelProto) -> onnx.ModelProto:
    """The parent with every weight that ``module`` has a part of reduced to that part, zeros elsewhere.

    Raises:
        UnknownError: a weight of the module is no part of the parent's weight at that place.
    """
    result = onnx.ModelProto.FromString(parent.SerializeToString())
    ours, theirs = constants(result.graph), constants(module.graph)
    nodes = {name: node for node in result.graph.node for name in node.output if name}
    named = {node.name: node for node in result.graph.node if node.name}
    found = 0
    for node in module.graph.node:
        whole = nodes.get(node.output[0] if node.output else "") or named.get(node.name)
        for place, part in _weights(node, theirs):
            if whole is None or whole.op_type != node.op_type or place >= len(whole.input):
                if not _made_by_graft(node):
                    raise UnknownError(f"node {node.name} is none of the parent's")
                continue
            name = whole.input[place]
            if name not in ours:
                raise UnknownError(f"input {place} of node {node.name} is no weight of the parent")
            values = zeros_around(part, ours[name])
            whole.input[place] = f"embedded/{node.name}/{place}"
            result.graph.initializer.append(numpy_helper.from_array(values, whole.input[place]))
            found += 1
    if not found:
        raise UnknownError("no weight of the module is the parent's")
    return result


def constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Values of initializers and Constant nodes.

    Raises:
        UnknownError: one does not have the size that its shape says.
    """
    try:
        found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except ValueError as error:
        raise UnknownError(f"a weight cannot be read: {error}") from error
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _made_by_graft(node: onnx.NodeProto) -> bool:
    return any(name.startswith("graft/") for name in (node.name, *node.output))


def _weights(node: onnx.NodeProto, values: dict[str, Array]) -> Iterator[tuple[int, Array]]:
    """Inputs of a node that are weights: arrays of floats."""
    for place, name in enumerate(node.input):
        if name in values and values[name].dtype.kind == "f" and values[name].ndim:
            yield place, values[name]


def zeros_around(part: Array, whole: Array) -> Array:
    """``whole`` with zeros wherever ``part`` has nothing of it.

    Raises:
        UnknownError: ``part`` is none of it, or its values say not where it lies.
    """
    if part.ndim != whole.ndim or any(a > b for a, b in zip(part.shape, whole.shape, strict=True)):
        raise UnknownError(f"a weight of {part.shape} in place of {whole.shape}")
    if part.shape == whole.shape:
        if not np.array_equal(part, whole, equal_nan=True):
            raise UnknownError(f"a weight of {part.shape} has other values than the parent's")
        return whole
    values, where, counts = np.unique(whole, return_index=True, return_counts=True)
    at = np.minimum(np.searchsorted(values, part), values.size - 1)
    single = (values[at] == part) & (counts[at] == 1)
    origin = np.unravel_index(where[at], whole.shape)
    indices = []
    for axis in range(part.ndim):
        size, length = part.shape[axis], whole.shape[axis]
        if size == length:
            indices.append(np.arange(size))
            continue
        rows, known = (np.moveaxis(each, axis, 0).reshape(size, -1) for each in (origin[axis], single))
        if not known.any(axis=1).all():
            raise UnknownError(f"axis {axis} of a weight of {part.shape}: its values are not distinct")
        chosen = np.array([row[flags] for row, flags in zip(rows, known, strict=True)], dtype=object)
        if any(len(set(each.tolist())) != 1 for each in chosen):
            raise UnknownError(f"a row of a weight of {part.shape} mixes rows of the parent's")
        indices.append(np.array([each[0] for each in chosen]))
    grid = np.ix_(*indices)
    if not np.array_equal(whole[grid], part, equal_nan=True):
        raise UnknownError(f"a weight of {part.shape} is no part of the parent's")
    result = np.zeros_like(whole)
    result[grid] = part
    return result
