"""Values and shapes that follow from arithmetic in a graph, place by place, as far as they are known."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int | None, ...]
Value = NDArray[Any]
"""Integers or truth values, with ``None`` where one is not known; of 0 or 1 axes."""

MOST = 64
"""Constants with more numbers are no shapes."""
LARGEST = 2**63
"""What ONNX's integers hold is smaller; arithmetic on larger ones would take for ever."""
INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def is_small(tensor: onnx.TensorProto) -> bool:
    """Return whether a constant may be a shape, or a part of one."""
    return (
        tensor.data_type in (*INTEGERS, TensorProto.BOOL)
        and len(tensor.dims) < 2
        and math.prod(tensor.dims) <= MOST
    )


# ------------------------------------------------------------------------------- arithmetic


def computed(
    graph: onnx.GraphProto, shapes: Mapping[str, Shape], values: MutableMapping[str, Value]
) -> dict[str, Shape]:
    """Return the shapes that follow from arithmetic in ``graph``, and that inference does not find.

    Args:
        graph: its nodes in topological order.
        shapes: that inference found.
        values: of constants; those that nodes put out are entered.
    """
    found: dict[str, Shape] = {}
    for node in graph.node:
        with contextlib.suppress(LookupError, ValueError, TypeError, ArithmeticError):
            kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            if kind in SPREADING:
                shape = SPREADING[kind](node, shapes, values)
                if any(size is not None and size < 0 for size in shape):
                    continue
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
    if node.domain or node.op_type not in VALUED:
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Shape":
        sizes = shapes[node.input[0]][attributes.get("start", 0) : attributes.get("end")]
        return np.array(sizes, object)
    if node.op_type == "Size":
        sizes = shapes[node.input[0]]
        return np.array(None if None in sizes else _held(math.prod(size or 0 for size in sizes)), object)
    if node.op_type == "Constant":
        return _constant(attributes)
    if node.op_type == "Cast" and attributes["to"] not in INTEGERS:
        return None
    if node.op_type == "ConstantOfShape":
        filled = attributes.get("value")
        if filled is None or filled.data_type not in INTEGERS:
            return None
        (size,) = values[node.input[0]].tolist()
        if size is None or size > MOST:
            return None
        return np.full(size, int(numpy_helper.to_array(filled)[0]), object)
    rule = ARITHMETIC.get(node.op_type)
    return None if rule is None else rule(*[values[name] for name in node.input if name])


def _constant(attributes: Mapping[str, Any]) -> Value | None:
    for name in ("value_int", "value_ints"):
        if name in attributes and np.size(attributes[name]) <= MOST:
            return np.array(attributes[name], object)
    value = attributes.get("value")
    return numpy_helper.to_array(value).astype(object) if value is not None and is_small(value) else None


def _each(function: Callable[..., int]) -> Callable[..., Value]:
    """Return ``function``, place by place; not known where an operand is not."""

    def known(*operands: int | None) -> int | None:
        return None if None in operands else _held(function(*operands))

    return lambda *values: np.asarray(np.frompyfunc(known, len(values), 1)(*values), object)


def _held(value: int) -> int | None:
    """Return an integer that ONNX's types can hold; a larger one is not known."""
    return value if -LARGEST <= value < LARGEST else None


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
    return np.array([None if None in value.tolist() else _held(int(np.prod(value)))], object)


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
VALUED = {*ARITHMETIC, "Shape", "Size", "Constant", "ConstantOfShape"}
"""Operators of which a value may be known."""


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
