"""What an operator class tells: flow of channels, parameters, work, and how a cut changes the node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import helper

from graft.rewriter.arrays import Array, Axes, Channels
from graft.rewriter.channels.flow import Flow
from graft.rewriter.graph.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graft.rewriter.graph.builder import Builder


class ChannelMap(Protocol):
    """The finished analysis, as operator classes see it."""

    def of(self, tensor: gs.Tensor) -> Axes:
        """Channels on each axis of a tensor."""

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Shape of a tensor in the parent."""


class Cut(Protocol):
    """A plan applied to one graph, as operator classes see it."""

    graph: gs.Graph

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Shape of a tensor before the cut."""

    def keeps(self, tensor: gs.Tensor, axis: int) -> NDArray[np.bool_] | None:
        """Which positions of an axis stay; ``None`` for an axis without channels."""


@dataclass(frozen=True)
class Parameter:
    """A constant input of a node and the axes along which it is cut.

    Attributes:
        index: which input of the node.
        axes: axis of the constant to the channels along it.
        reads: the axis along which the constant weighs channels of the data input (zeroing it there
            makes the node blind to them), or ``None``.
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
        own: it is the output ``index`` instead, of which the node reads every step in the next one, by the
            weights in the input of this number, along their last axis.
    """

    index: int
    axis: int
    channels: Channels
    own: int | None = None

    def tensor(self, node: gs.Node) -> gs.Tensor:
        """What ``node`` reads."""
        return (node.inputs if self.own is None else node.outputs)[self.index]


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates: ``times`` the product of the numbers of channels kept of each list."""

    times: float
    channels: tuple[Channels, ...]


class Operator:
    """Base of all operator classes: a rule for the ONNX operators named in ``types``.

    The defaults suit an operator without parameters and without multiply-accumulates. ``flow`` has no
    default: an operator class exists to say how channels pass.
    """

    types: ClassVar[tuple[str, ...]] = ()
    """Names of operators; ``"domain::Name"`` for those outside of the standard domain."""
    same_shape: ClassVar[bool] = False
    """Whether the output has shape and type of the first input; to be said where onnx infers no shapes:
    for a few functions, and for all domains but the standard one."""
    hides: ClassVar[bool] = False
    """Whether its outputs hold no channels by right, whatever goes in."""
    activates: ClassVar[bool] = False
    """Whether the output is an activation: the place where a unit's being on or off is seen."""
    preferred: ClassVar[int] = 1
    """Kernels are fast where the numbers of channels are multiples of this."""
    joins: ClassVar[bool] = False
    """Whether an input of which no channel is left is merely left out."""

    def fits(self, node: gs.Node) -> bool:
        """Whether this is the class for ``node``: of those for one type, the first that fits is taken."""
        return True

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Give every output its channels; tie and pin what the operator ties and pins."""
        raise NotImplementedError

    def parameters(self, node: gs.Node, channels: ChannelMap) -> list[Parameter]:
        """Constant inputs that lose values when channels go."""
        return []

    def reads(self, node: gs.Node, channels: ChannelMap) -> list[Read]:
        """Where the node consumes channels. A consumer has :meth:`matrix`, :meth:`fold`, :meth:`add_bias`."""
        return []

    def masks(self, node: gs.Node, channels: ChannelMap) -> list[Read]:
        """Where the node takes a removed channel as zero, without weights that could be set to zero."""
        return []

    def work(self, node: gs.Node, channels: ChannelMap) -> list[Work]:
        """Multiply-accumulates of one run at the shapes of the analysis."""
        return []

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Change attributes and shape inputs to what the cut leaves. Parameters are cut already."""

    def blind(self, node: gs.Node) -> Array | None:
        """What a consumer puts out when no channel is left to read; it broadcasts to the output.

        ``None``: it has to read something.
        """
        return None

    def narrow(self, node: gs.Node, shapes: Sequence[Shape]) -> Shape | None:
        """Shape of the output where each input is a tensor of ``shapes`` that broadcasts to what it was.

        What the node puts out then has to broadcast to what it did put out. ``None``: it need not.
        """
        return None

    def mixes(self, node: gs.Node) -> bool:
        """Whether :meth:`fold` takes any matrix; if not, only the identity."""
        return True

    def matrix(self, node: gs.Node) -> Array:
        """The weights that read channels: float64 (outputs, kernel taps, positions of the axis read)."""
        raise NotImplementedError

    def fold(self, node: gs.Node, into: Array, constant: Array, channels: ChannelMap) -> Array:
        """Read ``into @ x + constant`` where the node reads ``x`` so far.

        The weights take the matrix; what the constant adds to each output, averaged over positions, is
        returned for :meth:`add_bias`.

        Args:
            node: the node, which is changed.
            into: float64 (positions, positions) of the axis that the node reads.
            constant: float64 (positions,).
            channels: the analysis.
        """
        raise NotImplementedError

    def own_matrix(self, node: gs.Node) -> Array:
        """As :meth:`matrix`, of the weights that read what the node made itself."""
        raise NotImplementedError

    def fold_own(self, node: gs.Node, into: Array, constant: Array, channels: ChannelMap) -> Array:
        """As :meth:`fold`, for what the node made itself."""
        raise NotImplementedError

    def add_bias(self, node: gs.Node, delta: Array, graph: gs.Graph) -> None:
        """Add what :meth:`fold` returned (a value an output channel) to what the node puts out."""
        raise NotImplementedError

    # ------------------------------------------------------------ as an affine map of what it reads

    made_axis: ClassVar[int] = -1
    """The axis of the output along which an affine map makes channels."""

    def affine(self, node: gs.Node) -> bool:
        """Whether constants alone say what the node makes of its first input: it can be refitted."""
        return False

    def coefficients(self, node: gs.Node) -> Array:
        """The weights: float64 (groups, outputs of a group, columns); see :meth:`rows`."""
        raise NotImplementedError

    def set_coefficients(self, node: gs.Node, values: Array) -> None:
        """Give the node weights of its own, of the shape of :meth:`coefficients`."""
        set_constant(node, 1, self.weight(node, values).astype(node.inputs[1].dtype))

    def weight(self, node: gs.Node, coefficients: Array) -> Array:
        """The second input for other coefficients."""
        raise NotImplementedError

    def offset(self, node: gs.Node) -> Array:
        """What is added to every output channel: float64 (groups * outputs,)."""
        raise NotImplementedError

    def rows(self, node: gs.Node, data: Array, places: Array) -> Array:
        """What the weights are multiplied with.

        Args:
            node: the node.
            data: its first input.
            places: int64, which places of the output, counted over all axes but samples and channels.

        Returns:
            (groups, samples * places, columns), so that the outputs there are
            ``rows @ coefficients' + offset``.
        """
        raise NotImplementedError

    def transposed(
        self, node: gs.Node, build: Builder, errors: gs.Tensor, weight: gs.Tensor, sizes: Sequence[int]
    ) -> gs.Variable:
        """The transpose of the affine map without its offset: what each input has to do with ``errors``.

        Args:
            node: the node, of which ``weight`` takes the place of the second input.
            build: adds nodes.
            errors: of the shape of the node's output.
            weight: of the shape of the node's second input.
            sizes: of the axes of the first input behind the samples.
        """
        raise NotImplementedError

    def limits(self, node: gs.Node) -> tuple[float, float]:
        """Below the first and above the second value of its input the output does not change."""
        return -np.inf, np.inf


class Pinning(Operator):
    """The rule for an operator without a rule: nothing that reaches it can be cut."""

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin all inputs; the outputs carry no channels."""
        flow.pin_inputs(node, "no rule for this operator")


# ------------------------------------------------------------------ helpers for operator classes


def is_constant(tensor: gs.Tensor | None) -> bool:
    """Whether the value of ``tensor`` is in the file."""
    return isinstance(tensor, gs.Constant)


def given(node: gs.Node, index: int) -> gs.Tensor | None:
    """Input ``index`` of ``node``, or ``None`` where it is left out."""
    if index >= len(node.inputs) or node.inputs[index].name == "":
        return None
    return node.inputs[index]


def constant_ints(node: gs.Node, index: int, attribute: str | None = None) -> list[int] | None:
    """Integers from an attribute (older opsets) or a constant input; ``None`` if neither is there."""
    if attribute is not None and attribute in node.attrs:
        return [int(value) for value in np.atleast_1d(node.attrs[attribute])]
    tensor = given(node, index)
    if not isinstance(tensor, gs.Constant):
        return None
    return [int(value) for value in np.atleast_1d(tensor.values)]


def own_name(node: gs.Node) -> str:
    """How names of constants begin that :func:`set_constant` gives ``node``."""
    return f"{node.name}/input_"


def set_constant(node: gs.Node, index: int, values: Array) -> None:
    """Give ``node`` a constant of its own at input ``index``."""
    name = f"{own_name(node)}{index}"  # not after the old one: a node may read that twice
    while len(node.inputs) <= index:
        node.inputs.append(gs.Variable.empty())
    node.inputs[index] = gs.Constant(name, np.array(values, order="C"))


def float_constant(name: str, values: Array, like: gs.Tensor) -> gs.Constant:
    """A constant of the type of ``like``; where the file does not tell it, of what that is made of."""
    while like.dtype is None and like.inputs:
        maker = like.inputs[0]
        if maker.op == "Cast":
            like = gs.Variable("", helper.tensor_dtype_to_np_dtype(maker.attrs["to"]))
        else:
            like = maker.inputs[-1 if maker.op == "Where" else 0]
    return gs.Constant(name, values.astype(dtype_of(like)))


def dtype_of(tensor: gs.Tensor) -> np.dtype[Any]:
    """The type of a tensor, also where numpy lacks it and its ``dtype`` is ONNX's number; or float32."""
    kind = tensor.dtype or np.float32
    return np.dtype(helper.tensor_dtype_to_np_dtype(kind) if isinstance(kind, int) else kind)


def positive(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis


def count(shape: Sequence[int | None]) -> float:
    """Product of sizes; a size that is not known counts as 1."""
    return float(np.prod([1 if size is None else size for size in shape], dtype=np.float64))


def broadcast(shapes: Sequence[Shape]) -> Shape | None:
    """What ``shapes`` broadcast to; ``None`` where they do not, or a size is not known."""
    if any(None in shape for shape in shapes):
        return None
    try:
        return np.broadcast_shapes(*(tuple(size or 0 for size in shape) for shape in shapes))
    except ValueError:
        return None


def insert_after(node: gs.Node, new: gs.Node, graph: gs.Graph) -> None:
    """Put ``new`` (one input, no output yet) behind ``node``: consumers of the old output read the new one.

    The tensor that leaves keeps its name, so that graph outputs keep theirs.
    """
    output = node.outputs[0]
    inner = gs.Variable(f"{output.name}/before_{new.op}", output.dtype, output.shape)
    node.outputs[0] = inner
    new.inputs.insert(0, inner)
    new.outputs = [output]
    graph.nodes.insert(graph.nodes.index(node) + 1, new)
