"""Positions that nothing needs, found from the output backwards (algorithms 2 and 3 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.published.icse22_maps import Maps
from graft.rewriter.arrays import Mask
from graft.rewriter.graph.model import Model

SAME = frozenset(
    ("BatchNormalization", "Clip", "Dropout", "Elu", "HardSwish", "Identity", "LeakyRelu", "Relu", "Selu")
    + ("Sigmoid", "Tanh", "Mul")
)
"""Operators that need of their first input what is needed of their output, place by place."""
POOLS = ("AveragePool", "MaxPool")
WHOLE = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")


@dataclass
class Backtrack:
    """A walk from what the dense layers need to the convolutions, and through them to the input.

    Attributes:
        model: the parent.
        shapes: name of a tensor to its shape behind the samples.
        maps: changed in place: positions that nothing needs go off.
        through: go on through convolutions (BI); else stop at the last ones (BLN).
        needed: name of a tensor to what is needed of it; what is missing is not needed at all.
    """

    model: Model
    shapes: Mapping[str, tuple[int, ...]]
    maps: Maps
    through: bool
    needed: Maps = field(default_factory=dict)

    def run(self, features: str, kept: Mask) -> None:
        """Walk back.

        Args:
            features: the tensor that the first dense layer reads.
            kept: bool (values,): what the dense layers need of it.
        """
        self._need(features, kept)
        behind = _behind(self.model, features)
        for node in reversed(self.model.graph.nodes):
            if id(node) not in behind:
                continue
            name = node.outputs[0].name
            need = self.needed.get(name)
            if need is None:
                need = np.zeros(self.shapes.get(name, (0,)), bool)
            if name in self.maps:
                self.maps[name] &= need
                need = self.maps[name]
            self._pass_on(node, need)

    def _pass_on(self, node: gs.Node, need: Mask) -> None:
        rule = self._rule(node)
        for tensor in node.inputs[: 2 if node.op == "Add" else 1]:
            shape = self.shapes.get(tensor.name)
            if isinstance(tensor, gs.Constant) or shape is None:
                continue
            found = rule(node, need, shape) if rule else np.ones(shape, bool)
            self._need(tensor.name, found if found.shape == shape else np.ones(shape, bool))
        for tensor in node.inputs[2 if node.op == "Add" else 1 :]:
            if tensor.name in self.shapes:
                self._need(tensor.name, np.ones(self.shapes[tensor.name], bool))

    def _rule(self, node: gs.Node) -> Callable[[gs.Node, Mask, tuple[int, ...]], Mask] | None:
        if node.op in SAME or node.op == "Add":
            return lambda _, need, shape: need
        if node.op in ("Flatten", "Reshape", "Squeeze"):
            return lambda _, need, shape: need.reshape(shape) if need.size == np.prod(shape) else need
        if node.op in WHOLE:
            return _whole
        if node.op in POOLS:
            return lambda node, need, shape: _windows(node, need, shape)
        if node.op == "Conv" and self.through:
            return _convolution
        return None

    def _need(self, name: str, places: Mask) -> None:
        old = self.needed.get(name)
        self.needed[name] = places.copy() if old is None else old | places


def _behind(model: Model, name: str) -> set[int]:
    """Return the nodes that a tensor comes from."""
    found: set[int] = set()
    open_ends = list(model.graph.tensors()[name].inputs)
    while open_ends:
        node = open_ends.pop()
        if id(node) not in found:
            found.add(id(node))
            open_ends += [maker for tensor in node.inputs for maker in tensor.inputs]
    return found


def _whole(node: gs.Node, need: Mask, shape: tuple[int, ...]) -> Mask:
    """All positions of a channel where its mean is needed."""
    channels = need.reshape(len(need), -1).any(axis=1) if need.ndim else need
    return np.broadcast_to(channels.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()


def _convolution(node: gs.Node, need: Mask, shape: tuple[int, ...]) -> Mask:
    """All positions of the windows of what any output channel of the group needs."""
    groups = int(node.attrs.get("group", 1))
    by_group = need.reshape(groups, -1, *need.shape[1:]).any(axis=1)
    repeated = np.repeat(by_group, shape[0] // groups, axis=0)
    return _windows(node, repeated, shape)


def _windows(node: gs.Node, need: Mask, shape: tuple[int, ...]) -> Mask:
    """Return the positions that the windows of needed positions cover: bool ``shape``."""
    axes = len(shape) - 1
    kernel = node.attrs.get("kernel_shape") or node.inputs[1].shape[2:]
    strides = node.attrs.get("strides") or [1] * axes
    dilations = node.attrs.get("dilations") or [1] * axes
    before = _pads(node, need.shape[1:], shape[1:], kernel, strides, dilations)
    found = np.zeros(shape, bool)
    for tap in np.ndindex(*kernel):
        target, source = [slice(None)], [slice(None)]
        for axis in range(axes):
            start = tap[axis] * dilations[axis] - before[axis]
            places = start + strides[axis] * np.arange(need.shape[axis + 1])
            inside = np.flatnonzero((places >= 0) & (places < shape[axis + 1]))
            if not len(inside):
                break
            first, last = places[inside[0]], places[inside[-1]]
            target.append(slice(first, last + 1, strides[axis]))
            source.append(slice(inside[0], inside[-1] + 1))
        else:
            found[tuple(target)] |= need[tuple(source)]
    return found


def _pads(
    node: gs.Node,
    outputs: tuple[int, ...],
    inputs: tuple[int, ...],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Return how many places of padding there are before each axis."""
    auto = node.attrs.get("auto_pad", "NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    if auto in ("NOTSET", "VALID"):
        return list(node.attrs.get("pads") or [0] * len(inputs))[: len(inputs)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    total = [max(0, (o - 1) * s + r - i) for o, s, r, i in zip(outputs, strides, reach, inputs, strict=True)]
    return [(each + (auto == "SAME_LOWER")) // 2 for each in total]
