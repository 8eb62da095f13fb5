"""Operators that work element by element: activations, casts, and sums and products that broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Channels
from graft.rewriter.channels.flow import Flow
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.operators.base import ChannelLookup, Operator, Parameter, broadcast, given, is_constant


class Elementwise(Operator):
    """One tensor in, the same channels out; limits and similar scalars do not matter."""

    types: ClassVar[tuple[str, ...]] = (
        *("Abs", "Ceil", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Round", "Sign", "Sqrt", "Erf"),
        *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Sin", "Sinh", "Tan"),
        *("Identity", "Cast", "CastLike", "Not", "BitwiseNot", "IsInf", "IsNaN"),
    )

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass all axes."""
        flow.give(node.outputs[0], flow.of(node.inputs[0]))

    def counts(self, node: gs.Node, axis: int, rank: int) -> bool:
        """Return ``False``: every value by itself."""
        return False

    def broadcast_shape(self, node: gs.Node, shapes: Sequence[Shape]) -> Shape:
        """Return the shape of the first input."""
        return shapes[0]


class Activation(Elementwise):
    """An element-wise nonlinearity: a unit that is on or off shows behind it."""

    types = (
        *("Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu"),
        *("Selu", "Shrink", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"),
    )
    activates = True

    def limits(self, node: gs.Node) -> tuple[float, float]:
        """Return the limits of ``Relu`` and ``Clip``."""
        if node.op == "Relu":
            return 0.0, np.inf
        if node.op != "Clip":
            return super().limits(node)
        low, high = (given(node, 1), given(node, 2))
        if not all(limit is None or (is_constant(limit) and limit.values.size == 1) for limit in (low, high)):
            return super().limits(node)
        return (
            -np.inf if low is None else float(low.values.item()),
            np.inf if high is None else float(high.values.item()),
        )


class Dropout(Elementwise):
    """``Dropout`` outside training: passes everything."""

    types = ("Dropout",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass all axes, to the mask as well; pin everything in training mode."""
        training = given(node, 2)
        if training is not None and not (is_constant(training) and not training.values):
            flow.pin_inputs(node, "training mode")
            return
        for output in node.outputs:
            flow.give(output, flow.of(node.inputs[0]))


class Broadcast(Operator):
    """Operators of several tensors and constants, element by element, broadcast as numpy does.

    Channels of two tensors that meet on an axis are tied; a constant is cut along with them.
    """

    types: ClassVar[tuple[str, ...]] = (
        *("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Mean", "Mod", "Pow", "Where"),
        *("And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    )

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Tie what meets, axis by axis, counted from the back."""
        variables = [tensor for tensor in node.inputs if not is_constant(tensor)]
        shapes = [flow.shape(tensor) for tensor in node.inputs]
        if any(shape is None for shape in shapes):
            flow.pin_inputs(node, "an input of unknown rank")
            return
        rank = max(len(shape) for shape in shapes if shape is not None)
        axes = [self._meet(node, flow, variables, back, rank) for back in range(rank, 0, -1)]
        flow.give(node.outputs[0], axes)

    def _meet(
        self, node: gs.Node, flow: Flow, variables: list[gs.Tensor], back: int, rank: int
    ) -> Channels | None:
        """Tie what meets on the axis ``-back`` and return its channels."""
        sizes = [flow.size(tensor, -back) for tensor in node.inputs if _reaches(flow, tensor, back)]
        widest = None if None in sizes else max(size or 1 for size in sizes)
        places = [(tensor, -back) for tensor in variables if _reaches(flow, tensor, back)]
        found = flow.meet(node, places, widest)
        if found is None and widest is not None and widest > 1 and not flow.plain(places):
            return flow.adopt(widest)  # only constants are wider than 1 here
        return found

    def counts(self, node: gs.Node, axis: int, rank: int) -> bool:
        """Return ``False``: every value by itself."""
        return False

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return the constants along every axis that holds channels."""
        axes = channels.of(node.outputs[0])
        found = []
        for index, tensor in enumerate(node.inputs):
            if not is_constant(tensor):
                continue
            rank = len(tensor.shape)
            cut = {
                rank - back: axis
                for back in range(1, rank + 1)
                if back <= len(axes) and (axis := axes[-back]) is not None and tensor.shape[-back] > 1
            }
            if cut:
                found.append(Parameter(index, cut))
        return found

    def broadcast_shape(self, node: gs.Node, shapes: Sequence[Shape]) -> Shape | None:
        """Return what the inputs broadcast to."""
        return broadcast(shapes)


class MicrosoftGelu(Broadcast):
    """The nodes that onnxruntime's optimizers write for Gelu and its kin, with or without a bias."""

    types = tuple(f"com.microsoft::{name}" for name in ("BiasGelu", "FastGelu", "Gelu", "QuickGelu"))
    activates = True
    same_shape = True

    def broadcast_shape(self, node: gs.Node, shapes: Sequence[Shape]) -> None:
        """Return ``None``: only onnxruntime could compute the constant."""


class Preprocessing(Operator):
    """Operators of scikit-learn's pipelines that keep the shape of their input.

    Their numbers are attributes, one a feature: what reaches them stays.
    """

    types = tuple(f"ai.onnx.ml::{name}" for name in ("Binarizer", "Imputer", "Normalizer", "Scaler"))
    same_shape = True

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pin all channels."""
        flow.pin_inputs(node, "a number for each feature")


class ParametricRelu(Operator):
    """``PRelu``: the slope broadcasts to the input, never the other way round."""

    types = ("PRelu",)
    activates = True

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass all axes; pin them where the slope is computed at run time."""
        if not is_constant(node.inputs[1]):
            flow.pin_inputs(node, "its slope is computed at run time")
            return
        flow.give(node.outputs[0], flow.of(node.inputs[0]))

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return the slope, along the axes that it broadcasts to."""
        return Broadcast().parameters(node, channels)

    def broadcast_shape(self, node: gs.Node, shapes: Sequence[Shape]) -> Shape | None:
        """Return the shape of the first input, unless the slope is wider."""
        return shapes[0] if broadcast(shapes) == shapes[0] else None


def _reaches(flow: Flow, tensor: gs.Tensor, back: int) -> bool:
    return back <= len(flow.shape(tensor) or ())
