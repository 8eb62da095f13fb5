"""Channel groups by the names of nodes in a parent's file, also of nodes that normalization took away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.parent import Parent
from graft.rewriter.groups.groups import ChannelGroups

MAKERS = frozenset(
    ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Loop", "Scan", "If")
)
"""Operators whose outputs have other channels than their inputs."""
SIZES = frozenset(("Shape", "Size"))
"""Operators whose output holds sizes: no channel comes out of them."""


class Named(NamedTuple):
    """What a name of a node, or of a group, means.

    Attributes:
        groups: names of channel groups, in the order of the file.
        makes: the node makes their channels; others hand on what they are given.
    """

    groups: tuple[str, ...]
    makes: bool


def groups_by_node(parent: Parent) -> dict[str, Named]:
    """Return names of nodes, and of groups, to the groups that they mean, in the order of the file.

    A node means the groups of the channels on its outputs. A node that normalization took away means those
    of the nodes that stand in its place.
    """
    finder = _Finder(parent)
    nodes = [*parent.source.graph.nodes, *parent.model.graph.nodes]
    made = {origin.node for origin in parent.groups.channel_map.origins}
    found = {
        node.name: Named(finder.groups(node), node.op in MAKERS or node.name in made)
        for node in nodes
        if node.name
    }
    return {**found, **{group.name: Named((group.name,), makes=True) for group in parent.groups}}


class _Finder:
    """Finds the groups behind the nodes of the file."""

    def __init__(self, parent: Parent) -> None:
        self.groups_of_parent = parent.groups
        self.left = {node.name: node for node in parent.model.graph.nodes if node.name}
        self.tensors = parent.model.graph.tensors()
        self.owner = _owners(parent.groups)

    def groups(self, node: gs.Node) -> tuple[str, ...]:
        """Return the groups of the channels that ``node`` gives out."""
        kept = self.left.get(node.name)
        if kept is not None and kept.op == node.op:
            return self._carried(kept.outputs)
        if node.op in SIZES:
            return ()
        return self._below(node, set()) or self._above(node, set())

    def _below(self, node: gs.Node, seen: set[int]) -> tuple[str, ...]:
        """Return the groups of what a node that is gone gives to those that follow it."""
        seen.add(id(node))
        names = [tensor.name for tensor in node.outputs]
        if own := self._carried([self.tensors[name] for name in names if name in self.tensors]):
            return own
        for reader in [reader for tensor in node.outputs for reader in tensor.outputs]:
            kept = self.left.get(reader.name)
            if kept is not None and kept.op == reader.op and len(kept.inputs) == len(reader.inputs):
                places = [place for place, each in enumerate(reader.inputs) if each.name in names]
                if own := self._carried([kept.inputs[place] for place in places]):
                    return own
            elif id(reader) not in seen and reader.op not in MAKERS and (own := self._below(reader, seen)):
                return own
        return ()

    def _above(self, node: gs.Node, seen: set[int]) -> tuple[str, ...]:
        """Return the groups of what a node that is gone, and makes no channels, takes."""
        seen.add(id(node))
        if node.op in MAKERS or node.op in SIZES:
            return ()
        for maker in [maker for tensor in node.inputs for maker in tensor.inputs]:
            kept = self.left.get(maker.name)
            own = self._carried(kept.outputs) if kept is not None else ()
            if own or (id(maker) not in seen and (own := self._above(maker, seen))):
                return own
        return ()

    def _carried(self, tensors: Sequence[gs.Tensor]) -> tuple[str, ...]:
        """Return the names of the groups whose channels lie on an axis of ``tensors``."""
        groups, found = self.groups_of_parent, dict[str, None]()
        for tensor in tensors:
            for channels in groups.of(tensor) if tensor.name else ():
                if channels is not None:
                    owners = {self.owner.get(atom) for atom in groups.behind(channels).tolist()}
                    found |= dict.fromkeys(name for name in owners if name is not None)
        return tuple(group.name for group in groups if group.name in found)


def _owners(groups: ChannelGroups) -> dict[int, str]:
    """Return channel number to the name of its group."""
    return {channel: group.name for group in groups for channel in np.asarray(group.channels).tolist()}
