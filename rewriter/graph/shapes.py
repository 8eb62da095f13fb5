"""Shapes of all tensors: onnx's shape inference, helped along where a shape is computed in the graph.

Exporters write ``Shape -> Gather -> Unsqueeze -> Concat -> Reshape`` wherever a size is free. onnx's
inference gives up on some of these; here the arithmetic is done on what is known of it, place by place.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int | None, ...]
Value = NDArray[Any]
"""Integers or truth values, with ``None`` where one is not known; of 0 or 1 axes."""

LENGTHS = (16, 24)
"""What the free axes of sequences count as, once and again: sizes that do not change are known."""
MOST = 64
"""Constants with more numbers are no shapes."""
INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def infer_shapes(proto: onnx.ModelProto) -> dict[str, Shape]:
    """Infer the shape of every tensor of the graph of ``proto``, whose ``value_info`` is changed.

    Returns:
        Tensor name to shape; ``None`` for a dimension that is free or cannot be told. Constants included.
    """
    _widths(proto.graph)
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


def _widths(graph: onnx.GraphProto) -> None:
    """Write the length of a free last axis of an input that weights tell which multiply it."""
    weights = {tensor.name: tensor.dims for tensor in graph.initializer if len(tensor.dims) == 2}
    read = {}
    for node in graph.node:
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in weights:
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
    values = {t.name: numpy_helper.to_array(t).astype(object) for t in proto.graph.initializer if _small(t)}
    _lighten(proto.graph)
    entered: set[tuple[str, Shape]] = set()
    while True:
        with contextlib.suppress(Exception):  # what cannot be inferred stays unknown
            proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        shapes = constants | _known(proto.graph)
        found = _computed(proto.graph, shapes, dict(values))
        if entered.issuperset(found.items()):
            return shapes
        entered |= found.items()
        _enter(proto.graph, found)


def _small(tensor: onnx.TensorProto) -> bool:
    return (
        tensor.data_type in (*INTEGERS, TensorProto.BOOL)
        and len(tensor.dims) < 2
        and math.prod(tensor.dims) <= MOST
    )


def _lighten(graph: onnx.GraphProto) -> None:
    """Let large weights be inputs: inference needs their shapes alone, and copies what it gets."""
    heavy = [tensor for tensor in graph.initializer if math.prod(tensor.dims) > MOST**2]
    inputs = {value.name for value in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in heavy if t.name not in inputs
    )
    light = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= MOST**2]
    del graph.initializer[:]
    graph.initializer.extend(light)


def _known(graph: onnx.GraphProto) -> dict[str, Shape]:
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if (kind := value.type.tensor_type).HasField("shape")
    }


def _enter(graph: onnx.GraphProto, found: Mapping[str, Shape]) -> None:
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


# ------------------------------------------------------------------------------- arithmetic


def _computed(graph: onnx.GraphProto, shapes: dict[str, Shape], values: dict[str, Value]) -> dict[str, Shape]:
    """Return the shapes that follow from arithmetic in ``graph``, and that inference does not find."""
    found: dict[str, Shape] = {}
    for node in graph.node:
        with contextlib.suppress(KeyError, IndexError, ValueError, TypeError, ZeroDivisionError):
            kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            if kind in SPREADING:
                shape = SPREADING[kind](node, shapes, values)
                before = shapes.get(node.output[0])
                if before is None or (len(before) == len(shape) and _more(shape, before)):
                    found[node.output[0]] = shape
            value = _value(node, shapes, values)
            if value is not None and value.size <= MOST:
                values[node.output[0]] = value
    return found


def _more(shape: Shape, before: Shape) -> bool:
    return any(old is None and new is not None for old, new in zip(before, shape, strict=True))


def _value(node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> Value | None:
    """Return what ``node`` puts out, as far as it is known."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Shape":
        sizes = shapes[node.input[0]][attributes.get("start", 0) : attributes.get("end")]
        return np.array(sizes, object)
    if node.op_type == "Constant":
        value = attributes.get("value")
        return numpy_helper.to_array(value).astype(object) if value is not None and _small(value) else None
    if node.op_type == "Cast" and attributes["to"] not in INTEGERS:
        return None
    if node.op_type == "ConstantOfShape":
        filled = attributes.get("value")
        if filled is None or filled.data_type not in INTEGERS:
            return None
        (size,) = values[node.input[0]].tolist()
        return np.full(size, int(numpy_helper.to_array(filled)[0]), object)
    rule = ARITHMETIC.get(node.op_type)
    return None if rule is None else rule(*[values[name] for name in node.input if name])


def _each(function: Callable[..., int]) -> Callable[..., Value]:
    """Return ``function``, place by place; not known where an operand is not."""

    def known(*operands: int | None) -> int | None:
        return None if None in operands else function(*operands)

    return lambda *values: np.asarray(np.frompyfunc(known, len(values), 1)(*values), object)


def _choose(condition: int | None, yes: int | None, no: int | None) -> int | None:
    if condition is None:
        return yes if yes == no else None
    return yes if condition else no


def _slice(
    value: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Value:
    step = 1 if steps is None else steps.item()
    end = ends.item()
    return value[starts.item() : None if step < 0 and end < -MOST else end : step]


def _product(value: Value, axes: Value | None = None) -> Value:
    return np.array([None if None in value.tolist() else int(np.prod(value))], object)


def _equal(one: int | None, other: int | None) -> int | None:
    """Return 1 or 0, or ``None`` where it is not known; sizes are not negative."""
    if None in (one, other):
        return 0 if min(one or 0, other or 0) < 0 else None
    return int(one == other)


ARITHMETIC: dict[str, Callable[..., Value]] = {
    "Identity": lambda value: value,
    "Cast": lambda value: value,
    "Add": _each(lambda a, b: a + b),
    "Sub": _each(lambda a, b: a - b),
    "Mul": _each(lambda a, b: a * b),
    "Div": _each(lambda a, b: int(a / b)),
    "Mod": _each(lambda a, b: a % b),
    "Min": _each(min),
    "Max": _each(max),
    "Neg": _each(lambda a: -a),
    "Equal": lambda *values: np.asarray(np.frompyfunc(_equal, 2, 1)(*values), object),
    "Where": lambda *values: np.asarray(np.frompyfunc(_choose, 3, 1)(*values), object),
    "Gather": lambda value, indices: np.asarray(value[indices.astype(np.int64)], object),
    "Slice": _slice,
    "Unsqueeze": lambda value, axes=None: value.reshape(-1),
    "Squeeze": lambda value, axes=None: value.reshape(()),
    "Reshape": lambda value, target: value.reshape(-1),
    "Concat": lambda *values: np.concatenate(values),
    "ReduceProd": _product,
}


# ------------------------------------------------------------------------------- shapes that are given


def _reshaped(node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> Shape:
    source, target = shapes.get(node.input[0]), values[node.input[1]].tolist()
    known = source or ()
    sizes = [known[axis] if size == 0 and axis < len(known) else size for axis, size in enumerate(target)]
    if -1 in sizes:
        rest = [size for size in sizes if size != -1]
        whole = None if source is None or None in (*source, *rest) else _count(source) // _count(rest)
        sizes[sizes.index(-1)] = whole
    return tuple(sizes)


def _count(sizes: Sequence[int | None]) -> int:
    return int(np.prod([size or 0 for size in sizes], dtype=np.int64))


def _expanded(node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> Shape:
    source, target = shapes[node.input[0]], tuple(values[node.input[1]].tolist())
    rank = max(len(source), len(target))
    sides = [(1,) * (rank - len(side)) + side for side in (source, target)]
    return tuple(_wider(*pair) for pair in zip(*sides, strict=True))


def _wider(one: int | None, other: int | None) -> int | None:
    if one == 1 or one == other:
        return other
    known = [size for size in (one, other) if size is not None]
    return one if other == 1 else max(known, default=None)


def _filled(node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> Shape:
    return tuple(values[node.input[0]].tolist())


def _attended(node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> Shape:
    return (*shapes[node.input[0]][:2], shapes[node.input[2]][2])


def _attention(node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> Shape:
    queries, found = shapes[node.input[0]], shapes[node.input[2]]
    if len(queries) == 4:
        return (*queries[:3], found[3])
    heads = {a.name: a.i for a in node.attribute}
    return (*queries[:2], heads["q_num_heads"] * ((found[2] or 0) // heads["kv_num_heads"]))


def _projected(node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> Shape:
    sizes = next((a.ints for a in node.attribute if a.name == "qkv_hidden_sizes"), None)
    whole = shapes[node.input[1]][1] or 0
    return (*shapes[node.input[0]][:2], sizes[2] if sizes else whole // 3)


def _reordered(node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> Shape:
    """The blocked layout of onnxruntime pads channels; where it ends, a node says how many there are."""
    attributes = {a.name: a.i for a in node.attribute}
    samples, channels, *places = shapes[node.input[0]]
    channels = attributes.get("channels", channels)
    return (samples, *places, channels) if attributes.get("channels_last") else (samples, channels, *places)


def _packed(node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> Shape:
    """The matrix is packed; attributes say how many columns it has."""
    return (*shapes[node.input[0]][:-1], {a.name: a.i for a in node.attribute}["N"])


SPREADING: dict[str, Callable[[onnx.NodeProto, Mapping[str, Shape], Mapping[str, Value]], Shape]] = {
    "Reshape": _reshaped,
    "Expand": _expanded,
    "ConstantOfShape": _filled,
    "Attention": _attention,
    "com.microsoft::MultiHeadAttention": _attended,
    "com.microsoft::Attention": _projected,
    "com.microsoft::MatMulNBits": _packed,
    "com.microsoft.nchwc::ReorderOutput": _reordered,
}
