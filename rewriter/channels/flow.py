"""How channels flow through a graph: the book-keeping that operator classes write into.

Every axis of every tensor is an ordered list of channel numbers, or *not channels* (``None``: batch,
height, time, a size of 1 that broadcasts). Channels are tied one by one
(:mod:`graft.rewriter.channels.coupling`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Axes, Channels
from graft.rewriter.channels.coupling import Coupling
from graft.rewriter.graph.shapes import Shape

COUNTED = 2**14
"""Shorter lists of channels are not counted."""
LONGEST = 2**20
"""The most channels along one axis: a flattened map of 64 channels of 128x128. Each takes microseconds."""
MOST_PLACES = 2**23
"""The most channels along all counted axes together."""


class TooManyChannelsError(Exception):
    """An axis is too long to follow channels along it."""


@dataclass(frozen=True)
class ChannelOrigin:
    """Channels that one node made, in the order in which it made them."""

    node: str
    channels: Channels


class Flow:
    """The state of the analysis while the nodes are visited in topological order.

    Args:
        shapes: tensor name to shape (see :meth:`graft.rewriter.graph.model.Model.shapes`).
        opset: version of the operator set: some operators changed their meaning.
        larger: gives the shapes for another batch, where the batch is free.

    Attributes:
        axes: tensor name to the channels on each axis, as far as nodes were visited.
        origins: the channels that nodes made, in order.
        batched: channels were merged with the batch.
    """

    def __init__(
        self,
        shapes: dict[str, Shape],
        opset: int,
        larger: Callable[[], dict[str, Shape]] | None = None,
    ) -> None:
        self.shapes = shapes
        self.opset = opset
        self.batched = False
        self._larger = larger
        self.axes: dict[str, Axes] = {}
        self.origins: list[ChannelOrigin] = []
        self._pinned: dict[int, str] = {}
        self._ties = Coupling()
        self._places = 0

    # ------------------------------------------------------------- reading

    def of(self, tensor: gs.Tensor) -> Axes:
        """Return the channels on each axis of ``tensor``; all *not channels* where nothing is known."""
        known = self.axes.get(tensor.name)
        if known is None:
            return [None] * len(self.shapes.get(tensor.name, ()))
        return list(known)

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Return the shape of ``tensor``, or ``None`` where not even the rank is known."""
        return self.shapes.get(tensor.name)

    def size(self, tensor: gs.Tensor, axis: int) -> int | None:
        """Return the size of one axis, or ``None``."""
        shape = self.shape(tensor)
        return None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]

    @cached_property
    def _larger_shapes(self) -> dict[str, Shape]:
        return self.shapes if self._larger is None else self._larger()

    def grows(self, tensor: gs.Tensor, axis: int) -> bool:
        """Return whether the size of an axis is another for another batch."""
        shape = self._larger_shapes.get(tensor.name)
        return shape is None or len(shape) <= axis or shape[axis] != self.size(tensor, axis)

    # ------------------------------------------------------------- writing

    def _count(self, places: int) -> None:
        """Count channels along an axis.

        Raises:
            TooManyChannelsError: along this axis, or along all so far.
        """
        if places > COUNTED:
            self._places += places
            if places > LONGEST or self._places > MOST_PLACES:
                raise TooManyChannelsError

    def give(self, tensor: gs.Tensor, axes: Sequence[Channels | None]) -> None:
        """Set which channels ``tensor`` carries. Lists of another length than its axes are pinned."""
        carried = list(axes)
        self._count(max((len(channels) for channels in carried if channels is not None), default=0))
        for axis, channels in enumerate(carried):
            size = self.size(tensor, axis)
            if channels is not None and size not in (None, len(channels)):
                self.pin_because(channels, f"{tensor.name}: {size} places for {len(channels)} channels")
                carried[axis] = None
        self.axes[tensor.name] = carried

    def make(self, node: gs.Node, size: int) -> Channels:
        """Return new channels that ``node`` makes."""
        self._count(size)
        channels = self._ties.new(size)
        self.origins.append(ChannelOrigin(node.name, channels))
        return channels

    def fixed(self, node: gs.Node, size: int, reason: str) -> Channels:
        """Return numbers for places in a list that are no channels themselves and always stay.

        Args:
            node: because of which they stay.
            size: how many.
            reason: why they stay.
        """
        self._count(size)
        channels = self._ties.new(size)
        self.pin(channels, node, reason)
        return channels

    def adopt(self, size: int) -> Channels:
        """Return channels of a constant, for those to be tied to that it meets; alone they always stay."""
        self._count(size)
        return self._ties.new(size)

    def tie(self, left: Channels, right: Channels) -> None:
        """Let channel ``left[i]`` and channel ``right[i]`` be pruned together or not at all."""
        for one, other in dict.fromkeys(zip(left.tolist(), right.tolist(), strict=True)):
            self._ties.tie(one, other)

    def meet(
        self, node: gs.Node, places: Sequence[tuple[gs.Tensor, int]], widest: int | None
    ) -> Channels | None:
        """Tie the channels that meet on axes of several tensors.

        Args:
            node: where they meet.
            places: tensors, and which axis of each.
            widest: the longest of these axes; ``None`` where one is not known. Shorter lists broadcast.

        Returns:
            The channels on the axis of the output.
        """
        found: Channels | None = None
        for tensor, axis in places:
            channels = self.of(tensor)[axis]
            if channels is None:
                continue
            if widest is None or len(channels) < widest:
                self.pin(channels, node, "broadcast along its own axis")
            elif found is None:
                found = channels
            else:
                self.tie(found, channels)
        if self.plain(places):
            self.pin(found, node, "meets a tensor whose axis holds no channels")
        return found

    def plain(self, places: Sequence[tuple[gs.Tensor, int]]) -> bool:
        """Return whether an axis of ``places`` holds no channels, and is none of size 1 that broadcasts."""
        return any(self.of(t)[axis] is None and self.size(t, axis) != 1 for t, axis in places)

    def merge(self, lists: Sequence[Channels | None], sizes: Sequence[int]) -> Channels:
        """Return the channels of axes that become one; at least one of them holds channels."""
        self._count(math.prod(sizes))
        return self._ties.merge(lists, sizes)

    def split(self, channels: Channels, sizes: Sequence[int]) -> Axes:
        """Return the channels of the axes that one with ``channels`` becomes."""
        return self._ties.split(channels, sizes)

    def pin(self, channels: Channels | None, node: gs.Node, reason: str) -> None:
        """Let channels always stay.

        Args:
            channels: these; ``None`` for none.
            node: because of which they stay.
            reason: what it does.
        """
        self.pin_because(channels, f"{node.op} {node.name}: {reason}")

    def pin_because(self, channels: Channels | None, reason: str) -> None:
        """Let channels always stay, for a reason that is no node's."""
        for channel in () if channels is None else channels.tolist():
            self._pinned.setdefault(channel, reason)

    def pin_inputs(self, node: gs.Node, reason: str) -> None:
        """Pin whatever channels reach ``node``."""
        for tensor in node.inputs:
            for channels in self.of(tensor):
                self.pin(channels, node, reason)

    # ------------------------------------------------------------- the end

    def resolved(self) -> tuple[Channels, dict[int, tuple[int, ...]]]:
        """Return the root of every channel made so far, and the atoms of every root that is a product."""
        return self._ties.resolved()

    def pinned(self, roots: Channels, factors: Mapping[int, tuple[int, ...]]) -> dict[int, str]:
        """Return the atoms that always stay, and why: those behind any channel that was pinned.

        Args:
            roots: what :meth:`resolved` returned.
            factors: likewise.
        """
        found: dict[int, str] = {}
        for channel, reason in self._pinned.items():
            root = int(roots[channel])
            for atom in factors.get(root, (root,)):
                found.setdefault(atom, reason)
        return found
