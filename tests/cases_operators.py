"""Networks of the operators beside layers, sums and moves: what :mod:`tests.graphs` holds for those.

Structures for random networks come first, then one regression case for each operator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.graphs import (
    BATCH,
    CLASSES,
    Builder,
    Cases,
    Pick,
    Structure,
    T,
    classify,
    convolution,
    features,
    gemm,
)

CASES = Cases()
case = CASES.case

# -------------------------------------------------------------------- pieces


def transposed_conv(b: Builder, x: T, channels: int, group: int = 1, kernel: int = 3, **more: Any) -> T:
    """ConvTranspose with its bias; ``channels`` counts the outputs of all groups."""
    weight = b.constant(
        b.rng.normal(0, x.channels**-0.5, (x.channels, channels // group, *[kernel] * x.spaces))
    )
    return b.one("ConvTranspose", x, weight, b.distinct(channels), group=group, **more)


def conv3d(b: Builder, x: T, channels: int, **more: Any) -> T:
    """Conv and Relu over three space axes."""
    return b.relu(b.conv(x, channels, **more))


def uniform(b: Builder, *shape: int) -> T:
    """Scales around one."""
    return b.constant(b.rng.uniform(0.5, 1.5, shape))


def scalar(b: Builder, value: float) -> T:
    """A constant without axes."""
    return b.constant(value)


def spelled_group_norm(b: Builder, x: T, groups: int) -> T:
    """GroupNormalization as PyTorch exports it."""
    y = b.reshape(x, 0, groups, -1)
    y = b.one("InstanceNormalization", y, b.constant(np.ones(groups)), b.constant(np.zeros(groups)))
    y = b.reshape(y, *[BATCH if b.fixed else -1], *x.shape[1:])
    ones = [1] * x.spaces
    y = b.one("Mul", y, uniform(b, x.channels, *ones))
    return b.one("Add", y, b.distinct(x.channels, *ones))


def group_norm(b: Builder, x: T, groups: int) -> T:
    """The operator, since opset 21; before, its scale and bias were by normalization group."""
    size = x.channels
    y = b.one("GroupNormalization", x, uniform(b, size), b.distinct(size), num_groups=groups)
    return b.declare(y, x.shape)


def instance_norm(b: Builder, x: T) -> T:
    """InstanceNormalization."""
    return b.one("InstanceNormalization", x, uniform(b, x.channels), b.distinct(x.channels))


def channels_last(b: Builder, x: T) -> T:
    """The channels at the end."""
    return b.one("Transpose", x, perm=[0, *range(2, len(x.shape)), 1])


def channels_first(b: Builder, x: T) -> T:
    """And back."""
    return b.one("Transpose", x, perm=[0, len(x.shape) - 1, *range(1, len(x.shape) - 1)])


def spelled_layer_norm(b: Builder, x: T) -> T:
    """LayerNormalization over the channels at the end, by means."""
    centred = b.one("Sub", x, b.reduce(x, axes=[-1]))
    variance = b.reduce(b.one("Pow", centred, scalar(b, 2)), axes=[-1])
    deviation = b.one("Sqrt", b.one("Add", variance, scalar(b, 1e-3)))
    y = b.one("Mul", b.one("Div", centred, deviation), uniform(b, x.shape[-1]))
    return b.one("Add", y, b.distinct(x.shape[-1]))


def spelled_gelu(b: Builder, x: T) -> T:
    """x / 2 (1 + erf(x / sqrt 2))."""
    erf = b.one("Erf", b.one("Div", x, scalar(b, 2**0.5)))
    return b.one("Mul", b.one("Mul", x, b.one("Add", erf, scalar(b, 1))), scalar(b, 0.5))


def spelled_tanh_gelu(b: Builder, x: T) -> T:
    """Its approximation by tanh."""
    cube = b.one("Mul", b.one("Pow", x, scalar(b, 3)), scalar(b, 0.044715))
    inner = b.one("Mul", b.one("Add", x, cube), scalar(b, (2 / np.pi) ** 0.5))
    outer = b.one("Add", scalar(b, 1), b.one("Tanh", inner))
    return b.one("Mul", b.one("Mul", x, scalar(b, 0.5)), outer)


def spelled_swish(b: Builder, x: T) -> T:
    """x sigmoid(x)."""
    return b.one("Mul", x, b.one("Sigmoid", x))


def spelled_hard_swish(b: Builder, x: T) -> T:
    """x clip(x + 3, 0, 6) / 6."""
    clipped = b.one("Clip", b.one("Add", x, scalar(b, 3)), scalar(b, 0), scalar(b, 6))
    return b.one("Div", b.one("Mul", x, clipped), scalar(b, 6))


def spelled_mish(b: Builder, x: T) -> T:
    """x tanh(softplus(x))."""
    return b.one("Mul", x, b.one("Tanh", b.one("Softplus", x)))


def resize(b: Builder, x: T, sizes: bool = False, times: float = 2.0, **more: Any) -> T:
    """Space scaled by ``times``, by scales or by sizes."""
    rank = len(x.shape)
    roi = None if b.opset >= 13 else b.constant([0] * rank + [1] * rank)
    if sizes and b.opset >= 13:
        target = [*x.shape[:2], *(int(size * times) for size in x.shape[2:])]
        return b.one("Resize", x, roi, None, b.ints(*target), **more)
    scales = b.constant([1, 1, *[times] * x.spaces])
    return b.declare(
        b.one("Resize", x, roi, scales, **more),
        (*x.shape[:2], *(int(size * times) for size in x.shape[2:])),
    )


def depth_to_space(b: Builder, x: T, mode: str = "DCR") -> T:
    """Blocks of 2 x 2."""
    return b.one("DepthToSpace", x, blocksize=2, mode=mode)


def inception(b: Builder, x: T) -> T:
    """Branches of several kernels and a pooled one, joined."""
    pooled = b.one("MaxPool", x, kernel_shape=[3] * x.spaces, pads=[1] * (2 * x.spaces))
    branches = [b.conv(x, 2, 1), b.conv(b.relu(b.conv(x, 3, 1)), 4, 3), b.conv(pooled, 2, 1)]
    return b.one("Concat", *(b.relu(branch) for branch in branches), axis=1)


def dense_block(b: Builder, x: T, steps: int, growth: int = 2) -> T:
    """Every step reads all that came before it."""
    for _ in range(steps):
        y = b.relu(b.batchnorm(x))
        x = b.one("Concat", x, b.layer(b.relu(b.layer(y, 3, 1)), growth), axis=1)
    return x


# -------------------------------------------------------------------- structures


def divisors(x: T, least: int = 1) -> list[int]:
    """Numbers of groups that have at least ``least`` channels each."""
    return [g for g in (1, 2, 3) if x.channels % g == 0 and x.channels // g >= least]


def transposed(b: Builder, x: T, pick: Pick) -> T:
    """ConvTranspose: dense, grouped, depthwise."""
    if x.spaces == 0:
        return gemm(b, x, pick)
    ones = [1] * x.spaces
    choices: list[dict[str, Any]] = [{"pads": ones * 2}, {"kernel": 1}, {"dilations": ones, "pads": ones * 2}]
    if max(x.shape[2:]) <= 7 and x.spaces < 3:
        twos = [2] * x.spaces
        choices += [{"strides": twos, "pads": ones * 2, "output_padding": ones}]
        choices += [{"strides": twos, "auto_pad": "SAME_UPPER"}, {"kernel": 2, "strides": twos}]
    more = pick(choices)
    group = pick([*divisors(x), x.channels])
    return transposed_conv(b, x, group * pick([1, 2]), group, **more)


def grouped_statistics(b: Builder, x: T, pick: Pick) -> T:
    """InstanceNormalization; GroupNormalization as one operator and spelled out."""
    if x.spaces == 0 or min(x.shape[2:]) == 1:
        return b.relu(x)
    kind = pick(["instance", "group", "spelled"])
    if kind == "instance":
        return instance_norm(b, x)
    groups = pick(divisors(x))
    return group_norm(b, x, groups) if kind == "group" and b.opset >= 21 else spelled_group_norm(b, x, groups)


def layer_statistics(b: Builder, x: T, pick: Pick) -> T:
    """LayerNormalization over the channels, as one operator and spelled out; LRN."""
    kind = pick(["layer", "rms", "spelled", "lrn"])
    if x.channels < 3:
        return b.relu(x)
    if kind == "lrn" and x.spaces == 2:
        return b.one("LRN", x, size=3, alpha=0.5)
    y = channels_last(b, x)
    if kind == "layer" and b.opset >= 17:
        y = b.one("LayerNormalization", y, uniform(b, x.channels), b.distinct(x.channels))
    elif kind == "rms" and b.opset >= 23:
        y = b.one("RMSNormalization", y, uniform(b, x.channels))
    else:
        y = spelled_layer_norm(b, y)
    return channels_first(b, y)


def reduced_gate(b: Builder, x: T, pick: Pick) -> T:
    """A gate for every place: a sum over the channels, or what no channel can leave."""
    operators = ["ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare"]
    y = b.reduce(x, pick([*operators, "ReduceMax", "ReduceLogSumExp"]), axes=[1])
    return b.one("Mul", x, b.one("Sigmoid", y))


def selecting(b: Builder, x: T, pick: Pick) -> T:
    """Max, Min, Mean, Where, Div and Pow of a layer and what it reads."""
    y = b.layer(x, x.channels, 1)
    kind = pick(["Max", "Min", "Mean", "Where", "Div", "Pow"])
    if kind == "Where":
        operands = pick([(x, y), (y, scalar(b, 0.2)), (uniform(b, x.channels, *[1] * x.spaces), x)])
        return b.one("Where", b.one("Greater", x, y), *operands)
    if kind == "Div":
        return b.one("Div", x, b.one("Add", b.one("Abs", y), scalar(b, 1)))
    if kind == "Pow":
        return b.one("Pow", b.one("Add", b.one("Abs", y), scalar(b, 0.5)), b.one("Sigmoid", x))
    return b.one(kind, x, y, uniform(b, x.channels, *[1] * x.spaces))


def smooth_activation(b: Builder, x: T, pick: Pick) -> T:
    """Gelu, Swish, HardSwish and Mish, spelled out or not."""
    spelled = [spelled_gelu, spelled_tanh_gelu, spelled_swish, spelled_hard_swish, spelled_mish]
    kind = pick([*spelled, "Gelu", "Mish", "Swish", "Atan"])
    known = {"Gelu": range(20, 99), "Mish": range(18, 99), "Swish": [24]}  # onnxruntime's
    if not isinstance(kind, str):
        return kind(b, x)
    return b.one(kind, x) if b.opset in known.get(kind, [b.opset]) else spelled_swish(b, x)


def blocks(b: Builder, x: T, pick: Pick) -> T:
    """DepthToSpace and SpaceToDepth."""
    if x.spaces != 2:
        return convolution(b, x, pick)
    if x.channels % 4 == 0 and max(x.shape[2:]) <= 7:
        return depth_to_space(b, x, pick(["DCR", "CRD"]))
    if x.channels <= 4 and all(size % 2 == 0 for size in x.shape[2:]):
        return b.one("SpaceToDepth", x, blocksize=2)
    return b.relu(x)


def enlarged(b: Builder, x: T, pick: Pick) -> T:
    """Tile of channels or space; Resize by scales and by sizes."""
    if x.spaces == 0 or max(x.shape[2:]) > 7 or pick([True, False]):
        return b.one("Tile", x, b.ints(1, pick([1, 2]), *[1] * x.spaces))
    if x.spaces == 2 and pick([True, False]):
        return resize(b, x, pick([True, False]) and b.fixed, mode=pick(["nearest", "linear"]))
    return b.one("Tile", x, b.ints(1, 1, 2, *[1] * (x.spaces - 1)))


def branches(b: Builder, x: T, pick: Pick) -> T:
    """A dense block or an inception block."""
    if x.spaces and min(x.shape[2:]) >= 2 and pick([True, False]):
        return inception(b, x)
    return dense_block(b, x, 2)


def ordered(b: Builder, x: T, pick: Pick) -> T:
    """CumSum, LpNormalization and a Softmax along the channels or along space."""
    axis = pick([1, len(x.shape) - 1])
    kind = pick(["CumSum", "LpNormalization", "ArgMax"])
    if kind == "CumSum":
        return b.one("Tanh", b.one("CumSum", x, b.constant(axis, np.int64)))
    if kind == "LpNormalization":
        return b.one(kind, b.one("Add", b.one("Abs", x), scalar(b, 0.1)), axis=axis, p=pick([1, 2]))
    places = b.one("Cast", b.one("ArgMax", x, axis=axis), to=TensorProto.FLOAT)
    return b.one("Add", x, b.one("Sigmoid", places))


STRUCTURES: list[Structure] = [
    transposed,
    grouped_statistics,
    layer_statistics,
    reduced_gate,
    selecting,
    smooth_activation,
    blocks,
    enlarged,
    branches,
    ordered,
]


# -------------------------------------------------------------------- convolutions


@case(11, 17, 22)
def transposed_convolutions(b: Builder) -> onnx.ModelProto:
    """Strides, pads, output_padding, auto_pad, dilations, output_shape."""
    x = b.relu(transposed_conv(b, features(b), 5, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]))
    x = b.relu(transposed_conv(b, x, 4, auto_pad="SAME_UPPER", strides=[1, 2]))
    x = b.relu(transposed_conv(b, x, 5, dilations=[2, 2], pads=[2, 1, 2, 3]))
    x = b.relu(transposed_conv(b, x, 4, auto_pad="SAME_LOWER"))
    return classify(
        b, transposed_conv(b, x, 3, strides=[2, 1], output_shape=[2 * x.shape[2], x.shape[3] + 1])
    )


@case(11, 17)
def transposed_grouped(b: Builder) -> onnx.ModelProto:
    """ConvTranspose in groups: of several channels, of one, of one with two outputs."""
    x = b.relu(transposed_conv(b, features(b, 6), 4, group=2))
    x = b.relu(transposed_conv(b, x, 4, group=4, strides=[2, 1]))
    return classify(b, b.relu(transposed_conv(b, x, 8, group=4)))


@case()
def transposed_on_input(b: Builder) -> onnx.ModelProto:
    """ConvTranspose of the graph's input: in groups, and depthwise, where nothing can go."""
    x = b.input(4, 6, 5)
    x = b.one("Concat", transposed_conv(b, x, 6, group=2), transposed_conv(b, x, 8, group=4), axis=1)
    return classify(b, b.relu(x))


@case()
def transposed_one_dimension(b: Builder) -> onnx.ModelProto:
    """1-D, without bias: the BatchNormalization behind it is the marker."""
    x = features(b, 6, 3, 9)
    weight = b.constant(b.rng.normal(0, 0.4, (6, 5, 3)))
    x = b.relu(b.batchnorm(b.one("ConvTranspose", x, weight, strides=[2])))
    return classify(b, x)


@case(11, 22)
def three_dimensions(b: Builder) -> onnx.ModelProto:
    """Conv, depthwise and grouped Conv, ConvTranspose and pooling over volumes."""
    x = conv3d(b, b.input(2, 4, 5, 4), 6, auto_pad="SAME_UPPER", strides=[1, 2, 1])
    x = b.relu(b.depthwise(x))
    x = b.one("MaxPool", conv3d(b, x, 4, group=2), kernel_shape=[2, 2, 2])
    x = b.relu(b.batchnorm(transposed_conv(b, x, 4, strides=[1, 1, 2])))
    x = conv3d(b, conv3d(b, x, 5, auto_pad="SAME_LOWER"), 4, kernel=2, auto_pad="VALID")
    return b.model(b.gemm(b.pooled(x), CLASSES))


# -------------------------------------------------------------------- normalization


@case(11, 22)
def instance_normalization(b: Builder) -> onnx.ModelProto:
    """Every channel by itself."""
    x = b.relu(instance_norm(b, b.conv(b.input(3, 6, 5), 6)))
    return classify(b, instance_norm(b, b.conv(x, 4)))


@case(21, 26)
def group_normalization(b: Builder) -> onnx.ModelProto:
    """Several normalization groups, one, and one for each channel."""
    x = b.relu(group_norm(b, features(b, 6), 3))
    x = b.relu(group_norm(b, b.conv(x, 4), 4))
    return classify(b, group_norm(b, b.conv(x, 4), 1))


@case(11, 17)
def group_normalization_spelled(b: Builder) -> onnx.ModelProto:
    """Reshape, InstanceNormalization, Reshape, scale and bias."""
    x = b.relu(spelled_group_norm(b, features(b, 6), 3))
    x = b.one("Add", x, spelled_group_norm(b, b.relu(b.conv(x, 6)), 2))
    return classify(b, x)


@case()
def group_normalization_of_input(b: Builder) -> onnx.ModelProto:
    """The graph's input has no channels; a Reshape that joins the batch is no normalization group."""
    x = spelled_group_norm(b, b.input(4, 6, 5), 2)
    x = b.relu(b.conv(x, 6))
    y = b.reshape(x, 1, -1, 30)
    y = b.one("InstanceNormalization", y, b.constant(np.ones(12)), b.constant(np.zeros(12)))
    b.fixed = True
    b.inputs[0].type.tensor_type.shape.dim[0].dim_value = BATCH
    return classify(b, b.reshape(y, 2, 6, 6, 5))


@case(17, 23)
def layer_normalization(b: Builder) -> onnx.ModelProto:
    """Over the channels, over space; RMSNormalization."""
    x = features(b)
    x = b.one("LayerNormalization", b.conv(x, 4), uniform(b, 5), b.distinct(5), axis=-1)
    x = b.one("LayerNormalization", b.relu(x), uniform(b, 6, 5), axis=-2)
    y = b.one("LayerNormalization", channels_last(b, b.relu(x)), uniform(b, 4), b.distinct(4))
    y = b.relu(b.conv(channels_first(b, y), 4))
    if b.opset >= 23:
        y = channels_first(b, b.one("RMSNormalization", channels_last(b, y), uniform(b, 4)))
    return classify(b, y)


@case(11, 18)
def layer_normalization_spelled(b: Builder) -> onnx.ModelProto:
    """By means over the channels: they take removed channels as zero."""
    x = spelled_layer_norm(b, channels_last(b, features(b)))
    return classify(b, b.conv(channels_first(b, x), 4))


@case(13, 22)
def other_normalizations(b: Builder) -> onnx.ModelProto:
    """LRN and LpNormalization over channels and over space; MeanVarianceNormalization over space."""
    x = b.one("LRN", features(b), size=3, alpha=0.5)
    x = b.one("LpNormalization", b.conv(x, 4), axis=3)
    x = b.declare(b.one("MeanVarianceNormalization", b.conv(x, 5), axes=[0, 2, 3]), (BATCH, 5, 6, 5))
    return classify(b, b.one("LpNormalization", b.conv(x, 4), axis=1))


# -------------------------------------------------------------------- reductions


@case(11, 13, 18)
def sums_over_channels(b: Builder) -> onnx.ModelProto:
    """They consume the channels, whether these axes stay or go."""
    x = features(b)
    for operator in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMean"):
        y = b.conv(b.reduce(b.conv(x, 5), operator, axes=[1]), 3)
        x = b.one("Concat", b.one("Tanh", x), b.relu(y), axis=1)
    y = b.one("Add", b.one("Abs", b.conv(x, 4)), scalar(b, 0.1))
    x = b.one("Concat", x, b.reduce(y, "ReduceLogSum", axes=[1]), axis=1)
    flat = b.unsqueeze(b.reduce(b.conv(x, 5), keepdims=0, axes=[1, 3]), 1)
    return b.model(b.gemm(b.one("Flatten", b.conv(flat, 3)), CLASSES))


@case(11, 18)
def means_of_features(b: Builder) -> onnx.ModelProto:
    """Mean over channels and space at once; over two axes with channels."""
    x = features(b)
    y = b.reduce(b.conv(x, 4), axes=[1, 2, 3])
    x = b.one("Mul", x, b.one("Sigmoid", y))
    heads = b.reshape(b.relu(b.gemm(b.pooled(x), 6)), 0, 2, 3)
    y = b.reduce(b.one("Tanh", heads), axes=[1, 2], keepdims=0)
    return b.model(b.gemm(b.one("Add", b.relu(b.gemm(b.pooled(x), 4)), b.unsqueeze(y, 1)), CLASSES))


@case(11, 18)
def largest_over_channels(b: Builder) -> onnx.ModelProto:
    """ReduceMax, Min, Prod and LogSumExp pin what they reduce."""
    x = features(b)
    for operator in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp"):
        y = b.one("Sigmoid", b.reduce(b.conv(x, 3), operator, axes=[1]))
        x = b.one("Mul", x, y)
    return classify(b, x)


@case(13)
def ordered_axes(b: Builder) -> onnx.ModelProto:
    """ArgMax, TopK and CumSum along space, where channels pass, and along channels."""
    x = features(b)
    for axis in (3, 1):
        x = b.one("Tanh", b.one("CumSum", b.conv(x, 6), b.constant(axis, np.int64)))
        places = b.one("ArgMax", b.conv(x, 6), axis=axis)
        x = b.one("Add", x, b.one("Sigmoid", b.one("Cast", places, to=TensorProto.FLOAT)))
        largest, _ = b.node("TopK", [b.conv(x, 6), b.ints(3)], outputs=2, axis=axis)
        x = b.relu(b.conv(largest, 6))
    low = b.one("Cast", b.one("ArgMin", x, axis=2, keepdims=0), to=TensorProto.FLOAT)
    return b.model(b.gemm(b.one("Concat", b.pooled(x), b.reduce(low, axes=[2], keepdims=0), axis=1), CLASSES))


@case(11, 18)
def power_pools(b: Builder) -> onnx.ModelProto:
    """LpPool and GlobalLpPool."""
    x = b.one("LpPool", features(b), kernel_shape=[2, 2], p=2)
    return b.model(b.gemm(b.one("Flatten", b.one("GlobalLpPool", b.conv(x, 5), p=3)), CLASSES))


# -------------------------------------------------------------------- element by element


@case(13, 18)
def selections(b: Builder) -> onnx.ModelProto:
    """Max, Min, Mean, Where, Div, Mod and Pow of tensors and constants of all shapes."""
    x = features(b)
    x = b.one("Max", x, b.conv(x, 6), uniform(b, 6, 1, 1))
    x = b.one("Min", b.conv(x, 6), b.conv(x, 6), scalar(b, 1.5))
    x = b.one("Mean", b.conv(x, 6), uniform(b, 1, 6, 1, 1), x)
    x = b.one("Where", b.one("Less", b.conv(x, 6), scalar(b, 0.3)), x, b.conv(x, 6, 1))
    x = b.one("Where", b.one("Greater", x, uniform(b, 6, 1, 1)), scalar(b, 0.4), b.conv(x, 6))
    x = b.one("Where", b.constant(b.rng.random((6, 1, 1)) < 0.5, np.bool_), x, b.conv(x, 6, 1))
    x = b.one("Div", b.conv(x, 6), b.one("Add", b.one("Abs", x), scalar(b, 1)))
    x = b.one("Mod", x, uniform(b, 6, 1, 1), fmod=1)
    x = b.one("Pow", b.one("Softplus", b.conv(x, 4)), uniform(b, 4, 1, 1))
    return classify(b, x)


@case(13)
def logic(b: Builder) -> onnx.ModelProto:
    """Comparisons and what follows them."""
    x = features(b)
    y, z = b.conv(x, 6), b.conv(x, 6)
    both = b.one("And", b.one("Greater", x, y), b.one("Not", b.one("LessOrEqual", y, z)))
    either = b.one("Xor", b.one("Or", both, b.one("Less", x, z)), b.one("GreaterOrEqual", z, y))
    same = b.one("Equal", b.one("Floor", x), b.one("Floor", z))
    chosen = b.one("Where", either, b.one("Where", same, y, z), b.one("Neg", x))
    return classify(b, chosen)


@case(20, 24)
def smooth_activations(b: Builder) -> onnx.ModelProto:
    """Gelu, HardSwish, Mish, Swish and Shrink as operators."""
    x = features(b)
    for operator in ("Gelu", "HardSwish", "Mish", *(["Swish"] if b.opset >= 24 else [])):
        x = b.one(operator, b.conv(x, 4))
    return classify(b, b.one("Shrink", b.one("Gelu", b.conv(x, 5), approximate="tanh"), lambd=0.1))


@case(11, 17)
def smooth_activations_spelled(b: Builder) -> onnx.ModelProto:
    """The same, spelled out."""
    x = features(b)
    for spelled in (spelled_gelu, spelled_tanh_gelu, spelled_swish, spelled_hard_swish, spelled_mish):
        x = spelled(b, b.conv(x, 5))
    return classify(b, x)


@case(17)
def trigonometry(b: Builder) -> onnx.ModelProto:
    """What is left of the functions of one tensor."""
    parts = []
    for operator in ("Atan", "Asinh", "Sinh", "Cosh", "Tan", "Sin", "Cos", "Acos", "Asin", "Atanh", "Acosh"):
        x = b.one("Tanh", b.conv(b.input(3, 6, 5) if not parts else parts[0], 3))
        x = b.one("Add", b.one("Abs", x), scalar(b, 1)) if operator == "Acosh" else x
        x = b.one("Mul", x, scalar(b, 0.9)) if operator in ("Acos", "Asin", "Atanh") else x
        parts.append(b.one(operator, x))
    x = b.one("Concat", *parts, axis=1)
    missing = b.one("Or", b.one("IsNaN", x), b.one("IsInf", x))
    return classify(b, b.one("CastLike", b.one("Where", missing, scalar(b, 0), x), scalar(b, 0)))


@case()
def onnxruntime_activations(b: Builder) -> onnx.ModelProto:
    """What onnxruntime's optimizers write for Gelu."""
    x = features(b)
    for operator in ("Gelu", "QuickGelu", "FastGelu"):
        y = b.conv(x, 5)
        x = b.declare(b.one(operator, y, domain="com.microsoft"), y.shape)
    y = channels_last(b, b.conv(x, 5))
    y = b.declare(b.one("BiasGelu", y, b.distinct(5), domain="com.microsoft"), y.shape)
    y = b.declare(b.one("FastGelu", y, b.distinct(5), domain="com.microsoft"), y.shape)
    return classify(b, channels_first(b, y))


# -------------------------------------------------------------------- space


@case(11, 13)
def depth_and_space(b: Builder) -> onnx.ModelProto:
    """DepthToSpace in both orders, SpaceToDepth."""
    x = b.relu(depth_to_space(b, features(b, 8)))
    x = b.one("SpaceToDepth", b.conv(x, 3), blocksize=2)
    x = depth_to_space(b, b.relu(b.conv(x, 12)), "CRD")
    return classify(b, x)


@case(11, 13)
def tiles(b: Builder) -> onnx.ModelProto:
    """Channels repeated, space repeated, a place repeated over space."""
    x = b.one("Tile", features(b, 4), b.ints(1, 2, 1, 3))
    place = b.one("Tile", b.one("GlobalAveragePool", b.conv(x, 3)), b.ints(1, 1, 6, 15))
    return classify(b, b.one("Concat", b.relu(b.conv(x, 4)), place, axis=1))


@case(11, 13, 19)
def resizes(b: Builder) -> onnx.ModelProto:
    """By scales and by sizes, which name the channels."""
    b.fixed = True
    x = resize(b, features(b, 6), mode="nearest")
    x = resize(b, b.conv(x, 5), sizes=True, times=0.5, mode="linear")
    x = resize(b, b.relu(b.conv(x, 5)), mode="cubic", coordinate_transformation_mode="align_corners")
    return classify(b, b.conv(x, 4))


@case(18, 21)
def resized_axes(b: Builder) -> onnx.ModelProto:
    """Axes named; channels at the end."""
    x = b.one("Resize", features(b), None, None, b.ints(9, 7), axes=[2, 3], mode="linear")
    sizes = b.ints(6, 9, 4)
    x = b.one("Resize", b.relu(b.conv(x, 6)), None, None, sizes, axes=[1, 2, 3], mode="nearest")
    return classify(b, x)


@case(20)
def samplings(b: Builder) -> onnx.ModelProto:
    """GridSample and RoiAlign."""
    x = features(b, 6)
    b.fixed = True
    b.inputs[0].type.tensor_type.shape.dim[0].dim_value = BATCH
    x = b.one("GridSample", x, b.constant(b.rng.uniform(-1, 1, (BATCH, 5, 4, 2))), mode="linear")
    rois = b.constant([[0, 0, 3, 3], [1, 0, 3, 2]])
    x = b.one("RoiAlign", b.conv(x, 5), rois, b.constant([0, 1], np.int64), output_height=3, output_width=3)
    return classify(b, x)


@case(11, 13)
def embedding(b: Builder) -> onnx.ModelProto:
    """Rows of a table that are picked at run time, one table on another axis."""
    tokens = b.one("Clip", b.one("Abs", b.input(7)), b.constant(0), b.constant(8))
    tokens = b.one("Cast", b.one("Mul", tokens, scalar(b, 3)), to=TensorProto.INT64)
    x = b.one("Gather", b.weight(25, 6), tokens)
    x = b.one("Add", x, b.constant(b.rng.normal(0, 1, (7, 6))))
    x = b.relu(b.matmul(x, 5))
    y = b.one("Gather", b.weight(2, 25, 4), tokens, axis=1)
    y = b.reduce(y, axes=[0, 2], keepdims=0)
    return b.model(b.gemm(b.one("Concat", b.reduce(x, axes=[1], keepdims=0), y, axis=1), CLASSES))


# -------------------------------------------------------------------- recurrent


@case(14)
def recurrent(b: Builder) -> onnx.ModelProto:
    """LSTM, GRU and RNN, what is before and behind them."""
    x, ends = b.one("Transpose", b.relu(b.matmul(b.input(4, 6), 7)), perm=[1, 0, 2]), []
    for operator, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        shapes = (1, gates * 5, 7), (1, gates * 5, 5), (1, gates * 10)
        weights = [b.constant(b.rng.normal(0, 0.5, shape)) for shape in shapes]
        last = b.node(operator, [b.relu(b.matmul(x, 7)), *weights], outputs=2, hidden_size=5)[1]
        ends.append(b.relu(b.gemm(b.squeeze(last, 0), 6)))
    return b.model(b.gemm(b.one("Concat", *ends, axis=1), CLASSES))


# -------------------------------------------------------------------- architectures


@case(11, 17)
def dense_blocks(b: Builder) -> onnx.ModelProto:
    """Two blocks of a DenseNet with the transition between them."""
    x = dense_block(b, features(b, 4), 3)
    x = b.one("AveragePool", b.conv(b.relu(b.batchnorm(x)), 4, 1), kernel_shape=[2, 2], strides=[2, 2])
    return classify(b, dense_block(b, x, 2, 3))


@case(11, 17)
def inception_blocks(b: Builder) -> onnx.ModelProto:
    """Two inception blocks."""
    return classify(b, inception(b, inception(b, features(b))))


@case(14)
def mobile_block(b: Builder) -> onnx.ModelProto:
    """Inverted residuals with squeeze-and-excite and HardSwish."""
    x = features(b, 4)
    y = b.one("HardSwish", b.conv(x, 8, 1))
    y = b.one("HardSwish", b.depthwise(y))
    gate = b.relu(b.conv(b.one("GlobalAveragePool", y), 3, 1))
    y = b.one("Mul", y, b.one("HardSigmoid", b.conv(gate, 8, 1)))
    return classify(b, b.one("Add", x, b.conv(y, 4, 1)))


@case(17)
def shuffle_units(b: Builder) -> onnx.ModelProto:
    """Grouped Conv, channel shuffle, depthwise Conv, grouped Conv, twice."""
    x = features(b, 8)
    for _ in range(2):
        y = b.relu(b.conv(x, 8, 1, group=2))
        y = b.one("Transpose", b.reshape(y, 0, 2, 4, 6, 5), perm=[0, 2, 1, 3, 4])
        y = b.depthwise(b.reshape(y, 0, 8, 6, 5))
        x = b.relu(b.one("Add", x, b.conv(y, 8, 1, group=2)))
    return classify(b, x)


@case(13)
def upsampling_path(b: Builder) -> onnx.ModelProto:
    """Down and up again with a skip connection, as in a U-Net."""
    x = features(b, 6, 3, 6, 6)
    y = b.relu(b.conv(b.one("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 5))
    y = transposed_conv(b, y, 4, kernel=2, strides=[2, 2])
    return classify(b, b.conv(b.one("Concat", x, b.relu(y), axis=1), 5))


# -------------------------------------------------------------------- control flow


def controlled(b: Builder, operator: str, inputs: list[T], shape: tuple[int, ...], **attributes: Any) -> T:
    """A node with bodies: onnx infers nothing for it alone. ``shape`` is that of its last output."""
    name = f"{operator.lower()}_{len(b.nodes)}"
    names = attributes.pop("outputs", [f"{name}_out"])
    node = helper.make_node(operator, [t.name for t in inputs], names, name=name, **attributes)
    b.nodes.append(node)
    return b.declare(T(names[-1], shape), shape)


def body(
    name: str, nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str], *weights: onnx.TensorProto
) -> onnx.GraphProto:
    """A body, whose inputs and outputs are floats unless they are called ``step`` or ``go...``."""
    kinds = {"step": TensorProto.INT64, "go": TensorProto.BOOL, "go_on": TensorProto.BOOL}
    value = helper.make_tensor_value_info
    ends = [
        [value(end, kinds[end], []) if end in kinds else value(end, TensorProto.FLOAT, None) for end in side]
        for side in (inputs, outputs)
    ]
    return helper.make_graph(nodes, name, *ends, list(weights))


@case(11, 17)
def chosen(b: Builder) -> onnx.ModelProto:
    """An If whose branches read features from outside and weights of their own."""
    x, y = features(b), b.relu(b.conv(b.input(3, 6, 5), 5))
    weight = numpy_helper.from_array(b.rng.normal(0, 0.4, (4, 6, 3, 3)).astype(np.float32), "inner")
    other = numpy_helper.from_array(b.rng.normal(0, 0.4, (4, 6, 3, 3)).astype(np.float32), "inner_else")
    pads = [1, 1, 1, 1]
    yes = helper.make_node("Conv", [x.name, "inner"], ["yes"], name="inside", pads=pads)
    no = helper.make_node("Conv", [x.name, "inner_else"], ["no"], name="inside_else", pads=pads)
    mean = b.reduce(b.one("Abs", y), keepdims=0, axes=range(4))
    z = controlled(
        b,
        "If",
        [b.one("Greater", mean, scalar(b, 0.1))],
        (BATCH, 4, 6, 5),
        then_branch=body("then", [yes], [], ["yes"], weight),
        else_branch=body("else", [no], [], ["no"], other),
    )
    return classify(b, b.one("Concat", b.relu(z), y, axis=1))


@case(11, 17)
def looped(b: Builder) -> onnx.ModelProto:
    """A Loop that adds a tensor from outside to its state, three times."""
    x = features(b)
    state, more, free = (b.relu(b.gemm(b.pooled(x), size)) for size in (6, 6, 4))
    scales = numpy_helper.from_array(b.rng.uniform(0.5, 1.5, 6).astype(np.float32), "scales")
    nodes = [
        helper.make_node("Mul", ["before", "scales"], ["scaled"], name="inside_scaled"),
        helper.make_node("Add", ["scaled", more.name], ["summed"], name="inside_summed"),
        helper.make_node("LeakyRelu", ["summed"], ["after"], name="inside_after", alpha=0.3),
        helper.make_node("Identity", ["go"], ["go_on"], name="inside_go"),
    ]
    inner = body("body", nodes, ["step", "go", "before"], ["go_on", "after"], scales)
    times = b.constant(3, np.int64)
    y = controlled(b, "Loop", [times, b.constant(True, np.bool_), state], (BATCH, 6), body=inner)
    return b.model(b.gemm(b.one("Concat", b.relu(b.gemm(y, 5)), free, axis=1), CLASSES))


@case(11, 17)
def scanned(b: Builder) -> onnx.ModelProto:
    """A Scan over time: a recurrent cell spelled out, with weights of its own."""
    x = b.one("Transpose", b.relu(b.matmul(b.input(4, 6), 5)), perm=[1, 0, 2])
    first = b.relu(b.gemm(b.reduce(b.input(4, 3), axes=[1], keepdims=0), 5))
    weight = numpy_helper.from_array(b.rng.normal(0, 0.5, (5, 5)).astype(np.float32), "recurrence")
    nodes = [
        helper.make_node("MatMul", ["before", "recurrence"], ["turned"], name="inside_turned"),
        helper.make_node("Add", ["turned", "now"], ["summed"], name="inside_summed"),
        helper.make_node("Tanh", ["summed"], ["after"], name="inside_after"),
        helper.make_node("Identity", ["after"], ["seen"], name="inside_seen"),
    ]
    inner = body("cell", nodes, ["before", "now"], ["after", "seen"], weight)
    y = controlled(
        b,
        "Scan",
        [first, x],
        (4, BATCH, 5),
        body=inner,
        num_scan_inputs=1,
        outputs=["last_state", "states"],
    )
    y = b.relu(b.matmul(y, 6))
    return b.model(b.gemm(b.reduce(y, axes=[0], keepdims=0), CLASSES))
