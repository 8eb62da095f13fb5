"""Attention as one operator: whole heads go, and the width of queries and keys, or of values, inside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array, Axes, Channels
from graft.rewriter.channels.flow import Flow
from graft.rewriter.operators.base import (
    ChannelLookup,
    Cut,
    Operator,
    Parameter,
    Read,
    Work,
    count,
    given,
    is_constant,
    set_constant,
)
from graft.rewriter.operators.consumer import Consumer


@dataclass(frozen=True)
class Heads:
    """The channels of heads, and of the width inside each of them."""

    heads: Channels
    width: Channels


class Attention(Operator):
    """``Attention``: queries, keys and values of (batch, tokens, heads * width), or of four axes.

    Keys and values may have fewer heads, each of them for as many heads of queries.
    """

    types: ClassVar[tuple[str, ...]] = ("Attention",)
    numbers: ClassVar[tuple[str, ...]] = ("q_num_heads", "kv_num_heads", "kv_num_heads")
    """Attributes with the numbers of heads of queries, keys and values."""
    scores: ClassVar[int] = 3
    """Which input is added to the scores of every head, or masks them."""
    others: ClassVar[tuple[int, ...]] = (4, 5, 6)
    """Inputs without a rule: tokens that were computed earlier, and how many there are."""

    # ------------------------------------------------------------ flow

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Tie the heads of all three, and the widths of queries and keys."""
        strange = any(given(node, index) is not None for index in self.others)
        strange = strange or any(output.name for output in node.outputs[1:]) or "do_rotary" in node.attrs
        found = None if strange else self.projections(node, flow)
        if found is None:
            flow.pin_inputs(node, "a form of attention without a rule")
            return
        queries, keys, values = found
        for other in (keys, values):
            flow.tie(queries.heads, np.repeat(other.heads, len(queries.heads) // len(other.heads)))
        flow.tie(queries.width, keys.width)
        self._tie_scores(node, flow, queries.heads)
        flow.give(_hidden(node, "heads"), [queries.heads, keys.heads])
        output: Axes = [None, queries.heads, None, values.width]
        if len(flow.of(node.inputs[0])) == 3:
            sizes = [len(queries.heads), len(values.width)]
            output = [None, None, flow.merge([queries.heads, values.width], sizes)]
        flow.give(node.outputs[0], output)

    def projections(self, node: gs.Node, flow: Flow) -> tuple[Heads, Heads, Heads] | None:
        """Return the heads of queries, keys and values; ``None`` for a form without a rule."""
        tensors = [given(node, index) for index in range(3)]
        lists = [None if t is None else self._heads_of(node, flow, t, i) for i, t in enumerate(tensors)]
        queries, keys, values = lists
        if queries is None or keys is None or values is None or len(queries.width) != len(keys.width):
            return None
        if len(keys.heads) != len(values.heads) or len(queries.heads) % len(keys.heads):
            return None
        return queries, keys, values

    def _heads_of(self, node: gs.Node, flow: Flow, tensor: gs.Tensor, index: int) -> Heads | None:
        axes = flow.of(tensor)
        if len(axes) == 3 and axes[2] is not None and self.numbers[index] in node.attrs:
            return split(flow, axes[2], int(node.attrs[self.numbers[index]]))
        if len(axes) == 4 and axes[1] is not None and axes[3] is not None:
            return Heads(axes[1], axes[3])
        return None

    def _tie_scores(self, node: gs.Node, flow: Flow, heads: Channels) -> None:
        """Tie what is added to the scores of every head to the head."""
        tensor = given(node, self.scores)
        if tensor is None or is_constant(tensor):
            return
        axes = flow.of(tensor)
        for axis, channels in enumerate(axes):
            if axis != len(axes) - 3 or (channels is not None and len(channels) != len(heads)):
                flow.pin(channels, node, "channels of the scores that are no heads")
            elif channels is not None:
                flow.tie(heads, channels)
            elif flow.size(tensor, axis) != 1:
                flow.pin(heads, node, "meets scores for every head")

    # ------------------------------------------------------------ what is cut

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return what is added to the scores of every head."""
        tensor, heads = given(node, self.scores), _along(channels, _hidden(node, "heads"), 0)
        if heads is None or not isinstance(tensor, gs.Constant):
            return []
        if len(tensor.shape) < 3 or tensor.shape[-3] == 1:
            return []
        return [Parameter(self.scores, {len(tensor.shape) - 3: heads})]

    def masks(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return the width of queries and keys, which are multiplied and summed."""
        if _along(channels, _hidden(node, "heads"), 0) is None:
            return []
        found = [(index, len(channels.of(node.inputs[index])) - 1) for index in (0, 1)]
        lists = [(index, axis, _along(channels, node.inputs[index], axis)) for index, axis in found]
        return [Read(index, axis, along) for index, axis, along in lists if along is not None]

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return the work of queries times keys and of scores times values, for every head."""
        queries, keys = (channels.shape(node.inputs[index]) for index in (0, 1))
        if queries is None or keys is None or len(queries) not in (3, 4):
            return []
        pairs = count([queries[0], queries[-2], keys[-2]])
        return [self._product(node, channels, tensor, pairs) for tensor in (node.inputs[0], node.outputs[0])]

    @staticmethod
    def _product(node: gs.Node, channels: ChannelLookup, tensor: gs.Tensor, pairs: float) -> Work:
        shape, axes = channels.shape(tensor) or (), channels.of(tensor)
        places = [axis for axis in (1, 3) if axis < len(axes)] if len(axes) == 4 else [len(axes) - 1]
        lists = tuple(along for axis in places if (along := axes[axis]) is not None)
        sizes = [shape[axis] for axis in places if axes[axis] is None]
        return Work(pairs * count(sizes), lists)

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write the numbers of heads that are left, and the scale by the parent's width."""
        for attribute, axis in zip(self.numbers[:2], (0, 1), strict=False):
            kept = cut.keeps(_hidden(node, "heads"), axis)
            if kept is not None and attribute in node.attrs:
                node.attrs[attribute] = int(kept.sum())
        if "scale" not in node.attrs:
            width = self.width(node, cut)
            if width:
                node.attrs["scale"] = float(1 / np.sqrt(width))

    def width(self, node: gs.Node, cut: Cut) -> int | None:
        """Return the width of the heads of queries in the parent."""
        heads, shape = cut.keeps(_hidden(node, "heads"), 0), cut.shape(node.inputs[0])
        if heads is None or shape is None or shape[-1] is None:
            return None
        return shape[-1] if len(shape) == 4 else shape[-1] // len(heads)


class MultiHeadAttention(Attention):
    """onnxruntime's ``MultiHeadAttention``, with a bias for queries, keys and values."""

    types = ("com.microsoft::MultiHeadAttention",)
    numbers = ("num_heads",) * 3
    scores = 5
    others = (6, 7, 8, 9)
    bias: ClassVar[int] = 3

    def projections(self, node: gs.Node, flow: Flow) -> tuple[Heads, Heads, Heads] | None:
        """Return the heads where there are three axes each and a constant bias."""
        bias = given(node, self.bias)
        plain = all(len(flow.of(tensor)) == 3 for tensor in node.inputs[:3])
        known = bias is None or is_constant(bias)
        return super().projections(node, flow) if plain and known else None

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return also the bias along queries, keys and values, one after the other."""
        found = super().parameters(node, channels)
        lists = [_along(channels, tensor, 2) for tensor in node.inputs[:3]]
        known = [along for along in lists if along is not None]
        if is_constant(given(node, self.bias)) and len(known) == 3:
            found.append(Parameter(self.bias, {0: np.concatenate(known)}, inside=0))
        return found


class FusedAttention(Attention, Consumer):
    """onnxruntime's ``Attention``: it holds the projections, side by side in one matrix."""

    types = ("com.microsoft::Attention",)
    numbers = ("num_heads",) * 3
    scores = 5
    others = (4, 6)

    def projections(self, node: gs.Node, flow: Flow) -> tuple[Heads, Heads, Heads] | None:
        """Make the channels of queries, keys and values."""
        weight, bias = node.inputs[1], given(node, 2)
        if not is_constant(weight) or not (bias is None or is_constant(bias)):
            return None
        whole = weight.shape[1]
        sizes = [int(size) for size in node.attrs.get("qkv_hidden_sizes", [whole // 3] * 3)]
        number = int(node.attrs["num_heads"])
        if any(size % number for size in sizes) or sizes[0] != sizes[1]:
            return None
        made = flow.make(node, whole)
        flow.give(_hidden(node, "projections"), [made])
        queries, keys, values = (split(flow, part, number) for part in np.split(made, np.cumsum(sizes)[:2]))
        return None if queries is None or keys is None or values is None else (queries, keys, values)

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return also matrix and bias of the projections."""
        found = super().parameters(node, channels)
        made, inputs = _along(channels, _hidden(node, "projections"), 0), _along(channels, node.inputs[0], 2)
        if made is None:
            return found
        axes = {1: made} if inputs is None else {0: inputs, 1: made}
        found.append(Parameter(1, axes, reads=None if inputs is None else 0, inside=1))
        return [*found, Parameter(2, {0: made}, inside=0)] if given(node, 2) is not None else found

    def reads(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return what the projections read."""
        inputs = _along(channels, node.inputs[0], 2)
        return [] if inputs is None else [Read(0, 2, inputs)]

    def masks(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return nothing: queries and keys are inside."""
        return []

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return the work of the projections, too."""
        shape, made = channels.shape(node.inputs[0]), _along(channels, _hidden(node, "projections"), 0)
        output = _along(channels, node.outputs[0], 2)
        if shape is None or made is None or output is None:
            return []
        inputs = _along(channels, node.inputs[0], 2)
        tokens, queries = count(shape[:2]), made[: (len(made) - len(output)) // 2]
        projected = (
            Work(tokens, (inputs, made)) if inputs is not None else Work(tokens * count(shape[2:]), (made,))
        )
        pairs = tokens * count(shape[1:2])
        return [projected, Work(pairs, (queries,)), Work(pairs, (output,))]

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write the sizes of queries, keys and values, too."""
        super().rewrite(node, cut)
        made, output = cut.keeps(_hidden(node, "projections"), 0), cut.keeps(node.outputs[0], 2)
        if made is not None and output is not None and not made.all():
            values = int(output.sum())
            queries = (int(made.sum()) - values) // 2
            node.attrs["qkv_hidden_sizes"] = [queries, queries, values]

    def width(self, node: gs.Node, cut: Cut) -> int | None:
        """Return the width of the heads of queries in the parent: half of what is not values."""
        made, output = cut.keeps(_hidden(node, "projections"), 0), cut.keeps(node.outputs[0], 2)
        heads = cut.keeps(_hidden(node, "heads"), 0)
        if made is None or output is None or heads is None:
            return None
        return (len(made) - len(output)) // 2 // len(heads)

    def matrix(self, node: gs.Node, read: Read) -> Array:
        """Return the projections as (outputs, 1, inputs)."""
        turned: Array = node.inputs[1].values.astype(np.float64).T[:, None]
        return turned

    def fold(self, node: gs.Node, read: Read, into: Array, constant: Array, channels: ChannelLookup) -> Array:
        """Multiply the projections with ``into``."""
        matrix = node.inputs[1]
        along = matrix.values.astype(np.float64)
        set_constant(node, 1, (into.T @ along).astype(matrix.dtype))
        delta: Array = constant @ along
        return delta

    def add_bias(self, node: gs.Node, delta: Array, graph: gs.Graph) -> None:
        """Add to the bias of the projections."""
        bias = given(node, 2)
        old = np.zeros(len(delta), node.inputs[1].dtype) if bias is None else bias.values
        set_constant(node, 2, (old + delta).astype(old.dtype))


# ------------------------------------------------------------------------------- helpers


def split(flow: Flow, channels: Channels, number: int) -> Heads | None:
    """Return the channels of heads and of their width; ``None`` where heads are not equally wide.

    Args:
        flow: the analysis so far.
        channels: of all heads, one after the other.
        number: of heads.
    """
    if len(channels) % number:
        return None
    sizes = [number, len(channels) // number]
    heads, width = (
        flow.adopt(size) if found is None else found
        for found, size in zip(flow.split(channels, sizes), sizes, strict=True)
    )
    return Heads(heads, width)


def _hidden(node: gs.Node, what: str) -> gs.Variable:
    """Return a tensor inside the operator: it has channels, and no place in the graph."""
    return gs.Variable(f"{node.name}/{what}")


def _along(channels: ChannelLookup, tensor: gs.Tensor, axis: int) -> Channels | None:
    axes = channels.of(tensor)
    return axes[axis] if axis < len(axes) else None
