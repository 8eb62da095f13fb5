"""Recurrent layers."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from graft.rewriter.flow import Flow
from graft.rewriter.operators.base import ChannelMap, Operator, Work, count


class Recurrent(Operator):
    """``LSTM``, ``GRU`` and ``RNN``: they stay whole."""

    types = ("LSTM", "GRU", "RNN")

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin what goes in; what comes out holds no channels."""
        flow.pin_inputs(node, "recurrent: cut in a later version")

    def work(self, node: gs.Node, channels: ChannelMap) -> list[Work]:
        """Every step of every sample multiplies with both weights, of all gates and directions."""
        steps, *weights = (channels.shape(tensor) for tensor in node.inputs[:3])
        if not steps or any(shape is None for shape in weights):
            return []
        return [Work(count(steps[:2]) * sum(count(shape or ()) for shape in weights), ())]
