"""How channels flow through a graph: the book-keeping that operator classes write into.

Every axis of every tensor is an ordered list of channel numbers, or *not channels* (``None``: batch,
height, time, a size of 1 that broadcasts). Ties are made channel by channel in a union-find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.model import Shape

Channels = NDArray[np.int64]
Axes = list[Channels | None]


@dataclass(frozen=True)
class Origin:
    """Channels that one node made, in the order in which it made them."""

    node: str
    channels: Channels


class Flow:
    """What is known of channels while the nodes are visited in topological order.

    Args:
        shapes: tensor name to shape (see :meth:`graft.rewriter.model.Model.shapes`).
        opset: version of the operator set: some operators changed their meaning.
    """

    def __init__(self, shapes: dict[str, Shape], opset: int) -> None:
        self.shapes = shapes
        self.opset = opset
        self.axes: dict[str, Axes] = {}
        self.origins: list[Origin] = []
        self.pinned: dict[int, str] = {}
        self._parent: list[int] = []

    # ------------------------------------------------------------- reading

    def of(self, tensor: gs.Tensor) -> Axes:
        """The channels on each axis of ``tensor``; all *not channels* where nothing is known."""
        known = self.axes.get(tensor.name)
        if known is None:
            return [None] * len(self.shapes.get(tensor.name, ()))
        return list(known)

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Shape of ``tensor``, or ``None`` where not even the rank is known."""
        return self.shapes.get(tensor.name)

    def size(self, tensor: gs.Tensor, axis: int) -> int | None:
        """Size of one axis, or ``None``."""
        shape = self.shape(tensor)
        return None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]

    # ------------------------------------------------------------- writing

    def give(self, tensor: gs.Tensor, axes: Sequence[Channels | None]) -> None:
        """Say which channels ``tensor`` carries."""
        self.axes[tensor.name] = list(axes)

    def make(self, node: gs.Node, size: int) -> Channels:
        """New channels that ``node`` makes."""
        channels = self._new(size)
        self.origins.append(Origin(node.name, channels))
        return channels

    def fixed(self, node: gs.Node, size: int, reason: str) -> Channels:
        """Places in a list of channels that are no channels themselves and always stay."""
        channels = self._new(size)
        self.pin(channels, node, reason)
        return channels

    def tie(self, left: Channels, right: Channels) -> None:
        """Channel ``left[i]`` and channel ``right[i]`` can only go together."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            first, second = self.root(one), self.root(other)
            if first != second:
                low, high = min(first, second), max(first, second)
                self._parent[high] = low
                reason = self.pinned.get(high)
                if reason is not None:
                    self.pinned.setdefault(low, reason)

    def pin(self, channels: Channels | None, node: gs.Node, reason: str) -> None:
        """These channels always stay, because of ``node``."""
        if channels is not None:
            for channel in channels.tolist():
                self.pinned.setdefault(self.root(channel), f"{node.op} {node.name}: {reason}")

    def pin_inputs(self, node: gs.Node, reason: str) -> None:
        """Pin whatever channels reach ``node``."""
        for tensor in node.inputs:
            for channels in self.of(tensor):
                self.pin(channels, node, reason)

    def root(self, channel: int) -> int:
        """The channel that stands for all that are tied to ``channel``."""
        parent = self._parent
        while parent[channel] != channel:
            parent[channel] = parent[parent[channel]]
            channel = parent[channel]
        return channel

    def roots(self) -> Channels:
        """Root of every channel made so far."""
        return np.array([self.root(channel) for channel in range(len(self._parent))], np.int64)

    def _new(self, size: int) -> Channels:
        first = len(self._parent)
        self._parent.extend(range(first, first + size))
        return np.arange(first, first + size, dtype=np.int64)
