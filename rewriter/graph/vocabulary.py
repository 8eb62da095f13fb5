"""Operators that Graft itself adds to a graph: those that runtimes compute alike.

A module keeps the operators of its parent. Whatever is put beside them (heads, comparisons, preparation of
raw pixels, forms that a normalized graph takes) is written with the operators here, in the way that is said
here: :class:`graft.rewriter.graph.builder.Builder` writes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

PREPARED = "graft/adapt/resampled"
"""Part of the names of nodes that bring raw pixels to the size that a parent takes."""
FLOATS = "float32, float16, float64"
NUMBERS = f"{FLOATS}, int64"


@dataclass(frozen=True)
class Word:
    """An operator that may be added.

    Attributes:
        op: its name, of the standard set.
        types: of what it reads, in words.
        attributes: that may be set, to which values; ``None``: to any.
        since: lowest operator set it is used in.
        note: how it is used, and what is avoided.
    """

    op: str
    types: str
    attributes: Mapping[str, Collection[object] | None]
    since: int = 11
    note: str = ""

    def allows(self, node: onnx.NodeProto, opset: int) -> bool:
        """Return ``True`` for a node that is used as said."""
        set_ = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        return opset >= self.since and all(
            name in self.attributes
            and (self.attributes[name] is None or value in (self.attributes[name] or ()))
            for name, value in set_.items()
        )


_LAST = {"axis": (-1,)}
_ANY_AXIS: dict[str, Collection[object] | None] = {"axis": None}
_REDUCED: dict[str, Collection[object] | None] = {"axes": None, "keepdims": (1,)}
WORDS: Mapping[str, Word] = {
    word.op: word
    for word in (
        Word("Add", FLOATS, {}),
        Word(
            "AveragePool", "float32", {"kernel_shape": None, "strides": None}, note="a coarse view of images"
        ),
        Word("Cast", FLOATS, {"to": None}, note="between types of parents; raw pixels below opset 15"),
        Word("CastLike", "uint8", {}, 15, "raw pixels: converters to half precision change its type"),
        Word("Clip", FLOATS, {}, note="limits are inputs"),
        Word("Concat", NUMBERS, _ANY_AXIS),
        Word("ConstantOfShape", "int64", {"value": None}, note="states to start with, of a free batch"),
        Word("Div", FLOATS, {}),
        Word("Equal", FLOATS, {}, note="read by Where only: no mask is cast"),
        Word("Exp", FLOATS, {}),
        Word("Expand", FLOATS, {}, note="a constant over the batch"),
        Word("Flatten", FLOATS, {"axis": (1,)}),
        Word("Floor", "float32", {}),
        Word("Gather", NUMBERS, _ANY_AXIS, note="constant indices"),
        Word("Gemm", "float32", {}),
        Word("Identity", NUMBERS, {}),
        Word("Log", FLOATS, {}),
        Word("LogSoftmax", FLOATS, _LAST),
        Word("MatMul", "float32", {}, note="one of both is constant; Resize differs between runtimes"),
        Word("Max", FLOATS, {}, note="of a tensor and a constant"),
        Word("Mul", FLOATS, {}),
        Word("Neg", FLOATS, {}),
        Word("ReduceMean", FLOATS, _REDUCED, note="a Squeeze drops the axes"),
        Word("ReduceSum", FLOATS, _REDUCED, note="a Squeeze drops the axis, or OpenVINO errs"),
        Word("Relu", "float32", {}),
        Word("Reshape", FLOATS, {}, note="a constant target; 0 for the batch"),
        Word("Shape", NUMBERS, {}, note="the batch of a state to start with"),
        Word("Softmax", FLOATS, _LAST),
        Word("Squeeze", FLOATS, {"axes": None}),
        Word("Sub", FLOATS, {}),
        Word(
            "TopK",
            FLOATS,
            {"axis": (-1,), "largest": (0, 1)},
            note="of 1; onnxruntime infers no shape of a newer ReduceMax",
        ),
        Word("Transpose", NUMBERS, {"perm": None}),
        Word("Unsqueeze", FLOATS, {"axes": None}),
        Word("Where", FLOATS, {}, note="of an Equal"),
    )
}
"""By operator. ``ReduceLogSumExp``, ``ReduceMax`` and ``Resize`` are not among them: runtimes differ."""


def foreign_nodes(made: onnx.ModelProto, parents: Collection[onnx.ModelProto]) -> list[onnx.NodeProto]:
    """Return nodes that are neither a parent's nor used as :data:`WORDS` says.

    A parent's node is one of an operator that a parent has, with the same attributes.

    Args:
        made: what was written.
        parents: what it was made of.
    """
    own = {_signature(node) for parent in parents for node in parent.graph.node}
    opset = max(each.version for each in made.opset_import if each.domain in ("", "ai.onnx"))
    return [
        node
        for node in made.graph.node
        if _signature(node) not in own
        and (node.domain or node.op_type not in WORDS or not WORDS[node.op_type].allows(node, opset))
    ]


def _signature(node: onnx.NodeProto) -> tuple[object, ...]:
    kept = sorted(each.SerializeToString(deterministic=True) for each in node.attribute)
    return (node.domain, node.op_type, *kept)


def table() -> list[str]:
    """Return :data:`WORDS` as lines of a Markdown table."""
    lines = ["| operator | from opset | types | attributes | how |", "| --- | --- | --- | --- | --- |"]
    for word in WORDS.values():
        attributes = ", ".join(_attribute(name, values) for name, values in word.attributes.items()) or "-"
        lines.append(f"| {word.op} | {word.since} | {word.types} | {attributes} | {word.note or '-'} |")
    return lines


def _attribute(name: str, values: Collection[object] | None) -> str:
    return f"`{name}`" if values is None else f"`{name}` {' or '.join(map(str, values))}"
