"""Models in which sizes follow from the values of samples: what they may take is bounded.

No size of the file or of the samples says how large such a tensor is: a Range may end at a value of the
input, a Loop may add to a tensor with each turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx

from graft.rewriter.graph.walk import bodies
from graft.rewriter.memory import free_bytes
from graft.rewriter.run.computed_constants import weight_bytes

LEAST = 1 << 30
"""Such a model may take so many bytes,"""
TIMES_WEIGHTS = 4
"""or so many times its weights,"""
TIMES_INPUTS = 200
"""or so many times a batch of its inputs, which a file may declare as large as it likes:"""
SHARE = 0.5
"""no more than this share of what is free."""
BATCH, LENGTH, FREE = 64, 1024, 64
"""What a free first axis of an input counts as, the only other one, and each of several others."""

SIZES: dict[str, tuple[int, ...]] = {
    "Range": (0, 1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Tile": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "CenterCropPad": (1,),
    "AffineGrid": (1,),
    "HannWindow": (0,),
    "HammingWindow": (0,),
    "BlackmanWindow": (0,),
}
"""Operators whose output may be larger than their inputs, by the inputs that say how large."""
MEASURES = frozenset(("Shape", "Size"))
"""What they put out is no value of a sample."""


def most_bytes(proto: onnx.ModelProto) -> int | None:
    """Return the bytes that a model may take whose sizes follow from values of samples.

    Returns:
        ``None`` where none do.
    """
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    found = _follows(proto.graph.node, {value.name for value in inputs})
    found = found or any(_follows(each.node, set(each.input)) for each in proto.functions)
    if not found:
        return None
    given = min(TIMES_INPUTS * sum(map(_bytes, inputs)), int(free_bytes() * SHARE))
    return max(LEAST, TIMES_WEIGHTS * weight_bytes(proto), given)


def _follows(nodes: Iterable[onnx.NodeProto], values: set[str]) -> bool:
    """Return whether a size follows from ``values``, to which what is computed from them is added."""
    for node in nodes:
        if node.op_type == "Loop":
            return True
        if any(values & set(node.input[place : place + 1]) for place in SIZES.get(node.op_type, ())):
            return True
        inside = list(bodies(node))
        for body in inside:
            given = {value.name for value in body.input}
            if _follows(body.node, values | given):
                return True
        if node.op_type not in MEASURES and (inside or values & set(node.input)):
            values.update(node.output)
    return False


def _bytes(value: onnx.ValueInfoProto) -> int:
    sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
    free = LENGTH if sizes[1:].count(0) == 1 else FREE
    return 4 * math.prod(size or (free if axis else BATCH) for axis, size in enumerate(sizes))
