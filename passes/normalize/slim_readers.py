"""Readers of tensors in the graph of onnxslim: many are moved or taken out at once, in one look at a list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any


def move_readers(moves: Iterable[tuple[Any, Any]]) -> None:
    """Let the nodes that read the first tensor of each pair read the second; all at once.

    Args:
        moves: pairs of tensors; none is first in one pair and second in another.
    """
    places = dict[int, dict[int, list[int]]]()
    for old, new in moves:
        readers = {id(reader): reader for reader in old.outputs}
        list.clear(old.outputs)
        for reader in readers.values():
            if id(reader) not in places:
                found = places[id(reader)] = defaultdict(list)
                for at, tensor in enumerate(reader.inputs):
                    found[id(tensor)].append(at)
            for at in places[id(reader)].pop(id(old)):
                list.__setitem__(reader.inputs, at, new)
                list.append(new.outputs, reader)


def detach(nodes: Sequence[Any]) -> None:
    """Take nodes out of a graph; tensors that many of them read are looked through once.

    Args:
        nodes: of onnxslim's graph.
    """
    gone = {id(node) for node in nodes}
    read = {id(tensor): tensor for node in nodes for tensor in node.inputs}
    for tensor in read.values():
        left = [reader for reader in tensor.outputs if id(reader) not in gone]
        list.__setitem__(tensor.outputs, slice(None), left)
    for node in nodes:
        list.clear(node.inputs)
        node.outputs.clear()
