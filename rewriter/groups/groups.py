"""The channel-group analysis: which axes of which tensors can only be cut together.

>>> groups = ChannelGroups(model)                                        # doctest: +SKIP
>>> groups["conv1"].size, groups["conv1"].reason                         # doctest: +SKIP
(64, '')
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.arrays import Axes, Channels, Mask
from graft.rewriter.channels.flow import Flow
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.groups.removable import key, that_may_fall
from graft.rewriter.operators import operator_of, same_shape

Number = TypeVar("Number", np.bool_, np.float64)


@dataclass(frozen=True)
class Group:
    """Axes that share one numbering of channels.

    Attributes:
        name: the first node, in the order of the file, that makes channels of the group. A node that
            makes several lists, or one that is split (heads and their width), has a number behind it.
        channels: for each channel of the group the number that stands for it in the analysis.
        cuttable: which of them may go.
        reason: why the others may not: operator, node and what it does; ``""`` if all may.
    """

    name: str
    channels: Channels
    cuttable: Mask
    reason: str

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(self.channels)


class Products:
    """Which channel numbers are products of which.

    Args:
        atoms: for every channel number the atoms that it is the product of.

    Attributes:
        numbers: for every channel number the one that stands for all that are equal to it.
        atoms: the mask of numbers that are no products.
        owners: product numbers, as often as they have factors.
        factors: beside each of ``owners`` one of its factors.
    """

    def __init__(self, atoms: Sequence[tuple[int, ...]]) -> None:
        first: dict[frozenset[int], int] = {}
        numbers = [
            found[0] if len(found) == 1 else first.setdefault(frozenset(found), number)
            for number, found in enumerate(atoms)
        ]
        pairs = [(number, atom) for found, number in first.items() for atom in sorted(found)]
        self.numbers: Channels = np.array(numbers, np.int64)
        self.owners, self.factors = np.array(pairs, np.int64).reshape(-1, 2).T
        self.atoms: Mask = np.ones(len(numbers), bool)
        self.atoms[self.owners] = False

    def factors_of(self, channels: Channels) -> Channels:
        """The factors of those of ``channels`` that are products, as often as they are."""
        return self.factors[np.isin(self.owners, channels)]

    def behind(self, channels: Channels) -> Channels:
        """The atoms that ``channels`` are, or are products of."""
        return np.unique(np.concatenate([channels[self.atoms[channels]], self.factors_of(channels)]))


@dataclass(frozen=True)
class Place:
    """An axis of a tensor that carries channels: ``channels[i]`` at position i."""

    tensor: str
    axis: int
    channels: Channels


class ChannelGroups:
    """What can be cut in a model, and together with what.

    Args:
        model: an unchanged model; its graph is only read.
        input_shapes: full shapes of inputs whose dimensions (beside the batch) are free.

        outputs_open: let channels that reach a graph output go, too: for cutting the output itself.

    Attributes:
        nodes: the nodes of the graph.
        shapes: tensor name to shape.
        samples: the batch size that the shapes are for.

    Iterating gives the groups in the order of the file; ``groups[name]`` gives one.
    """

    def __init__(
        self,
        model: Model,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        outputs_open: bool = False,
    ) -> None:
        self.shapes = model.shapes(given=input_shapes, same_shape=same_shape())
        self.nodes: list[gs.Node] = list(model.graph.nodes)
        self._inputs = [tensor.name for tensor in model.graph.inputs]
        self.samples = next((s[0] for name in self._inputs if (s := self.shapes[name])), 1) or 1
        self._larger = cache(lambda: model.shapes(3, given=input_shapes, same_shape=same_shape()))
        flow = Flow(self.shapes, model.opset, self._larger)
        for node in self.nodes:
            _pin_captured(node, flow)
            flow.pin_batched(node)
            operator = operator_of(node)
            operator.flow(node, flow)
            if not operator.outputs_no_channels and any(
                output.name not in flow.axes for output in node.outputs[:1]
            ):
                flow.pin_inputs(node, "its output is of unknown shape")
        for tensor in () if outputs_open else model.graph.outputs:
            for channels in flow.of(tensor):
                flow.pin_because(channels, f"output {tensor.name}")
        atoms = flow.atoms()
        self._products = Products(atoms)
        self._axes = {
            name: [None if channels is None else self._products.numbers[channels] for channels in axes]
            for name, axes in flow.axes.items()
        }
        pinned = flow.pinned(atoms)
        self._falling = that_may_fall(model.graph, self, pinned)
        for atom in self._only():
            pinned.setdefault(atom, "an axis that would have no channel left")
        self._groups = _collect(flow, atoms, pinned)

    # ------------------------------------------------------------ handing on

    def on(self, model: Model) -> ChannelGroups:
        """The same analysis for ``model``, a copy of the one that was analysed."""
        found = copy.copy(self)
        found.nodes = list(model.graph.nodes)
        found.shapes, found._axes = dict(self.shapes), dict(self._axes)
        return found

    def alias(self, new: gs.Tensor, like: gs.Tensor) -> None:
        """Let ``new``, which a pass put in front of ``like``, have its shape and carry its channels."""
        if like.name in self.shapes:
            self.shapes[new.name] = self.shapes[like.name]
        if like.name in self._axes:
            self._axes[new.name] = self._axes[like.name]

    def grow(self, model: Model) -> None:
        """Take up the nodes and constants that a pass added to ``model``, whose tensors have an alias."""
        self.nodes = list(model.graph.nodes)
        for node in self.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, gs.Constant):
                    self.shapes.setdefault(tensor.name, tuple(tensor.shape))

    # ------------------------------------------------------------ looking

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, name: str) -> bool:
        return name in self._groups

    def __getitem__(self, name: str) -> Group:
        return self._groups[name]

    @property
    def count(self) -> int:
        """How many channel numbers the analysis used: the length of arrays indexed by channel."""
        return len(self._products.numbers)

    def of(self, tensor: gs.Tensor) -> Axes:
        """Channels on each axis of ``tensor``, every tie resolved."""
        return self._axes.get(tensor.name) or [None] * len(self.shapes.get(tensor.name, ()))

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Shape of ``tensor`` in the model, for a batch of 2 where the batch is free."""
        return self.shapes.get(tensor.name)

    def sample_axis(self, tensor: gs.Tensor) -> int | None:
        """The axis of ``tensor`` along which samples lie, each at one place; ``None`` where none is."""
        shape, larger = self.shapes.get(tensor.name) or (), self._larger()
        if all(larger.get(name) == self.shapes[name] for name in self._inputs):  # a fixed batch
            return 0 if shape and shape[0] == self.samples else None
        pairs = zip(shape, larger.get(tensor.name) or shape, strict=True)
        grown = [axis for axis, (size, other) in enumerate(pairs) if size != other]
        return grown[0] if len(grown) == 1 and shape[grown[0]] == self.samples else None

    def reads(self) -> list[Place]:
        """Where channels are consumed, each tensor once, in the order of the file."""
        found: dict[tuple[str, int], Place] = {}
        for node in self.nodes:
            operator = operator_of(node)
            for read in (*operator.reads(node, self), *operator.masks(node, self)):
                name = read.tensor(node).name
                found.setdefault((name, read.axis), Place(name, read.axis, read.channels))
        return list(found.values())

    def activations(self) -> list[Place]:
        """Where channels are seen being on or off: behind activations, in the order of the file."""
        return [
            Place(node.outputs[0].name, axis, channels)
            for node in self.nodes
            if operator_of(node).activates
            for axis, channels in enumerate(self.of(node.outputs[0]))
            if channels is not None
        ]

    def lists(self) -> list[Channels]:
        """Every list of channels on an axis, once."""
        found = {
            channels.tobytes(): channels
            for axes in self._axes.values()
            for channels in axes
            if channels is not None
        }
        return list(found.values())

    def needed(self) -> list[Channels]:
        """The lists of which at least one channel has to stay; all others may fall to nothing."""
        return [channels for channels in self.lists() if key(channels) not in self._falling]

    def _only(self) -> list[int]:
        """Atoms without which an axis would have no channel left."""
        found: set[int] = set()
        for channels in self.needed():
            numbers = np.unique(channels)
            atoms = [numbers[self.atoms[numbers]], self._products.factors_of(numbers)]
            behind, times = np.unique(np.concatenate(atoms), return_counts=True)
            found.update(behind[times == len(numbers)].tolist())
        return sorted(found)

    def preferred(self) -> NDArray[np.int64]:
        """For each channel number, a divisor that its operators wish the number of channels to have."""
        found = np.ones(self.count, np.int64)
        for node in self.nodes:
            operator = operator_of(node)
            for parameter in operator.parameters(node, self) if operator.preferred > 1 else ():
                for channels in parameter.axes.values():
                    found[channels] = np.maximum(found[channels], operator.preferred)
        return found

    def key(self, tensor: str, axis: int) -> str:
        """What statistics along ``axis`` are called: after the tensor, and any further axis with channels."""
        axes = self._axes.get(tensor, [])
        first = next((place for place, found in enumerate(axes) if found is not None), axis)
        return tensor if axis == first else f"{tensor}@{axis}"

    # ------------------------------------------------------------ masks

    def everything(self) -> Mask:
        """The mask, one flag a channel number, that keeps all."""
        return np.ones(self.count, bool)

    def cuttable(self) -> Mask:
        """The mask of channel numbers that may go; a product goes with any of its factors."""
        mask = np.zeros(self.count, bool)
        for group in self:
            mask[group.channels[group.cuttable]] = True
        products = self._products
        mask[products.owners[mask[products.factors]]] = True
        return mask

    # ------------------------------------------------------------ products

    @property
    def atoms(self) -> Mask:
        """The mask of channel numbers that are no products: what plans are made of."""
        return self._products.atoms

    def behind(self, channels: Channels) -> Channels:
        """The atoms that ``channels`` are, or are products of."""
        return self._products.behind(channels)

    def close(self, values: NDArray[Number]) -> NDArray[Number]:
        """``values``, at every product the least of its factors': of a mask, whether all of them stay."""
        closed = values.copy()
        products = self._products
        closed[products.owners] = values[products.factors]
        np.minimum.at(closed, products.owners, values[products.factors])
        return closed

    def to_atoms(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Figures that add up, one a channel number: what stands at a product goes to each of its factors."""
        products = self._products
        result = np.where(products.atoms, values, 0.0)
        np.add.at(result, products.factors, values[products.owners])
        return result

    def check(self, kept: Mask) -> None:
        """Raise unless ``kept`` keeps what is pinned and a channel of every axis that needs one."""
        for group in self:
            if not (kept[group.channels] | group.cuttable).all():
                raise GraftError(
                    "plan-pinned",
                    f"the plan cuts channels of group {group.name} that are pinned by {group.reason}",
                    "keep them; 'graft inspect MODEL' lists what can be cut",
                )
        for channels in self.needed():
            if not kept[channels].any():
                names = [group.name for group in self if np.isin(channels, group.channels).any()]
                raise GraftError(
                    "plan-empty",
                    f"the plan leaves no channel on an axis of group {', '.join(names)}",
                    "keep at least one",
                )


# ------------------------------------------------------------------------------- helpers


def _pin_captured(node: gs.Node, flow: Flow) -> None:
    """Pin what the bodies of control-flow nodes read from outside."""
    for body in (value for value in node.attrs.values() if isinstance(value, gs.Graph)):
        for inner in body.nodes:
            for tensor in inner.inputs:
                for channels in flow.axes.get(tensor.name, []):
                    flow.pin(channels, node, "read inside its body")
            _pin_captured(inner, flow)
        for tensor in body.outputs:
            for channels in flow.axes.get(tensor.name, []):
                flow.pin(channels, node, "read inside its body")


def _collect(flow: Flow, atoms: Sequence[tuple[int, ...]], pinned: dict[int, str]) -> dict[str, Group]:
    """Join the lists that nodes made wherever they share a channel; number what comes together."""
    lists = _lists(flow, atoms)
    leader = list(range(len(lists)))

    def lead(origin: int) -> int:
        while leader[origin] != origin:
            origin = leader[origin]
        return origin

    first_with: dict[int, int] = {}
    for position, (_, channels) in enumerate(lists):
        for atom in channels:
            one, other = lead(first_with.setdefault(atom, position)), lead(position)
            leader[max(one, other)] = min(one, other)
    members: dict[int, dict[int, None]] = {}
    for position, (_, channels) in enumerate(lists):
        members.setdefault(lead(position), {}).update(dict.fromkeys(channels))
    groups: dict[str, Group] = {}
    for position, numbers in members.items():
        reasons = [pinned.get(atom, "") for atom in numbers]
        name = lists[position][0]
        cuttable = np.array([not reason for reason in reasons], bool)
        reason = next((r for r in reasons if r), "")
        groups[name] = Group(name, np.array(list(numbers), np.int64), cuttable, reason)
    return groups


def _lists(flow: Flow, atoms: Sequence[tuple[int, ...]]) -> list[tuple[str, list[int]]]:
    """The lists that nodes made, with names; one for each factor where its channels became products."""
    found: dict[str, list[list[int]]] = {}
    for origin in flow.origins:
        made = [atoms[channel] for channel in origin.channels.tolist()]
        for factor in range(max(map(len, made), default=0)):
            column = list(dict.fromkeys(each[factor] for each in made if len(each) > factor))
            found.setdefault(origin.node, []).append(column)
    return [
        (node if len(lists) == 1 else f"{node}/{number}", channels)
        for node, lists in found.items()
        for number, channels in enumerate(lists)
    ]
