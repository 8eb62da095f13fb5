"""Shapes: axes that are split, merged and spread, and the shape arithmetic that says how."""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Axes, Channels
from graft.rewriter.channels.flow import Flow
from graft.rewriter.operators.base import (
    ChannelLookup,
    Cut,
    Operator,
    Parameter,
    constant_ints,
    is_constant,
    set_constant,
)
from graft.rewriter.operators.elementwise import Broadcast

PRIME = 2**31 - 1

Sizes = tuple[int | None, ...]


class Reshape(Operator):
    """``Reshape`` and ``Flatten``: runs of axes that are split, merged or regrouped.

    * channel axes merged with each other or with axes without channels: of each place the product;
    * a channel axis split: every new axis takes its factors (see :meth:`Flow.split`);
    * merged with the batch: as with any axis, for the batch of the analysis (see :meth:`Flow.pin_batched`).
    """

    types = ("Reshape", "Flatten")

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass channels as the class says."""
        axes = flow.of(node.inputs[0])
        if all(channels is None for channels in axes):
            return
        source, target = flow.shape(node.inputs[0]), flow.shape(node.outputs[0])
        blocks = None if source is None or target is None else _blocks(source, target)
        if blocks is None or source is None or target is None:
            flow.pin_inputs(node, "regroups axes of unknown size")
            return
        result: Axes = [None] * len(target)
        for before, after in blocks:
            mixed = len(before) > 1 or len(after) > 1
            if mixed and None in (*(source[axis] for axis in before), *(target[axis] for axis in after)):
                for axis in before:
                    flow.pin(axes[axis], node, "merges channels with an axis of unknown size")
                continue
            flat = self._merge(node, flow, before, axes)
            if flat is not None:
                lists = flow.split(flat, [target[axis] or 1 for axis in after])
                for axis, channels in zip(after, lists, strict=True):
                    result[axis] = channels
        self._pin_counted(node, flow, result)
        flow.give(node.outputs[0], result)

    @staticmethod
    def _pin_counted(node: gs.Node, flow: Flow, axes: Axes) -> None:
        """Pin channels on an axis that grows with the batch, unless its size is left to be found."""
        target = constant_ints(node, 1) if node.op == "Reshape" else None
        for axis, channels in enumerate(axes if flow.batched else ()):
            found = target is not None and target[axis] <= 0
            if channels is not None and not found and flow.grows(node.outputs[0], axis):
                flow.pin(channels, node, "merges channels with the batch")

    @staticmethod
    def _merge(node: gs.Node, flow: Flow, block: list[int], axes: Axes) -> Channels | None:
        """Return the list of the merged axes, or ``None`` where it holds no channels."""
        lists = [axes[axis] for axis in block]
        if all(channels is None for channels in lists):
            return None
        shape = flow.shape(node.inputs[0]) or ()
        if len(block) > 1 and any(flow.grows(node.inputs[0], axis) for axis in block):
            flow.batched = True
        return flow.merge(lists, [shape[axis] or 1 for axis in block])

    def counts(self, node: gs.Node, axis: int, rank: int) -> bool:
        """Return ``False``: where it counts, :meth:`flow` pins."""
        return False

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write the sizes that are left into the target shape."""
        if node.op == "Reshape":
            write_sizes(node, 1, cut, {})


class Expand(Operator):
    """``Expand``: axes with channels pass; what is spread holds none."""

    types = ("Expand",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass channels as the class says."""
        axes, target = flow.of(node.inputs[0]), flow.shape(node.outputs[0])
        if target is None:
            flow.pin_inputs(node, "spreads to an unknown shape")
            return
        if is_constant(node.inputs[0]):
            axes = [flow.adopt(size) if size > 1 else None for size in node.inputs[0].shape]
        result: Axes = [*[None] * (len(target) - len(axes)), *axes]
        for back in range(1, len(axes) + 1):
            if axes[-back] is not None and flow.size(node.inputs[0], -back) != target[-back]:
                flow.pin(axes[-back], node, "spreads its only channel")
                result[-back] = None
        flow.give(node.outputs[0], result)

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return a constant that is spread, along every axis that holds channels."""
        return [found for found in Broadcast().parameters(node, channels) if found.index == 0]

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write 1 for an axis that is cut: it stays as it is."""
        axes = range(len(cut.shape(node.outputs[0]) or ()))
        write_sizes(node, 1, cut, {axis: 1 for axis in axes if _shrinks(cut, node.outputs[0], axis)})


class Shape(Operator):
    """``Shape`` tells the sizes of the parent, also when its input is cut.

    So whatever is computed from them (positions, counts, the scale of an attention) is as in the parent,
    and the operators that take a shape write the sizes that are left over it.
    """

    types = ("Shape",)
    outputs_no_channels = True

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Give no channels: sizes are none."""

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Put the parent's sizes in place of those that have changed."""
        source = node.inputs[0]
        sizes = cut.shape(source) or ()
        start, end = int(node.attrs.get("start", 0)), node.attrs.get("end")
        places = range(len(sizes))[start:end]
        whole = {place: sizes[axis] or 0 for place, axis in enumerate(places) if _shrinks(cut, source, axis)}
        if not whole:
            return
        shape = node.outputs[0]
        readers = [
            (user, place) for user in shape.outputs for place, t in enumerate(user.inputs) if t is shape
        ]
        name = _unused(f"{node.name}/parent", cut.graph)
        joined = _overwrite(shape, whole, len(places), name, cut.graph)
        for user, place in readers:
            user.inputs[place] = joined.outputs[0]


# ------------------------------------------------------------------------------- helpers


def write_sizes(node: gs.Node, index: int, cut: Cut, instead: dict[int, int]) -> None:
    """Write into the shape at input ``index`` of ``node`` what the cut leaves of its first output.

    A shape that is computed at run time gets the sizes written over it then.

    Args:
        node: the node that takes the shape.
        index: which input holds it.
        cut: the cut.
        instead: what to write for an axis instead of the size that is left.
    """
    output = node.outputs[0]
    axes = [axis for axis in range(len(cut.shape(output) or ())) if _shrinks(cut, output, axis)]
    left = {axis: instead.get(axis, _left(cut, output, axis)) for axis in axes}
    target = constant_ints(node, index)
    if target is None and left:
        name = _unused(f"{node.name}/input_{index}", cut.graph)
        length = len(cut.shape(output) or ())
        node.inputs[index] = _overwrite(node.inputs[index], left, length, name, cut.graph).outputs[0]
    elif target is not None and any(target[axis] > 0 for axis in left):
        new = [left[axis] if axis in left and size > 0 else size for axis, size in enumerate(target)]
        set_constant(node, index, np.array(new, np.int64))


def _shrinks(cut: Cut, tensor: gs.Tensor, axis: int) -> bool:
    kept = cut.keeps(tensor, axis)
    return kept is not None and not kept.all()


def _left(cut: Cut, tensor: gs.Tensor, axis: int) -> int:
    kept = cut.keeps(tensor, axis)
    return 0 if kept is None else int(kept.sum())


def _unused(name: str, graph: gs.Graph) -> str:
    """Return ``name``, longer where a graph that was cut before has it already."""
    taken = {node.name for node in graph.nodes}
    while name in taken:
        name += "+"
    return name


def _overwrite(shape: gs.Tensor, sizes: dict[int, int], length: int, name: str, graph: gs.Graph) -> gs.Node:
    """Add a ``Concat`` of ``sizes`` where given and of stretches of ``shape`` elsewhere.

    Shape inference sees through it, unlike through a ``Where``.
    """
    parts: list[gs.Tensor] = []
    axis = 0
    while axis < length:
        end = axis + 1
        while end < length and (end in sizes) == (axis in sizes):
            end += 1
        if axis in sizes:
            values = np.array([sizes[place] for place in range(axis, end)], np.int64)
            parts.append(gs.Constant(f"{name}/sizes_{axis}", values))
        else:
            parts.append(gs.Variable(f"{name}/shape_{axis}", np.dtype(np.int64), [end - axis]))
            bounds = [
                gs.Constant(f"{name}/bound_{axis}_{at}", np.array([at], np.int64)) for at in (axis, end)
            ]
            graph.nodes.append(gs.Node("Slice", parts[-1].name, inputs=[shape, *bounds], outputs=parts[-1:]))
        axis = end
    joined = gs.Node("Concat", name, {"axis": 0}, parts, [gs.Variable(name, np.dtype(np.int64), [length])])
    graph.nodes.append(joined)
    return joined


def _blocks(source: Sizes, target: Sizes) -> list[tuple[list[int], list[int]]] | None:
    """Pair the smallest runs of axes with equal products, sizes of 1 left out.

    One unknown size on either side is found from the other (both hold as many numbers); with more of
    them, ``None`` unless the axes before pair off.
    """
    source, target = _with_unknown(source, target)
    left = [axis for axis, size in enumerate(source) if size != 1]
    right = [axis for axis, size in enumerate(target) if size != 1]
    blocks = []
    while left and right:
        if source[left[0]] is None or target[right[0]] is None:
            return None
        before, after = [left.pop(0)], [right.pop(0)]
        sizes = [source[before[0]] or 0, target[after[0]] or 0]
        while sizes[0] != sizes[1]:
            side, run, shape = (left, before, source) if sizes[0] < sizes[1] else (right, after, target)
            if not side or shape[side[0]] is None:
                return None
            sizes[0 if run is before else 1] *= shape[side[0]] or 0
            run.append(side.pop(0))
        blocks.append((before, after))
    return None if left or right else blocks


def _with_unknown(source: Sizes, target: Sizes) -> tuple[Sizes, Sizes]:
    """Put a number in place of the only unknown size on either side: a prime that no shape has."""
    if source.count(None) != 1 or target.count(None) != 1 or 0 in (*source, *target):
        return source, target
    known = [math.prod(size for size in shape if size is not None) for shape in (source, target)]
    common = math.gcd(*known)
    first, second = (PRIME * known[1] // common, PRIME * known[0] // common)
    return _filled(source, first), _filled(target, second)


def _filled(shape: Sizes, size: int) -> Sizes:
    return tuple(size if known is None else known for known in shape)
