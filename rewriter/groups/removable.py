"""Find the lists of channels that may be pruned as a whole, together with the nodes between.

Where no channel of a list is left, a node is removed whose outputs all hold nothing, whatever it does. The
nodes at the end read the list with constant weights: without it they put out a constant, their bias. It is
*small*: of size 1 along most axes. Element by element it may go on, as a constant, until it meets a tensor
that has the shape that the result had: a residual sum, a gate. Any other node that reads it needs the list.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import heapify, heappop, heappush

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array, Channels
from graft.rewriter.channels.coupling import distinct
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.groups.channel_map import ChannelMap
from graft.rewriter.operators import consumer_of, operator_of
from graft.rewriter.operators.base import is_constant

Key = bytes


def list_key(channels: Channels) -> Key:
    """Return the same for lists of the same channels, in any order and number."""
    return distinct(channels).tobytes()


def removable(graph: gs.Graph, channel_map: ChannelMap, pinned: Collection[int]) -> frozenset[Key]:
    """Return the keys of the lists that may lose all channels, any number of these lists together.

    Lists of products stay: no single choice of channels empties them.

    Args:
        graph: the graph that was analysed.
        channel_map: its channels.
        pinned: atoms that stay in any case.
    """
    lists = {list_key(channels): distinct(channels) for channels in channel_map.lists if len(channels)}
    if not lists:
        return frozenset()
    joined = np.concatenate(list(lists.values()))
    starts = np.cumsum([0, *map(len, lists.values())])[:-1]
    stays = np.isin(np.arange(channel_map.count), list(pinned)) | ~channel_map.atoms
    removal, found = _Removal(graph, channel_map), set[Key]()
    for name, channels in sorted(lists.items(), key=lambda item: len(item[1])):
        if stays[channels].any():
            continue
        kept = channel_map.everything()
        kept[channels] = False
        left = np.logical_or.reduceat(channel_map.close(kept)[joined], starts)
        gone = {other for other, any_left in zip(lists, left, strict=True) if not any_left}
        if gone <= {name, *found} and removal.allows(gone):
            found.add(name)
    return frozenset(found)


class _Removal:
    """Follows what happens to a graph when lists lose all channels, one list after the other.

    What may become a constant by a list that was allowed before counts as small: it cannot be relied upon
    to keep a shape.
    """

    def __init__(self, graph: gs.Graph, channel_map: ChannelMap) -> None:
        self._map = channel_map
        self._nodes = list(graph.nodes)
        self._positions = {id(node): position for position, node in enumerate(self._nodes)}
        bodies = graph.subgraphs(recursive=True)
        self._needed = {tensor.name for tensor in graph.outputs}
        self._needed |= {tensor.name for body in bodies for node in body.nodes for tensor in node.inputs}
        self._needed |= {tensor.name for body in bodies for tensor in body.outputs}
        self._carriers: dict[Key, list[gs.Tensor]] = {}
        keys = {channels.tobytes(): list_key(channels) for channels in channel_map.lists}
        for node in self._nodes:
            for tensor in node.outputs:
                for key in {keys[c.tobytes()] for c in channel_map.of(tensor) if c is not None}:
                    self._carriers.setdefault(key, []).append(tensor)
        self._small: dict[str, Shape] = {}

    def allows(self, lists: Collection[Key]) -> bool:
        """Return whether ``lists`` may lose all channels at once; if so, this is remembered."""
        carriers = [tensor for name in lists for tensor in self._carriers.get(name, ())]
        gone = {tensor.name for tensor in carriers}
        if gone & self._needed:
            return False
        small: dict[str, Shape] = {}
        queue = [self._positions[id(n)] for t in carriers for n in (*t.inputs, *t.outputs)]
        heapify(queue)
        while queue:
            node = self._nodes[heappop(queue)]
            if not self._visit(node, gone, small):
                return False
            for tensor in node.outputs:
                if tensor.name in self._needed & small.keys():
                    return False
                if tensor.name in small:
                    for reader in tensor.outputs:
                        heappush(queue, self._positions[id(reader)])
            while queue and self._nodes[queue[0]] is node:
                heappop(queue)
        self._small.update(small)
        return True

    def _visit(self, node: gs.Node, gone: set[str], small: dict[str, Shape]) -> bool:
        """Return whether ``node`` can do without what is gone; if it puts out a constant, that is small."""
        used = [tensor for tensor in node.outputs if tensor.outputs or tensor.name in self._needed]
        if all(tensor.name in gone for tensor in used):
            return True
        if len(used) > 1 or used[0] is not node.outputs[0]:
            return False
        result, known = used[0], {**self._small, **small}
        lost = [index for index, tensor in enumerate(node.inputs) if tensor.name in gone]
        if lost and operator_of(node).skips_empty_inputs:
            return not any(tensor.name in known for tensor in node.inputs)
        whole = self._map.shape(result)
        if whole is None:
            return False
        found = self._without(node, lost, len(whole)) if lost else self._of_small(node, known)
        constant = bool(lost) or all(is_constant(t) or t.name in known for t in node.inputs)
        if found is not None and constant:
            small[result.name] = found
            return True
        return found is not None and found == whole

    def _without(self, node: gs.Node, lost: Collection[int], rank: int) -> Shape | None:
        """Return the shape of the constant that ``node`` puts out without its inputs ``lost``, if it can."""
        constant = _constant_output(node, lost, self._map)
        if constant is None or constant.dtype.kind != "f":  # onnxruntime computes with no bfloat16
            return None
        return (1,) * (rank - constant.ndim) + constant.shape

    def _of_small(self, node: gs.Node, small: dict[str, Shape]) -> Shape | None:
        """Return the shape that ``node`` puts out where some of its inputs are small, if it can."""
        shapes = [self._shape(tensor, small) for tensor in node.inputs]
        known = [shape for shape in shapes if shape is not None]
        return operator_of(node).broadcast_shape(node, known) if len(known) == len(shapes) else None

    def _shape(self, tensor: gs.Tensor, small: dict[str, Shape]) -> Shape | None:
        if tensor.name in small:
            return small[tensor.name]
        return tuple(tensor.shape) if is_constant(tensor) else self._map.shape(tensor)


def _constant_output(node: gs.Node, lost: Collection[int], channel_map: ChannelMap) -> Array | None:
    """Return what ``node`` puts out without its inputs ``lost``; ``None`` where it needs one of them."""
    consumer = consumer_of(node)
    if consumer is None:
        return None
    reads = {read.index for read in consumer.reads(node, channel_map) if read.recurrent_weight is None}
    return consumer.constant_output(node) if reads.issuperset(lost) else None
