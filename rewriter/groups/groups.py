"""The channel-group analysis: which axes of which tensors can only be cut together.

>>> groups = ChannelGroups(model)                                        # doctest: +SKIP
>>> groups["conv1"].size, groups["conv1"].reason                         # doctest: +SKIP
(64, '')
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.arrays import Axes, Channels, Mask, Scores
from graft.rewriter.channels.coupling import UnionFind, distinct
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.graph.sizes import Sizes
from graft.rewriter.groups.channel_map import ChannelMap, Number
from graft.rewriter.groups.removable import list_key, removable
from graft.rewriter.groups.sample_layout import SampleLayout
from graft.rewriter.operators import operator_of


@dataclass(frozen=True)
class Group:
    """Axes that share one numbering of channels.

    Attributes:
        name: the first node, in the order of the file, that makes channels of the group. A node that
            makes several lists, or one that is split (heads and their width), has a number behind it.
        channels: for each channel of the group the number that stands for it in the analysis.
        cuttable: which of them may be pruned.
        reason: why the others may not: operator, node and what it does; ``""`` if all may.
    """

    name: str
    channels: Channels
    cuttable: Mask
    reason: str

    @property
    def size(self) -> int:
        """The number of channels."""
        return len(self.channels)


@dataclass(frozen=True)
class Place:
    """An axis of a tensor that carries channels: ``channels[i]`` at position i."""

    tensor: str
    axis: int
    channels: Channels


class ChannelGroups:
    """The channel groups of a model: what can be pruned, and together with what.

    Args:
        model: an unchanged model; its graph is only read.
        input_shapes: full shapes of inputs whose dimensions (beside the batch) are free.
        outputs_open: let channels that reach a graph output be pruned, too: for cutting the output itself.

    Attributes:
        channel_map: the channels on every axis of every tensor.

    Iterating gives the groups in the order of the file; ``groups[name]`` gives one.
    """

    def __init__(
        self,
        model: Model,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        outputs_open: bool = False,
    ) -> None:
        self.channel_map = ChannelMap(model, input_shapes, outputs_open)
        pinned = self.channel_map.pinned
        emptied = removable(model.graph, self.channel_map, pinned)
        self._needed = [channels for channels in self.channel_map.lists if list_key(channels) not in emptied]
        last = dict.fromkeys(
            _last_of(self._needed, self.channel_map), "an axis that would have no channel left"
        )
        self._groups = _collect(self.channel_map, {**last, **pinned})

    # ------------------------------------------------------------ handing on

    def on(self, model: Model) -> ChannelGroups:
        """Return the same analysis for ``model``, a copy of the one that was analysed."""
        found = copy.copy(self)
        found.channel_map = self.channel_map.on(model)
        return found

    def at(self, sizes: Sizes) -> ChannelGroups:
        """Return the same analysis, with costs counted at ``sizes`` of free axes."""
        found = copy.copy(self)
        found.channel_map = self.channel_map.at(sizes)
        return found

    def sized(self) -> ChannelGroups:
        """Return the same analysis with the shapes that costs are counted at."""
        found = copy.copy(self)
        found.channel_map = self.channel_map.sized()
        return found

    def alias(self, new: gs.Tensor, like: gs.Tensor) -> None:
        """Let ``new``, which a pass put in front of ``like``, have its shape and carry its channels."""
        self.channel_map.alias(new, like)

    def grow(self, model: Model) -> None:
        """Take up the nodes and constants that a pass added to ``model``, whose tensors have an alias."""
        self.channel_map.grow(model)

    # ------------------------------------------------------------ looking

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, name: str) -> bool:
        return name in self._groups

    def __getitem__(self, name: str) -> Group:
        return self._groups[name]

    # ------------------------------------------------------------ the map

    @property
    def nodes(self) -> list[gs.Node]:
        """The nodes of the graph."""
        return self.channel_map.nodes

    @property
    def shapes(self) -> dict[str, Shape]:
        """Tensor name to shape."""
        return self.channel_map.shapes

    @property
    def samples(self) -> int:
        """The batch size that the shapes are for."""
        return self.channel_map.samples

    @property
    def count(self) -> int:
        """The number of channel numbers: the length of arrays indexed by channel."""
        return self.channel_map.count

    @property
    def atoms(self) -> Mask:
        """The mask of channel numbers that are no products: what plans are made of."""
        return self.channel_map.atoms

    def of(self, tensor: gs.Tensor) -> Axes:
        """Return the channels on each axis of ``tensor``, every tie resolved."""
        return self.channel_map.of(tensor)

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Return the shape of ``tensor`` in the model, for a batch of 2 where the batch is free."""
        return self.channel_map.shape(tensor)

    def sample_axis(self, tensor: gs.Tensor) -> int | None:
        """Return the axis of ``tensor`` along which samples lie (see :meth:`ChannelMap.sample_axis`)."""
        return self.channel_map.sample_axis(tensor)

    def key(self, tensor: str, axis: int) -> str:
        """Return the name of statistics along an axis (see :meth:`ChannelMap.key`)."""
        return self.channel_map.key(tensor, axis)

    def lists(self) -> list[Channels]:
        """Return every list of channels on an axis, once."""
        return list(self.channel_map.lists)

    def everything(self) -> Mask:
        """Return the mask, one flag a channel number, that keeps all."""
        return self.channel_map.everything()

    def behind(self, channels: Channels) -> Channels:
        """Return the atoms that ``channels`` are, or are products of."""
        return self.channel_map.behind(channels)

    def close(self, values: NDArray[Number]) -> NDArray[Number]:
        """Return ``values``, at every product the least of its factors' (see :meth:`ChannelMap.close`)."""
        return self.channel_map.close(values)

    def to_atoms(self, values: Scores) -> Scores:
        """Return figures that add up, a product's at its factors (see :meth:`ChannelMap.to_atoms`)."""
        return self.channel_map.to_atoms(values)

    # ------------------------------------------------------------ places

    def reads(self) -> list[Place]:
        """Return where channels are consumed, each tensor once, in the order of the file."""
        found: dict[tuple[str, int], Place] = {}
        for node in self.nodes:
            operator = operator_of(node)
            for read in (*operator.reads(node, self), *operator.masks(node, self)):
                name = read.tensor(node).name
                found.setdefault((name, read.axis), Place(name, read.axis, read.channels))
        return list(found.values())

    def seen(self, place: Place) -> bool:
        """Return True if samples lie along an axis of the tensor at ``place``, so that it can be observed."""
        layout = self.sample_layout(place.tensor)
        return layout is not None and layout.axis != place.axis

    def sample_layout(self, tensor: str) -> SampleLayout | None:
        """Return how samples lie in a tensor (see :meth:`ChannelMap.sample_layout`)."""
        return self.channel_map.sample_layout(tensor)

    def unseen(self) -> list[Place]:
        """Return the places that cannot be observed."""
        return [place for place in (*self.activations(), *self.reads()) if not self.seen(place)]

    def hidden(self) -> list[Place]:
        """Return the places that cannot be observed, of prunable channels that no other place shows."""
        shown, unseen = np.zeros(self.count, bool), self.unseen()
        for place in (*self.activations(), *self.reads()) if unseen else ():
            if self.seen(place):
                shown[self.behind(place.channels)] = True
        concealed = self.cuttable() & ~shown
        return [place for place in unseen if concealed[self.behind(place.channels)].any()]

    def activations(self) -> list[Place]:
        """Return where channels are seen being on or off: behind activations, in the order of the file."""
        return [
            Place(node.outputs[0].name, axis, channels)
            for node in self.nodes
            if operator_of(node).activates
            for axis, channels in enumerate(self.of(node.outputs[0]))
            if channels is not None
        ]

    def needed(self) -> list[Channels]:
        """Return the lists of which at least one channel has to stay; all others may be emptied."""
        return list(self._needed)

    def preferred(self) -> NDArray[np.int64]:
        """Return for each channel number the multiple of channels for which its operators are fast."""
        found = np.ones(self.count, np.int64)
        for node in self.nodes:
            operator = operator_of(node)
            for parameter in operator.parameters(node, self) if operator.preferred > 1 else ():
                for channels in parameter.axes.values():
                    found[channels] = np.maximum(found[channels], operator.preferred)
        return found

    def cuttable(self) -> Mask:
        """Return the mask of channel numbers that may be pruned; a product is with any of its factors."""
        mask = np.zeros(self.count, bool)
        for group in self:
            mask[group.channels[group.cuttable]] = True
        products = self.channel_map.products
        mask[products.owners[mask[products.factors]]] = True
        return mask

    def check(self, kept: Mask) -> None:
        """Refuse a mask that prunes what is pinned, or the last channel of an axis that needs one.

        Raises:
            GraftError: it does.
        """
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


def _last_of(needed: Sequence[Channels], channel_map: ChannelMap) -> list[int]:
    """Return the atoms without which one of the lists ``needed`` would have no channel left."""
    found: set[int] = set()
    for channels in needed:
        numbers = distinct(channels)
        atoms = [numbers[channel_map.atoms[numbers]], channel_map.products.factors_of(numbers)]
        behind, times = np.unique(np.concatenate(atoms), return_counts=True)
        found.update(behind[times == len(numbers)].tolist())
    return sorted(found)


def _collect(channel_map: ChannelMap, pinned: Mapping[int, str]) -> dict[str, Group]:
    """Join the lists that nodes made wherever they share a channel; number what comes together."""
    lists = _made_lists(channel_map)
    union, first_with = UnionFind(), np.full(channel_map.count, -1, np.int64)
    union.new(len(lists))
    for position, (_, channels) in enumerate(lists):
        for other in distinct(first_with[channels]).tolist():
            if other >= 0:
                union.tie(other, position)
        first_with[channels[first_with[channels] < 0]] = position
    members: dict[int, list[Channels]] = {}
    for position, (_, channels) in enumerate(lists):
        members.setdefault(union.root(position), []).append(channels)
    stays = np.isin(np.arange(channel_map.count), list(pinned))
    groups: dict[str, Group] = {}
    for position, parts in members.items():
        name, numbers = lists[position][0], _once(np.concatenate(parts))
        cuttable = ~stays[numbers]
        reason = "" if cuttable.all() else pinned[int(numbers[int(np.argmin(cuttable))])]
        groups[name] = Group(name, numbers, cuttable, reason)
    return groups


def _made_lists(channel_map: ChannelMap) -> list[tuple[str, Channels]]:
    """Return the lists that nodes made, with names; one for each factor where channels became products."""
    found: dict[str, list[Channels]] = {}
    is_product = np.zeros(channel_map.count, bool)
    is_product[[*channel_map.factors]] = True
    for origin in channel_map.origins:
        roots = channel_map.roots[origin.channels]
        if len(roots) and not is_product[roots].any():
            found.setdefault(origin.node, []).append(_once(roots))
            continue
        factors = [channel_map.factors.get(root, (root,)) for root in roots.tolist()]
        for place in range(max(map(len, factors), default=0)):
            column = [each[place] for each in factors if len(each) > place]
            found.setdefault(origin.node, []).append(_once(np.array(column, np.int64)))
    return [
        (node if len(lists) == 1 else f"{node}/{number}", channels)
        for node, lists in found.items()
        for number, channels in enumerate(lists)
    ]


def _once(channels: Channels) -> Channels:
    """Return ``channels``, each where it comes first."""
    _, places = np.unique(channels, return_index=True)
    return channels[np.sort(places)]
