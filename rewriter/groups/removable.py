"""Which lists of channels may fall to nothing, and take the nodes between with them.

Where a list falls, a node goes whose outputs all hold nothing, whatever it does. The nodes at the end read
the list with constant weights: they go *blind* and put out a constant, their bias. It is *narrow*: of size
1 along most axes. Element by element it may go on, as a constant, until it meets a tensor that has the
shape that the result had: a residual sum, a gate. Anything else that reads it keeps the list from falling.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array, Channels
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.operators import consumer_of, operator_of
from graft.rewriter.operators.base import is_constant

if TYPE_CHECKING:
    from graft.rewriter.groups.groups import ChannelGroups

Key = bytes


def key(channels: Channels) -> Key:
    """The same for lists of the same channels, in any order and number."""
    return np.unique(channels).tobytes()


def that_may_fall(graph: gs.Graph, groups: ChannelGroups, pinned: Collection[int]) -> frozenset[Key]:
    """Keys of the lists that may fall to nothing, any number of them together.

    Lists of products stay: no single choice of channels empties them.

    Args:
        graph: the graph that was analysed.
        groups: its analysis, as far as it is done.
        pinned: channels that stay in any case.
    """
    lists = {key(channels): np.unique(channels) for channels in groups.lists() if len(channels)}
    if not lists:
        return frozenset()
    joined = np.concatenate(list(lists.values()))
    starts = np.cumsum([0, *map(len, lists.values())])[:-1]
    stays = np.isin(np.arange(groups.count), list(pinned)) | ~groups.atoms
    walk, found = _Walk(graph, groups), set[Key]()
    for name, channels in sorted(lists.items(), key=lambda item: len(item[1])):
        if stays[channels].any():
            continue
        kept = groups.everything()
        kept[channels] = False
        left = np.logical_or.reduceat(groups.close(kept)[joined], starts)
        gone = {other for other, any_left in zip(lists, left, strict=True) if not any_left}
        if gone <= {name, *found} and walk.allows(gone):
            found.add(name)
    return frozenset(found)


class _Walk:
    """Follows what happens to a graph when lists fall, one after the other.

    What may become a constant by a list that was allowed before counts as narrow: it cannot be relied upon
    to keep a shape.
    """

    def __init__(self, graph: gs.Graph, groups: ChannelGroups) -> None:
        self._groups = groups
        self._nodes = list(graph.nodes)
        self._positions = {id(node): position for position, node in enumerate(self._nodes)}
        bodies = graph.subgraphs(recursive=True)
        self._needed = {tensor.name for tensor in graph.outputs}
        self._needed |= {tensor.name for body in bodies for node in body.nodes for tensor in node.inputs}
        self._needed |= {tensor.name for body in bodies for tensor in body.outputs}
        self._carriers: dict[Key, list[gs.Tensor]] = {}
        for node in self._nodes:
            for tensor in node.outputs:
                for found in {key(c) for c in groups.of(tensor) if c is not None}:
                    self._carriers.setdefault(found, []).append(tensor)
        self._narrow: dict[str, Shape] = {}

    def allows(self, lists: Collection[Key]) -> bool:
        """Whether ``lists`` may fall, all at once; if so, this is remembered."""
        carriers = [tensor for name in lists for tensor in self._carriers.get(name, ())]
        gone = {tensor.name for tensor in carriers}
        if gone & self._needed:
            return False
        narrow: dict[str, Shape] = {}
        queue = [self._positions[id(n)] for t in carriers for n in (*t.inputs, *t.outputs)]
        heapify(queue)
        while queue:
            node = self._nodes[heappop(queue)]
            if not self._visit(node, gone, narrow):
                return False
            for tensor in node.outputs:
                if tensor.name in self._needed & narrow.keys():
                    return False
                if tensor.name in narrow:
                    for reader in tensor.outputs:
                        heappush(queue, self._positions[id(reader)])
            while queue and self._nodes[queue[0]] is node:
                heappop(queue)
        self._narrow.update(narrow)
        return True

    def _visit(self, node: gs.Node, gone: set[str], narrow: dict[str, Shape]) -> bool:
        """Whether ``node`` can do without what is gone; if it puts out a constant, that is narrow."""
        used = [t for t in node.outputs if t.outputs or t.name in self._needed]
        if all(tensor.name in gone for tensor in used):
            return True
        if len(used) > 1 or used[0] is not node.outputs[0]:
            return False
        operator, result = operator_of(node), used[0]
        small = {**self._narrow, **narrow}
        lost = [index for index, tensor in enumerate(node.inputs) if tensor.name in gone]
        if lost and operator.skips_empty_inputs:
            return not any(tensor.name in small for tensor in node.inputs)
        whole = self._groups.shape(result)
        if whole is None:
            return False
        if lost:
            constant = _constant_output(node, lost, self._groups)
            if constant is None or constant.dtype.kind != "f":  # onnxruntime computes with no bfloat16
                return False
            narrow[result.name] = (1,) * (len(whole) - constant.ndim) + constant.shape
            return True
        shapes = [self._shape(tensor, small) for tensor in node.inputs]
        found = (
            None if None in shapes else operator.broadcast_shape(node, [s for s in shapes if s is not None])
        )
        if found is not None and all(is_constant(t) or t.name in small for t in node.inputs):
            narrow[result.name] = found
            return True
        return found is not None and found == whole

    def _shape(self, tensor: gs.Tensor, small: dict[str, Shape]) -> Shape | None:
        if tensor.name in small:
            return small[tensor.name]
        return tuple(tensor.shape) if is_constant(tensor) else self._groups.shape(tensor)


def _constant_output(node: gs.Node, lost: Collection[int], groups: ChannelGroups) -> Array | None:
    """Return what ``node`` puts out without its inputs ``lost``; ``None`` where it needs one of them."""
    consumer = consumer_of(node)
    if consumer is None:
        return None
    reads = {read.index for read in consumer.reads(node, groups) if read.recurrent_weight is None}
    return consumer.constant_output(node) if reads.issuperset(lost) else None
