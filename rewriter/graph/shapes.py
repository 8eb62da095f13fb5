"""Shapes of all tensors: onnx's shape inference, helped along where a shape is computed in the graph.

Exporters write ``Shape -> Gather -> Unsqueeze -> Concat -> Reshape`` wherever a size is free. onnx's
inference gives up on some of these; here the arithmetic is done on what is known of it, place by place.
onnx's own propagation of values (``data_prop``) writes down every place of a list, however long it is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.graph.shape_values import INTEGERS, MOST, Shape, Value, computed, is_small

__all__ = ["Shape", "infer_shapes", "without_weights"]

LENGTHS = (16, 24)
"""What the free axes of sequences count as, once and again: sizes that do not change are known."""

ROUNDS = 40
"""So often sizes may depend on others that are worked out; exporters need up to four."""
VISITS = 300_000
"""Smaller graphs have more rounds: as many as visit so many nodes, in some seconds."""


def rounds(graph: onnx.GraphProto) -> int:
    """Return how often the sizes in a graph may depend on others that are worked out."""
    return max(ROUNDS, VISITS // max(1, len(graph.node)))


def infer_shapes(proto: onnx.ModelProto) -> dict[str, Shape]:
    """Infer the shape of every tensor of the graph of ``proto``, whose ``value_info`` is changed.

    Returns:
        Tensor name to shape; ``None`` for a dimension that is free or cannot be told. Constants included.
    """
    write_widths(proto.graph)
    free = [
        dimension
        for value in proto.graph.input
        if len(value.type.tensor_type.shape.dim) < 4
        for dimension in value.type.tensor_type.shape.dim
        if not dimension.HasField("dim_value")
    ]
    found = []
    for length in LENGTHS if free else LENGTHS[:1]:
        for dimension in free:
            dimension.dim_value = length
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        found.append(_inferred(copy))
    ranks = {name: {len(shapes[name]) if name in shapes else -1 for shapes in found} for name in found[0]}
    return {n: _common([shapes[n] for shapes in found]) for n, rank in ranks.items() if len(rank) == 1}


def without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the values of large constants of ``proto``, which is changed; shapes need their shapes alone."""
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) > MOST**2:
            empty = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(empty)
    return proto


def write_widths(graph: onnx.GraphProto) -> None:
    """Write the length of a free last axis of an input that weights tell which multiply it."""
    weights = {tensor.name: tensor.dims for tensor in graph.initializer if len(tensor.dims) == 2}
    read = {}
    for node in graph.node:
        if node.op_type in ("Gemm", "MatMul") and len(node.input) > 1 and node.input[1] in weights:
            flags = {attribute.name: attribute.i for attribute in node.attribute}
            if not flags.get("transA"):
                read[node.input[0]] = weights[node.input[1]][1 if flags.get("transB") else 0]
    for value in graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if value.name in read and len(dimensions) > 1 and not dimensions[-1].HasField("dim_value"):
            dimensions[-1].dim_value = read[value.name]


def _common(shapes: Sequence[Shape]) -> Shape:
    """Return the sizes that are equal in all shapes."""
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


def _inferred(proto: onnx.ModelProto) -> dict[str, Shape]:
    constants: dict[str, Shape] = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    values: dict[str, Value] = {
        t.name: numpy_helper.to_array(t).astype(object) for t in proto.graph.initializer if is_small(t)
    }
    lighten(proto.graph, MOST**2)
    entered: set[tuple[str, Shape]] = set()
    for _ in range(rounds(proto.graph)):
        with contextlib.suppress(Exception):  # what cannot be inferred stays unknown
            proto = onnx.shape_inference.infer_shapes(proto)
        shapes = constants | known_shapes(proto.graph)
        made = dict(values)
        found = computed(proto.graph, shapes, made)
        fixed = fix_values(proto.graph, {name: made[name] for name in made.keys() - values.keys()})
        values, constants = values | {name: made[name] for name, _ in fixed}, constants | dict(fixed)
        if entered.issuperset(found.items()) and not fixed:
            break
        entered |= found.items()
        enter(proto.graph, found)
    return shapes


def lighten(graph: onnx.GraphProto, most: int) -> None:
    """Let weights of more values be inputs: inference needs their shapes alone, and copies what it gets."""
    heavy = [tensor for tensor in graph.initializer if math.prod(tensor.dims) > most]
    inputs = {value.name for value in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in heavy if t.name not in inputs
    )
    light = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= most]
    del graph.initializer[:]
    graph.initializer.extend(light)


def known_shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Return the shapes that are written in a graph, constants not included."""
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if (kind := value.type.tensor_type).HasField("shape")
    }


def enter(graph: onnx.GraphProto, found: Mapping[str, Shape]) -> None:
    """Enter what was found for inference; a tensor of unknown type has that of what it is made of."""
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    sources = {name: node.input[0] for node in graph.node for name in node.output if node.input}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *known.values())}
    for name, shape in found.items():
        value = known.get(name)
        if value is None:
            value = graph.value_info.add(name=name)
            value.type.tensor_type.elem_type = types.get(sources[name], TensorProto.FLOAT)
        value.type.tensor_type.shape.ClearField("dim")
        for size in shape:
            dimension = value.type.tensor_type.shape.dim.add()
            if size is not None:
                dimension.dim_value = size


def fix_values(graph: onnx.GraphProto, values: Mapping[str, Value]) -> set[tuple[str, Shape]]:
    """Put constants in place of nodes whose integers are known; return their names and shapes."""
    known = {name: value for name, value in values.items() if None not in value.reshape(-1)}
    if not known:
        return set()
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    fixed, left = set(), []
    for node in graph.node:
        name = node.output[0] if node.output else ""
        if name in known and types.get(name) in INTEGERS and _holds(types[name], known[name]):
            whole = known[name].astype(helper.tensor_dtype_to_np_dtype(types[name]))
            graph.initializer.append(numpy_helper.from_array(whole, name))
            fixed.add((name, known[name].shape))
        else:
            left.append(node)
    if fixed:
        del graph.node[:]
        graph.node.extend(left)
    return fixed


def _holds(kind: int, values: Value) -> bool:
    return kind == TensorProto.INT64 or all(-(2**31) <= value < 2**31 for value in values.reshape(-1))
