"""Convolutions: dense, grouped and depthwise, in one to three dimensions."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.flow import Channels, Flow
from graft.rewriter.operators.base import (
    Array,
    ChannelMap,
    Cut,
    Operator,
    Parameter,
    Read,
    Work,
    count,
    given,
    is_constant,
    set_constant,
)


class Convolution(Operator):
    """``Conv``: weight ``(out, in / group, *kernel)``, bias ``(out,)``.

    * dense: consumes the input's channels, makes new ones;
    * depthwise (one input channel a group): the input's channels pass, each tied to its m outputs;
    * grouped: the i-th inputs of all groups are one channel, the i-th outputs likewise, so that all
      groups stay and stay equally wide.
    """

    types = ("Conv",)
    preferred = 8
    """onnxruntime's blocked convolutions (NCHWc) refuse other numbers: 62 of 64 channels take 1.2 times as
    long as all 64."""

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """See the class."""
        weight, bias = node.inputs[1], given(node, 2)
        axes, shape = flow.of(node.inputs[0]), flow.shape(node.outputs[0])
        if not is_constant(weight) or (bias is not None and not is_constant(bias)):
            flow.pin_inputs(node, "its weight is computed at run time")
            return
        outputs = flow.make(node, weight.shape[0])
        rank = len(weight.shape)
        inputs = axes[1] if len(axes) == rank else None
        for axis, channels in enumerate(axes):
            if axis != 1:
                flow.pin(channels, node, "channels on a batch or space axis of a convolution")
        groups = _groups(node)
        if _is_depthwise(node):
            each = np.repeat(np.arange(groups), weight.shape[0] // groups)
            if inputs is None:
                flow.pin(outputs, node, "depthwise on the graph's input")
            else:
                flow.tie(inputs[each], outputs)
        elif groups > 1:
            _tie_rows(flow, outputs, groups)
            if inputs is not None:
                _tie_rows(flow, inputs, groups)
        flow.give(node.outputs[0], [None, outputs, *[None] * (len(shape or [0] * rank) - 2)])

    def parameters(self, node: gs.Node, channels: ChannelMap) -> list[Parameter]:
        """Weight along outputs and, unless depthwise, along the inputs of one group; bias."""
        axes = {}
        outputs = channels.of(node.outputs[0])
        if len(outputs) > 1 and outputs[1] is not None:
            axes[0] = outputs[1]
        inputs = _inputs_of_a_group(node, channels)
        if inputs is not None:
            axes[1] = inputs
        found = [Parameter(1, axes, reads=None if inputs is None else 1)]
        if given(node, 2) is not None and 0 in axes:
            found.append(Parameter(2, {0: axes[0]}))
        return found

    def reads(self, node: gs.Node, channels: ChannelMap) -> list[Read]:
        """The input's channels, unless depthwise."""
        axes = channels.of(node.inputs[0])
        if _is_depthwise(node) or len(axes) < 2 or axes[1] is None:
            return []
        return [Read(0, 1, axes[1])]

    def work(self, node: gs.Node, channels: ChannelMap) -> list[Work]:
        """Positions x kernel x inputs of a group x outputs."""
        weight, shape = node.inputs[1], channels.shape(node.outputs[0])
        if not is_constant(weight) or shape is None:
            return []
        times = count(shape) / shape[1] * count(weight.shape[2:]) if shape[1] else 0.0
        lists: list[Channels] = []
        for size, found in (
            (weight.shape[0], channels.of(node.outputs[0])[1]),
            (weight.shape[1], _inputs_of_a_group(node, channels)),
        ):
            if found is None:
                times *= size
            else:
                lists.append(found)
        return [Work(times, tuple(lists))]

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """A depthwise convolution has as many groups as inputs are left."""
        if _groups(node) > 1 and node.inputs[1].shape[1] == 1:
            kept = cut.keeps(node.inputs[0], 1)
            if kept is not None and len(kept) == _groups(node):
                node.attrs["group"] = int(kept.sum())

    def mixes(self, node: gs.Node) -> bool:
        """A grouped convolution reads in blocks, so a matrix that mixes groups cannot be taken."""
        return _groups(node) == 1

    def matrix(self, node: gs.Node) -> Array:
        """Weights as (outputs, taps, inputs); zero where an output is of another group than an input."""
        weight = node.inputs[1].values.astype(np.float64)
        groups, width = _groups(node), weight.shape[1]
        taps = weight.reshape(*weight.shape[:2], -1).swapaxes(1, 2)
        result = np.zeros((*taps.shape[:2], groups * width))
        for group, rows in enumerate(np.split(np.arange(len(weight)), groups)):
            result[rows, :, group * width : (group + 1) * width] = taps[rows]
        return result

    def fold(self, node: gs.Node, into: Array, constant: Array, channels: ChannelMap) -> Array:
        """Each kernel tap takes the matrix; it adds its constant where it lies inside the input."""
        weight = node.inputs[1].values.astype(np.float64)
        taps = (weight * _coverage(node, channels)).reshape(*weight.shape[:2], -1).sum(axis=2)
        groups = _groups(node)
        blocks, inputs = taps.reshape(groups, -1, weight.shape[1]), constant.reshape(groups, -1)
        delta: Array = np.einsum("goi,gi->go", blocks, inputs).reshape(-1)
        if groups == 1 and not np.array_equal(into, np.eye(len(into))):
            folded = np.einsum("oi...,ij->oj...", weight, into)
            set_constant(node, 1, folded.astype(node.inputs[1].dtype))
        return delta

    def add_bias(self, node: gs.Node, delta: Array, graph: gs.Graph) -> None:
        """Into the bias, which is made where there is none."""
        bias = given(node, 2)
        old = np.zeros(len(delta), node.inputs[1].dtype) if bias is None else bias.values
        set_constant(node, 2, (old.astype(np.float64) + delta).astype(old.dtype))


def _groups(node: gs.Node) -> int:
    return int(node.attrs.get("group", 1))


def _is_depthwise(node: gs.Node) -> bool:
    return _groups(node) > 1 and node.inputs[1].shape[1] == 1


def _tie_rows(flow: Flow, channels: Channels, groups: int) -> None:
    rows = channels.reshape(groups, -1)
    for row in rows[1:]:
        flow.tie(rows[0], row)


def _inputs_of_a_group(node: gs.Node, channels: ChannelMap) -> Channels | None:
    axes = channels.of(node.inputs[0])
    if _is_depthwise(node) or len(axes) < 2 or axes[1] is None:
        return None
    return axes[1][: node.inputs[1].shape[1]]


def _coverage(node: gs.Node, channels: ChannelMap) -> Array:
    """Share of output positions at which a kernel tap lies inside the input, ``kernel``-shaped.

    1 everywhere without padding, and where the sizes are not known.
    """
    kernel = node.inputs[1].shape[2:]
    source, target = channels.shape(node.inputs[0]), channels.shape(node.outputs[0])
    if source is None or target is None or None in (*source[2:], *target[2:]):
        return np.ones(kernel)
    strides = node.attrs.get("strides", [1] * len(kernel))
    dilations = node.attrs.get("dilations", [1] * len(kernel))
    inside = np.ones(())
    for axis, taps in enumerate(kernel):
        size, outputs = int(source[2 + axis] or 0), int(target[2 + axis] or 0)
        reach = (outputs - 1) * strides[axis] + (taps - 1) * dilations[axis] + 1
        start = -_pad_before(node, axis, len(kernel), max(reach - size, 0))
        at = start + np.arange(outputs)[:, None] * strides[axis] + np.arange(taps) * dilations[axis]
        inside = np.multiply.outer(inside, ((at >= 0) & (at < size)).mean(axis=0))
    return inside


def _pad_before(node: gs.Node, axis: int, dimensions: int, needed: int) -> int:
    automatic = node.attrs.get("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        return int(node.attrs.get("pads", [0] * 2 * dimensions)[axis])
    if automatic == "VALID":
        return 0
    return needed // 2 if automatic == "SAME_UPPER" else needed - needed // 2
