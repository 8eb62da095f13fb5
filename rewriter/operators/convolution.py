"""Convolutions and transposed ones: dense, grouped and depthwise, in one to three dimensions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array, Channels, Integers
from graft.rewriter.channels.flow import Flow
from graft.rewriter.graph.builder import Builder
from graft.rewriter.operators.affine_map import AffineMap
from graft.rewriter.operators.base import (
    QUANTIZED,
    ChannelLookup,
    Cut,
    Parameter,
    Read,
    Work,
    count,
    dtype_of,
    flow_uncut,
    given,
    is_constant,
    is_quantized,
    set_constant,
)
from graft.rewriter.operators.consumer import Consumer


class _Kernels(Consumer):
    """Rules that both convolutions share.

    * dense: consumes the input's channels, makes new ones;
    * depthwise (one input channel a group): the input's channels pass, each tied to its m outputs;
    * grouped: the i-th inputs of all groups are one channel, the i-th outputs likewise, so that all
      groups stay and stay equally wide.
    """

    preferred = 8
    """onnxruntime's blocked convolutions (NCHWc) refuse other numbers: 62 of 64 channels take 1.2 times as
    long as all 64."""

    @staticmethod
    @abstractmethod
    def _sizes(node: gs.Node) -> tuple[int, int]:
        """Return the number of outputs, and of inputs of one group."""

    def _is_depthwise(self, node: gs.Node) -> bool:
        return _groups(node) > 1 and self._sizes(node)[1] == 1

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Make the channels of the output, tied as the class says."""
        weight, bias = node.inputs[1], given(node, 2)
        axes, shape = flow.of(node.inputs[0]), flow.shape(node.outputs[0])
        if not is_constant(weight) or (bias is not None and not is_constant(bias)):
            if is_quantized(weight):
                flow_uncut(node, flow, 1, QUANTIZED)
            else:
                flow.pin_inputs(node, "its weight is computed at run time")
            return
        size, groups, rank = self._sizes(node)[0], _groups(node), len(weight.shape)
        outputs = flow.make(node, size)
        inputs = axes[1] if len(axes) == rank else None
        for axis, channels in enumerate(axes):
            if axis != 1:
                flow.pin(channels, node, "channels on a batch or space axis of a convolution")
        if self._is_depthwise(node):
            each = np.repeat(np.arange(groups), size // groups)
            if inputs is None:
                flow.pin(outputs, node, "depthwise on the graph's input")
            else:
                flow.tie(inputs[each], outputs)
        elif groups > 1:
            _tie_rows(flow, outputs, groups)
            if inputs is not None:
                _tie_rows(flow, inputs, groups)
        flow.give(node.outputs[0], [None, outputs, *[None] * (len(shape or [0] * rank) - 2)])

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return whether a shape is not known."""
        return not self.work(node, channels)

    def reads(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return the input's channels, unless depthwise."""
        inputs = _along(node.inputs[0], channels)
        if inputs is None or node.inputs[1].shape is None or self._is_depthwise(node):
            return []
        return [Read(0, 1, inputs)]

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write the number of groups of a depthwise convolution: as many as inputs are left."""
        kept = cut.keeps(node.inputs[0], 1)
        if kept is not None and 1 < len(kept) == _groups(node):
            node.attrs["group"] = int(kept.sum())

    def constant_output(self, node: gs.Node) -> Array:
        """Return the bias, for all places."""
        bias, weight = given(node, 2), node.inputs[1]
        values = np.zeros(self._sizes(node)[0], dtype_of(weight)) if bias is None else bias.values
        return values.reshape(-1, *[1] * (len(weight.shape) - 2))

    def accepts_dense_map(self, node: gs.Node) -> bool:
        """Return whether there is one group: a matrix that mixes groups fits no grouped weight."""
        return _groups(node) == 1

    def add_bias(self, node: gs.Node, delta: Array, graph: gs.Graph) -> None:
        """Add to the bias, which is made where there is none."""
        bias = given(node, 2)
        old = np.zeros(len(delta), node.inputs[1].dtype) if bias is None else bias.values
        set_constant(node, 2, (old.astype(np.float64) + delta).astype(old.dtype))


class Convolution(_Kernels, AffineMap):
    """``Conv``: weight ``(out, in / group, *kernel)``, bias ``(out,)``."""

    types = ("Conv",)
    preferred = 4
    """onnxruntime's blocked convolutions (NCHWc) refuse other numbers: 62 of 64 channels take 1.2 times as
    long as all 64."""

    @staticmethod
    def _sizes(node: gs.Node) -> tuple[int, int]:
        outputs, inputs = node.inputs[1].shape[:2]
        return outputs, inputs

    def _inputs(self, node: gs.Node, channels: ChannelLookup) -> Channels | None:
        """Return the channels that the first group reads: those along the weight."""
        inputs = _along(node.inputs[0], channels)
        return None if inputs is None or self._is_depthwise(node) else inputs[: self._sizes(node)[1]]

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return the weight along outputs and, unless depthwise, inputs of one group; the bias."""
        outputs = _along(node.outputs[0], channels)
        if outputs is None:
            return []
        axes, inputs = {0: outputs}, self._inputs(node, channels)
        if inputs is not None:
            axes[1] = inputs
        found = [Parameter(1, axes, reads=None if inputs is None else 1)]
        return found if given(node, 2) is None else [*found, Parameter(2, {0: outputs})]

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return output positions x kernel x inputs of a group x outputs."""
        sizes, shape = channels.shape(node.inputs[1]), channels.shape(node.outputs[0])
        if not shape or not sizes or None in sizes:
            return []
        times = count(shape[:1]) * count(shape[2:]) * count(sizes[2:])
        if not is_constant(node.inputs[1]):
            return [Work(times * count(sizes[:2]), ())]
        lists = (_along(node.outputs[0], channels), self._inputs(node, channels))
        return [_work(times, node.inputs[1].shape, lists)]

    def matrix(self, node: gs.Node, read: Read) -> Array:
        """Return weights as (outputs, taps, inputs); zero where output and input differ in group."""
        weight = node.inputs[1].values.astype(np.float64)
        groups, width = _groups(node), weight.shape[1]
        taps = weight.reshape(*weight.shape[:2], -1).swapaxes(1, 2)
        result = np.zeros((*taps.shape[:2], groups * width))
        for group, rows in enumerate(np.split(np.arange(len(weight)), groups)):
            result[rows, :, group * width : (group + 1) * width] = taps[rows]
        return result

    def fold(self, node: gs.Node, read: Read, into: Array, constant: Array, channels: ChannelLookup) -> Array:
        """Multiply each kernel tap with the matrix; it adds its constant where it lies inside the input."""
        weight = node.inputs[1].values.astype(np.float64)
        taps = (weight * _coverage(node, channels)).reshape(*weight.shape[:2], -1).sum(axis=2)
        groups = _groups(node)
        blocks, inputs = taps.reshape(groups, -1, weight.shape[1]), constant.reshape(groups, -1)
        delta: Array = np.einsum("goi,gi->go", blocks, inputs).reshape(-1)
        if groups == 1 and not np.array_equal(into, np.eye(len(into))):
            folded = np.moveaxis(np.tensordot(weight, into, (1, 0)), -1, 1)
            set_constant(node, 1, folded.astype(node.inputs[1].dtype))
        return delta

    made_axis = 1

    def is_affine(self, node: gs.Node) -> bool:
        """Return whether weight and bias are constants."""
        bias = given(node, 2)
        return is_constant(node.inputs[1]) and (bias is None or is_constant(bias))

    def coefficients(self, node: gs.Node) -> Array:
        """Return the weight; columns are inputs of a group times kernel taps."""
        weight = node.inputs[1].values.astype(np.float64)
        values: Array = weight.reshape(_groups(node), len(weight) // _groups(node), -1)
        return values

    def weight(self, node: gs.Node, coefficients: Array) -> Array:
        """Return the weight in the order of outputs, inputs, taps."""
        return coefficients.reshape(node.inputs[1].shape)

    def offset(self, node: gs.Node) -> Array:
        """Return the bias, or zeros."""
        bias = given(node, 2)
        return np.zeros(node.inputs[1].shape[0]) if bias is None else bias.values.astype(np.float64)

    def rows(self, node: gs.Node, data: Array, places: Integers) -> Array:
        """Return the inputs under the kernel at each place."""
        groups, (samples, channels, *sizes) = _groups(node), data.shape
        pads, flat = _under_kernel(node, sizes)
        padded = _zero_padded(data, pads).reshape(samples, channels, -1)
        taken = padded[:, :, flat[places]].reshape(samples, groups, -1, len(places), flat.shape[1])
        return taken.transpose(1, 0, 3, 2, 4).reshape(groups, samples * len(places), -1)

    def transpose(
        self, node: gs.Node, build: Builder, errors: gs.Tensor, weight: gs.Tensor, sizes: Sequence[int]
    ) -> gs.Variable:
        """Write a transposed convolution, as large as the input."""
        kernel, pads = node.inputs[1].shape[2:], _under_kernel(node, sizes[1:])[0]
        strides = node.attrs.get("strides", [1] * len(kernel))
        dilations = node.attrs.get("dilations", [1] * len(kernel))
        over = [
            (size + sum(pad) - (taps - 1) * dilation - 1) % stride
            for size, pad, taps, dilation, stride in zip(
                sizes[1:], pads, kernel, dilations, strides, strict=True
            )
        ]
        return build.node(
            "ConvTranspose",
            "back",
            [errors, weight],
            group=_groups(node),
            strides=list(strides),
            dilations=list(dilations),
            pads=[pad[end] for end in (0, 1) for pad in pads],
            output_padding=over,
        )


class TransposedConvolution(_Kernels):
    """``ConvTranspose``: weight ``(in, out / group, *kernel)``, bias ``(out,)``."""

    types = ("ConvTranspose",)

    @staticmethod
    def _sizes(node: gs.Node) -> tuple[int, int]:
        inputs, outputs = node.inputs[1].shape[:2]
        return outputs * _groups(node), inputs // _groups(node)

    def _outputs(self, node: gs.Node, channels: ChannelLookup) -> Channels | None:
        """Return the channels that the first group makes: those along the weight."""
        outputs = _along(node.outputs[0], channels)
        if outputs is None or self._is_depthwise(node):
            return None
        return outputs[: node.inputs[1].shape[1]]

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return the weight along inputs and, unless depthwise, outputs of one group; the bias."""
        outputs, inputs = (_along(end[0], channels) for end in (node.outputs, node.inputs))
        if outputs is None:
            return []
        lists = {0: inputs, 1: self._outputs(node, channels)}
        axes = {axis: found for axis, found in lists.items() if found is not None}
        reads = None if inputs is None or self._is_depthwise(node) else 0
        found = [Parameter(1, axes, reads)] if axes else []
        return found if given(node, 2) is None else [*found, Parameter(2, {0: outputs})]

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return input positions x kernel x inputs x outputs of a group."""
        sizes, shape = channels.shape(node.inputs[1]), channels.shape(node.inputs[0])
        if not shape or not sizes or None in sizes:
            return []
        times = count(shape[:1]) * count(shape[2:]) * count(sizes[2:])
        if not is_constant(node.inputs[1]):
            return [Work(times * count(sizes[:2]), ())]
        lists = (_along(node.inputs[0], channels), self._outputs(node, channels))
        return [_work(times, node.inputs[1].shape, lists)]

    def matrix(self, node: gs.Node, read: Read) -> Array:
        """Return weights as (outputs, taps, inputs); zero where output and input differ in group."""
        weight = node.inputs[1].values.astype(np.float64)
        groups, width = _groups(node), weight.shape[1]
        taps = weight.reshape(*weight.shape[:2], -1).transpose(1, 2, 0)
        result = np.zeros((groups * width, *taps.shape[1:]))
        for group, inputs in enumerate(np.split(np.arange(len(weight)), groups)):
            result[group * width : (group + 1) * width, :, inputs] = taps[:, :, inputs]
        return result

    def fold(self, node: gs.Node, read: Read, into: Array, constant: Array, channels: ChannelLookup) -> Array:
        """Multiply each kernel tap with the matrix; it adds its constant where it lands in the output."""
        weight = node.inputs[1].values.astype(np.float64)
        taps = (weight * _landing(node, channels)).reshape(*weight.shape[:2], -1).sum(axis=2)
        groups = _groups(node)
        blocks, inputs = taps.reshape(groups, -1, weight.shape[1]), constant.reshape(groups, -1)
        delta: Array = np.einsum("gio,gi->go", blocks, inputs).reshape(-1)
        if groups == 1 and not np.array_equal(into, np.eye(len(into))):
            folded = np.tensordot(into, weight, (0, 0))
            set_constant(node, 1, folded.astype(node.inputs[1].dtype))
        return delta


def _groups(node: gs.Node) -> int:
    return int(node.attrs.get("group", 1))


def _tie_rows(flow: Flow, channels: Channels, groups: int) -> None:
    rows = channels.reshape(groups, -1)
    for row in rows[1:]:
        flow.tie(rows[0], row)


def _along(tensor: gs.Tensor, channels: ChannelLookup) -> Channels | None:
    """Return the channels on axis 1."""
    axes = channels.of(tensor)
    return axes[1] if len(axes) > 1 else None


def _work(times: float, sizes: Sequence[int], lists: tuple[Channels | None, ...]) -> Work:
    """Return ``times`` the channels of the lists, or the weight's size where one holds none."""
    for size, found in zip(sizes, lists, strict=False):
        times *= size if found is None else 1
    return Work(times, tuple(found for found in lists if found is not None))


def _coverage(node: gs.Node, channels: ChannelLookup) -> Array:
    """Return the share of output positions at which each kernel tap lies inside the input.

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


def _zero_padded(data: Array, pads: Sequence[Sequence[int]]) -> Array:
    """Return ``data`` (samples, channels, *space) with zeros before and behind; as it is without pads."""
    if not any(map(any, pads)):
        return data
    sizes = [before + size + behind for size, (before, behind) in zip(data.shape[2:], pads, strict=True)]
    padded = np.zeros((*data.shape[:2], *sizes), data.dtype)
    inner = [slice(before, before + size) for size, (before, _) in zip(data.shape[2:], pads, strict=True)]
    padded[:, :, *inner] = data
    return padded


def _under_kernel(node: gs.Node, sizes: Sequence[int]) -> tuple[list[tuple[int, int]], Array]:
    """Return the padding of each axis, and what each output place reads of the flat padded input."""
    kernel = node.inputs[1].shape[2:]
    strides = node.attrs.get("strides", [1] * len(kernel))
    dilations = node.attrs.get("dilations", [1] * len(kernel))
    same = str(node.attrs.get("auto_pad", "NOTSET")).startswith("SAME")
    pads, flat = [], np.zeros((1, 1), np.int64)
    for axis, (size, taps, stride, dilation) in enumerate(
        zip(sizes, kernel, strides, dilations, strict=True)
    ):
        reach = (taps - 1) * dilation + 1
        needed = max((-(-size // stride) - 1) * stride + reach - size, 0)
        before = _pad_before(node, axis, len(kernel), needed)
        after = needed - before if same else 0
        if node.attrs.get("auto_pad", "NOTSET") == "NOTSET":
            after = int(node.attrs.get("pads", [0] * 2 * len(kernel))[len(kernel) + axis])
        pads.append((before, after))
        length = size + before + after
        at = np.arange(0, length - reach + 1, stride)[:, None] + np.arange(taps) * dilation
        flat = flat[:, None, :, None] * length + at[None, :, None, :]
        flat = flat.reshape(flat.shape[0] * flat.shape[1], -1)
    return pads, flat


def _landing(node: gs.Node, channels: ChannelLookup) -> Array:
    """Return how often each kernel tap of a transposed convolution lands in the output, by position.

    1 over the strides where the sizes are not known.
    """
    kernel = node.inputs[1].shape[2:]
    source, target = channels.shape(node.inputs[0]), channels.shape(node.outputs[0])
    strides = node.attrs.get("strides", [1] * len(kernel))
    dilations = node.attrs.get("dilations", [1] * len(kernel))
    if source is None or target is None or None in (*source[2:], *target[2:]):
        return np.full(kernel, 1 / count(strides))
    extra = node.attrs.get("output_padding", [0] * len(kernel))
    inside = np.ones(())
    for axis, taps in enumerate(kernel):
        size, outputs = int(source[2 + axis] or 0), int(target[2 + axis] or 0)
        reach = (size - 1) * strides[axis] + extra[axis] + (taps - 1) * dilations[axis] + 1
        start = -_pad_before(node, axis, len(kernel), max(reach - outputs, 0))
        at = start + np.arange(size)[:, None] * strides[axis] + np.arange(taps) * dilations[axis]
        inside = np.multiply.outer(inside, ((at >= 0) & (at < outputs)).sum(axis=0) / outputs)
    return inside


def _pad_before(node: gs.Node, axis: int, dimensions: int, needed: int) -> int:
    automatic = node.attrs.get("auto_pad", "NOTSET")
    if automatic == "NOTSET" and "output_shape" not in node.attrs:  # that of a transposed convolution
        return int(node.attrs.get("pads", [0] * 2 * dimensions)[axis])
    if automatic == "VALID":
        return 0
    return needed // 2 if automatic == "SAME_UPPER" else needed - needed // 2
