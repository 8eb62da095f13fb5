"""Pooling over space: channels pass, positions are gathered."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from graft.rewriter.channels.flow import Flow
from graft.rewriter.operators.base import Operator


class Pooling(Operator):
    """Windowed and global pooling over the axes behind the channels."""

    types = (
        *("AveragePool", "MaxPool", "LpPool"),
        *("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"),
    )

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass channels on axis 1; pin them where the indices of ``MaxPool`` are used."""
        axes = flow.of(node.inputs[0])
        for channels in axes[2:]:
            flow.pin(channels, node, "channels on a space axis of a pooling")
        if any(output.name and output.outputs for output in node.outputs[1:]):
            flow.pin_inputs(node, "its indices are used")
        flow.give(node.outputs[0], [*axes[:2], *[None] * (len(axes) - 2)])
