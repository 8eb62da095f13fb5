"""Shapes of all tensors: onnx's shape inference, helped along where a shape is computed in the graph.

Exporters write ``Shape -> Gather -> Unsqueeze -> Concat -> Reshape`` wherever a size is free. onnx's
inference gives up on some of these; here the arithmetic is done on what is known of it, place by place.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int | None, ...]
Size = int | str | None
"""A number, the name of a free dimension, or not known."""
Sizes = tuple[Size, ...]
Value = NDArray[Any]
"""Of 0 or 1 axes, each place a :data:`Size`."""

MOST = 64
"""Constants with more numbers are no shapes."""
INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def infer_shapes(proto: onnx.ModelProto) -> dict[str, Shape]:
    """Shape of every tensor of the graph of ``proto``, whose ``value_info`` is changed.

    Returns:
        Tensor name to shape; ``None`` for a dimension that cannot be told. Constants included.
    """
    constants: dict[str, Shape] = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    values = {t.name: numpy_helper.to_array(t).astype(object) for t in proto.graph.initializer if _small(t)}
    _lighten(proto.graph)
    entered: set[tuple[str, Sizes]] = set()
    while True:
        with contextlib.suppress(Exception):  # what cannot be inferred stays unknown
            proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        shapes: dict[str, Sizes] = {**constants, **_known(proto.graph)}
        found = _computed(proto.graph, shapes, dict(values))
        if entered.issuperset(found.items()):
            return {
                name: tuple(size if isinstance(size, int) else None for size in sizes)
                for name, sizes in shapes.items()
            }
        entered |= found.items()
        _enter(proto.graph, found)


def _small(tensor: onnx.TensorProto) -> bool:
    size = int(np.prod(tensor.dims)) if tensor.dims else 1
    return tensor.data_type in INTEGERS and len(tensor.dims) < 2 and size <= MOST


def _lighten(graph: onnx.GraphProto) -> None:
    """Large weights as inputs: inference needs their shapes alone, and copies what it gets."""
    heavy = [tensor for tensor in graph.initializer if int(np.prod(tensor.dims)) > MOST**2]
    inputs = {value.name for value in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in heavy if t.name not in inputs
    )
    light = [tensor for tensor in graph.initializer if int(np.prod(tensor.dims)) <= MOST**2]
    del graph.initializer[:]
    graph.initializer.extend(light)


def _known(graph: onnx.GraphProto) -> dict[str, Sizes]:
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim
        )
        for value in (*graph.value_info, *graph.input, *graph.output)
        if (kind := value.type.tensor_type).HasField("shape")
    }


def _enter(graph: onnx.GraphProto, found: Mapping[str, Sizes]) -> None:
    """Tell inference what was found."""
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    for name, shape in found.items():
        value = known.get(name)
        if value is None:
            value = graph.value_info.add(name=name)
        value.type.tensor_type.shape.ClearField("dim")
        for size in shape:
            dimension = value.type.tensor_type.shape.dim.add()
            if isinstance(size, int):
                dimension.dim_value = size
            elif size is not None:
                dimension.dim_param = size


# ------------------------------------------------------------------------------- arithmetic


def _computed(graph: onnx.GraphProto, shapes: dict[str, Sizes], values: dict[str, Value]) -> dict[str, Sizes]:
    """Shapes that the arithmetic on shapes in ``graph`` tells, and inference does not."""
    found: dict[str, Sizes] = {}
    for node in graph.node:
        with contextlib.suppress(KeyError, IndexError, ValueError, TypeError, ZeroDivisionError):
            if node.op_type in SPREADING:
                shape = SPREADING[node.op_type](node, shapes, values)
                before = shapes.get(node.output[0])
                if before is None or (len(before) == len(shape) and _more(shape, before)):
                    found[node.output[0]] = shape
            value = _value(node, shapes, values)
            if value is not None and value.size <= MOST:
                values[node.output[0]] = value
    return found


def _more(shape: Sizes, before: Sizes) -> bool:
    return any(_rank(new) > _rank(old) for old, new in zip(before, shape, strict=True))


def _rank(size: Size) -> int:
    return 0 if size is None else 1 if isinstance(size, str) else 2


def _value(node: onnx.NodeProto, shapes: Mapping[str, Sizes], values: Mapping[str, Value]) -> Value | None:
    """What ``node`` puts out, as far as it can be told."""
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
    """``function`` place by place; not known where an operand is not."""

    def known(*operands: Size) -> Size:
        numbers = [operand for operand in operands if isinstance(operand, int)]
        return function(*numbers) if len(numbers) == len(operands) else None

    return lambda *values: np.asarray(np.frompyfunc(known, len(values), 1)(*values), object)


def _equal(one: Size, other: Size) -> Size:
    """No free dimension is negative."""
    if one is None or other is None:
        return None
    negative = any(isinstance(size, int) and size < 0 for size in (one, other))
    return int(one == other) if negative or type(one) is type(other) is int or one == other else None


def _choose(condition: Size, yes: Size, no: Size) -> Size:
    if condition is None:
        return yes if yes == no else None
    return yes if condition else no


def _times(one: Size, other: Size) -> Size:
    """A product, also of a name and 1."""
    if isinstance(one, int) and isinstance(other, int):
        return one * other
    return other if one == 1 else one if other == 1 else None


def _slice(
    value: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Value:
    step = 1 if steps is None else steps.item()
    end = ends.item()
    return value[starts.item() : None if step < 0 and end < -MOST else end : step]


def _product(value: Value, axes: Value | None = None) -> Value:
    whole: Size = 1
    for size in value.tolist():
        whole = _times(whole, size)
    return np.array([whole], object)


ARITHMETIC: dict[str, Callable[..., Value]] = {
    "Identity": lambda value: value,
    "Cast": lambda value: value,
    "Add": _each(lambda a, b: a + b),
    "Sub": _each(lambda a, b: a - b),
    "Mul": lambda *values: np.asarray(np.frompyfunc(_times, 2, 1)(*values), object),
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


def _reshaped(node: onnx.NodeProto, shapes: Mapping[str, Sizes], values: Mapping[str, Value]) -> Sizes:
    source, target = shapes.get(node.input[0]), values[node.input[1]].tolist()
    known = source or ()
    sizes = [known[axis] if size == 0 and axis < len(known) else size for axis, size in enumerate(target)]
    if -1 in sizes:
        rest = [size for size in sizes if size != -1]
        sizes[sizes.index(-1)] = None if source is None else _quotient(source, rest)
    return tuple(sizes)


def _quotient(whole: Sequence[Size], rest: Sequence[Size]) -> Size:
    """What is left of the product of ``whole`` beside ``rest``; names cancel."""
    if None in (*whole, *rest):
        return None
    names = Counter(size for size in whole if isinstance(size, str))
    others = Counter(size for size in rest if isinstance(size, str))
    left = list((names - others).elements())
    number = _count(whole) // _count(rest)
    if others - names or len(left) > 1 or (left and number != 1):
        return None
    return left[0] if left else number


def _count(sizes: Sequence[Size]) -> int:
    return int(np.prod([size for size in sizes if isinstance(size, int)], dtype=np.int64))


def _expanded(node: onnx.NodeProto, shapes: Mapping[str, Sizes], values: Mapping[str, Value]) -> Sizes:
    source, target = shapes[node.input[0]], tuple(values[node.input[1]].tolist())
    rank = max(len(source), len(target))
    sides: list[Sizes] = [(*[1] * (rank - len(side)), *side) for side in (source, target)]
    return tuple(_wider(*pair) for pair in zip(*sides, strict=True))


def _wider(one: Size, other: Size) -> Size:
    if one == 1 or one == other:
        return other
    numbers = [size for size in (one, other) if isinstance(size, int)]
    return one if other == 1 else max(numbers, default=None)


def _filled(node: onnx.NodeProto, shapes: Mapping[str, Sizes], values: Mapping[str, Value]) -> Sizes:
    return tuple(values[node.input[0]].tolist())


SPREADING: dict[str, Callable[[onnx.NodeProto, Mapping[str, Sizes], Mapping[str, Value]], Sizes]] = {
    "Reshape": _reshaped,
    "Expand": _expanded,
    "ConstantOfShape": _filled,
}
