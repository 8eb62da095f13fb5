"""Normalization and operators that compare channels with each other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Channels
from graft.rewriter.channels.flow import Flow
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.operators.base import ChannelLookup, Cut, Operator, Parameter, is_constant, positive
from graft.rewriter.operators.elementwise import Broadcast
from graft.rewriter.operators.reshape import Reshape


class BatchNormalization(Operator):
    """``BatchNormalization`` at inference: scale, bias, mean and variance, one value a channel."""

    types = ("BatchNormalization",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass all axes; pin them in training mode and for statistics computed at run time."""
        trains = node.attrs.get("training_mode", 0) or any(o.outputs for o in node.outputs[1:])
        if trains or not all(map(is_constant, node.inputs[1:5])):
            flow.pin_inputs(node, f"{'training mode: ' if trains else ''}statistics computed at run time")
            return
        flow.give(node.outputs[0], flow.of(node.inputs[0]))

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return all four, along the channels of axis 1."""
        axes = channels.of(node.outputs[0])
        if len(axes) < 2 or axes[1] is None:
            return []
        return [Parameter(index, {0: axes[1]}) for index in range(1, 5)]

    def broadcast_shape(self, node: gs.Node, shapes: Sequence[Shape]) -> Shape | None:
        """Return the shape of the input, which needs a value for each channel."""
        return shapes[0] if shapes[0][1:2] == shapes[1] else None


class InstanceNormalization(Operator):
    """``InstanceNormalization``: every channel by its own statistics over space."""

    types: ClassVar[tuple[str, ...]] = ("InstanceNormalization",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass batch and channels; pin what lies on a space axis."""
        axes = flow.of(node.inputs[0])
        if not all(map(is_constant, node.inputs[1:3])):
            flow.pin_inputs(node, "scale or bias computed at run time")
            return
        for channels in axes[2:]:
            flow.pin(channels, node, "normalizes over the channels")
        flow.give(node.outputs[0], axes)

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Scale and bias, one value a channel."""
        axes = channels.of(node.outputs[0])
        if len(axes) < 2 or axes[1] is None:
            return []
        return [Parameter(index, {0: axes[1]}) for index in (1, 2)]


class GroupNormalization(InstanceNormalization):
    """``GroupNormalization``: the channels of one normalization group share their statistics.

    They are tied: whole normalization groups go. Scale and bias hold a value for each of them before
    opset 21, one for each channel since.
    """

    types = ("GroupNormalization",)
    same_shape = True

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Tie the channels of each normalization group."""
        super().flow(node, flow)
        channels = flow.of(node.outputs[0])[1:2]
        if channels and channels[0] is not None:
            _tie_columns(flow, channels[0], int(node.attrs["num_groups"]))

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Scale and bias, along channels or normalization groups."""
        return [
            Parameter(found.index, {0: along[:: len(along) // node.inputs[found.index].shape[0]]})
            for found in super().parameters(node, channels)
            for along in found.axes.values()
        ]

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write the number of normalization groups that are left."""
        kept = cut.keeps(node.outputs[0], 1)
        if kept is not None:
            node.attrs["num_groups"] = int(kept[:: len(kept) // node.attrs["num_groups"]].sum())


class NormalizationGroups(Reshape):
    """A ``Reshape`` of ``(N, C, ...)`` to ``(N, groups, ...)`` that an ``InstanceNormalization`` reads.

    So exporters write GroupNormalization. The channels of one normalization group become one.
    """

    def fits(self, node: gs.Node) -> bool:
        """Return whether only ``InstanceNormalization`` reads the result."""
        users = node.outputs[0].outputs
        return node.op == "Reshape" and bool(users) and {u.op for u in users} == {"InstanceNormalization"}

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Tie the channels of a group; any other regrouping is that of a ``Reshape``."""
        axes = flow.of(node.inputs[0])
        source, target = flow.shape(node.inputs[0]) or (), flow.shape(node.outputs[0]) or ()
        along = axes[1] if len(axes) > 1 and all(c is None for c in (axes[0], *axes[2:])) else None
        groups = target[1] if len(target) > 1 and source[:1] == target[:1] != (None,) else None
        constant = is_constant(node.inputs[1]) and (node.inputs[1].values > 0).tolist()[1:2] == [True]
        if along is None or not groups or len(along) % groups or not constant:
            super().flow(node, flow)
            return
        _tie_columns(flow, along, groups)
        rest: list[None] = [None] * (len(target) - 2)
        flow.give(node.outputs[0], [None, along[:: len(along) // groups], *rest])


class LayerNormalization(Operator):
    """``LayerNormalization`` and ``RMSNormalization``: over all axes from ``axis`` on."""

    types = ("LayerNormalization", "RMSNormalization")

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin the normalized axes; those before pass, to mean and deviation as well."""
        axes = flow.of(node.inputs[0])
        if not all(map(is_constant, node.inputs[1:])):
            flow.pin_inputs(node, "scale or bias computed at run time")
            return
        first = positive(int(node.attrs.get("axis", -1)), len(axes))
        for channels in axes[first:]:
            flow.pin(channels, node, "normalizes over the channels")
        flow.give(node.outputs[0], axes)
        for statistic in node.outputs[1:]:
            flow.give(statistic, [*axes[:first], *[None] * len(axes[first:])])

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Scale and bias, which broadcast to the input."""
        return Broadcast().parameters(node, channels)


class Along(Operator):
    """Base of operators that mix what lies along some axes of their first input; the others pass."""

    reason = "normalizes over the channels"

    @abstractmethod
    def along(self, node: gs.Node, flow: Flow, rank: int) -> Sequence[int] | None:
        """Return the axes, counted from the front; ``None`` if they are computed at run time.

        Args:
            node: the node.
            flow: tells the opset, and shapes.
            rank: number of axes of the first input.
        """

    def left(self, node: gs.Node, axes: list[Channels | None], along: list[int]) -> list[Channels | None]:
        """Return what the outputs hold.

        Args:
            node: the node.
            axes: channels on each axis of the first input.
            along: the axes whose channels are pinned.
        """
        return axes

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin what is mixed, and channels in any further input."""
        axes = flow.of(node.inputs[0])
        if not axes:
            return  # of unknown rank: the analysis pins what it carries
        along = self.along(node, flow, len(axes))
        if along is None:
            flow.pin_inputs(node, "axis computed at run time")
            return
        for axis in along:
            flow.pin(axes[axis], node, self.reason)
        for tensor in node.inputs[1:]:
            for channels in flow.of(tensor):
                flow.pin(channels, node, "steers the operator")
        for output in node.outputs:
            flow.give(output, self.left(node, axes, list(along)))


class Softmax(Along):
    """``Softmax`` and its kin; before opset 13 over every axis from ``axis`` on."""

    types = ("Softmax", "LogSoftmax", "Hardmax")

    def along(self, node: gs.Node, flow: Flow, rank: int) -> Sequence[int]:
        """Return the attribute; before opset 13 also all axes behind."""
        flattens = flow.opset < 13
        axis = positive(int(node.attrs.get("axis", 1 if flattens else -1)), rank)
        return range(axis, rank) if flattens else [axis]

    def counts(self, node: gs.Node, axis: int, rank: int) -> bool:
        """Return ``False``: every value by those on the same axis, which :meth:`flow` pins."""
        return False


class LocalResponse(Along):
    """``LRN``: neighbouring channels."""

    types = ("LRN",)

    def along(self, node: gs.Node, flow: Flow, rank: int) -> Sequence[int]:
        """Return axis 1."""
        return [1]


class LpNormalization(Along):
    """``LpNormalization``: one axis."""

    types = ("LpNormalization",)

    def along(self, node: gs.Node, flow: Flow, rank: int) -> Sequence[int]:
        """Return the attribute."""
        return [positive(int(node.attrs.get("axis", -1)), rank)]


class MeanVarianceNormalization(Along):
    """``MeanVarianceNormalization``: batch and space, unless it says otherwise."""

    types = ("MeanVarianceNormalization",)
    same_shape = True

    def along(self, node: gs.Node, flow: Flow, rank: int) -> Sequence[int]:
        """Return the attribute."""
        return [positive(int(axis), rank) for axis in node.attrs.get("axes", [0, 2, 3])]


def _tie_columns(flow: Flow, channels: Channels, groups: int) -> None:
    """Tie the channels of each of ``groups`` stretches."""
    table = channels.reshape(groups, -1)
    for column in table.T[1:]:
        flow.tie(table[:, 0], column)
