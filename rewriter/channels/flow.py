"""How channels flow through a graph: the book-keeping that operator classes write into.

Every axis of every tensor is an ordered list of channel numbers, or *not channels* (``None``: batch,
height, time, a size of 1 that broadcasts). Coupling are made channel by channel
(:mod:`graft.rewriter.channels.coupling`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Axes, Channels
from graft.rewriter.channels.coupling import Coupling
from graft.rewriter.graph.shapes import Shape

__all__ = ["Axes", "ChannelOrigin", "Channels", "Flow"]


COUNTLESS = frozenset(
    (
        *("Add", "Cast", "Div", "Dropout", "Identity", "IsNaN", "Mul", "Relu", "Reshape"),
        *("Softmax", "Sub", "Tanh", "Transpose", "Where"),
    )
)
"""Operators that a cut leaves as they are, however many channels lie on a batch axis of their inputs."""


@dataclass(frozen=True)
class ChannelOrigin:
    """Channels that one node made, in the order in which it made them."""

    node: str
    channels: Channels


class Flow:
    """What is known of channels while the nodes are visited in topological order.

    Args:
        shapes: tensor name to shape (see :meth:`graft.rewriter.graph.model.Model.shapes`).
        opset: version of the operator set: some operators changed their meaning.
        larger: the shapes for another batch, where the batch is free.
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

    @cached_property
    def _larger_shapes(self) -> dict[str, Shape]:
        return self.shapes if self._larger is None else self._larger()

    def grows(self, tensor: gs.Tensor, axis: int) -> bool:
        """Whether the size of an axis is another for another batch."""
        shape = self._larger_shapes.get(tensor.name)
        return shape is None or len(shape) <= axis or shape[axis] != self.size(tensor, axis)

    def pin_batched(self, node: gs.Node) -> None:
        """Pin channels on axes that grow with the batch, where ``node`` would have to count them."""
        if not self.batched or node.op in COUNTLESS:
            return
        for tensor in node.inputs:
            for axis, channels in enumerate(self.of(tensor)):
                counted = node.op != "MatMul" or axis >= len(self.of(tensor)) - 2
                if channels is not None and counted and self.grows(tensor, axis):
                    self.pin(channels, node, "reads channels that are merged with the batch")

    # ------------------------------------------------------------- writing

    def give(self, tensor: gs.Tensor, axes: Sequence[Channels | None]) -> None:
        """Say which channels ``tensor`` carries. Lists of another length than its axes are pinned."""
        carried = list(axes)
        for axis, channels in enumerate(carried):
            size = self.size(tensor, axis)
            if channels is not None and size not in (None, len(channels)):
                self.pin_because(channels, f"{tensor.name}: {size} places for {len(channels)} channels")
                carried[axis] = None
        self.axes[tensor.name] = carried

    def make(self, node: gs.Node, size: int) -> Channels:
        """New channels that ``node`` makes."""
        channels = self._ties.new(size)
        self.origins.append(ChannelOrigin(node.name, channels))
        return channels

    def fixed(self, node: gs.Node, size: int, reason: str) -> Channels:
        """Places in a list of channels that are no channels themselves and always stay."""
        channels = self._ties.new(size)
        self.pin(channels, node, reason)
        return channels

    def adopt(self, size: int) -> Channels:
        """Channels of a constant, for those to be tied to that it meets; by themselves they always stay."""
        return self._ties.new(size)

    def tie(self, left: Channels, right: Channels) -> None:
        """Channel ``left[i]`` and channel ``right[i]`` can only go together."""
        for one, other in dict.fromkeys(zip(left.tolist(), right.tolist(), strict=True)):
            self._ties.tie(one, other)

    def meet(
        self, node: gs.Node, places: Sequence[tuple[gs.Tensor, int]], widest: int | None
    ) -> Channels | None:
        """Tie what meets on the axes of ``places`` (tensor, axis), up to ``widest`` long; their channels."""
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
        """Whether an axis of ``places`` holds no channels, and is none of size 1 that broadcasts."""
        return any(self.of(t)[axis] is None and self.size(t, axis) != 1 for t, axis in places)

    def merge(self, lists: Sequence[Channels | None], sizes: Sequence[int]) -> Channels:
        """The list of axes that become one; at least one of them holds channels."""
        return self._ties.merge(lists, sizes)

    def split(self, channels: Channels, sizes: Sequence[int]) -> Axes:
        """The lists of the axes that one with ``channels`` becomes."""
        return self._ties.split(channels, sizes)

    def pin(self, channels: Channels | None, node: gs.Node, reason: str) -> None:
        """These channels always stay, because of ``node``."""
        self.pin_because(channels, f"{node.op} {node.name}: {reason}")

    def pin_because(self, channels: Channels | None, reason: str) -> None:
        """These channels always stay."""
        for channel in () if channels is None else channels.tolist():
            self._pinned.setdefault(channel, reason)

    def pin_inputs(self, node: gs.Node, reason: str) -> None:
        """Pin whatever channels reach ``node``."""
        for tensor in node.inputs:
            for channels in self.of(tensor):
                self.pin(channels, node, reason)

    # ------------------------------------------------------------- the end

    def atoms(self) -> list[tuple[int, ...]]:
        """For every channel made so far the atoms that it is the product of, every tie resolved."""
        return [self._ties.atoms(channel) for channel in range(self._ties.count)]

    def pinned(self, atoms: Sequence[tuple[int, ...]]) -> dict[int, str]:
        """Atoms that always stay, and why: those behind any channel that was pinned."""
        found: dict[int, str] = {}
        for channel, reason in self._pinned.items():
            for atom in atoms[channel]:
                found.setdefault(atom, reason)
        return found
