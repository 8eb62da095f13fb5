"""Pooling and reductions over space: channels pass, positions are gathered."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from graft.rewriter.flow import Flow
from graft.rewriter.operators.base import Operator, constant_ints, given, positive


class Pooling(Operator):
    """Windowed and global pooling over the axes behind the channels."""

    types = (
        *("AveragePool", "MaxPool", "LpPool"),
        *("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"),
    )

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Channels on axis 1 pass; the indices of ``MaxPool`` count over channels and pin them."""
        axes = flow.of(node.inputs[0])
        for channels in axes[2:]:
            flow.pin(channels, node, "channels on a space axis of a pooling")
        if any(output.name and output.outputs for output in node.outputs[1:]):
            flow.pin_inputs(node, "its indices are used")
        flow.give(node.outputs[0], [*axes[:2], *[None] * (len(axes) - 2)])


class Reduction(Operator):
    """``ReduceMean`` and its kin over axes without channels."""

    types = (
        *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"),
        *("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
    )

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Reduced axes must hold no channels, or pin them; the others pass."""
        axes = flow.of(node.inputs[0])
        if not axes:
            return  # of unknown rank: carries no channels
        reduced = constant_ints(node, 1, "axes")
        if not reduced:
            if reduced is None and given(node, 1) is not None:
                flow.pin_inputs(node, "axes computed at run time")
                return
            reduced = [] if node.attrs.get("noop_with_empty_axes", 0) else list(range(len(axes)))
        reduced = [positive(axis, len(axes)) for axis in reduced]
        for axis in reduced:
            flow.pin(axes[axis], node, "reduces over the channels")
        keep = node.attrs.get("keepdims", 1)
        rest = [None if axis in reduced else channels for axis, channels in enumerate(axes)]
        flow.give(
            node.outputs[0],
            rest if keep else [rest[axis] for axis in range(len(axes)) if axis not in reduced],
        )
