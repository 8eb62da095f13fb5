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
SIZES = frozenset(("group", "hidden_size", "num_heads", "kv_num_heads", "q_num_heads", "split"))
"""Attributes that say how many channels there are."""
SINGLE = ("float32",)
FLOATS = ("float32", "float16", "float64")
NUMBERS = (*FLOATS, "int64")


@dataclass(frozen=True)
class Word:
    """An operator that may be added.

    Attributes:
        op: its name, of the standard set.
        types: of its first input.
        attributes: that may be set, to which values; ``None``: to any.
        since: lowest operator set it is used in.
        note: how it is used, and what is avoided.
    """

    op: str
    types: Collection[str]
    attributes: Mapping[str, Collection[object] | None]
    since: int = 11
    note: str = ""

    def allows(self, node: onnx.NodeProto, opset: int, type_: str | None = None) -> bool:
        """Return ``True`` for a node that is used as said.

        Args:
            node: of this operator.
            opset: of its model.
            type_: of its first input; ``None``: not known.
        """
        if type_ is not None and type_ not in self.types:
            return False
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
        Word("AveragePool", SINGLE, {"kernel_shape": None, "strides": None}, note="a coarse view of images"),
        Word(
            "Cast",
            (*FLOATS, "uint8"),
            {"to": None},
            note="between types of parents; raw pixels below opset 15",
        ),
        Word("CastLike", ("uint8",), {}, 15, "raw pixels: converters to half precision change its type"),
        Word("Clip", FLOATS, {}, note="limits are inputs"),
        Word("Concat", NUMBERS, _ANY_AXIS),
        Word("ConstantOfShape", ("int64",), {"value": None}, note="states to start with, of a free batch"),
        Word("Div", FLOATS, {}),
        Word(
            "Equal", NUMBERS, {}, note="read by Where only: no mask is cast; of indices, or of small counts"
        ),
        Word("Exp", FLOATS, {}),
        Word("Expand", FLOATS, {}, note="a constant over the batch"),
        Word("Flatten", FLOATS, {"axis": (1,)}),
        Word("Floor", SINGLE, {}),
        Word("Gather", NUMBERS, _ANY_AXIS, note="constant indices"),
        Word("Gemm", SINGLE, {}),
        Word("Identity", NUMBERS, {}),
        Word("Log", FLOATS, {}),
        Word(
            "LogSoftmax", FLOATS, _LAST, note="its largest entry is read alone: tract takes a Log of shares"
        ),
        Word("MatMul", SINGLE, {}, note="one of both is constant; Resize differs between runtimes"),
        Word("Max", FLOATS, {}, note="of a tensor and a constant"),
        Word("Mul", FLOATS, {}),
        Word("Neg", FLOATS, {}),
        Word("ReduceMean", FLOATS, _REDUCED, note="a Squeeze drops the axes"),
        Word("ReduceSum", FLOATS, _REDUCED, note="a Squeeze drops the axis, or OpenVINO errs"),
        Word("Relu", SINGLE, {}),
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
        Word("Where", ("bool",), {}, note="of an Equal"),
    )
}
"""By operator. ``ReduceLogSumExp``, ``ReduceMax`` and ``Resize`` are not among them: runtimes differ."""


def foreign_nodes(made: onnx.ModelProto, parents: Collection[onnx.ModelProto]) -> list[onnx.NodeProto]:
    """Return nodes that are neither a parent's nor used as :data:`WORDS` says.

    A parent's node is one of an operator that a parent has, with the same attributes but for :data:`SIZES`,
    which a cut changes.

    Args:
        made: what was written.
        parents: what it was made of.
    """
    own = {_signature(node) for parent in parents for node in parent.graph.node}
    opset = max(each.version for each in made.opset_import if each.domain in ("", "ai.onnx"))
    types = _types(made)
    return [
        node
        for node in made.graph.node
        if _signature(node) not in own
        and (
            node.domain
            or node.op_type not in WORDS
            or not WORDS[node.op_type].allows(node, opset, types.get(node.input[0]))
        )
    ]


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """Return the types of tensors, by name, where they are known."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {each.name: each.data_type for each in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kinds[value.name] = value.type.tensor_type.elem_type
    return {name: str(onnx.helper.tensor_dtype_to_np_dtype(kind)) for name, kind in kinds.items() if kind}


def _signature(node: onnx.NodeProto) -> tuple[object, ...]:
    kept = sorted(
        each.SerializeToString(deterministic=True) for each in node.attribute if each.name not in SIZES
    )
    return (node.domain, node.op_type, *kept)


def table() -> list[str]:
    """Return :data:`WORDS` as lines of a Markdown table."""
    lines = ["| operator | from opset | types | attributes | how |", "| --- | --- | --- | --- | --- |"]
    for word in WORDS.values():
        attributes = ", ".join(_attribute(name, values) for name, values in word.attributes.items()) or "-"
        lines.append(
            f"| {word.op} | {word.since} | {', '.join(word.types)} | {attributes} | {word.note or '-'} |"
        )
    return lines


def _attribute(name: str, values: Collection[object] | None) -> str:
    return f"`{name}`" if values is None else f"`{name}` {' or '.join(map(str, values))}"
