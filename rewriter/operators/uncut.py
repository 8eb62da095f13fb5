"""Layers of quantized and of optimized files: whole or not at all, but what they cost is known.

Quantizers and onnxruntime's optimizer rewrite layers so that they can no longer be pruned: the scales of
quantized weights are chosen for all channels, blocked weights are padded. Prune the model that they were made
of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graft.rewriter.channels.flow import Flow
from graft.rewriter.operators.base import (
    QUANTIZED,
    ChannelLookup,
    Pinning,
    Work,
    count,
    flow_uncut,
    is_constant,
)

OPTIMIZED = "a layer that onnxruntime fused cannot be pruned: prune the model before its optimization"
SCALED = "cannot be pruned in a quantized model: prune the float model, then quantize it"
MICROSOFT, BLOCKED, LAST = "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"


@dataclass(frozen=True)
class _Layer:
    """Where a layer has its weights, and where its output its channels.

    Attributes:
        weight: index of the input with the weights.
        reason: why it cannot be pruned.
        axis: of the output that holds the channels; 1 for convolutions, -1 for matrices.
    """

    weight: int
    reason: str
    axis: int = 1


LAYERS: Mapping[str, _Layer] = {
    "ConvInteger": _Layer(1, QUANTIZED),
    "QLinearConv": _Layer(3, QUANTIZED),
    "MatMulInteger": _Layer(1, QUANTIZED, -1),
    "QLinearMatMul": _Layer(3, QUANTIZED, -1),
    f"{MICROSOFT}::QGemm": _Layer(3, QUANTIZED, -1),
    f"{MICROSOFT}::QLinearConv": _Layer(3, QUANTIZED),
    f"{MICROSOFT}::DynamicQuantizeMatMul": _Layer(1, QUANTIZED, -1),
    f"{MICROSOFT}::MatMulIntegerToFloat": _Layer(1, QUANTIZED, -1),
    f"{MICROSOFT}::MatMulInteger16": _Layer(1, QUANTIZED, -1),
    f"{MICROSOFT}::FusedConv": _Layer(1, OPTIMIZED),
    f"{MICROSOFT}::NhwcFusedConv": _Layer(1, OPTIMIZED, -1),
    f"{MICROSOFT}::FusedGemm": _Layer(1, OPTIMIZED, -1),
    f"{MICROSOFT}::FusedMatMul": _Layer(1, OPTIMIZED, -1),
    f"{MICROSOFT}::TransposeMatMul": _Layer(1, OPTIMIZED, -1),
    f"{BLOCKED}::Conv": _Layer(1, OPTIMIZED),
    f"{LAST}::Conv": _Layer(1, OPTIMIZED, -1),
    f"{LAST}::QLinearConv": _Layer(3, QUANTIZED, -1),
}


class UncutLayer(Pinning):
    """A dense layer or convolution whose channels all stay."""

    types = tuple(LAYERS)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin the inputs and the channels that the layer makes."""
        layer = _layer(node)
        flow_uncut(node, flow, layer.axis, layer.reason)

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return output positions times weights; for two matrices of activations all products."""
        layer = _layer(node)
        weight, shape = node.inputs[layer.weight], channels.shape(node.outputs[0])
        sizes = channels.shape(weight)
        if not shape or not sizes or None in sizes:
            return []
        if layer.axis == -1 and (len(sizes) != 2 or not is_constant(weight)):
            inner = 1 if node.attrs.get("transB", 0) else 0
            return [Work(count(shape) * count(sizes[-2:][inner : inner + 1]), ())]
        places = [size for axis, size in enumerate(shape) if axis != layer.axis % len(shape)]
        return [Work(count(places) * count(sizes), ())]

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return whether a shape is not known."""
        return not self.work(node, channels)


def _layer(node: gs.Node) -> _Layer:
    return LAYERS[f"{node.domain}::{node.op}" if node.domain else node.op]


class Quantization(Pinning):
    """Operators between quantized layers, which multiply next to nothing."""

    types = (
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *(f"{MICROSOFT}::{name}" for name in ("QuantizeLinear", "DequantizeLinear")),
        *(
            f"{MICROSOFT}::QLinear{name}"
            for name in ("Add", "Mul", "Sigmoid", "LeakyRelu", "Softmax", "Concat")
        ),
        *(
            f"{MICROSOFT}::QLinear{name}"
            for name in ("AveragePool", "GlobalAveragePool", "ReduceMean", "Where")
        ),
    )

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin all inputs."""
        flow.pin_inputs(node, SCALED)

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return False."""
        return False


class Fused(Pinning):
    """Operators of onnxruntime that multiply next to nothing: of its blocked layout, and normalizations."""

    types = tuple(f"{MICROSOFT}::Skip{name}LayerNormalization" for name in ("", "Simplified")) + tuple(
        f"{BLOCKED}::{name}"
        for name in (
            "ReorderInput",
            "ReorderOutput",
            "MaxPool",
            "AveragePool",
            "GlobalMaxPool",
            "GlobalAveragePool",
            "Upsample",
        )
    )

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin all inputs."""
        flow.pin_inputs(node, OPTIMIZED)

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return False."""
        return False


class PackedMatrix(Pinning):
    """``MatMulNBits``: a dense layer, its matrix packed in blocks of few bits."""

    types = (f"{MICROSOFT}::MatMulNBits",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin the inputs and the channels that the layer makes."""
        flow_uncut(node, flow, -1, QUANTIZED)

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return rows times inputs times outputs."""
        shape = channels.shape(node.outputs[0])
        return [Work(count(shape) * float(node.attrs["K"]), ())] if shape else []

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return whether a shape is not known."""
        return not self.work(node, channels)


class LinearModel(Pinning):
    """``LinearClassifier``, ``LinearRegressor``: a dense layer, its matrix an attribute."""

    types = ("ai.onnx.ml::LinearClassifier", "ai.onnx.ml::LinearRegressor")

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return samples times coefficients."""
        shape = channels.shape(node.inputs[0])
        return [Work(count((shape or ())[:1]) * len(node.attrs["coefficients"]), ())] if shape else []

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return whether the number of samples is not known."""
        return not self.work(node, channels)
