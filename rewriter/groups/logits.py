"""The logits behind probabilities: what a softmax reads, in whatever form its result reaches the output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import constant_ints, dtype_of, given, is_constant, positive

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
FORMS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
LOWEST = -1e4
"""What minus infinity is taken as where it is reckoned with: in half precision, too, its exponential is 0."""
NEAR = 16
"""So many nodes before the logits are searched for what makes them infinite."""


def logits_behind(probabilities: gs.Variable, axis: int, build: Builder) -> gs.Variable:
    """Return what the softmax reads that makes probabilities; their logarithm where none does.

    Before the softmax nothing is rounded to 0 or 1. The logarithm takes the smallest number of the type for
    what is 0.

    Args:
        probabilities: a tensor of the graph.
        axis: of the classes.
        build: adds nodes.

    Returns:
        A tensor of the same shape: the logarithms of the probabilities, up to a constant for each sample.
    """
    found = _log_of(probabilities, axis, build)
    if found is not None:
        return found
    limits = np.finfo(dtype_of(probabilities))
    smallest = limits.smallest_subnormal if limits.bits == 16 else limits.tiny
    floor = build.constant("floor", np.array(smallest, dtype_of(probabilities)))
    return build.node("Log", "log", [build.node("Max", "above_zero", [probabilities, floor])])


def note_shapes(model: Model, probabilities: gs.Variable) -> None:
    """Note the shapes of what makes probabilities where the file has none: sizes tell which axis is which.

    Args:
        model: whose graph has the tensor.
        probabilities: the tensor.
    """
    chain: list[gs.Tensor] = [probabilities]
    while chain[-1].inputs and chain[-1].inputs[0].op in FOLLOWED:
        chain.append(chain[-1].inputs[0].inputs[0])
    if all(tensor.shape is not None for tensor in chain):
        return
    infer = model.shapes_by_batch()
    two, three = infer(2, None), infer(3, None)
    for tensor in chain:
        sizes, other = two.get(tensor.name), three.get(tensor.name, ())
        if tensor.shape is None and sizes is not None and len(sizes) == len(other):
            tensor.shape = [size if size == again else None for size, again in zip(sizes, other, strict=True)]


def may_be_infinite(tensor: gs.Tensor, near: int = NEAR) -> bool:
    """Return whether logits may be minus infinity: a constant on the way to them is, or a logarithm."""
    if not tensor.inputs or not near:
        return False
    node = tensor.inputs[0]
    constants = [each.values for each in node.inputs if isinstance(each, gs.Constant)]
    if any(values.dtype.kind == "f" and np.isneginf(values).any() for values in constants):
        return True
    if node.op == "Log":
        return not node.name.endswith("/log")  # this module's own has a floor
    inner = [each for each in node.inputs if isinstance(each, gs.Variable)]
    return node.op in ELEMENTWISE and any(may_be_infinite(each, near - 1) for each in inner)


ELEMENTWISE = frozenset(
    (
        "Add",
        "Cast",
        "Concat",
        "ConstantOfShape",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Max",
        "Min",
        "Mul",
    )
) | {
    "ReduceLogSumExp",
    "Reshape",
    "ScatterElements",
    "ScatterND",
    "Squeeze",
    "Sub",
    "TopK",
    "Transpose",
    "Unsqueeze",
    "Where",
}


def finite(scores: gs.Tensor, dtype: np.dtype[Any], build: Builder, name: str = "finite") -> gs.Tensor:
    """Return logits, minus infinity as :data:`LOWEST`: so softmax and differences of them are numbers.

    Args:
        scores: logits.
        dtype: of them.
        build: adds a node where it is needed.
        name: of that node.
    """
    return _at_least(scores, build.constant(f"{name}/lowest", np.array(LOWEST, dtype)), build, name)


def bounded(scores: gs.Tensor, dtype: np.dtype[Any], build: Builder, name: str = "bounded") -> gs.Tensor:
    """Return logits, minus infinity as the least number of their type.

    The logarithm of a softmax over nothing but minus infinity is not a number.

    Args:
        scores: logits.
        dtype: of them.
        build: adds a node where it is needed.
        name: of that node.
    """
    least = build.constant(f"{name}/least", np.array(np.finfo(dtype).min, dtype))
    return _at_least(scores, least, build, name)


def _at_least(scores: gs.Tensor, least: gs.Constant, build: Builder, name: str) -> gs.Tensor:
    """Return scores that are no less; as they are where none can be infinite."""
    return build.node("Max", name, [scores, least]) if may_be_infinite(scores) else scores


def _log_of(tensor: gs.Tensor, axis: int, build: Builder) -> gs.Tensor | None:
    """Return logarithms of a tensor up to a constant along ``axis``, or ``None`` where no node tells them."""
    if not tensor.inputs:
        return None
    node = tensor.inputs[0]
    rule = RULES.get(node.op)
    try:
        return rule(node, axis, build) if rule is not None else None
    except ValueError:  # an axis that the tensor has not: the analysis of the graph names the node
        return None


def _softmax(node: gs.Node, axis: int, build: Builder) -> gs.Tensor | None:
    shape = node.outputs[0].shape or ()
    along = positive(node.attrs.get("axis", -1 if build.opset >= 13 else 1), len(shape))
    together = build.opset < 13 and any(size != 1 for size in shape[along + 1 :])  # of all further axes
    return node.inputs[0] if along == axis and not together else None


def _exponential(node: gs.Node, axis: int, build: Builder) -> gs.Tensor:
    return node.inputs[0]


def _same(node: gs.Node, axis: int, build: Builder) -> gs.Tensor | None:
    training = given(node, 2) if node.op == "Dropout" else None
    if training is not None and not (is_constant(training) and not training.values):
        return None
    return _log_of(node.inputs[0], axis, build)


def _cast(node: gs.Node, axis: int, build: Builder) -> gs.Tensor | None:
    return _again(node, _log_of(node.inputs[0], axis, build), build) if node.attrs["to"] in FLOATS else None


def _form(node: gs.Node, axis: int, build: Builder) -> gs.Tensor | None:
    before = _axis_before(node.inputs[0].shape, _sizes_after(node), axis)
    return None if before is None else _again(node, _log_of(node.inputs[0], before, build), build)


def _sizes_after(node: gs.Node) -> list[int | str | None] | None:
    """Return the shape of the result; exporters name sizes that the target of a Reshape says in numbers."""
    sizes = node.outputs[0].shape
    target = constant_ints(node, 1, "shape") if node.op == "Reshape" else None
    if sizes is None or target is None or len(target) != len(sizes):
        return None if sizes is None else list(sizes)
    return [
        said if said > 0 and not isinstance(size, int) else size
        for size, said in zip(sizes, target, strict=True)
    ]


def _transpose(node: gs.Node, axis: int, build: Builder) -> gs.Tensor | None:
    rank = len(node.outputs[0].shape or ())
    order = node.attrs.get("perm", list(range(rank))[::-1])
    return _again(node, _log_of(node.inputs[0], order[axis], build), build) if axis < len(order) else None


def _quotient(node: gs.Node, axis: int, build: Builder) -> gs.Tensor | None:
    """Of a tensor by its own sum: the sum is a constant along the axis."""
    above, below = node.inputs
    maker = below.inputs[0] if below.inputs else None
    if maker is None or maker.op != "ReduceSum" or maker.inputs[0] is not above:
        return None
    axes, rank = constant_ints(maker, 1, "axes"), len(above.shape or below.shape or ())
    summed = axes is not None and [positive(each, rank) for each in axes] == [axis]
    return _log_of(above, axis, build) if summed and maker.attrs.get("keepdims", 1) else None


def _normalized(node: gs.Node, axis: int, build: Builder) -> gs.Tensor | None:
    """By the sum of absolute values; what an exponential or softmax makes has no sign."""
    last = len(node.outputs[0].shape or ()) - 1
    along = last if node.op == "Normalizer" else positive(node.attrs.get("axis", -1), last + 1)
    first = node.attrs.get("norm") == "L1" or (node.op == "LpNormalization" and node.attrs.get("p", 2) == 1)
    return _log_of(node.inputs[0], axis, build) if first and along == axis else None


def _complement(node: gs.Node, axis: int, build: Builder) -> gs.Tensor | None:
    """Of a probability and what is left of 1: of a sigmoid these are the softmax of 0 and its logit."""
    rank = len(node.outputs[0].shape or ())
    if len(node.inputs) != 2 or positive(node.attrs["axis"], rank) != axis:
        return None
    for place, rest in enumerate(node.inputs):
        known = node.inputs[1 - place]
        less, made = (each.inputs[0] if each.inputs else None for each in (rest, known))
        if less is None or made is None or less.op != "Sub" or made.op != "Sigmoid":
            continue
        if less.inputs[1] is known and is_constant(less.inputs[0]) and np.all(less.inputs[0].values == 1):
            logit = made.inputs[0]
            zero = build.node("Sub", "zero", [logit, logit])
            return build.node("Concat", "two", [zero, logit] if place == 0 else [logit, zero], axis=axis)
    return None


def _clip(node: gs.Node, axis: int, build: Builder) -> gs.Tensor | None:
    """Of limits outside of 0..1, which change no probability."""
    limits = [node.attrs.get(key) for key in ("min", "max")]
    for place, tensor in enumerate(node.inputs[1:3]):
        if not tensor.is_empty():
            limits[place] = float(tensor.values) if is_constant(tensor) else math.nan
    low, high = (default if limit is None else limit for limit, default in zip(limits, (0, 1), strict=True))
    return _log_of(node.inputs[0], axis, build) if low <= 0 and high >= 1 else None


RULES: dict[str, Callable[[gs.Node, int, Builder], gs.Tensor | None]] = {
    "Softmax": _softmax,
    "Exp": _exponential,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
    "Clip": _clip,
    "Transpose": _transpose,
    "Div": _quotient,
    "Normalizer": _normalized,
    "LpNormalization": _normalized,
    "Concat": _complement,
    **dict.fromkeys(FORMS, _form),
}


FOLLOWED = frozenset(("Identity", "Dropout", "Cast", "Clip", "Transpose", "Div", "Softmax", *FORMS))


def _again(node: gs.Node, inner: gs.Tensor | None, build: Builder) -> gs.Tensor | None:
    """Let a node that changes the form of probabilities change that of their logits."""
    if inner is None:
        return None
    place = sum(1 for each in build.graph.nodes if each.name.startswith(f"{build.prefix}/behind"))
    result = build.node(node.op, f"behind_{place}", [inner, *node.inputs[1:]], **node.attrs)
    result.dtype, result.shape = node.outputs[0].dtype, node.outputs[0].shape
    return result


def _axis_before(
    before: Sequence[int | str | None] | None, after: Sequence[int | str | None] | None, axis: int
) -> int | None:
    """Return the axis that an axis was before a change of form that leaves it whole, or ``None``."""
    if before is None or after is None or not isinstance(after[axis], int):
        return None
    behind = _product(after[axis + 1 :])
    for place in range(len(before) - 1, -1, -1):
        if behind is not None and before[place] == after[axis] and _product(before[place + 1 :]) == behind:
            return place
    return None


def _product(sizes: Sequence[int | str | None]) -> int | None:
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None
