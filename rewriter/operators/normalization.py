"""Normalization and operators that compare channels with each other."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from graft.rewriter.flow import Flow
from graft.rewriter.operators.base import ChannelMap, Operator, Parameter, is_constant, positive


class BatchNormalization(Operator):
    """``BatchNormalization`` at inference: scale, bias, mean and variance, one value a channel."""

    types = ("BatchNormalization",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """All axes pass; training mode and run-time statistics pin."""
        trains = node.attrs.get("training_mode", 0) or any(o.outputs for o in node.outputs[1:])
        if trains or not all(map(is_constant, node.inputs[1:5])):
            flow.pin_inputs(node, "statistics computed at run time")
            return
        flow.give(node.outputs[0], flow.of(node.inputs[0]))

    def parameters(self, node: gs.Node, channels: ChannelMap) -> list[Parameter]:
        """All four, along the channels of axis 1."""
        axes = channels.of(node.outputs[0])
        if len(axes) < 2 or axes[1] is None:
            return []
        return [Parameter(index, {0: axes[1]}) for index in range(1, 5)]


class Softmax(Operator):
    """``Softmax`` and its kin mix what lies along an axis; the other axes pass."""

    types = ("Softmax", "LogSoftmax", "Hardmax")

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin the normalized axis; before opset 13 that is every axis from ``axis`` on."""
        axes = flow.of(node.inputs[0])
        flattens = flow.opset < 13
        axis = positive(int(node.attrs.get("axis", 1 if flattens else -1)), len(axes))
        for channels in axes[axis:] if flattens else axes[axis : axis + 1]:
            flow.pin(channels, node, "normalizes over the channels")
        flow.give(node.outputs[0], axes)
