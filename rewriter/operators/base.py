"""The base of all operator classes: flow of channels, parameters, work, and how a cut changes the node.

A layer that reads channels by weights is a :class:`~graft.rewriter.operators.consumer.Consumer` as well, one
that constants make an affine map an :class:`~graft.rewriter.operators.affine_map.AffineMap`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from graft.rewriter.arrays import Array, Axes, Channels, Mask
from graft.rewriter.channels.flow import Flow
from graft.rewriter.graph.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Sequence


class ChannelLookup(Protocol):
    """The finished analysis, as operator classes see it."""

    def of(self, tensor: gs.Tensor) -> Axes:
        """Return the channels on each axis of a tensor."""

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Return the shape of a tensor in the parent."""


class Cut(Protocol):
    """A plan applied to one graph, as operator classes see it."""

    graph: gs.Graph

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Return the shape of a tensor before the cut."""

    def keeps(self, tensor: gs.Tensor, axis: int) -> Mask | None:
        """Return which positions of an axis stay; ``None`` for an axis without channels."""


@dataclass(frozen=True)
class Parameter:
    """A constant input of a node and the axes along which it is cut.

    Attributes:
        index: which input of the node.
        axes: axis of the constant to the channels along it.
        reads: the axis along which the constant weighs channels of the data input (zeroing it there
            makes the node ignore them), or ``None``.
        inside: the axis along which it makes channels that the node itself consumes, or ``None``.
    """

    index: int
    axes: dict[int, Channels]
    reads: int | None = None
    inside: int | None = None


@dataclass(frozen=True)
class Read:
    """A place where a node consumes channels.

    Attributes:
        index: which input of the node.
        axis: of it.
        channels: along this axis.
        recurrent_weight: it is the output ``index`` instead, of which the node reads every step in the next
            one, by the weights in the input of this number, along their last axis.
    """

    index: int
    axis: int
    channels: Channels
    recurrent_weight: int | None = None

    def tensor(self, node: gs.Node) -> gs.Tensor:
        """Return the tensor that ``node`` reads."""
        return (node.inputs if self.recurrent_weight is None else node.outputs)[self.index]


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates: ``times`` the product of the numbers of channels kept of each list."""

    times: float
    channels: tuple[Channels, ...]


class Operator(ABC):
    """Base of all operator classes: a rule for the ONNX operators named in ``types``.

    A rule trusts what the standard says of a node. Where attributes, inputs and shapes do not fit together it
    may fail in any way: the analysis names the node (:func:`graft.rewriter.operators.unfit.naming`).

    The defaults suit an operator without parameters and without multiply-accumulates. ``flow`` has no
    default: an operator class exists to say how channels pass.
    """

    types: ClassVar[tuple[str, ...]] = ()
    """Names of operators; ``"domain::Name"`` for those outside of the standard domain."""
    same_shape: ClassVar[bool] = False
    """The output has shape and type of the first input. Needed where onnx infers no shapes: for a few
    functions, and for all domains but the standard one."""
    outputs_no_channels: ClassVar[bool] = False
    """No output holds channels, whatever goes in."""
    activates: ClassVar[bool] = False
    """The output is an activation: the place where a unit's being on or off is seen."""
    preferred: ClassVar[int] = 1
    """Kernels are fast where the numbers of channels are multiples of this."""
    skips_empty_inputs: ClassVar[bool] = False
    """An input of which no channel is left is merely left out."""

    def fits(self, node: gs.Node) -> bool:
        """Return whether this is the class for ``node``; of those for one type the first that fits is."""
        return True

    @abstractmethod
    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Give every output its channels; tie and pin what the operator ties and pins."""

    def counts(self, node: gs.Node, axis: int, rank: int) -> bool:
        """Return whether the node depends on how many channels lie along an axis of an input.

        Args:
            node: the node.
            axis: of any input that holds channels.
            rank: number of axes of that input.
        """
        return True

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return the constant inputs that lose values when channels are pruned."""
        return []

    def reads(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return where the node consumes channels by weights; only a ``Consumer`` does."""
        return []

    def masks(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return where a pruned channel counts as zero, without weights that could be set to zero."""
        return []

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return the multiply-accumulates of one run at the shapes of the analysis."""
        return []

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return whether the node may multiply more than :meth:`work` counts."""
        return False

    def rewrite(self, node: gs.Node, cut: Cut) -> None:  # noqa: B027 - most nodes stay as they are
        """Change attributes and shape inputs to what the cut leaves. Parameters are cut already."""

    def broadcast_shape(self, node: gs.Node, shapes: Sequence[Shape]) -> Shape | None:
        """Return the shape of the output where each input is a smaller tensor that broadcasts.

        Args:
            node: the node.
            shapes: of the inputs; each broadcasts to what the input was.

        Returns:
            A shape that broadcasts to that of the output; ``None`` where the node needs whole inputs.
        """
        return None

    def limits(self, node: gs.Node) -> tuple[float, float]:
        """Return the values of the input below and above which the output does not change."""
        return -np.inf, np.inf


MULTIPLYING = ("DeformConv", "DFT", "STFT")
"""Standard operators without a rule that do more than next to nothing."""
IN_BODIES = ("Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN")
"""Operators that are counted in the graph, but not in the bodies of loops and conditions."""
ESTIMATORS = (
    "SVMClassifier",
    "SVMRegressor",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
)


class Pinning(Operator):
    """The rule for an operator without a rule: nothing that reaches it can be pruned."""

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin all inputs; the outputs carry no channels."""
        flow.pin_inputs(node, "no rule for this operator")

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return whether the node is of a kind that multiplies, or may be, or has such nodes in a body."""
        bodies = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
        if any(each.op in IN_BODIES or self.unknown_work(each, channels) for b in bodies for each in b.nodes):
            return True
        if node.domain in (None, "", "ai.onnx"):
            return node.op in MULTIPLYING
        return node.domain != "ai.onnx.ml" or node.op in ESTIMATORS


# ------------------------------------------------------------------ helpers for operator classes

QUANTIZED = "a quantized layer cannot be pruned: prune the float model, then quantize it"


def flow_uncut(node: gs.Node, flow: Flow, axis: int, reason: str) -> None:
    """Pin what reaches a layer and the channels that it makes.

    Args:
        node: the layer.
        flow: takes the channels.
        axis: of the output that holds its channels.
        reason: why they stay.
    """
    flow.pin_inputs(node, reason)
    shape, size = flow.shape(node.outputs[0]), flow.size(node.outputs[0], axis)
    if not shape or size is None:
        return
    axes: list[Channels | None] = [None] * len(shape)
    axes[axis] = made = flow.make(node, size)
    flow.pin(made, node, reason)
    flow.give(node.outputs[0], axes)


def is_quantized(tensor: gs.Tensor) -> bool:
    """Return whether ``tensor`` is made of integers in the file, by the scales beside them."""
    maker = tensor.inputs[0] if tensor.inputs else None
    return maker is not None and maker.op == "DequantizeLinear" and is_constant(maker.inputs[0])


def is_constant(tensor: gs.Tensor | None) -> bool:
    """Return whether the value of ``tensor`` is in the file."""
    return isinstance(tensor, gs.Constant)


def given(node: gs.Node, index: int) -> gs.Tensor | None:
    """Return input ``index`` of ``node``, or ``None`` where it is left out."""
    if index >= len(node.inputs) or node.inputs[index].name == "":
        return None
    return node.inputs[index]


def constant_ints(node: gs.Node, index: int, attribute: str | None = None) -> list[int] | None:
    """Return integers from an attribute (older opsets) or a constant input.

    Args:
        node: the node.
        index: of the input.
        attribute: name of the attribute, which goes first.

    Returns:
        The integers; ``None`` if neither is there.

    Raises:
        ValueError: the constant is no list.
    """
    if attribute is not None and attribute in node.attrs:
        return [int(value) for value in np.atleast_1d(node.attrs[attribute])]
    tensor = given(node, index)
    if not isinstance(tensor, gs.Constant):
        return None
    if np.ndim(tensor.values) > 1:
        raise ValueError(f"input {index} has {np.ndim(tensor.values)} axes, expected a list")
    return [int(value) for value in np.atleast_1d(tensor.values)]


def own_name(node: gs.Node) -> str:
    """Return how names of constants begin that :func:`set_constant` gives ``node``."""
    return f"{node.name}/input_"


def set_constant(node: gs.Node, index: int, values: Array) -> None:
    """Give ``node`` a constant of its own.

    Args:
        node: the node, which is changed.
        index: of the input; those before it that are missing are left out.
        values: of the constant, which are copied.
    """
    _give(node, index, np.array(values, order="C"))


SHARED = 1 << 20
"""Bytes of a constant that is not copied."""


def share_constant(node: gs.Node, index: int, values: Array) -> None:
    """Give ``node`` a constant of its own name, with the values of another one.

    Args:
        node: the node, which is changed.
        index: of the input; those before it that are missing are left out.
        values: of the constant. Small ones are added to 0: a negative zero becomes a positive one, as where
            weights are multiplied. Large ones are no copy.
    """
    _give(node, index, values if values.nbytes > SHARED else values + 0)


def _give(node: gs.Node, index: int, values: Array) -> None:
    name = f"{own_name(node)}{index}"  # not after the old one: a node may read that twice
    while len(node.inputs) <= index:
        node.inputs.append(gs.Variable.empty())
    node.inputs[index] = gs.Constant(name, values)


def float_constant(name: str, values: Array, like: gs.Tensor) -> gs.Constant:
    """Return a constant of the type of another tensor.

    Args:
        name: of the constant.
        values: of any type.
        like: gives the type; where the file does not tell it, the tensors do that it is made of.
    """
    while like.dtype is None and like.inputs:
        maker = like.inputs[0]
        if maker.op == "Cast":
            like = gs.Variable("", helper.tensor_dtype_to_np_dtype(maker.attrs["to"]))
        else:
            like = maker.inputs[-1 if maker.op == "Where" else 0]
    return gs.Constant(name, values.astype(dtype_of(like)))


def dtype_of(tensor: gs.Tensor) -> np.dtype[Any]:
    """Return the type of a tensor, also where its ``dtype`` is ONNX's number; float32 where it has none."""
    kind = tensor.dtype or np.float32
    return np.dtype(helper.tensor_dtype_to_np_dtype(kind) if isinstance(kind, int) else kind)


def positive(axis: int, rank: int) -> int:
    """Return an axis counted from the front.

    Raises:
        ValueError: there is no such axis; nothing is said of a tensor whose rank is not known, 0.
    """
    if rank and not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of a tensor of {rank} axes")
    return axis + rank if axis < 0 else axis


def count(shape: Sequence[int | None]) -> float:
    """Return the product of sizes; a size that is not known counts as 1."""
    return float(np.prod([1 if size is None else size for size in shape], dtype=np.float64))


def broadcast(shapes: Sequence[Shape]) -> Shape | None:
    """Return what ``shapes`` broadcast to; ``None`` where they do not, or a size is not known."""
    if any(None in shape for shape in shapes):
        return None
    try:
        return np.broadcast_shapes(*(tuple(size or 0 for size in shape) for shape in shapes))
    except ValueError:
        return None


def insert_after(node: gs.Node, new: gs.Node, graph: gs.Graph) -> None:
    """Put a node behind another: consumers of the old output read the new one.

    The tensor that leaves keeps its name, so that graph outputs keep theirs.

    Args:
        node: the node, whose first output ``new`` reads.
        new: has its other inputs, and no output yet.
        graph: of both.
    """
    output = node.outputs[0]
    inner = gs.Variable(f"{output.name}/before_{new.op}", output.dtype, output.shape)
    node.outputs[0] = inner
    new.inputs.insert(0, inner)
    new.outputs = [output]
    graph.nodes.insert(graph.nodes.index(node) + 1, new)
