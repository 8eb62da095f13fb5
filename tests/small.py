"""Small networks with their cards and labelled samples, for tests that check numbers by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from graft.passes.base import Context
from graft.passes.cut.slice import Slice, SliceReport
from graft.passes.cut.verify import Pruned, Verify, VerifyReport
from graft.passes.select.observe import Observe
from graft.rewriter.arrays import Mask
from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.weights import arrays
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device

Array = NDArray[Any]

CPU = Device(("cpu",), threads=1)
LABELS = ("a", "b", "c", "d")


class Net:
    """Puts a graph together node by node; every node's output is called after the node.

    Args:
        shape: of the input ``x``, without the batch.
        opset: operator set.
        seed: of the weights.
        dtype: of weights, input and output.
    """

    def __init__(
        self, *shape: int, opset: int = 17, seed: int = 0, dtype: type[np.generic] = np.float32
    ) -> None:
        self.shape = shape
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.functions: list[onnx.FunctionProto] = []

    def constant(self, name: str, values: Any, dtype: Any = None) -> str:
        """An initializer."""
        array = np.array(values, dtype or self.dtype)
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def ints(self, name: str, *values: int) -> str:
        """An initializer of axes, sizes or indices."""
        return self.constant(name, values, np.int64)

    def weight(self, name: str, *shape: int) -> str:
        """A seeded normal initializer."""
        fan = np.prod(shape) / max(shape)
        return self.constant(name, self.rng.normal(0, 1, shape) / np.sqrt(fan))

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, name: str, x: str, out: int, into: int, size: int = 3, **attributes: Any) -> str:
        """A square two-dimensional ``Conv`` with a bias; no padding unless asked for."""
        weight = self.weight(f"{name}.w", out, into, size, size)
        return self.node("Conv", name, x, weight, self.weight(f"{name}.b", out), **attributes)

    def gemm(self, name: str, x: str, out: int, into: int) -> str:
        """A ``Gemm`` as PyTorch exports it."""
        weight, bias = self.weight(f"{name}.w", out, into), self.weight(f"{name}.b", out)
        return self.node("Gemm", name, x, weight, bias, transB=1)

    def proto(self, further: Sequence[onnx.ValueInfoProto] = (), **outputs: Sequence[Any]) -> onnx.ModelProto:
        """The model, checked, with ``further`` inputs; output name to shape behind the batch."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("x", kind, ["N", *self.shape]), *further],
            [helper.make_tensor_value_info(n, kind, ["N", *s]) for n, s in outputs.items()],
            list(self.constants.values()),
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(f.domain, 1) for f in self.functions[:1]]
        result = helper.make_model(graph, opset_imports=opsets, functions=self.functions, ir_version=8)
        onnx.checker.check_model(result)
        return result


def conv_net(opset: int = 17, seed: int = 0, dtype: type[np.generic] = np.float32) -> Net:
    """Conv(2->6) Relu Conv(6->5, padded) Relu, pooled, Gemm(5->4): output ``y``."""
    net = Net(2, 6, 5, opset=opset, seed=seed, dtype=dtype)
    one = net.node("Relu", "relu1", net.conv("conv1", "x", 6, 2))
    two = net.node("Relu", "relu2", net.conv("conv2", one, 5, 6, pads=[1, 1, 1, 1]))
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", two)), 4, 5)
    return net


def residual_net(opset: int = 17, seed: int = 0, head: str = "Gemm", width: int = 8) -> Net:
    """Conv(2->6), a residual block with ``width`` inner channels, pooled, a head for 4 classes: ``y``."""
    net = Net(2, 6, 6, opset=opset, seed=seed)
    stem = net.node("Relu", "stem", net.conv("conv0", "x", 6, 2, pads=[1, 1, 1, 1]))
    inner = net.node("Relu", "inner", net.conv("conv1", stem, width, 6, pads=[1, 1, 1, 1]))
    total = net.node("Add", "add", stem, net.conv("conv2", inner, 6, width, 1))
    out = net.node("Relu", "out", total)
    flat = net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", out))
    hidden = net.node("Relu", "hidden", net.gemm("dense", flat, 7, 6))
    if head == "Gemm":
        net.gemm("y", hidden, 4, 7)
    else:
        net.node("Softmax", "y", net.gemm("logits", hidden, 4, 7), axis=1)
    return net


def dense_net(opset: int = 17, seed: int = 0) -> Net:
    """Gemm(6->8) Relu Gemm(8->4): output ``y``."""
    net = Net(6, opset=opset, seed=seed)
    net.gemm("y", net.node("Relu", "relu", net.gemm("dense", "x", 8, 6)), 4, 8)
    return net


def sequence_net(opset: int = 17, seed: int = 0) -> Net:
    """[N, T, C] through MatMul + Add, Relu, MatMul, Relu, mean over time, MatMul: output ``y``."""
    net = Net(5, 3, opset=opset, seed=seed)
    made = net.node("MatMul", "one", "x", net.weight("w1", 3, 6))
    relu = net.node("Relu", "relu1", net.node("Add", "biased", made, net.weight("b1", 6)))
    relu = net.node("Relu", "relu2", net.node("MatMul", "two", relu, net.weight("w2", 6, 7)))
    if opset < 18:
        mean = net.node("ReduceMean", "mean", relu, axes=[1], keepdims=0)
    else:
        mean = net.node("ReduceMean", "mean", relu, net.ints("axes", 1), keepdims=0)
    net.node("MatMul", "y", mean, net.weight("w3", 7, 4))
    return net


def card(labels: Sequence[str] = LABELS, kind: str = "logits", **output: Any) -> Card:
    """A card for the input ``x``, fed as it is, and the output ``y``."""
    return Card.model_validate(
        {
            "input": {"name": "x", "kind": "tensor"},
            "output": {"name": "y", "kind": kind, **output},
            "labels": list(labels),
        }
    )


def model(net: Net, kind: str = "logits", labels: Sequence[str] = LABELS) -> Model:
    """A net whose output ``y`` is (samples, labels), as a model."""
    return Model.from_proto(net.proto(y=[len(labels)]), card(labels, kind))


def inputs(shape: Sequence[int], count: int = 40, seed: int = 1, dtype: Any = np.float32) -> Array:
    """Normal values."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(dtype)


def samples(x: Array, labels: Any = None, of: Card | None = None) -> Samples:
    """Labelled samples; labels are drawn where none are given."""
    of = of or card()
    if labels is None:
        labels = np.random.default_rng(2).permutation(np.arange(len(x)) % len(of.labels))
    return Samples.match(Dataset.from_arrays(x, np.asarray(labels)).split("train"), of)


def profile(of: Model, data: Samples, parent: str = "p", **options: Any) -> Profile:
    """What :class:`Observe` records."""
    return Observe(data="data", **options).profile(Analysed.of(of), parent, data, CPU)


def context(
    profile: Profile | None = None, samples: Samples | None = None, seed: int = 0, **more: Any
) -> Context:
    """A context on the processor, with one thread."""
    return Context(profile=profile, samples=samples, device=CPU, seed=seed, **more)


def verify(whole: Model, plan: Plan, cut: Model, given: Mapping[str, Array]) -> VerifyReport:
    """Compare ``cut`` with the masked ``whole``."""
    return Verify()(Pruned(Analysed.of(whole), plan, cut, given), context())


def prune(of: Model, plan: Plan) -> SliceReport:
    """Cut ``of`` in place."""
    return Slice(plan)(Analysed.of(of), Context(device=CPU))


def run(of: Model | onnx.ModelProto, x: Array) -> dict[str, Array]:
    """All outputs, by a plain onnxruntime session."""
    proto = of.proto() if isinstance(of, Model) else of
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    outside = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, (array, _) in arrays(proto).items()}
    if outside:
        options.add_external_initializers([*outside], [*outside.values()])
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


def activations(net: Net, x: Array, *names: str) -> dict[str, Array]:
    """Values of inner tensors, as float64."""
    shapes = dict.fromkeys(names, ())
    proto = net.proto(**shapes)
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return {name: values.astype(np.float64) for name, values in run(proto, x).items()}


def activations_of(of: Model, name: str, x: Array) -> Array:
    """Values of an inner tensor of a model, as float64."""
    probe = of.copy()
    probe.graph.outputs = [probe.graph.tensors()[name]]
    return run(probe, x)[name].astype(np.float64)


def drop(groups: ChannelGroups, **removed: Sequence[int]) -> Mask:
    """The mask without channels number ``removed`` of the groups of that name."""
    mask = groups.everything()
    for name, numbers in removed.items():
        mask[groups[name].channels[list(numbers)]] = False
    return mask


def plan(of: Model, **removed: Sequence[int]) -> Plan:
    """The plan that drops channels by group and number."""
    groups = ChannelGroups(of)
    return Plan.of(groups, drop(groups, **removed), "p")


def timed(test: Callable[..., None]) -> Callable[..., None]:
    """A test of measured times, which other programs disturb: one of three runs has to pass."""

    @wraps(test)
    def repeated(*given: Any, **named: Any) -> None:
        for _ in range(2):
            try:
                return test(*given, **named)
            except AssertionError:
                continue
        return test(*given, **named)

    return repeated


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result


def logsumexp(scores: Array) -> Array:
    """Over the last axis, which stays with size 1."""
    top = scores.max(axis=-1, keepdims=True)
    result: Array = top + np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))
    return result


def pooled(of: Model) -> Model:
    """A model that puts out maps (samples, classes, *space), with classes (samples, classes) instead."""
    probe = of.copy()
    maps = probe.graph.outputs[0]
    mean = gs.Variable("classes/mean", maps.dtype)
    flat = gs.Variable("classes", maps.dtype, ["N", 4])
    probe.graph.nodes.append(gs.Node("GlobalAveragePool", mean.name, {}, [maps], [mean]))
    probe.graph.nodes.append(gs.Node("Flatten", flat.name, {"axis": 1}, [mean], [flat]))
    probe.graph.outputs = [flat]
    probe.card = card().replace(output={"name": "classes", "kind": "logits"})
    return probe
