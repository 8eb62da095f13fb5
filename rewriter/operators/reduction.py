"""Reductions along axes: sums over channels consume them, other reductions need all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Axes, Channels
from graft.rewriter.channels.flow import Flow
from graft.rewriter.operators.base import (
    ChannelLookup,
    Cut,
    Operator,
    Read,
    constant_ints,
    float_constant,
    given,
    insert_after,
    positive,
)
from graft.rewriter.operators.normalization import Along


class Reduction(Operator):
    """``ReduceSum`` and its kin.

    A channel that is zero changes no sum of values, magnitudes or squares: these consume the channels
    that they reduce. A mean goes on to divide by the parent's number of channels.
    """

    types: ClassVar[tuple[str, ...]] = (
        *("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"),
    )

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Consume the channels of reduced axes; pass the others."""
        axes = flow.of(node.inputs[0])
        if not axes:
            return  # of unknown rank: the analysis pins what it carries
        reduced = _reduced(node, len(axes))
        if reduced is None:
            flow.pin_inputs(node, "axes computed at run time")
            return
        for axis in reduced:
            self._reduce(node, flow, axes[axis])
        keep = node.attrs.get("keepdims", 1)
        rest = [None if axis in reduced else channels for axis, channels in enumerate(axes)]
        left = rest if keep else [rest[axis] for axis in range(len(axes)) if axis not in reduced]
        flow.give(node.outputs[0], left)

    def _reduce(self, node: gs.Node, flow: Flow, channels: Channels | None) -> None:
        """Consume the channels along which the node reduces."""

    def masks(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return every reduced axis with channels."""
        axes = channels.of(node.inputs[0])
        reduced = (_reduced(node, len(axes)) or ()) if axes else ()
        return [Read(0, axis, found) for axis in reduced if (found := axes[axis]) is not None]

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Scale a mean over fewer channels to what the parent divides by."""
        if node.op != "ReduceMean":
            return
        share = 1.0
        for axis in _reduced(node, len(cut.shape(node.inputs[0]) or ())) or ():
            kept = cut.keeps(node.inputs[0], axis)
            share *= 1.0 if kept is None else float(kept.mean())
        if share < 1:
            name = f"{node.outputs[0].name}/as_before"  # not after the node: it may be cut again
            scale = float_constant(f"{name}/share", np.array(share), like=node.inputs[0])
            insert_after(node, gs.Node("Mul", name, inputs=[scale]), cut.graph)


class SelectiveReduction(Reduction):
    """Reductions that a channel of zeros may change: the largest value, a product."""

    types = ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp")

    def _reduce(self, node: gs.Node, flow: Flow, channels: Channels | None) -> None:
        flow.pin(channels, node, "reduces over the channels")

    def masks(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return nothing: no channel counts as zero."""
        return []


class ArgMax(Along):
    """``ArgMax`` and ``ArgMin``: positions along one axis."""

    types = ("ArgMax", "ArgMin")
    reason = "counts the channels"

    def along(self, node: gs.Node, flow: Flow, rank: int) -> Sequence[int]:
        """Return the attribute."""
        return [positive(int(node.attrs.get("axis", 0)), rank)]

    def left(self, node: gs.Node, axes: Axes, along: Sequence[int]) -> Axes:
        """Return the other axes."""
        if node.attrs.get("keepdims", 1):
            return [None if axis in along else channels for axis, channels in enumerate(axes)]
        return [channels for axis, channels in enumerate(axes) if axis not in along]


class TopK(Along):
    """``TopK``: the largest along one axis, and where they lie."""

    types = ("TopK",)
    reason = "sorts the channels"

    def along(self, node: gs.Node, flow: Flow, rank: int) -> Sequence[int]:
        """Return the attribute."""
        return [positive(int(node.attrs.get("axis", -1)), rank)]

    def left(self, node: gs.Node, axes: Axes, along: Sequence[int]) -> Axes:
        """Return the other axes."""
        return [None if axis in along else channels for axis, channels in enumerate(axes)]


class CumSum(Along):
    """``CumSum``: each value plus those before it."""

    types = ("CumSum",)
    reason = "adds up along the channels"

    def along(self, node: gs.Node, flow: Flow, rank: int) -> Sequence[int] | None:
        """Return the second input."""
        found = constant_ints(node, 1)
        return None if found is None else [positive(axis, rank) for axis in found]


def _reduced(node: gs.Node, rank: int) -> list[int] | None:
    """Return the axes of a reduction; ``None`` if they are computed at run time."""
    reduced = constant_ints(node, 1, "axes")
    if not reduced:
        if reduced is None and given(node, 1) is not None:
            return None
        reduced = [] if node.attrs.get("noop_with_empty_axes", 0) else list(range(rank))
    return [positive(axis, rank) for axis in reduced]
