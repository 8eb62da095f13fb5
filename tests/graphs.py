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

OPSETS = tuple(range(11, 27))
"""All that Graft reads and onnxruntime runs."""
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
        values = self.rng.permutation(np.linspace(-0.2, 0.8, size)) + self.rng.normal(0, 0.01, size)
        return self.constant(values.reshape(size, *after))

    def reshaped(self, tensor: T, *shape: int) -> T:
        """The values of a constant in another shape."""
        return self.constant(_array(self, tensor).reshape(shape))

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
            schema = onnx.defs.get_schema(operator, self.opset)
            types = dict(onnx.shape_inference.infer_node_outputs(schema, node, known, data))
            if not any(kind.tensor_type.HasField("shape") for kind in types.values()):  # a function
                types = {names[0]: self._function_output(node, known)}
        self._types.update(types)
        return [T(n, _sizes(types[n])) if n in types else T(n, ()) for n in names]

    def _function_output(self, node: onnx.NodeProto, known: dict[str, onnx.TypeProto]) -> onnx.TypeProto:
        inputs = [helper.make_value_info(name, kind) for name, kind in known.items()]
        graph = helper.make_graph([node], "one", inputs, [onnx.ValueInfoProto(name=node.output[0])])
        alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        return onnx.shape_inference.infer_shapes(alone).graph.output[0].type

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
            self.nodes,
            "graph",
            self.inputs,
            [self._output(t) for t in outputs],
            list(self._constants.values()),
        )
        opsets = [
            helper.make_opsetid("", self.opset),
            *(helper.make_opsetid(d, 1) for d in domains),
        ]
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
        """An operator whose axes are an attribute before opset ``since``, then an input."""
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
    """A dense or grouped Conv with strides, pads or dilations; Gemm where there is no space."""
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
    bounds = [
        (0, size - 1, 1),
        (-2, far, 1),
        (0, far, 2),
        (1, size, 2),
        (-1, -size - 1, -1),
        (-1, 0, -2),
    ]
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


STRUCTURES: list[Structure] = [
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
]


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


def network(pick: Pick, seed: int, steps: int, structures: Sequence[Structure]) -> onnx.ModelProto:
    """A random network of ``steps`` of the structures between a first layer and a head."""
    b = Builder(seed, pick(OPSETS), fixed=pick([False, False, False, True]))
    x = b.input(*pick([(3, 6, 5), (2, 7, 7), (2, 9), (6,), (2, 4, 3, 4)]))
    x = b.relu(b.layer(x, pick([3, 4, 6])))
    for _ in range(steps):
        x = pick(structures)(b, x, pick)
        if x.channels > 12:  # keeps graphs small
            x = b.layer(x, 4, 1)
    return b.model(head(b, x, pick))


@st.composite
def networks(draw: st.DrawFn, structures: Sequence[Structure]) -> onnx.ModelProto:
    """Random networks; weights differ with the seed."""
    steps = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**16))
    return network(lambda options: draw(st.sampled_from(list(options))), seed, steps, structures)


def random_pick(seed: int) -> Pick:
    """Choices of a seeded generator, for graphs outside of hypothesis."""
    return random.Random(seed).choice


def samples(model: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    """Normal samples for every input; 4 where the batch is free: shapes are inferred for 2."""
    rng = np.random.default_rng(seed)
    values = {}
    weights = {tensor.name for tensor in model.graph.initializer}
    for entry in model.graph.input:
        if entry.name in weights:
            continue
        sizes = [d.dim_value or 4 for d in entry.type.tensor_type.shape.dim]
        values[entry.name] = rng.normal(0, 1, sizes).astype(np.float32)
    return values


# -------------------------------------------------------------------- branches that may be removed


def branch(b: Builder, x: T, pick: Pick) -> T:
    """A residual sum whose branch ends in a normalization, an activation, both or neither."""
    y = b.layer(b.relu(b.layer(x, pick([2, 5]))), x.channels)
    y = b.batchnorm(y) if pick([True, False]) else y
    y = b.one(pick(["Relu", "Tanh", "Identity"]), y)
    x = b.layer(x, x.channels, 1) if pick([True, False]) else x
    return b.one("Add", *pick([(x, y), (y, x)]))


def inverted(b: Builder, x: T, pick: Pick) -> T:
    """An inverted residual block: to more channels, depthwise, perhaps a gate, and back."""
    if x.spaces == 0:
        return branch(b, x, pick)
    y = b.relu(b.conv(x, x.channels + 2, 1))
    y = b.relu(b.depthwise(y))
    y = squeeze_excite(b, y, pick) if pick([True, False]) else y
    return b.one("Add", x, b.conv(y, x.channels, 1))


def dense_block(b: Builder, x: T, pick: Pick) -> T:
    """Features beside those before, as in a dense block, and a layer that reads them all."""
    for _ in range(pick([1, 2])):
        x = b.one("Concat", x, b.relu(b.layer(x, pick([1, 3]))), axis=1)
    return b.layer(x, 4, 1)


REMOVABLE: dict[str, tuple[Callable[[Builder], onnx.ModelProto], list[str]]] = {}
"""Networks with one branch that may be removed, and the operators that are left."""
STAYING: dict[str, Callable[[Builder], onnx.ModelProto]] = {}
"""Networks in which no list of channels may be removed."""
STEM, END = ["Conv", "Relu"], ["GlobalAveragePool", "Flatten", "Gemm"]


def _removable(*left: str) -> Callable[[Callable[[Builder, T], T]], None]:
    def enter(function: Callable[[Builder, T], T]) -> None:
        def make(b: Builder) -> onnx.ModelProto:
            return b.model(b.gemm(b.pooled(function(b, features(b))), CLASSES))

        REMOVABLE[function.__name__] = (make, [*STEM, *left, *END])

    return enter


def _stays(function: Callable[[Builder, T], T]) -> None:
    STAYING[function.__name__] = lambda b: b.model(b.gemm(b.pooled(function(b, features(b))), CLASSES))


@_removable("Add", "Relu")
def basic_block(b: Builder, x: T) -> T:
    return b.relu(b.one("Add", b.conv(b.relu(b.conv(x, 5)), 6), x))


@_removable("Add")
def bottleneck(b: Builder, x: T) -> T:
    y = b.relu(b.conv(b.relu(b.conv(x, 4, 1)), 5))
    return b.one("Add", x, b.batchnorm(b.conv(y, 6, 1)))


@_removable()
def branch_without_bias(b: Builder, x: T) -> T:
    y = b.batchnorm(b.one("Conv", b.relu(b.conv(x, 5, 1)), b.weight(6, 5, 1, 1)))
    y = b.one("Mul", y, b.constant(0))
    return b.one("Add", y, x)


@_removable("Conv", "Add")
def projected_shortcut(b: Builder, x: T) -> T:
    return b.one("Add", b.conv(b.relu(b.conv(x, 5)), 8), b.conv(x, 8, 1))


@_removable("Add")
def gated_block(b: Builder, x: T) -> T:
    y = squeeze_excite(b, b.relu(b.depthwise(b.conv(x, 7, 1))), lambda options: next(iter(options)))
    return b.one("Add", x, b.conv(y, 6, 1))


@_removable("Mul")
def gate(b: Builder, x: T) -> T:
    s = b.conv(b.relu(b.conv(b.one("GlobalAveragePool", x), 3, 1)), 6, 1)
    return b.one("Mul", x, b.one("Sigmoid", s))


@_removable("Transpose", "Add", "Transpose")
def token_block(b: Builder, x: T) -> T:
    x = b.one("Transpose", x, perm=[0, 2, 3, 1])
    x = b.one("Add", x, b.matmul(b.relu(b.matmul(x, 9)), 6))
    return b.one("Transpose", x, perm=[0, 3, 1, 2])


@_removable("Transpose", "LayerNormalization", "Transpose", "Add")
def turned_block(b: Builder, x: T) -> T:
    y = b.one("LayerNormalization", b.one("Transpose", x, perm=[0, 2, 3, 1]), b.weight(6), axis=-1)
    z = b.matmul(b.relu(b.matmul(y, 9)), 6)
    return b.one("Add", b.one("Transpose", y, perm=[0, 3, 1, 2]), b.one("Transpose", z, perm=[0, 3, 1, 2]))


@_removable("Concat", "Tanh", "Identity", "Conv")
def operand_of_a_concat(b: Builder, x: T) -> T:
    x = b.one("Tanh", b.one("Concat", x, b.conv(x, 3), axis=1))
    return b.conv(b.one("Identity", x), 5)


@_stays
def chain(b: Builder, x: T) -> T:
    return b.conv(b.relu(b.conv(x, 5)), 4)


@_stays
def pooled_branch(b: Builder, x: T) -> T:
    y = b.one("MaxPool", b.conv(b.relu(b.conv(x, 5)), 6), kernel_shape=[2, 2])
    return b.one("Add", y, b.one("MaxPool", x, kernel_shape=[2, 2]))


@_stays
def shortcut_that_broadcasts(b: Builder, x: T) -> T:
    return b.one("Add", b.conv(b.relu(b.conv(x, 5)), 6), b.one("GlobalAveragePool", x))


@_stays
def sum_over_channels(b: Builder, x: T) -> T:
    y = b.reduce(b.relu(b.conv(x, 5)), "ReduceSum", axes=[1])
    return b.one("Add", x, y)


@_stays
def part_of_a_split(b: Builder, x: T) -> T:
    one, other = b.split(b.conv(x, 8), [3, 5])
    return b.one("Add", x, b.one("Add", b.conv(one, 6), b.reduce(other, axes=[1])))


# -------------------------------------------------------------------- regression cases

Case = Callable[[Builder], onnx.ModelProto]


class Cases(dict[str, tuple[Case, tuple[int, ...]]]):
    """Name of a structure to the function that builds a network with it, and its opsets."""

    def case(self, *opsets: int) -> Callable[[Case], Case]:
        """Enter a function."""

        def enter(function: Case) -> Case:
            self[function.__name__] = (function, opsets or (17,))
            return function

        return enter


CASES = Cases()
"""The cases of this module; :mod:`tests.cases` has them all."""
case = CASES.case


def features(b: Builder, channels: int = 6, *shape: int) -> T:
    """A first layer and its Relu over an image of 6 x 5, or over ``shape``."""
    return b.relu(b.layer(b.input(*(shape or (3, 6, 5))), channels))


def classify(b: Builder, x: T) -> onnx.ModelProto:
    """A consumer of ``x``, and the head: mean over space, Gemm."""
    x = b.relu(b.layer(x, 5)) if x.spaces in (0, 1, 2) else x
    return b.model(b.gemm(b.pooled(x), CLASSES))


@case(11, 14, 18, 21)
def dense_convolutions(b: Builder) -> onnx.ModelProto:
    """Strides, pads, auto_pad, dilations."""
    x = b.relu(b.conv(features(b), 5, 2, auto_pad="SAME_UPPER"))
    x = b.relu(b.conv(x, 4, auto_pad="SAME_LOWER", strides=[2, 1]))
    x = b.relu(b.conv(x, 6, dilations=[2, 2]))
    return classify(b, b.conv(x, 4, 2, pads=[1, 0, 2, 1]))


@case()
def valid_padding(b: Builder) -> onnx.ModelProto:
    """auto_pad VALID."""
    return classify(b, b.conv(features(b), 4, 2, auto_pad="VALID"))


@case()
def grouped_convolutions(b: Builder) -> onnx.ModelProto:
    """One grouped Conv behind another, with different numbers of groups."""
    x = b.relu(b.conv(features(b, 8), 12, group=2))
    x = b.relu(b.conv(x, 6, group=3))
    return classify(b, b.conv(x, 4))


@case()
def grouped_on_input(b: Builder) -> onnx.ModelProto:
    """A grouped Conv that reads the graph's input."""
    return classify(b, b.relu(b.conv(b.input(4, 6, 5), 6, group=2)))


@case(11, 17)
def depthwise_once(b: Builder) -> onnx.ModelProto:
    """Depthwise, one output a channel, then a pointwise Conv."""
    x = b.relu(b.depthwise(features(b), 1, strides=[2, 2]))
    return classify(b, b.conv(x, 4, 1))


@case(11, 17)
def depthwise_twice(b: Builder) -> onnx.ModelProto:
    """Depthwise, two outputs a channel, and again."""
    return classify(b, b.depthwise(b.relu(b.depthwise(features(b, 4), 2)), 2))


@case()
def depthwise_on_input(b: Builder) -> onnx.ModelProto:
    """Depthwise on the graph's input: nothing of it can go."""
    return classify(b, b.relu(b.depthwise(b.input(3, 6, 5), 2)))


@case()
def one_input_channel(b: Builder) -> onnx.ModelProto:
    """A grey image: group 1 and one channel is no depthwise Conv."""
    return classify(b, b.relu(b.conv(b.input(1, 6, 5), 4)))


@case(11, 17)
def one_dimension(b: Builder) -> onnx.ModelProto:
    """1-D convolutions: dense, depthwise, grouped; pooling."""
    x = b.relu(b.depthwise(features(b, 6, 3, 9), 1))
    x = b.one("MaxPool", x, kernel_shape=[2], strides=[2])
    return classify(b, b.relu(b.conv(x, 8, group=2)))


@case()
def conv_without_bias(b: Builder) -> onnx.ModelProto:
    """Conv without bias, then BatchNormalization, whose bias is the marker."""
    x = b.input(3, 6, 5)
    for channels in (6, 5):
        x = b.one("Conv", x, b.weight(channels, x.channels, 3, 3), pads=[1] * 4)
        x = b.relu(b.batchnorm(x))
    return classify(b, x)


@case(11, 13)
def gemms(b: Builder) -> onnx.ModelProto:
    """Gemm with and without transB, scaled, with a bias of 1 x n."""
    x = b.relu(b.gemm(b.input(6), 8))
    x = b.relu(b.gemm(x, 7, trans_b=False))
    x = b.relu(b.gemm(x, 6, alpha=0.5, beta=1.5))
    x = b.relu(b.one("Gemm", x, b.weight(5, 6), b.reshaped(b.distinct(5), 1, 5), transB=1))
    return b.model(b.gemm(x, CLASSES))


@case()
def gemm_without_bias(b: Builder) -> onnx.ModelProto:
    """Gemm without C, then Add."""
    x = b.one("Add", b.one("Gemm", b.input(6), b.weight(7, 6), transB=1), b.distinct(7))
    return b.model(b.gemm(b.relu(x), CLASSES))


@case()
def gemm_transposed_data(b: Builder) -> onnx.ModelProto:
    """Gemm with transA."""
    x = b.one("Transpose", b.relu(b.gemm(b.input(6), 7)), perm=[1, 0])
    x = b.one("Gemm", x, b.weight(5, 7), b.distinct(5), transA=1, transB=1)
    return b.model(b.gemm(b.relu(x), CLASSES))


@case(11, 17)
def matmuls(b: Builder) -> onnx.ModelProto:
    """MatMul over the last of two and of three axes."""
    x = b.relu(b.matmul(b.input(4, 6), 7))
    x = b.relu(b.matmul(x, 5))
    x = b.reduce(x, axes=[1], keepdims=0)
    return b.model(b.matmul(b.relu(b.matmul(x, 6)), CLASSES))


@case()
def matmul_over_space(b: Builder) -> onnx.ModelProto:
    """MatMul over the axis behind the channels: these pass."""
    x = b.relu(b.matmul(features(b, 6, 3, 9), 4))
    return classify(b, x)


@case()
def matmul_of_two(b: Builder) -> onnx.ModelProto:
    """A product of two computed tensors."""
    x = b.relu(b.matmul(b.input(4, 6), 5))
    scores = b.one("MatMul", x, b.one("Transpose", b.relu(b.matmul(x, 5)), perm=[0, 2, 1]))
    x = b.one("MatMul", b.one("Softmax", scores, axis=-1), x)
    return b.model(b.gemm(b.reduce(x, axes=[1], keepdims=0), CLASSES))


@case(11, 17)
def constants_of_all_shapes(b: Builder) -> onnx.ModelProto:
    """Add, Sub, Mul, Div with constants that broadcast, on either side."""
    x = features(b, 5)
    for number, shape in enumerate([(), (1,), (5, 1, 1), (1, 5, 1, 1), (5, 6, 5), (1, 1, 1, 5)]):
        values = b.constant(b.rng.uniform(0.5, 1.5, shape))
        operator = ("Add", "Sub", "Mul", "Div")[number % 4]
        x = b.one(operator, *((x, values) if number % 2 or operator == "Div" else (values, x)))
    return classify(b, x)


@case(11, 13, 18)
def residual_stream(b: Builder) -> onnx.ModelProto:
    """Two blocks on one stream; Add and Sub."""
    x = features(b)
    x = b.relu(b.one("Add", x, b.conv(b.relu(b.conv(x, 5)), 6)))
    x = b.relu(b.one("Sub", b.conv(b.relu(b.conv(x, 4)), 6), x))
    return classify(b, x)


@case(11, 13)
def sums(b: Builder) -> onnx.ModelProto:
    """Sum of three tensors and a constant; a tensor with itself."""
    x = features(b)
    x = b.one("Sum", x, b.conv(x, 6), b.constant(b.rng.uniform(0, 1, (6, 1, 1))), b.conv(x, 6, 1))
    return classify(b, b.one("Mul", x, x))


@case()
def residual_with_input(b: Builder) -> onnx.ModelProto:
    """A sum with the graph's input."""
    x = b.input(3, 6, 5)
    return classify(b, b.one("Add", x, b.conv(b.relu(b.conv(x, 5)), 3)))


@case(11, 13, 18)
def squeeze_and_excite(b: Builder) -> onnx.ModelProto:
    """Gates by Conv and by Gemm and Unsqueeze."""
    x = squeeze_excite(b, features(b), lambda options: options[0])
    return classify(b, squeeze_excite(b, x, lambda options: options[-1]))


@case()
def gate_for_places(b: Builder) -> onnx.ModelProto:
    """Mul with a tensor that has one channel."""
    x = features(b)
    return classify(b, b.one("Mul", x, b.one("Sigmoid", b.conv(x, 1))))


@case(11, 14, 15)
def batch_normalization(b: Builder) -> onnx.ModelProto:
    """Before and after Relu."""
    x = b.batchnorm(features(b))
    return classify(b, b.relu(b.batchnorm(b.relu(b.conv(x, 5)))))


@case(14, 20)
def activations(b: Builder) -> onnx.ModelProto:
    """Activations, zero-preserving and not."""
    x = b.conv(b.input(3, 6, 5), 6)
    for operator in (
        "LeakyRelu",
        "Sigmoid",
        "Tanh",
        "HardSwish",
        "Elu",
        "Softplus",
        "HardSigmoid",
        "Selu",
    ):
        x = b.one(operator, b.conv(x, 4, 1))
    return classify(b, b.one("Clip", x, b.constant(-0.5), b.constant(0.8)))


@case(11, 13)
def clips(b: Builder) -> onnx.ModelProto:
    """Clip with a limit left out."""
    return classify(b, b.one("Clip", b.conv(features(b), 4), None, b.constant(0.5)))


@case(11, 16)
def slopes(b: Builder) -> onnx.ModelProto:
    """PRelu with one slope, and one a channel."""
    x = b.one("PRelu", b.conv(b.input(3, 6, 5), 6), b.constant([0.3]))
    return classify(b, b.one("PRelu", b.conv(x, 5), b.constant(b.rng.uniform(0.1, 0.5, (5, 1, 1)))))


@case(11, 19)
def pools(b: Builder) -> onnx.ModelProto:
    """MaxPool and AveragePool with pads, ceil_mode and count_include_pad."""
    x = b.one("MaxPool", features(b), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    x = b.one("AveragePool", b.conv(x, 4), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    x = b.one("AveragePool", x, kernel_shape=[2, 2], pads=[1, 0, 0, 1])
    return b.model(b.gemm(b.one("Flatten", b.one("GlobalMaxPool", x)), CLASSES))


@case(11, 17, 18)
def means_over_space(b: Builder) -> onnx.ModelProto:
    """ReduceMean with keepdims 1 and 0, ReduceMax, ReduceSum."""
    x = b.reduce(features(b), axes=[3])
    x = b.conv(x, 5, 3)
    x = b.unsqueeze(b.reduce(x, "ReduceMax", keepdims=0, axes=[-1]), 3)
    x = b.reduce(b.conv(x, 4, 1), "ReduceSum", keepdims=0)
    return b.model(b.gemm(x, CLASSES))


@case(11, 18)
def mean_over_channels(b: Builder) -> onnx.ModelProto:
    """Spatial attention by the mean over the channels."""
    x = features(b)
    return classify(b, b.one("Mul", x, b.one("Sigmoid", b.conv(b.reduce(x, axes=[1]), 1))))


@case(11, 13, 21)
def flattened(b: Builder) -> onnx.ModelProto:
    """Flatten of channels and space, then Gemm."""
    return b.model(b.gemm(b.relu(b.gemm(b.one("Flatten", features(b)), 7)), CLASSES))


@case()
def flattened_last(b: Builder) -> onnx.ModelProto:
    """Flatten with the channels at the end: the list is tiled, not repeated."""
    x = b.one("Transpose", features(b), perm=[0, 2, 3, 1])
    return b.model(b.gemm(b.one("Flatten", x), CLASSES))


@case()
def flattened_between(b: Builder) -> onnx.ModelProto:
    """Flatten with the channels in the middle: repeated and tiled."""
    x = b.one("Transpose", features(b), perm=[0, 2, 1, 3])
    return b.model(b.gemm(b.one("Flatten", x), CLASSES))


@case(13, 14)
def reshapes(b: Builder) -> onnx.ModelProto:
    """Targets with 0, -1 and sizes; there and back."""
    x = b.reshape(b.conv(features(b), 6), 0, 6, -1)
    x = b.reshape(b.relu(x), -1, 6, 6, 5)
    x = b.reshape(b.conv(x, 4), 0, 4 * 30)
    x = b.conv(b.reshape(b.one("Tanh", x), -1, 4, 6, 5), 5)
    return b.model(b.gemm(b.reshape(b.reduce(x), -1, 5), CLASSES))


@case()
def shared_target(b: Builder) -> onnx.ModelProto:
    """One target shape at two Reshapes whose channels are cut differently."""
    target = b.ints(0, 6, 30)
    left, right = (b.one("Reshape", features_of(b, x), target) for x in (b.input(3, 6, 5),) * 2)
    return classify(b, b.one("Concat", left, right, axis=1))


def features_of(b: Builder, x: T) -> T:
    """A Conv of ``x`` and its Relu."""
    return b.relu(b.conv(x, 6))


@case()
def heads(b: Builder) -> onnx.ModelProto:
    """The features as heads, transposed, and joined again."""
    x = b.relu(b.matmul(b.input(4, 6), 12))
    x = b.one("Transpose", b.reshape(x, 0, 0, 3, 4), perm=[0, 2, 1, 3])
    x = b.reshape(b.one("Transpose", b.one("Tanh", x), perm=[0, 2, 1, 3]), 0, 0, 12)
    return b.model(b.gemm(b.reduce(b.matmul(x, 5), axes=[1], keepdims=0), CLASSES))


@case()
def batch_in_channels(b: Builder) -> onnx.ModelProto:
    """A Reshape that merges the batch with the channels, and undoes it."""
    x = b.relu(b.conv(b.reshape(features(b), -1, 1, 6, 5), 3))
    return classify(b, b.reshape(b.reduce(x, axes=[1]), -1, 6, 6, 5))


@case(11, 13)
def squeezes(b: Builder) -> onnx.ModelProto:
    """Squeeze and Unsqueeze with axes from both ends."""
    x = b.squeeze(b.one("GlobalAveragePool", features(b)), -1, 2)
    x = b.unsqueeze(b.relu(b.gemm(x, 6)), 2, -1)
    return classify(b, b.conv(x, 5, 1))


@case(13)
def squeeze_everything(b: Builder) -> onnx.ModelProto:
    """Squeeze without axes."""
    return b.model(b.gemm(b.one("Squeeze", b.one("GlobalAveragePool", features(b))), CLASSES))


@case()
def transposes(b: Builder) -> onnx.ModelProto:
    """Channels at the end: bias, MatMul, mean."""
    x = b.one("Transpose", features(b), perm=[0, 2, 3, 1])
    x = b.relu(b.matmul(b.one("Add", x, b.distinct(6)), 5))
    return b.model(b.gemm(b.reduce(x, axes=[1, 2], keepdims=0), CLASSES))


@case()
def transposed_without_order(b: Builder) -> onnx.ModelProto:
    """Transpose without perm, twice."""
    x = b.one("Transpose", features(b))
    return classify(b, b.one("Transpose", b.relu(x)))


@case(11, 13)
def concatenations(b: Builder) -> onnx.ModelProto:
    """A dense block; a tensor beside itself."""
    x = features(b, 4)
    for _ in range(2):
        x = b.one("Concat", x, b.relu(b.conv(x, 3)), axis=1)
    return classify(b, b.one("Concat", x, x, axis=-3))


@case()
def concatenated_space(b: Builder) -> onnx.ModelProto:
    """Two tensors one above the other: their channels are tied."""
    x = b.input(3, 6, 5)
    return classify(b, b.one("Concat", features_of(b, x), features_of(b, x), axis=2))


@case()
def concatenated_input(b: Builder) -> onnx.ModelProto:
    """Features beside the graph's input."""
    x = b.input(3, 6, 5)
    return classify(b, b.one("Concat", features_of(b, x), x, b.relu(b.conv(x, 2)), axis=1))


@case(11, 12, 13, 18)
def equal_splits(b: Builder) -> onnx.ModelProto:
    """Split without sizes; the parts go apart and are joined in another order."""
    first, second = b.split(features(b), [3, 3], explicit=False)
    return classify(b, b.one("Concat", b.relu(b.conv(second, 4)), first, axis=1))


@case(11, 13, 18)
def unequal_splits(b: Builder) -> onnx.ModelProto:
    """Split with sizes."""
    first, second, third = b.split(features(b), [1, 3, 2])
    joined = b.one("Concat", third, b.one("Sigmoid", first), b.relu(b.conv(second, 4)), axis=1)
    return classify(b, joined)


@case(11, 18)
def gated_halves(b: Builder) -> onnx.ModelProto:
    """Split in halves that gate each other: their channels are tied."""
    first, second = b.split(features(b), [3, 3], explicit=False)
    return classify(b, b.one("Mul", first, b.one("Sigmoid", second)))


@case(11, 13)
def split_space(b: Builder) -> onnx.ModelProto:
    """Split of a space axis: both parts carry all channels."""
    first, second = b.split(features(b), [3, 3], axis=2)
    return classify(b, b.one("Add", first, second))


@case(11, 13)
def slices(b: Builder) -> onnx.ModelProto:
    """Slices on the channels with steps 1, 2, -1 and -2."""
    x, far = features(b, 9), 2**31 - 1
    parts = [b.slice(x, 1, 4), b.slice(x, 0, far, 2), b.slice(x, -2, far), b.slice(x, -1, -far, -2)]
    x = b.one("Concat", *parts, axis=1)
    return classify(b, b.slice(x, -1, -(2**62), -1))


@case()
def sliced_axes(b: Builder) -> onnx.ModelProto:
    """Channels and space in one Slice; without axes and steps; one tensor for several inputs."""
    x = features(b, 7)
    x = b.one("Slice", x, b.ints(1, 0), b.ints(7, 5), b.ints(1, 2), b.ints(2, 2))
    x = b.relu(b.conv(x, 6))
    x = b.one("Slice", x, b.ints(0, 1, 0), b.ints(9, 5, 9))
    one = b.ints(1)
    return classify(b, b.one("Slice", x, one, b.ints(4), one, one))


@case(11, 13, 18)
def padded_shortcut(b: Builder) -> onnx.ModelProto:
    """The parameter-free shortcut, before, after and on both sides."""
    x, choices = features(b, 4), iter(range(3))
    for _ in range(2):
        x = b.relu(shortcut(b, x, lambda options: options[next(choices)]))
    return classify(b, x)


@case(11, 18)
def padded_space(b: Builder) -> onnx.ModelProto:
    """Pads around the space, with a value and by reflection."""
    x = b.one("Pad", features(b), b.ints(0, 0, 1, 1, 0, 0, 0, 2), b.constant(0.7))
    x = b.one("Pad", b.conv(x, 5), b.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    return classify(b, x)


@case()
def padded_and_read(b: Builder) -> onnx.ModelProto:
    """Zero channels that a Conv reads at once."""
    return classify(b, b.pad_channels(features(b), 2, 1))


@case(11, 13)
def gathers(b: Builder) -> onnx.ModelProto:
    """Permutation, repeats, negative indices, and one channel picked out."""
    x = b.gather(features(b), 3, 0, 5, 1, 4, 2)
    x = b.gather(b.relu(b.conv(x, 5)), 0, 0, -1, 2)
    return classify(b, b.one("Concat", x, b.gather(x, -2), axis=1))


@case()
def gathered_scalar(b: Builder) -> onnx.ModelProto:
    """An index without axis drops the channel axis."""
    x = features(b)
    gate = b.unsqueeze(b.one("Gather", x, b.constant(2, np.int64), axis=1), 1)
    return classify(b, b.one("Mul", x, gate))


@case(11, 12, 13)
def passed_on(b: Builder) -> onnx.ModelProto:
    """Dropout, Identity, Cast."""
    x = b.one("Identity", b.one("Dropout", features(b)))
    x = b.one("Cast", b.one("Cast", x, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)
    return classify(b, x)


@case(11, 13)
def softmax_end(b: Builder) -> onnx.ModelProto:
    """Softmax over the classes."""
    return b.model(b.one("Softmax", b.gemm(b.pooled(features(b)), CLASSES), axis=-1))


@case(13)
def softmax_over_space(b: Builder) -> onnx.ModelProto:
    """Softmax along an axis without channels."""
    return classify(b, b.one("Softmax", features(b), axis=-1))


@case()
def softmax_over_channels(b: Builder) -> onnx.ModelProto:
    """Softmax along the channels, in the middle of the graph."""
    return classify(b, b.one("Softmax", features(b), axis=1))


@case(11, 17)
def shuffled(b: Builder) -> onnx.ModelProto:
    """Channel shuffle behind a grouped Conv."""
    x = shuffle(b, b.conv(features(b, 8), 6, group=2), lambda options: options[0])
    return classify(b, b.conv(b.relu(x), 4))


@case()
def shuffled_to_groups(b: Builder) -> onnx.ModelProto:
    """Channel shuffle between grouped convolutions: here all channels are one."""
    x = shuffle(b, b.conv(features(b, 8), 6, group=2), lambda options: options[0])
    return classify(b, b.conv(b.relu(x), 4, group=2))


@case()
def shared_bias(b: Builder) -> onnx.ModelProto:
    """One bias in two Convs that are cut differently."""
    bias = b.distinct(6)
    x = b.relu(b.conv(b.input(3, 6, 5), 6, bias=bias))
    return classify(b, b.relu(b.conv(x, 6, bias=bias)))


@case()
def shared_scale(b: Builder) -> onnx.ModelProto:
    """One scale at two places that are cut differently, and at one that is not cut."""
    values = b.constant(b.rng.uniform(0.5, 1.5, (1, 5, 1, 1)))
    x = b.one("Mul", features(b, 5), values)
    x = b.one("Mul", b.relu(b.conv(x, 5)), values)
    x = b.one("Mul", b.reduce(b.conv(x, CLASSES)), values)
    return b.model(b.one("Flatten", x))


@case()
def tied(b: Builder) -> onnx.ModelProto:
    """One weight in three Convs."""
    x = tied_weights(b, features(b), lambda options: options[0])
    return classify(b, x)


@case()
def tied_to_itself(b: Builder) -> onnx.ModelProto:
    """One matrix that is read along its inputs at one place and along its outputs at another."""
    weight = b.weight(6, 7)
    x = b.relu(b.one("Gemm", b.input(7), weight, b.distinct(6), transB=1))
    x = b.relu(b.one("Gemm", x, weight, b.distinct(7)))
    return b.model(b.gemm(x, CLASSES))


@case()
def fixed_batch(b: Builder) -> onnx.ModelProto:
    """A batch of two, written into a Reshape."""
    b.fixed = True
    x = b.reshape(features(b), 2, 6, 30)
    return b.model(b.gemm(b.reshape(b.relu(b.conv(x, 4)), 2, 120), CLASSES))


@case()
def two_outputs(b: Builder) -> onnx.ModelProto:
    """A second output in the middle of the graph pins what it carries."""
    x = features(b)
    y = b.relu(b.conv(x, 5))
    return b.model(b.gemm(b.pooled(y), CLASSES), b.gemm(b.pooled(x), 3))


@case()
def feature_output(b: Builder) -> onnx.ModelProto:
    """The features are an output themselves."""
    x = b.pooled(b.relu(b.conv(features(b), 4)))
    return b.model(b.gemm(x, CLASSES), x)


@case()
def unused_part(b: Builder) -> onnx.ModelProto:
    """A part of a Split that nobody reads."""
    first, _ = b.split(features(b), [4, 2])
    return classify(b, first)


@case()
def two_inputs(b: Builder) -> onnx.ModelProto:
    """An image and a vector."""
    image = b.pooled(features(b))
    vector = b.relu(b.gemm(b.input(4), 6))
    both = b.one("Concat", b.one("Mul", image, vector), vector, axis=1)
    return b.model(b.gemm(both, CLASSES))


@case()
def free_space(b: Builder) -> onnx.ModelProto:
    """Height and width are free, too."""
    x = features(b)
    for axis, name in ((2, "H"), (3, "W")):
        b.inputs[0].type.tensor_type.shape.dim[axis].dim_param = name
    return classify(b, b.one("Add", x, b.conv(b.relu(b.conv(x, 5)), 6)))


@case(13)
def constant_nodes(b: Builder) -> onnx.ModelProto:
    """A target shape, a bias and a scale as Constant nodes."""
    values = numpy_helper.from_array(b.rng.uniform(0.5, 1.5, (6, 1, 1)).astype(np.float32))
    x = b.one("Mul", features(b), b.node("Constant", [], value=values)[0])
    target = numpy_helper.from_array(np.array([0, 5, 30]))
    x = b.relu(b.conv(b.relu(b.conv(x, 6)), 5))
    return classify(
        b, b.declare(b.one("Reshape", x, b.node("Constant", [], value=target)[0]), (BATCH, 5, 30))
    )


@case(18, 21)
def padded_axes(b: Builder) -> onnx.ModelProto:
    """Pad with axes, the channels among them."""
    x = features(b, 4)
    pads, axes = b.ints(0, 1, 1, 2), b.ints(3, 1)
    x = b.one("Pad", x, pads, b.constant(0), axes)
    return classify(b, b.one("Add", b.conv(x, 7), x))


@case()
def crossed_sums(b: Builder) -> onnx.ModelProto:
    """Two lists added in both orders: ties inside one group."""
    x = b.input(3, 6, 5)
    left, right = features_of(b, x), features_of(b, x)
    sides = [b.one("Concat", *pair, axis=1) for pair in ((left, right), (right, left))]
    return classify(b, b.one("Add", sides[0], b.one("Tanh", sides[1])))


@case()
def permuted_residual(b: Builder) -> onnx.ModelProto:
    """A tensor added to itself in another order: cycles of channels."""
    x = features(b, 9)
    x = b.one("Add", x, b.gather(x, 1, 0, 3, 4, 2, 5, 6, 8, 7))
    x = b.relu(b.conv(x, 6))
    return classify(b, b.one("Sub", x, b.one("Sigmoid", b.slice(x, -1, -(2**62), -1))))


@case()
def cut_flat(b: Builder) -> onnx.ModelProto:
    """Slice and Split of flattened features, off the boundaries of channels."""
    x = b.one("Flatten", features(b))
    first, second = b.split(b.slice(x, 17, 160), [50, 93])
    x = b.one("Concat", b.relu(b.gemm(second, 6)), b.slice(first, 0, 50, 7), axis=1)
    return b.model(b.gemm(x, CLASSES))


@case()
def regrouped(b: Builder) -> onnx.ModelProto:
    """Reshapes that miss the boundaries of channels, or split them."""
    x = b.reshape(features(b), 0, 9, 20)
    x = b.relu(b.conv(x, 6))
    return classify(b, b.reshape(b.relu(b.conv(b.reshape(x, 0, 12, 10), 4)), 0, 2, 4, 5))


@case()
def flat_bias(b: Builder) -> onnx.ModelProto:
    """Constants for every flattened place, and for heads."""
    x = b.one("Flatten", features(b))
    x = b.reshape(b.one("Add", x, b.distinct(180)), 0, 6, 6, 5)
    x = b.reshape(b.relu(b.conv(x, 6)), 0, 3, 2, 30)
    for shape in ((1, 3, 2, 1), (2, 1), (3, 1, 1), (1, 1, 2, 30)):
        x = b.one("Mul", x, b.constant(b.rng.uniform(0.5, 1.5, shape)))
    return classify(b, b.reshape(x, 0, 6, 30))


@case()
def time_major(b: Builder) -> onnx.ModelProto:
    """Time before the batch, both merged for a while."""
    x = b.one("Transpose", b.relu(b.matmul(b.input(4, 6), 7)), perm=[1, 0, 2])
    x = b.relu(b.gemm(b.reshape(x, -1, 7), 5))
    x = b.reduce(b.reshape(x, 4, -1, 5), axes=[0], keepdims=0)
    return b.model(b.gemm(x, CLASSES))


@case()
def batch_behind_channels(b: Builder) -> onnx.ModelProto:
    """Channels before the batch, both merged for a while."""
    x = b.one("Transpose", features(b, 6, 3, 9), perm=[1, 0, 2])
    x = b.reshape(b.one("Tanh", b.reshape(x, -1, 9)), 6, -1, 9)
    return classify(b, b.one("Transpose", x, perm=[1, 0, 2]))


@case()
def slope_last(b: Builder) -> onnx.ModelProto:
    """PRelu with the channels at the end; Split and Concat there."""
    x = b.one("Transpose", features(b), perm=[0, 2, 3, 1])
    x = b.one("PRelu", x, b.constant(b.rng.uniform(0.1, 0.5, 6)))
    first, second = b.split(x, [2, 4], axis=-1)
    x = b.one("Concat", b.relu(b.matmul(second, 3)), first, axis=-1)
    return b.model(b.gemm(b.reduce(b.relu(b.matmul(x, 5)), axes=[1, 2], keepdims=0), CLASSES))


@case(13)
def weights_as_inputs(b: Builder) -> onnx.ModelProto:
    """Initializers that are graph inputs as well, as old files have them."""
    model = classify(b, features(b))
    for tensor in model.graph.initializer:
        entry = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(entry)
    return model
