"""An independent masked parent: what the law compares a cut graph with.

A cut graph has to compute what its parent computes when every weight that reads a removed channel
is zero. Here the parent is rebuilt with a *companion* beside every tensor: floats of the tensor's
shape, 0 where the channel is removed and 1 elsewhere. ONNX operators compute the companions at run
time, next to the tensors themselves: a Transpose transposes the companion, a Reshape reshapes it, a
sum of two tensors takes the smaller of two companions. Operators that contract channels read
``x * companion(x)``. Nothing here knows of channel groups or of operator classes.

Which channels a Conv, Gemm or MatMul lost is read off the cut graph: the values of its parent's
bias are all distinct, so those left in the cut bias tell which outputs stayed; without a bias, the
rows of the weight tell it (see :func:`kept_outputs`). Zero padding on the channel axis makes channels
too; they count as kept, and the Add that follows removes them through its other operand.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]
Kept = Mapping[str, NDArray[np.bool_]]

MAKERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Attention"))
ELEMENTWISE = frozenset(
    (
        *("Abs", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu"),
        *("Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu"),
        *("Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign"),
        *("Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu", "Shrink"),
        *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"),
        *("BitwiseNot", "CastLike", "IsInf", "IsNaN", "MeanVarianceNormalization", "Scaler"),
    )
)
BROADCASTING = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Sum", "Min", "Max", "Mean", "PRelu", "Pow", "Mod", "Where"),
        *("And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *("Gelu", "BiasGelu", "FastGelu", "QuickGelu"),
    )
)
MOVING = frozenset(
    (
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice"),
        *("Gather", "Expand", "Tile", "SpaceToDepth", "DepthToSpace"),
    )
)
CONTRACTING = frozenset(
    ("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum")
)
REDUCING = CONTRACTING | frozenset(
    (
        *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"),
        *("ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp"),
    )
)
ALONG_AXIS = {
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "TopK"), -1),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), -1),
    "LRN": 1,
    "ArgMax": 0,
    "ArgMin": 0,
    "CumSum": 0,
}
"""Operators that work along an axis, and which where they do not say."""
RECURRENT = frozenset(("LSTM", "GRU", "RNN"))
STAYS = "channels_that_must_stay"


class MaskedParent:
    """The masked parent of one model, for any choice of removed channels.

    Args:
        parent: a model whose nodes are named and whose makers of channels have markers.
        threads: onnxruntime's threads.

    Attributes:
        proto: the graph with companions; ``NODE__kept`` is an input beside the parent's own.
        makers: name of each node that makes channels, and how many.
    """

    def __init__(self, parent: onnx.ModelProto, threads: int = 1) -> None:
        builder = _Companions(parent)
        self.proto = builder.build()
        self.makers = builder.makers
        self._session = session(self.proto, threads)
        self._outputs = [output.name for output in parent.graph.output]

    def run(self, kept: Kept, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name; ``kept`` maps makers to one flag an output channel (default: all stay).

        Raises:
            AssertionError: a removed channel reaches an output or an operator that mixes channels.
        """
        flags = {
            f"{name}__kept": np.asarray(kept.get(name, np.ones(size)), np.float32)
            for name, size in self.makers.items()
        }
        values = self._session.run([*self._outputs, STAYS], {**inputs, **flags})
        assert values[-1] == 1, "a channel was removed that has to stay"
        return dict(zip(self._outputs, values, strict=False))


def session(proto: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession | ReferenceEvaluator:
    """An onnxruntime session on the CPU; onnx's own evaluator for bfloat16, which that does not run."""
    if any(tensor.data_type == TensorProto.BFLOAT16 for tensor in proto.graph.initializer):
        return ReferenceEvaluator(proto)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(proto: onnx.ModelProto, inputs: Mapping[str, Array], threads: int = 1) -> dict[str, Array]:
    """Outputs by name."""
    opened = session(proto, threads)
    names = [output.name for output in proto.graph.output]
    return dict(zip(names, opened.run(names, dict(inputs)), strict=True))


# -------------------------------------------------------------------- markers


def kept_outputs(parent: onnx.ModelProto, cut: onnx.ModelProto) -> dict[str, NDArray[np.bool_]]:
    """Which output channels of each maker the cut graph still has, told by the bias values left.

    Where there is no bias, rows of the weight tell it, whose values are a part of the parent's rows.
    A maker that is gone altogether kept nothing, unless a constant of the cut graph is what it puts out
    when it reads nothing: then that tells.

    Raises:
        AssertionError: the parent's markers are not distinct, or the cut ones are not among them.
    """
    before, after = markers(parent), markers(cut)
    names = {node.name for node in cut.graph.node}
    kept = _Blind(parent, before).kept(cut)
    whole = _unread(parent, names)
    for name, bias in before.items():
        if name in kept:
            continue
        if name in whole:
            kept[name] = np.ones(bias.size, bool)
            continue
        assert len(set(bias.ravel().tolist())) == bias.size, f"markers of {name} are not distinct"
        left = after[name].ravel() if name in names else bias.ravel()[:0]
        kept[name] = np.isin(bias, left).ravel()
        found = bias.ravel()[kept[name]]
        assert np.array_equal(found, left), f"bias of {name} is no ordered part of the parent's"
    now = unmarked(cut)
    for name, rows in unmarked(parent).items():
        if name not in kept:
            kept[name] = _rows_left(rows, now[name]) if name in now else np.full(len(rows), name in whole)
    return kept


def unmarked(model: onnx.ModelProto) -> dict[str, Array]:
    """Weights of the makers that have no bias, a row an output channel."""
    constants = constant_values(model.graph)
    found = {}
    for node in model.graph.node:
        if (
            node.op_type in ("Conv", "MatMul")
            and node.input[1] in constants
            and node.input[0] not in constants
        ):
            weight = constants[node.input[1]]
            if weight.ndim > 1 and _marker(model.graph, node, constants) is None:
                rows = weight if node.op_type == "Conv" else np.moveaxis(weight, -1, 0)
                found[node.name] = rows.reshape(len(rows), -1)
    return found


def _rows_left(before: Array, after: Array) -> NDArray[np.bool_]:
    """Which rows ``after`` consists of, in their order, each perhaps without some columns.

    Raises:
        AssertionError: a row is no part of one row before, or of several.
    """
    values, numbers, counts = np.unique(before, return_index=True, return_counts=True)
    kept = np.zeros(len(before), bool)
    last = -1
    for row in after:
        places = np.minimum(np.searchsorted(values, row), values.size - 1)
        assert np.array_equal(values[places], row), "a weight is none of the parent's"
        owners = {*(numbers[places[counts[places] == 1]] // before.shape[1]).tolist()}
        assert len(owners) == 1, "a row of a weight is no part of one row of the parent's"
        (owner,) = owners
        assert owner > last, "the rows of a weight changed their order"
        kept[owner], last = True, owner
    return kept


def _unread(parent: onnx.ModelProto, names: Container[str]) -> set[str]:
    """Makers of what a node reads that needs all of it, and that is gone since nothing reads that."""
    nodes = {name: node for node in parent.graph.node for name in node.output}
    found: set[str] = set()
    waiting: list[str] = []
    for node in parent.graph.node:
        if node.op_type in ("If", "Loop", "Scan") and node.name not in names:
            waiting += node.input
            waiting += [name for a in node.attribute for inner in a.g.node for name in inner.input]
    while waiting:
        made = nodes.get(waiting.pop())
        if made is not None:
            found.add(made.name)
            waiting += made.input if made.op_type not in MAKERS else []
    return found


def markers(model: onnx.ModelProto) -> dict[str, Array]:
    """Bias of every node that makes channels: its own, or the constant the next node adds."""
    constants = constant_values(model.graph)
    biases = {}
    for node in model.graph.node:
        if _embeds(node, constants):
            table = constants[node.input[0]]
            biases[node.name] = table.reshape(-1, table.shape[-1])[0]
        elif node.op_type in RECURRENT:
            biases[node.name] = constants[node.input[3]][0, : constants[node.input[2]].shape[-1]]
        elif node.op_type in MAKERS and not _folds(node, constants):
            bias = _marker(model.graph, node, constants)
            if bias is not None:
                biases[node.name] = bias
    return biases


def constant_values(graph: onnx.GraphProto) -> dict[str, Array]:
    """Value of every initializer and Constant node."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return values


def _embeds(node: onnx.NodeProto, constants: Mapping[str, Array]) -> bool:
    """Whether ``node`` picks rows of a constant table: its first row is the marker."""
    return node.op_type == "Gather" and node.input[0] in constants and node.input[1] not in constants


def _folds(node: onnx.NodeProto, constants: Mapping[str, Array]) -> bool:
    return all(name in constants for name in node.input)


def _marker(graph: onnx.GraphProto, node: onnx.NodeProto, constants: Mapping[str, Array]) -> Array | None:
    if node.op_type not in ("MatMul", "Einsum") and len(node.input) > 2 and node.input[2]:
        return constants.get(node.input[2])
    readers = [reader for reader in graph.node if node.output[0] in reader.input]
    if len(readers) != 1:
        return None
    reader = readers[0]
    if reader.op_type == "BatchNormalization":
        return constants[reader.input[2]]
    if reader.op_type == "Add":
        return next((constants[name] for name in reader.input if name in constants), None)
    return None


class _Blind:
    """What tensors of a parent hold when the makers of channels before them read nothing."""

    def __init__(self, parent: onnx.ModelProto, makers: Container[str]) -> None:
        self.parent = parent
        self._makers = makers
        self._values = constant_values(parent.graph)
        self._nodes = {name: node for node in parent.graph.node for name in node.output}
        inferred = onnx.shape_inference.infer_shapes(parent).graph.value_info
        self._ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in inferred}

    def kept(self, cut: onnx.ModelProto) -> dict[str, NDArray[np.bool_]]:
        """Which channels are left of makers that became constants of ``cut``: those whose values are left.

        Values that are equal count as kept together: the tensors that such a constant meets know better.
        """
        found: dict[str, NDArray[np.bool_]] = {}
        left = {name: v for name, v in constant_values(cut.graph).items() if name in self._nodes}
        left = {name: values for name, values in left.items() if name not in self._values}
        for name, values in {**left, **dict.fromkeys(self._passed_by(cut), np.zeros(()))}.items():
            makers, whole = self._of(name)
            near = 1e-6 * float(np.abs(whole).max(initial=0))  # another evaluator may round otherwise
            flags = (np.abs(whole.reshape(-1, 1) - values.reshape(1, -1)) <= near).any(axis=1)
            if len(set(whole.ravel().tolist())) == whole.size:
                left_of = whole.ravel()[flags]
                assert left_of.shape == values.ravel().shape, f"{name} is no part"
                assert np.allclose(left_of, values.ravel(), rtol=0, atol=near), f"{name} is no part"
            found.update(dict.fromkeys(makers, flags))
        return found

    def _of(self, name: str) -> tuple[set[str], Array]:
        """Makers behind a tensor, and its values."""
        if name in self._values:
            return set(), self._values[name]
        node = self._nodes[name]
        if node.op_type in MAKERS:
            size = self._values[node.input[1]].shape[:1] if node.op_type == "Conv" else ()
            bias = self._values[node.input[2]] if len(node.input) > 2 else np.zeros(size, np.float32)
            spaces = self._values[node.input[1]].ndim - 2 if node.op_type.startswith("Conv") else 0
            shape = (*bias.shape, *[1] * spaces)
            rank = max(self._ranks.get(name, 0), len(shape))
            values: Array = bias.reshape(*[1] * (rank - len(shape)), *shape)
            return {node.name} & {*self._makers}, values
        parts = [self._of(each) for each in node.input if each]
        kind = helper.np_dtype_to_tensor_dtype(np.asarray(parts[0][1]).dtype)
        result = helper.make_tensor_value_info(node.output[0], kind, None)
        alone = helper.make_graph([node], "alone", [], [result])
        names = dict.fromkeys(filter(None, node.input))
        for each, (_, values) in zip(names, parts, strict=True):
            alone.initializer.append(numpy_helper.from_array(np.asarray(values), each))
        model = helper.make_model(alone, opset_imports=self.parent.opset_import, ir_version=8)
        return set().union(*(makers for makers, _ in parts)), run(model, {})[node.output[0]]

    def _passed_by(self, cut: onnx.ModelProto) -> list[str]:
        """Operands of sums that are gone, though what they put out is still read: they were zero."""
        there = {node.name: node for node in cut.graph.node}
        found: list[str] = []
        for reader in self.parent.graph.node:
            for name, now in zip(reader.input, there.get(reader.name, reader).input, strict=False):
                while name != now and name in self._nodes and self._nodes[name].op_type == "Add":
                    one, other = self._nodes[name].input
                    name, zero = (one, other) if now == one or self._sums(one, now) else (other, one)
                    found.append(zero)
        return found

    def _sums(self, name: str, part: str) -> bool:
        """Whether sums lead from ``part`` to ``name``."""
        node = self._nodes.get(name)
        return (
            node is not None
            and node.op_type == "Add"
            and any(each == part or self._sums(each, part) for each in node.input)
        )


# -------------------------------------------------------------------- companions


class _Companions:
    """Builds the graph with companions, node by node."""

    def __init__(self, parent: onnx.ModelProto) -> None:
        self.parent = parent
        self.opset = next(o.version for o in parent.opset_import if o.domain in ("", "ai.onnx"))
        self.makers: dict[str, int] = {}
        self._values = constant_values(parent.graph)
        self._constants = set(self._values)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers = list(parent.graph.initializer)
        self._companions: dict[str, str] = {}
        self._stays: list[str] = []
        rows = {name: np.arange(len(weight)) for name, weight in unmarked(parent).items()}
        self._markers = {**rows, **markers(parent)}

    def build(self) -> onnx.ModelProto:
        """The parent with companions."""
        for node in self.parent.graph.node:
            self._add(node)
        outputs = list(self.parent.graph.output)
        for output in outputs:
            self._must_stay(output.name)
        self._nodes.append(helper.make_node("Min", self._stays, [STAYS]))
        outputs.append(helper.make_tensor_value_info(STAYS, TensorProto.FLOAT, []))
        inputs = [v for v in self.parent.graph.input if v.name not in self._constants]
        for name, size in self.makers.items():
            flags = helper.make_tensor_value_info(f"{name}__kept", TensorProto.FLOAT, [size])
            inputs.append(flags)
        graph = helper.make_graph(self._nodes, "masked", inputs, outputs, self._initializers)
        return helper.make_model(
            graph, opset_imports=self.parent.opset_import, ir_version=self.parent.ir_version
        )

    def _add(self, node: onnx.NodeProto) -> None:
        told = node.input[:1] if node.op_type == "Expand" else node.input
        if all(name in self._constants for name in told):
            self._constants.update(node.output)
            self._nodes.append(node)
            return
        rule = self._rule(node)
        if rule is None:
            raise NotImplementedError(f"the masker has no rule for {node.op_type}")
        rule(node)

    def _rule(self, node: onnx.NodeProto) -> Callable[[onnx.NodeProto], None] | None:
        if _embeds(node, self._values):
            return self._embedding
        families: list[tuple[Container[str], Callable[[onnx.NodeProto], None]]] = [
            (ELEMENTWISE, self._elementwise),
            (BROADCASTING, self._broadcasting),
            (MOVING, self._moving),
            (REDUCING, self._reducing),
            (ALONG_AXIS, self._along_axis),
            (RECURRENT, self._recurrent),
            (frozenset({"Conv", "ConvTranspose"}), self._conv),
            (frozenset({"Gemm", "MatMul", "Einsum"}), self._matmul),
            (frozenset({"Attention", "MultiHeadAttention"}), self._attention),
            (frozenset({"Pad"}), self._pad),
            (frozenset({"Resize"}), self._resize),
            (frozenset({"If", "Loop", "Scan"}), self._with_body),
            (frozenset({"GridSample", "RoiAlign", "MaxRoiPool"}), self._sampling),
            (frozenset({"GroupNormalization", "InstanceNormalization"}), self._by_group),
            (frozenset({"ArrayFeatureExtractor"}), self._mixing),
            (frozenset({"Shape", "Size", "Range"}), self._nodes.append),
        ]
        return next((rule for names, rule in families if node.op_type in names), None)

    # ------------------------------------------------------------ small tools

    def _emit(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"companion_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def _constant(self, values: Any, dtype: Any = np.int64) -> str:
        name = f"companion_constant_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def _companion(self, tensor: str) -> str:
        """Companion of ``tensor``; one for graph inputs, constants and what mixes channels."""
        if tensor not in self._companions:
            ones = self._constant(1, np.float32)
            self._companions[tensor] = self._spread(ones, tensor)
        return self._companions[tensor]

    def _spread(self, flags: str, tensor: str) -> str:
        """``flags`` in the shape of ``tensor``."""
        return self._emit("Expand", [flags, self._emit("Shape", [tensor])])

    def _same(self, node: onnx.NodeProto, inputs: Sequence[str]) -> list[str]:
        """The very operator ``node``, applied to other inputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{node.name}__companion_{len(self._nodes)}"
        copy.input[:] = inputs
        copy.output[:] = [f"{name}__{copy.name}" if name else "" for name in node.output]
        self._nodes.append(copy)
        return list(copy.output)

    def _reading_masked(self, node: onnx.NodeProto, places: Sequence[int]) -> None:
        """``node`` with ``x * companion(x)`` in place of its inputs at ``places``."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for place in places:
            name = node.input[place]
            copy.input[place] = self._emit("Mul", [name, self._typed(self._companion(name), name)])
        self._nodes.append(copy)

    def _typed(self, companion: str, tensor: str) -> str:
        """The companion in the type of its tensor; before opset 15 all are float32."""
        return companion if self.opset < 15 else self._emit("CastLike", [companion, tensor])

    def _all_or_none(self, companion: str, axes: Sequence[int]) -> str:
        """Along ``axes`` all has to stay, or nothing; which of them, with these axes of size 1."""
        most, least = (self._reduce(f"Reduce{which}", companion, axes) for which in ("Max", "Min"))
        even = self._emit("Sub", [self._constant(1, np.float32), self._emit("Sub", [most, least])])
        self._stays.append(self._emit("ReduceMin", [even], keepdims=0))
        return most

    def _most(self, companion: str) -> str:
        return self._emit("ReduceMax", [companion], keepdims=0)

    def _must_stay(self, tensor: str) -> None:
        companion = self._companion(tensor)
        self._stays.append(self._emit("ReduceMin", [companion], keepdims=0))

    def _reduce(self, operator: str, tensor: str, axes: Sequence[int]) -> str:
        if self.opset < 18:
            return self._emit(operator, [tensor], axes=list(axes))
        return self._emit(operator, [tensor, self._constant(axes)])

    # ------------------------------------------------------------ families

    def _elementwise(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)
        self._companions[node.output[0]] = self._companion(node.input[0])

    def _broadcasting(self, node: onnx.NodeProto) -> None:
        """A channel is removed if any operand says so; constants say nothing."""
        self._nodes.append(node)
        inputs = [name for name in node.input if name not in self._constants]
        least = self._emit("Min", [self._companion(name) for name in inputs])
        self._companions[node.output[0]] = self._spread(least, node.output[0])

    def _moving(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)
        moved = len(node.input) if node.op_type == "Concat" else 1
        inputs = [self._companion(name) for name in node.input[:moved]]
        if node.op_type == "Concat":
            inputs = self._beside(node, inputs)
        outputs = self._same(node, [*inputs, *node.input[moved:]])
        self._companions.update(zip(node.output, outputs, strict=True))
        if node.op_type == "DepthToSpace":
            self._all_or_none(outputs[0], [2, 3])

    def _beside(self, node: onnx.NodeProto, companions: list[str]) -> list[str]:
        """Constants lose the channels that the parts beside them lost."""
        axis = node.attribute[0].i
        rows = [
            self._reduce("ReduceMin", companion, [axis])
            for name, companion in zip(node.input, companions, strict=True)
            if name not in self._constants
        ]
        least = self._emit("Min", rows)
        return [
            self._spread(least, name) if name in self._constants else companion
            for name, companion in zip(node.input, companions, strict=True)
        ]

    def _reducing(self, node: onnx.NodeProto) -> None:
        """What a window or a sum sees at least one kept channel of is kept.

        Over space a companion is constant, so this passes it on; over channels the operator reads
        masked values.
        """
        self._reading_masked(node, [0] if node.op_type in CONTRACTING else [])
        reduced = self._same(node, [self._companion(node.input[0]), *node.input[1:]])
        if node.op_type.startswith("ReduceLog"):
            self._nodes[-1].op_type = "ReduceMax"
        self._companions[node.output[0]] = self._emit("Sign", reduced[:1])

    def _along_axis(self, node: onnx.NodeProto) -> None:
        """Softmax and its like: along their axis all has to stay, or nothing."""
        self._nodes.append(node)
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axis = given.get("axis", ALONG_AXIS[node.op_type])
        if node.op_type == "CumSum":
            axis = int(self._values[node.input[1]])
        axes = range(axis, 0) if node.op_type.startswith(("Layer", "RMS")) else [axis]
        flags = self._all_or_none(self._companion(node.input[0]), axes)
        for output in filter(None, node.output):
            if node.op_type.startswith("Arg") and not given.get("keepdims", 1):
                squeezed = [flags] if self.opset < 13 else [flags, self._constant([axis])]
                attributes = {"axes": [axis]} if self.opset < 13 else {}
                self._companions[output] = self._emit("Squeeze", squeezed, **attributes)
            else:
                self._companions[output] = self._spread(flags, output)

    def _mixing(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)
        for name in node.input:
            if name and name not in self._constants:
                self._must_stay(name)

    def _recurrent(self, node: onnx.NodeProto) -> None:
        """Units are read by weights of the node itself, too; one direction, no states to start with."""
        self._reading_masked(node, [0])
        self.makers[node.name] = self._markers[node.name].size
        kept = f"{node.name}__kept"
        self._nodes[-1].input[2] = self._emit_before("Mul", [node.input[2], kept])
        for output in filter(None, node.output):
            self._companions[output] = self._spread(kept, output)

    def _with_body(self, node: onnx.NodeProto) -> None:
        """All that a body reads from outside has to stay."""
        self._mixing(node)
        for attribute in node.attribute:
            for inner in attribute.g.node:
                for name in inner.input:
                    if name in self._companions:
                        self._must_stay(name)

    def _by_group(self, node: onnx.NodeProto) -> None:
        """What shares its statistics stays or goes together."""
        self._elementwise(node)
        groups = next((a.i for a in node.attribute if a.name == "num_groups"), 0)
        rows = self._emit("Reshape", [self._companion(node.input[0]), self._constant([0, groups, -1])])
        self._all_or_none(rows, [2])

    def _resize(self, node: onnx.NodeProto) -> None:
        """Ones between ones are ones, whatever the kernel."""
        self._nodes.append(node)
        resized = self._same(node, [self._companion(node.input[0]), *node.input[1:]])
        self._companions[node.output[0]] = self._emit("Round", resized)

    def _sampling(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)
        flags = self._all_or_none(self._companion(node.input[0]), [0, 2, 3])
        self._companions[node.output[0]] = self._spread(flags, node.output[0])
        for name in node.input[1:]:
            if name not in self._constants:
                self._must_stay(name)

    def _embedding(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)
        self._must_stay(node.input[1])
        self._make(node, 0)

    def _conv(self, node: onnx.NodeProto) -> None:
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        shape = self._values[node.input[1]].shape
        turned = node.op_type == "ConvTranspose"
        if group > 1 and (shape[0] // group if turned else shape[1]) == 1:
            self._depthwise(node, group, shape[1] if turned else shape[0] // group, len(shape))
            return
        self._reading_masked(node, [0])
        self._make(node, len(shape) - 2)

    def _depthwise(self, node: onnx.NodeProto, inputs: int, repeat: int, rank: int) -> None:
        """Every input channel goes to ``repeat`` outputs, and takes them with it."""
        self._nodes.append(node)
        indices = self._constant(np.repeat(np.arange(inputs), repeat))
        flags = self._emit("GlobalMaxPool", [self._companion(node.input[0])])
        flags = self._emit("Gather", [flags, indices], axis=1)
        self._companions[node.output[0]] = self._spread(flags, node.output[0])
        if node.name in self._markers:
            passed = self._companions[node.output[0]]
            self._make(node, rank - 2)
            own = self._companions[node.output[0]]
            self._companions[node.output[0]] = self._emit("Min", [passed, own])

    def _matmul(self, node: onnx.NodeProto) -> None:
        """A place is kept that any kept pair of channels reaches, and where the bias says so."""
        places = [place for place, name in enumerate(node.input) if name not in self._constants]
        self._reading_masked(node, places)
        if node.op_type == "Gemm":
            self._make(node, 0)
            return
        ones = [
            self._companion(name) if place in places else self._ones(name)
            for place, name in enumerate(node.input)
        ]
        reached = self._emit("Sign", self._same(node, ones))
        self._companions[node.output[0]] = reached
        if len(places) < len(node.input) and node.name in self._markers:
            self._make(node, 0)
            own = self._companions[node.output[0]]
            none = self._emit("Sub", [self._constant(1, np.float32), self._most(reached)])
            reached = self._emit("Max", [reached, none])  # it reads nothing at all, and puts out zero
            self._companions[node.output[0]] = self._emit("Min", [own, reached])

    def _attention(self, node: onnx.NodeProto) -> None:
        """What the output holds of a head is kept as long as its value, and its queries and keys, are."""
        if node.domain and node.op_type == "Attention":
            self._fused_attention(node)
            return
        given = {a.name: a.i for a in node.attribute}
        counts = [given.get(name, given.get("num_heads")) for name in ("q_num_heads", "kv_num_heads")]
        flags = [self._by_head(node.input[place], counts[place > 0]) for place in range(3)]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for place in (0, 1):
            name = node.input[place]
            copy.input[place] = self._emit("Mul", [name, self._companion(name)])
        if node.op_type == "MultiHeadAttention" and len(node.input) > 3 and node.input[3]:
            rows = [self._emit("Reshape", [f, self._constant([0, -1])]) for f in flags]
            row = self._reduce("ReduceMax", self._emit("Concat", rows, axis=1), [0])
            kept = self._emit("Reshape", [row, self._constant([-1])])
            copy.input[3] = self._emit("Mul", [node.input[3], kept])
        self._nodes.append(copy)
        heads = [self._reduce("ReduceMax", found, [3]) for found in flags[:2]]
        for place in (1, 2):
            spread = [heads[1]] if place == 1 else [flags[2]]
            if counts[0]:
                order = self._constant(np.arange(counts[0]) // (counts[0] // (counts[1] or 1)))
                spread = [self._emit("Gather", [spread[0], order], axis=2)]
            if place == 1:
                heads[1] = spread[0]
            else:
                flags[2] = spread[0]
        kept = self._emit("Mul", [self._emit("Mul", heads), flags[2]])
        if counts[0]:
            kept = self._emit("Reshape", [kept, self._constant([0, 1, -1])])
        else:
            kept = self._emit("Transpose", [kept], perm=[0, 2, 1, 3])
        self._companions[node.output[0]] = self._spread(kept, node.output[0])

    def _by_head(self, tensor: str, count: int | None) -> str:
        """Companion of (batch, tokens, heads * width), or of four axes, as (batch, 1, heads, width)."""
        companion = self._companion(tensor)
        if count is None:
            return self._emit("Transpose", [self._reduce("ReduceMax", companion, [2])], perm=[0, 2, 1, 3])
        flags = self._reduce("ReduceMax", companion, [1])
        return self._emit("Reshape", [flags, self._constant([0, 1, count, -1])])

    def _fused_attention(self, node: onnx.NodeProto) -> None:
        """The projections are inside: removed ones have neither weights nor bias; the last are values."""
        self._reading_masked(node, [0])
        given = {a.name: list(a.ints) for a in node.attribute}
        self.makers[node.name] = size = self._markers[node.name].size
        kept = f"{node.name}__kept"
        for place in (1, 2):
            self._nodes[-1].input[place] = self._emit_before("Mul", [node.input[place], kept])
        values = given.get("qkv_hidden_sizes", [size // 3] * 3)[2]
        last = self._emit("Slice", [kept, self._constant([size - values]), self._constant([size])])
        self._companions[node.output[0]] = self._spread(last, node.output[0])

    def _emit_before(self, operator: str, inputs: Sequence[str]) -> str:
        """As :meth:`_emit`, before the node that was added last."""
        last = self._nodes.pop()
        name = self._emit(operator, inputs)
        self._nodes.append(last)
        return name

    def _ones(self, constant: str) -> str:
        return self._constant(np.ones(self._values[constant].shape), np.float32)

    def _make(self, node: onnx.NodeProto, spaces: int) -> None:
        """The output's channels are the node's own: an input of the graph says which stay."""
        assert node.name in self._markers, f"{node.op_type} {node.name} has no marker"
        self.makers[node.name] = self._markers[node.name].size
        shape = self._constant([*self._markers[node.name].shape, *[1] * spaces])
        flags = self._emit("Reshape", [f"{node.name}__kept", shape])
        self._companions[node.output[0]] = self._spread(flags, node.output[0])

    def _pad(self, node: onnx.NodeProto) -> None:
        """New channels count as kept; the border of a channel is as removed as the channel is.

        Pads of some axes only are understood for four axes.
        """
        self._nodes.append(node)
        pads = self._values[node.input[1]].reshape(2, -1)
        if len(node.input) > 3:
            axes, some = self._values[node.input[3]], pads
            pads = np.zeros((2, 4), np.int64)
            pads[:, axes] = some
        channels, space = pads.copy(), pads.copy()
        channels[:, 2:] = 0
        space[:, :2] = 0
        flags = self._companion(node.input[0])
        if space.any():
            flags = self._emit("Pad", [flags, self._constant(space.reshape(-1))], mode="edge")
        if channels.any():
            one = self._constant(1, np.float32)
            flags = self._emit("Pad", [flags, self._constant(channels.reshape(-1)), one])
        self._companions[node.output[0]] = flags
