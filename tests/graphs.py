"""Small random graphs for the law: a builder, the structures that networks are made of, strategies.

Every structure is a function ``(builder, tensor, pick) -> tensor``; ``pick`` chooses one of several
options, so that hypothesis draws graphs from the same functions that the regression cases call with
fixed choices. Weights are seeded, He-normal, and every maker of channels has a bias of distinct
values: the marker by which :mod:`tests.masker` tells which channels a cut graph still has.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Pick = Callable[[Sequence[Any]], Any]

OPSETS = (11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
BATCH = 2
CLASSES = 5


@dataclass(frozen=True)
class T:
    """A tensor of a graph that is being built; the shape is for a batch of 2."""

    name: str
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Size of the channel axis of a tensor in N, C, space order."""
        return self.shape[1]

    @property
    def spaces(self) -> int:
        """Number of axes behind the channels."""
        return len(self.shape) - 2


class Builder:
    """Puts a graph together, node by node; shapes come from onnx's shape inference.

    Args:
        seed: of the weights.
        opset: operator set; attributes become inputs where it says so.
        fixed: declare the batch as 2 instead of leaving it free.
    """

    def __init__(self, seed: int = 0, opset: int = 17, fixed: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.fixed = fixed
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._types: dict[str, onnx.TypeProto] = {}

    # ------------------------------------------------------------ tensors

    def input(self, *shape: int) -> T:
        """A graph input; the batch is put before ``shape``."""
        name = "x" if not self.inputs else f"x{len(self.inputs)}"
        sizes: list[Any] = [BATCH if self.fixed else "N", *shape]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))
        self._types[name] = helper.make_tensor_type_proto(TensorProto.FLOAT, [BATCH, *shape])
        return T(name, (BATCH, *shape))

    def constant(self, values: Any, dtype: Any = np.float32) -> T:
        """An initializer."""
        array = np.array(values, dtype)
        name = f"constant_{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(array, name)
        self._types[name] = helper.make_tensor_type_proto(self._constants[name].data_type, array.shape)
        return T(name, array.shape)

    def ints(self, *values: int) -> T:
        """An initializer of axes, sizes or indices."""
        return self.constant(values, np.int64)

    def weight(self, *shape: int) -> T:
        """He-normal, for weights that contract all axes but the first."""
        scale = np.sqrt(2 / max(1, int(np.prod(shape[1:]))))
        return self.constant(self.rng.normal(0, scale, shape))

    def distinct(self, size: int, *after: int) -> T:
        """Distinct values of both signs, in random order: a bias, and its own marker."""
        values = self.rng.permutation(np.linspace(-0.6, 0.7, size)) + self.rng.normal(0, 0.01, size)
        return self.constant(values.reshape(size, *after))

    # ------------------------------------------------------------ nodes

    def node(self, operator: str, inputs: Sequence[T | None], outputs: int = 1, **attributes: Any) -> list[T]:
        """Add a node; ``None`` leaves an optional input out."""
        domain = attributes.get("domain", "")
        name = f"{operator.lower()}_{len(self.nodes)}"
        names = [f"{name}_out{i}" if i else f"{name}_out" for i in range(outputs)]
        node = helper.make_node(
            operator, [t.name if t else "" for t in inputs], names, name=name, **attributes
        )
        self.nodes.append(node)
        types: dict[str, onnx.TypeProto] = {}
        if not domain:
            known = {t.name: self._types[t.name] for t in inputs if t}
            data = {t.name: self._constants[t.name] for t in inputs if t and t.name in self._constants}
            types = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(operator, self.opset), node, known, data
            )
        self._types.update(types)
        return [T(n, _sizes(types[n])) if n in types else T(n, ()) for n in names]

    def one(self, operator: str, *inputs: T | None, **attributes: Any) -> T:
        """Add a node with one output."""
        return self.node(operator, inputs, **attributes)[0]

    def declare(self, tensor: T, shape: Sequence[int]) -> T:
        """Say what shape inference cannot: the shape that an operator of another domain gives."""
        self._types[tensor.name] = helper.make_tensor_type_proto(TensorProto.FLOAT, shape)
        return T(tensor.name, tuple(shape))

    def model(self, *outputs: T) -> onnx.ModelProto:
        """The finished model."""
        domains = sorted({node.domain for node in self.nodes if node.domain})
        graph = helper.make_graph(
            self.nodes, "graph", self.inputs, [self._output(t) for t in outputs], list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _output(self, tensor: T) -> onnx.ValueInfoProto:
        sizes: list[Any] = [BATCH if self.fixed else "N", *tensor.shape[1:]]
        kind = self._types[tensor.name].tensor_type.elem_type
        return helper.make_tensor_value_info(tensor.name, kind, sizes)

    # ------------------------------------------------------------ operators

    def conv(self, x: T, channels: int, kernel: int = 3, group: int = 1, **more: Any) -> T:
        """Conv that keeps the size of the space unless ``more`` says otherwise."""
        bias = more.pop("bias", None) or self.distinct(channels)
        weight = more.pop("weight", None)
        weight = weight or self.weight(channels, x.channels // group, *[kernel] * x.spaces)
        if "auto_pad" not in more and "pads" not in more:
            before = (kernel - 1) * more.get("dilations", [1])[0] // 2
            after = (kernel - 1) * more.get("dilations", [1])[0] - before
            more["pads"] = [before] * x.spaces + [after] * x.spaces
        return self.one("Conv", x, weight, bias, group=group, **more)

    def depthwise(self, x: T, repeat: int = 1, **more: Any) -> T:
        """Depthwise Conv; every channel has ``repeat`` outputs."""
        return self.conv(x, x.channels * repeat, group=x.channels, **more)

    def gemm(self, x: T, units: int, trans_b: bool = True, **more: Any) -> T:
        """Gemm with its bias."""
        shape = (units, x.shape[1])
        weight = self.weight(*shape) if trans_b else self.constant(_array(self, self.weight(*shape)).T)
        return self.one("Gemm", x, weight, self.distinct(units), transB=int(trans_b), **more)

    def matmul(self, x: T, units: int) -> T:
        """MatMul with a constant over the last axis, then Add of the bias."""
        weight = self.constant(_array(self, self.weight(units, x.shape[-1])).T)
        return self.one("Add", self.one("MatMul", x, weight), self.distinct(units))

    def layer(self, x: T, channels: int, kernel: int = 3) -> T:
        """A dense layer of the kind that fits ``x``."""
        return self.gemm(x, channels) if x.spaces == 0 else self.conv(x, channels, kernel)

    def batchnorm(self, x: T) -> T:
        """BatchNormalization for inference."""
        size = x.channels
        mean, variance = self.rng.normal(0, 0.3, size), self.rng.uniform(0.5, 1.5, size)
        scale = self.constant(self.rng.uniform(0.5, 1.5, size))
        tensors = [scale, self.distinct(size), self.constant(mean), self.constant(variance)]
        return self.one("BatchNormalization", x, *tensors)

    def relu(self, x: T) -> T:
        """Relu."""
        return self.one("Relu", x)

    def with_axes(self, operator: str, x: T, axes: Sequence[int], since: int, **more: Any) -> T:
        """An operator whose axes are an attribute before opset ``since`` and an input from there."""
        if self.opset < since:
            return self.one(operator, x, axes=list(axes), **more)
        return self.one(operator, x, self.ints(*axes), **more)

    def squeeze(self, x: T, *axes: int) -> T:
        """Squeeze."""
        return self.with_axes("Squeeze", x, axes, 13)

    def unsqueeze(self, x: T, *axes: int) -> T:
        """Unsqueeze."""
        return self.with_axes("Unsqueeze", x, axes, 13)

    def reduce(self, x: T, operator: str = "ReduceMean", keepdims: int = 1, axes: Sequence[int] = ()) -> T:
        """A reduction, over space if no axes are given."""
        since = 13 if operator == "ReduceSum" else 18
        return self.with_axes(operator, x, axes or range(2, len(x.shape)), since, keepdims=keepdims)

    def split(self, x: T, sizes: Sequence[int], axis: int = 1, explicit: bool = True) -> list[T]:
        """Split; ``explicit`` writes the sizes down even where they are equal."""
        if not explicit:
            more = {"num_outputs": len(sizes)} if self.opset >= 18 else {}
            return self.node("Split", [x], len(sizes), axis=axis, **more)
        if self.opset < 13:
            return self.node("Split", [x], len(sizes), axis=axis, split=list(sizes))
        return self.node("Split", [x, self.ints(*sizes)], len(sizes), axis=axis)

    def slice(self, x: T, start: int, end: int, step: int = 1, axis: int = 1) -> T:
        """Slice of one axis."""
        return self.one("Slice", x, *(self.ints(v) for v in (start, end, axis, step)))

    def pad_channels(self, x: T, before: int, after: int) -> T:
        """Zeros before and after the channels."""
        pads = [0] * (2 * len(x.shape))
        pads[1], pads[len(x.shape) + 1] = before, after
        return self.one("Pad", x, self.ints(*pads), self.constant(0))

    def reshape(self, x: T, *shape: int) -> T:
        """Reshape."""
        return self.one("Reshape", x, self.ints(*shape))

    def gather(self, x: T, *indices: int) -> T:
        """Gather of channels."""
        return self.one("Gather", x, self.ints(*indices), axis=1)

    def pooled(self, x: T) -> T:
        """Mean over space, as N x C."""
        return x if x.spaces == 0 else self.one("Flatten", self.one("GlobalAveragePool", x))


def _array(builder: Builder, tensor: T) -> Array:
    return numpy_helper.to_array(builder._constants[tensor.name])


def _sizes(kind: onnx.TypeProto) -> tuple[int, ...]:
    return tuple(d.dim_value for d in kind.tensor_type.shape.dim)


# -------------------------------------------------------------------- structures

Structure = Callable[[Builder, T, Pick], T]


def convolution(b: Builder, x: T, pick: Pick) -> T:
    """A dense or grouped Conv with strides, pads, auto_pad or dilations; Gemm where there is no space."""
    channels = pick([2, 3, 4, 6, 8])
    if x.spaces == 0:
        return gemm(b, x, pick)
    groups = [g for g in (1, 2, 3) if x.channels % g == 0 and channels % g == 0]
    more: dict[str, Any] = pick(
        [
            {},
            {"kernel": 1},
            {"kernel": 2, "auto_pad": "SAME_UPPER"},
            {"auto_pad": "SAME_LOWER"},
            {"pads": [1] * x.spaces + [2] * x.spaces},
            {"dilations": [2] * x.spaces},
            {"strides": [2] * x.spaces},
        ]
    )
    return b.conv(x, channels, group=pick(groups), **more)


def gemm(b: Builder, x: T, pick: Pick) -> T:
    """Gemm with and without transB, alpha, beta; MatMul."""
    units = pick([2, 3, 4, 6, 8])
    kind = pick(["transB", "plain", "scaled", "matmul"])
    if kind == "matmul":
        return b.matmul(x, units)
    more = {"alpha": 0.7, "beta": 1.3} if kind == "scaled" else {}
    return b.gemm(x, units, trans_b=kind == "transB", **more)


def depthwise(b: Builder, x: T, pick: Pick) -> T:
    """Depthwise Conv with one or two outputs a channel."""
    if x.spaces == 0 or x.channels < 2:
        return convolution(b, x, pick)
    return b.depthwise(x, pick([1, 2]) if x.channels <= 8 else 1)


def activation(b: Builder, x: T, pick: Pick) -> T:
    """One of the activations."""
    operator = pick(["Relu", "LeakyRelu", "Sigmoid", "Clip", "PRelu", "Tanh", "HardSwish"])
    if operator == "Clip":
        return b.one("Clip", x, b.constant(-0.5), b.constant(1.5))
    if operator == "PRelu":
        shape = pick([(1,), (x.channels, *[1] * x.spaces)])
        return b.one("PRelu", x, b.constant(b.rng.uniform(0.1, 0.4, shape)))
    if operator == "HardSwish" and b.opset < 14:
        return b.one("Mul", x, b.one("HardSigmoid", x))
    return b.one(operator, x)


def normalization(b: Builder, x: T, pick: Pick) -> T:
    """BatchNormalization, also after Relu, where it cannot be folded."""
    return b.batchnorm(b.relu(x) if pick([False, True]) else x)


def scale(b: Builder, x: T, pick: Pick) -> T:
    """Add, Sub or Mul with a constant of several shapes, on either side."""
    ones = [1] * x.spaces
    shape = pick([(), (1,), (x.channels, *ones), (1, x.channels, *ones)])
    values = b.constant(b.rng.uniform(0.5, 1.5, shape))
    operator = pick(["Add", "Sub", "Mul"])
    return b.one(operator, *pick([(x, values), (values, x)]))


def residual(b: Builder, x: T, pick: Pick) -> T:
    """``x`` with a layer of ``x``: a sum, a difference, a gate, a Sum of three."""
    y = b.layer(b.relu(x), x.channels)
    operator = pick(["Add", "Sub", "Mul", "Sum"])
    if operator == "Sum":
        return b.one("Sum", x, y, b.layer(x, x.channels, 1))
    return b.one(operator, x, y)


def pooling(b: Builder, x: T, pick: Pick) -> T:
    """MaxPool or AveragePool, with and without strides and pads."""
    if x.spaces == 0 or min(x.shape[2:]) < 3:
        return b.relu(x)
    kernel = [pick([2, 3])] * x.spaces
    more = pick([{}, {"strides": [2] * x.spaces}, {"pads": [1] * (2 * x.spaces)}])
    operator = pick(["MaxPool", "AveragePool"])
    if operator == "AveragePool" and pick([False, True]):
        more = {**more, "count_include_pad": 1}
    return b.one(operator, x, kernel_shape=kernel, **more)


def concatenation(b: Builder, x: T, pick: Pick) -> T:
    """A DenseNet step, or a tensor beside itself."""
    if pick([True, False]):
        return b.one("Concat", x, b.layer(b.relu(x), pick([2, 3])), axis=1)
    return b.one("Concat", x, b.relu(x), axis=pick([1, 1 - len(x.shape)]))


def splitting(b: Builder, x: T, pick: Pick) -> T:
    """Split, one part processed, joined again, in another order too."""
    size = x.channels
    if size < 2:
        return b.relu(x)
    cut = pick([c for c in {1, size // 2, size - 1} if 0 < c < size])
    first, second = b.split(x, [cut, size - cut], explicit=2 * cut != size or pick([True, False]))
    second = b.layer(second, pick([2, 3])) if pick([True, False]) else b.one("Sigmoid", second)
    return b.one("Concat", *pick([(first, second), (second, first)]), axis=1)


def slicing(b: Builder, x: T, pick: Pick) -> T:
    """Slice on the channels with steps 1, 2 and negative; half of them gating the other half."""
    size = x.channels
    if size < 3:
        return b.relu(x)
    far = 2**31 - 1
    if size % 2 == 0 and pick([False, True]):
        half = b.one("Sigmoid", b.slice(x, 0, size // 2))
        return b.one("Mul", half, b.slice(x, size // 2, far))
    bounds = [(0, size - 1, 1), (-2, far, 1), (0, far, 2), (1, size, 2), (-1, -size - 1, -1), (-1, 0, -2)]
    return b.slice(x, *pick(bounds))


def shortcut(b: Builder, x: T, pick: Pick) -> T:
    """The parameter-free shortcut of ResNets: every second place, zeros for the new channels."""
    if x.spaces == 0:
        return b.one("Add", b.layer(x, x.channels + 3), b.pad_channels(x, 1, 2))
    y = b.conv(x, x.channels + 3, strides=[2] * x.spaces)
    far = b.ints(*[2**31 - 1] * x.spaces)
    axes, steps = b.ints(*range(2, 2 + x.spaces)), b.ints(*[2] * x.spaces)
    x = b.one("Slice", x, b.ints(*[0] * x.spaces), far, axes, steps)
    return b.one("Add", y, b.pad_channels(x, *pick([(1, 2), (0, 3), (3, 0)])))


def gathering(b: Builder, x: T, pick: Pick) -> T:
    """Gather of a permutation, of some channels, of one channel twice."""
    size = x.channels
    order = [int(i) for i in b.rng.permutation(size)]
    return b.gather(x, *pick([order, order[: max(1, size - 1)], [*order, order[0]], [-1, *order[:2]]]))


def passing(b: Builder, x: T, pick: Pick) -> T:
    """Dropout, Identity, Cast there and back."""
    operator = pick(["Dropout", "Identity", "Cast"])
    if operator == "Cast":
        return b.one("Cast", b.one("Cast", x, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)
    return b.one(operator, x)


def shuffle(b: Builder, x: T, pick: Pick) -> T:
    """Channel shuffle: Reshape, Transpose, Reshape."""
    groups = [g for g in (2, 3) if x.channels % g == 0 and x.channels > g]
    if not groups:
        return b.relu(x)
    group = pick(groups)
    sizes = list(x.shape[2:])
    y = b.reshape(x, 0, group, x.channels // group, *sizes)
    y = b.one("Transpose", y, perm=[0, 2, 1, *range(3, 3 + x.spaces)])
    return b.reshape(y, *pick([[0, x.channels, *sizes], [-1, x.channels, *sizes]]))


def squeeze_excite(b: Builder, x: T, pick: Pick) -> T:
    """Squeeze and excite, by 1 x 1 Conv or by Gemm."""
    if x.spaces == 0:
        return b.one("Mul", x, b.one("Sigmoid", b.gemm(x, x.channels)))
    if pick([True, False]):
        s = b.reduce(x) if pick([True, False]) else b.one("GlobalAveragePool", x)
        s = b.conv(b.relu(b.conv(s, 3, 1)), x.channels, 1)
    else:
        s = b.gemm(b.relu(b.gemm(b.pooled(x), 3)), x.channels)
        s = b.unsqueeze(s, *range(2, 2 + x.spaces))
    return b.one("Mul", x, b.one("Sigmoid", s))


def channels_last(b: Builder, x: T, pick: Pick) -> T:
    """A stretch with the channels at the end: a bias, a MatMul."""
    if x.spaces == 0:
        return b.matmul(x, pick([3, 4]))
    last = [0, *range(2, len(x.shape)), 1]
    y = b.one("Add", b.one("Transpose", x, perm=last), b.distinct(x.channels))
    if pick([False, True]):
        y = b.relu(b.matmul(y, pick([3, 4])))
    return b.one("Transpose", y, perm=[0, len(x.shape) - 1, *range(1, len(x.shape) - 1)])


def flat_space(b: Builder, x: T, pick: Pick) -> T:
    """The space as one axis and back; there, perhaps, a 1-D Conv."""
    if x.spaces == 0:
        return b.squeeze(b.relu(b.unsqueeze(x, 2)), 2)
    y = b.reshape(x, *pick([[0, x.channels, -1], [0, 0, -1]]))
    y = b.conv(y, pick([2, 4]), 1) if pick([False, True]) else b.one("Tanh", y)
    return b.reshape(y, -1, y.channels, *x.shape[2:])


def flat_channels(b: Builder, x: T, pick: Pick) -> T:
    """Channels and space as one axis, and back."""
    if x.spaces == 0:
        return b.relu(x)
    y = b.one("Flatten", x) if pick([True, False]) else b.reshape(x, 0, -1)
    return b.reshape(b.one("Tanh", y), -1, *x.shape[1:])


def shared_constant(b: Builder, x: T, pick: Pick) -> T:
    """One scale tensor, or one bias, at two places that are cut differently."""
    size = x.channels
    if x.spaces and pick([True, False]):
        bias = b.distinct(size)
        return b.conv(b.relu(b.conv(x, size, bias=bias)), size, bias=bias)
    values = b.constant(b.rng.uniform(0.5, 1.5, (1, size, *[1] * x.spaces)))
    y = b.one("Mul", b.layer(b.one("Mul", x, values), size), values)
    return b.one("Concat", x, y, axis=1) if pick([True, False]) else y


def tied_weights(b: Builder, x: T, pick: Pick) -> T:
    """One weight in two layers."""
    if x.spaces == 0:
        return residual(b, x, pick)
    weight = b.weight(x.channels, x.channels, *[3] * x.spaces)
    return b.conv(b.relu(b.conv(x, x.channels, weight=weight)), x.channels, weight=weight)


def dropped_mean(b: Builder, x: T, pick: Pick) -> T:
    """A gate for every place: the mean over the channels."""
    mean = b.reduce(x, axes=[1])
    return b.one("Mul", x, b.one("Sigmoid", mean))


STRUCTURES: tuple[Structure, ...] = (
    convolution,
    depthwise,
    activation,
    normalization,
    scale,
    residual,
    pooling,
    concatenation,
    splitting,
    slicing,
    shortcut,
    gathering,
    passing,
    shuffle,
    squeeze_excite,
    channels_last,
    flat_space,
    flat_channels,
    shared_constant,
    tied_weights,
    dropped_mean,
)


def head(b: Builder, x: T, pick: Pick) -> T:
    """From features to classes."""
    if x.spaces:
        x = _flatten(b, x, pick)
    if pick([False, True]):
        x = b.relu(b.gemm(x, 6))
    x = gemm_head(b, x, pick)
    return b.one("Softmax", x, axis=1) if pick([False, True]) else x


def _flatten(b: Builder, x: T, pick: Pick) -> T:
    """N x C x space to N x features."""
    kind = pick(["pool", "squeeze", "mean", "flatten", "reshape", "last", "batch"])
    space = list(range(2, len(x.shape)))
    if kind == "pool":
        return b.pooled(x)
    if kind == "squeeze":
        return b.squeeze(b.one("GlobalMaxPool", x), *space)
    if kind == "mean":
        return b.reduce(x, keepdims=0)
    if kind == "flatten":
        return b.one("Flatten", x)
    if kind == "last":
        return b.one("Flatten", b.one("Transpose", x, perm=[0, *space, 1]))
    if kind == "batch":
        return b.reshape(x, BATCH if b.fixed else -1, int(np.prod(x.shape[1:])))
    return b.reshape(b.reduce(x), *pick([(0, -1), (-1, x.channels)]))


def gemm_head(b: Builder, x: T, pick: Pick) -> T:
    """The last layer."""
    return b.matmul(x, CLASSES) if pick([False, True]) else b.gemm(x, CLASSES)


def network(pick: Pick, seed: int, steps: int) -> onnx.ModelProto:
    """A random network of ``steps`` structures between a first layer and a head."""
    b = Builder(seed, pick(OPSETS), fixed=pick([False, False, False, True]))
    x = b.input(*pick([(3, 6, 5), (2, 7, 7), (2, 9), (6,)]))
    x = b.relu(b.layer(x, pick([3, 4, 6])))
    for _ in range(steps):
        x = pick(STRUCTURES)(b, x, pick)
        if x.channels > 12:  # keeps graphs small
            x = b.layer(x, 4, 1)
    return b.model(head(b, x, pick))


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Random networks; weights differ with the seed."""
    steps = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**16))
    return network(lambda options: draw(st.sampled_from(list(options))), seed, steps)


def random_pick(seed: int) -> Pick:
    """Choices of a seeded generator, for graphs outside of hypothesis."""
    return random.Random(seed).choice


def samples(model: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    """Normal samples for every input; a free batch has 4, unlike the 2 that shapes are inferred for."""
    rng = np.random.default_rng(seed)
    values = {}
    for entry in model.graph.input:
        sizes = [d.dim_value or 4 for d in entry.type.tensor_type.shape.dim]
        values[entry.name] = rng.normal(0, 1, sizes).astype(np.float32)
    return values
