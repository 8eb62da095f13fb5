"""Matrix products: ``Gemm`` with a constant matrix, and ``MatMul``."""

from __future__ import annotations

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
    share_constant,
)
from graft.rewriter.operators.einsum import Contraction, Equation, rank_name


class Gemm(AffineMap):
    """``Gemm``: ``alpha * A' B' + beta * C`` with a constant ``B``."""

    types = ("Gemm",)

    def _read_axis(self, node: gs.Node) -> int:
        """Return the axis of the data input that is summed over, counted from the back."""
        return -2 if node.attrs.get("transA", 0) else -1

    def _matrix_axes(self, node: gs.Node) -> tuple[int, int]:
        """Return the axes of the matrix along its inputs and along its outputs."""
        return (1, 0) if node.attrs.get("transB", 0) else (0, 1)

    def _lists(self, node: gs.Node, channels: ChannelLookup) -> tuple[Channels | None, Channels | None]:
        source, target = channels.of(node.inputs[0]), channels.of(node.outputs[0])
        if not is_constant(node.inputs[1]) or not target:
            return None, None
        return source[self._read_axis(node)] if source else None, target[-1]  # of unknown rank: no channels

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Consume the summed axis, make new channels on the last; pass the rows."""
        matrix, bias = node.inputs[1], given(node, 2)
        if not is_constant(matrix) or (bias is not None and not is_constant(bias)):
            if is_quantized(matrix):
                flow_uncut(node, flow, -1, QUANTIZED)
            else:
                flow.pin_inputs(node, "its matrix or bias is computed at run time")
            return
        axes = flow.of(node.inputs[0])
        rows = axes[-3 - self._read_axis(node)] if len(axes) == 2 else None
        outputs = flow.make(node, matrix.shape[self._matrix_axes(node)[1]])
        if bias is not None and rows is not None and len(bias.shape) == 2 and bias.shape[0] > 1:
            flow.pin(rows, node, "a bias for each row")
        flow.give(node.outputs[0], [rows, outputs])

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return the matrix, and the bias along its last axis."""
        inputs, outputs = self._lists(node, channels)
        along_inputs, along_outputs = self._matrix_axes(node)
        axes: dict[int, Channels] = {}
        if inputs is not None:
            axes[along_inputs] = inputs
        if outputs is not None:
            axes[along_outputs] = outputs
        found = [Parameter(1, axes, reads=None if inputs is None else along_inputs)] if axes else []
        bias = given(node, 2)
        if isinstance(bias, gs.Constant) and outputs is not None and bias.shape and bias.shape[-1] > 1:
            found.append(Parameter(2, {len(bias.shape) - 1: outputs}))
        return found

    def reads(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return the summed axis of the data input."""
        inputs, _ = self._lists(node, channels)
        axis = len(channels.of(node.inputs[0])) + self._read_axis(node)
        return [] if inputs is None else [Read(0, axis, inputs)]

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return rows x inputs x outputs."""
        shape, summed = channels.shape(node.outputs[0]), channels.shape(node.inputs[0])
        if not shape or not summed:
            return []
        inputs, outputs = self._lists(node, channels)
        times, lists = count(shape[:-1]), []
        for size, found in ((summed[self._read_axis(node)], inputs), (shape[-1], outputs)):
            if found is None:
                times *= size or 1
            else:
                lists.append(found)
        return [Work(times, tuple(lists))]

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return whether a shape is not known."""
        return not self.work(node, channels)

    def constant_output(self, node: gs.Node) -> Array:
        """Return ``beta * C``."""
        bias, beta = given(node, 2), _beta(node)
        if bias is None or beta == 0:
            return np.zeros((), dtype_of(node.inputs[1]))
        values: Array = (bias.values * beta).astype(bias.dtype)
        return values

    def matrix(self, node: gs.Node, read: Read) -> Array:
        """Return ``alpha`` times the matrix as (outputs, 1, inputs)."""
        return self._weights(node)[:, None]

    def _weights(self, node: gs.Node) -> Array:
        """Return ``alpha`` times the matrix, float64 (outputs, inputs)."""
        matrix = node.inputs[1].values.astype(np.float64)
        turned: Array = matrix if self._matrix_axes(node) == (1, 0) else matrix.T
        return _alpha(node) * turned

    def fold(self, node: gs.Node, read: Read, into: Array, constant: Array, channels: ChannelLookup) -> Array:
        """Multiply the matrix with ``into``; the constant counts ``alpha`` times."""
        matrix = node.inputs[1]
        turned = self._matrix_axes(node) == (1, 0)
        along = (matrix.values.T if turned else matrix.values).astype(np.float64)
        if _is_identity(into):  # as it is, without a copy
            share_constant(node, 1, matrix.values)
        else:
            folded = into.T @ along
            set_constant(node, 1, (folded.T if turned else folded).astype(matrix.dtype))
        delta: Array = _alpha(node) * (constant @ along)
        return delta

    def add_bias(self, node: gs.Node, delta: Array, graph: gs.Graph) -> None:
        """Add to ``C``, divided by ``beta``."""
        bias = given(node, 2)
        beta = _beta(node)
        if bias is None or beta == 0:
            node.attrs["beta"] = beta = 1.0
            old = np.zeros(len(delta), node.inputs[1].dtype)
        else:
            old = bias.values
        set_constant(node, 2, (old.astype(np.float64) + delta / beta).astype(old.dtype))

    def is_affine(self, node: gs.Node) -> bool:
        """Return whether there is one row a sample, and one bias for all."""
        bias = given(node, 2)
        plain = is_constant(node.inputs[1]) and not node.attrs.get("transA", 0) and _alpha(node) != 0
        if bias is None or not plain:
            return plain
        return is_constant(bias) and (len(bias.shape) < 2 or bias.shape[0] == 1)

    def coefficients(self, node: gs.Node) -> Array:
        """Return ``alpha`` times the matrix, as the only group."""
        return self._weights(node)[None]

    def weight(self, node: gs.Node, coefficients: Array) -> Array:
        """Return the matrix: coefficients divided by ``alpha``."""
        matrix: Array = coefficients[0] / _alpha(node)
        return matrix if self._matrix_axes(node) == (1, 0) else matrix.T

    def offset(self, node: gs.Node) -> Array:
        """Return ``beta * C``."""
        bias = given(node, 2)
        outputs = node.inputs[1].shape[self._matrix_axes(node)[1]]
        if bias is None:
            return np.zeros(outputs)
        values: Array = _beta(node) * bias.values.astype(np.float64)
        return np.broadcast_to(values.reshape(-1), (outputs,))

    def rows(self, node: gs.Node, data: Array, places: Integers) -> Array:
        """Return the data, which has one place a sample."""
        return data[None]

    def transpose(
        self, node: gs.Node, build: Builder, errors: gs.Tensor, weight: gs.Tensor, sizes: Sequence[int]
    ) -> gs.Variable:
        """Write a ``Gemm`` with the matrix turned."""
        turned = 0 if self._matrix_axes(node) == (1, 0) else 1
        return build.node("Gemm", "back", [errors, weight], alpha=_alpha(node), transB=turned)


def _alpha(node: gs.Node) -> float:
    return float(node.attrs.get("alpha", 1.0))


def _is_identity(matrix: Array) -> bool:
    return len(matrix) == np.count_nonzero(matrix) and bool((np.diagonal(matrix) == 1).all())


def _beta(node: gs.Node) -> float:
    return float(node.attrs.get("beta", 1.0))


class MatMul(Contraction, AffineMap):
    """``MatMul``: the last axis of the left with the last but one of the right; batch axes broadcast."""

    types = ("MatMul",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Tie, make and consume channels; a quantized matrix is not cut."""
        if is_quantized(node.inputs[1]):
            flow_uncut(node, flow, -1, QUANTIZED)
        else:
            super().flow(node, flow)

    def equation(self, node: gs.Node, shapes: Flow | ChannelLookup | None) -> Equation | None:
        """Return the names of rows, columns and axes of the stack; vectors have no rule."""
        found = [t.shape if is_constant(t) else (0, 0) for t in node.inputs]
        if shapes is not None:
            found = [shapes.shape(tensor) for tensor in node.inputs]
        if any(shape is None or len(shape) < 2 for shape in found):
            return None
        batches = [tuple(rank_name(back) for back in range(len(s) - 2, 0, -1)) for s in found]
        left, right = (*batches[0], "rows", "summed"), (*batches[1], "summed", "columns")
        return Equation((left, right), (*max(batches, key=len), "rows", "columns"))

    def counts(self, node: gs.Node, axis: int, rank: int) -> bool:
        """Return whether the axis is one of the matrices: a stack may have any number of them."""
        return axis >= rank - 2

    def is_affine(self, node: gs.Node) -> bool:
        """Return whether this is a tensor times one constant matrix."""
        matrix = node.inputs[1]
        return is_constant(matrix) and len(matrix.shape) == 2 and not is_constant(node.inputs[0])

    def coefficients(self, node: gs.Node) -> Array:
        """Return the matrix, turned."""
        values: Array = node.inputs[1].values.astype(np.float64).T[None]
        return values

    def weight(self, node: gs.Node, coefficients: Array) -> Array:
        """Return the matrix."""
        matrix: Array = coefficients[0].T
        return matrix

    def offset(self, node: gs.Node) -> Array:
        """Return zeros: a product has no bias."""
        return np.zeros(node.inputs[1].shape[1])

    def rows(self, node: gs.Node, data: Array, places: Integers) -> Array:
        """Return the last axis of the data at each place."""
        columns = data.shape[-1]
        return data.reshape(len(data), -1, columns)[:, places].reshape(1, -1, columns)

    def transpose(
        self, node: gs.Node, build: Builder, errors: gs.Tensor, weight: gs.Tensor, sizes: Sequence[int]
    ) -> gs.Variable:
        """Write the errors times the matrix, turned."""
        return build.node(
            "MatMul", "back", [errors, build.node("Transpose", "turned", [weight], perm=[1, 0])]
        )
