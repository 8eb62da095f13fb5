"""Operators that change the space around the channels: resizing, sampling, blocks to depth and back."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.channels.flow import Flow
from graft.rewriter.graph.vocabulary import PREPARED
from graft.rewriter.operators.base import (
    ChannelLookup,
    Cut,
    Operator,
    Pinning,
    constant_ints,
    given,
    positive,
    set_constant,
)


class Resize(Operator):
    """``Resize``: channels pass where their axis keeps its size."""

    types = ("Resize",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin channels on axes that are scaled or cropped, or of sizes computed at run time."""
        axes = flow.of(node.inputs[0])
        for tensor in node.inputs[1:]:
            for channels in flow.of(tensor):
                flow.pin(channels, node, "its values are sizes")
        crops = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
        for axis, channels in enumerate(axes):
            if crops or not self._stays(node, flow, axis, len(axes)):
                flow.pin(channels, node, "resizes the channel axis, or may do so")
        flow.give(node.outputs[0], axes)

    @staticmethod
    def _stays(node: gs.Node, flow: Flow, axis: int, rank: int) -> bool:
        """Return whether an axis is known to keep its size, also when it is shorter."""
        sizes = flow.size(node.inputs[0], axis), flow.size(node.outputs[0], axis)
        axes = [positive(int(each), rank) for each in node.attrs.get("axes", range(rank))]
        if axis not in axes:
            return True
        scales = given(node, 2)
        if isinstance(scales, gs.Constant) and scales.values.size:
            return bool(scales.values[axes.index(axis)] == 1)
        policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
        written = given(node, 3) is not None and constant_ints(node, 3) is not None
        return written and policy == "stretch" and None not in sizes and sizes[0] == sizes[1]

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write the number of channels that are left into the sizes."""
        rank = len(cut.shape(node.inputs[0]) or ())
        axes = [positive(int(each), rank) for each in node.attrs.get("axes", range(rank))]
        sizes = constant_ints(node, 3)
        if not sizes:
            return
        kept = [cut.keeps(node.inputs[0], axis) for axis in axes]
        left = [s if mask is None else int(mask.sum()) for s, mask in zip(sizes, kept, strict=True)]
        if left != sizes:
            set_constant(node, 3, np.array(left, np.int64))


class Sampling(Operator):
    """``GridSample``, ``RoiAlign`` and ``MaxRoiPool``: values picked between the places of each channel."""

    types = ("GridSample", "RoiAlign", "MaxRoiPool")

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass channels on axis 1; pin the others, and those of what says where to look."""
        axes = flow.of(node.inputs[0])
        for channels in (*axes[:1], *axes[2:]):
            flow.pin(channels, node, "channels on a batch or space axis")
        for tensor in node.inputs[1:]:
            for channels in flow.of(tensor):
                flow.pin(channels, node, "its values are places")
        flow.give(node.outputs[0], [None, *axes[1:2], *[None] * (len(axes) - 2)])


class DepthToSpace(Operator):
    """``DepthToSpace``: a block of channels becomes the places of one, so that they are tied."""

    types = ("DepthToSpace",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Tie the channels of a block: ``DCR``: blocks, then channels; ``CRD``: channels, then blocks."""
        axes = flow.of(node.inputs[0])
        for channels in axes[2:]:
            flow.pin(channels, node, "channels on a space axis")
        if len(axes) < 2 or axes[1] is None:
            flow.give(node.outputs[0], [*axes[:1], *[None] * (len(axes) - 1)])
            return
        blocks = int(node.attrs["blocksize"]) ** 2
        last = node.attrs.get("mode", "DCR") == "CRD"
        table = axes[1].reshape(-1, blocks).T if last else axes[1].reshape(blocks, -1)
        for row in table[1:]:
            flow.tie(table[0], row)
        flow.give(node.outputs[0], [axes[0], table[0], None, None])


class SpaceToDepth(Operator):
    """``SpaceToDepth``: the places of a block become channels: the list, once for each."""

    types = ("SpaceToDepth",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass the list once for each place of a block."""
        axes = flow.of(node.inputs[0])
        for channels in axes[2:]:
            flow.pin(channels, node, "channels on a space axis")
        blocks = int(node.attrs["blocksize"]) ** 2
        along = axes[1] if len(axes) > 1 else None
        new = None if along is None else np.tile(along, blocks)
        flow.give(node.outputs[0], [*axes[:1], new, *[None] * (len(axes) - 2)] if axes else [])


class Resampling(Pinning):
    """A product that brings raw pixels to another size: no layer, and what it multiplies is not counted.

    A parent is given images of its size, and what brings them to it counts nowhere.
    """

    types = ("MatMul",)

    def fits(self, node: gs.Node) -> bool:
        """Return whether Graft wrote the product to prepare pixels."""
        return PREPARED in node.name

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return ``False``: it is left out."""
        return False
