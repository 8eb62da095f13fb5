"""Adds nodes to a graph, named under a prefix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray


class Builder:
    """Writes nodes in the dialect of an opset.

    Args:
        graph: where nodes go; sort it topologically afterwards.
        opset: its operator set: reductions take their axes as an attribute before 18.
        prefix: of all names.
    """

    def __init__(self, graph: gs.Graph, opset: int, prefix: str) -> None:
        self.graph = graph
        self.opset = opset
        self.prefix = prefix

    def node(self, op: str, name: str, inputs: Sequence[gs.Tensor], **attributes: object) -> gs.Variable:
        """Add a node with one output, both called ``PREFIX/name``.

        Args:
            op: operator type.
            name: behind the prefix.
            inputs: of the node.
            **attributes: of the node.
        """
        result = gs.Variable(f"{self.prefix}/{name}")
        self.graph.nodes.append(gs.Node(op, result.name, attributes, list(inputs), [result]))
        return result

    def constant(self, name: str, values: NDArray[np.generic]) -> gs.Constant:
        """Return a constant called ``PREFIX/name``."""
        return gs.Constant(f"{self.prefix}/{name}", values)

    def affine(
        self, name: str, rows: gs.Tensor, weights: NDArray[np.floating], constant: NDArray[np.floating]
    ) -> gs.Variable:
        """Add ``rows @ weights + constant``, in float32.

        Args:
            name: of the node.
            rows: (samples, features).
            weights: (features, outputs).
            constant: (outputs,).
        """
        parts = (
            self.constant(f"{name}/{part}", values.astype(np.float32))
            for part, values in (("weights", weights), ("constant", constant))
        )
        return self.node("Gemm", name, [rows, *parts])

    def pick(self, scores: gs.Tensor, columns: Sequence[int], name: str) -> gs.Variable:
        """Pick entries of the last axis.

        Args:
            scores: any tensor.
            columns: which entries, in order.
            name: of the node.
        """
        indices = self.constant(f"{name}/columns", np.array(columns, np.int64))
        return self.node("Gather", name, [scores, indices], axis=-1)

    def reduce(self, op: str, tensor: gs.Tensor, axes: Sequence[int], name: str, keep: bool) -> gs.Variable:
        """Reduce some axes.

        Args:
            op: ``ReduceMean`` or one of its kin.
            tensor: any tensor.
            axes: which to reduce.
            name: of the node.
            keep: leave them with size 1.
        """
        if self.opset < 18:
            return self.node(op, name, [tensor], axes=list(axes), keepdims=int(keep))
        where = self.constant(f"{name}/axes", np.array(axes, np.int64))
        return self.node(op, name, [tensor, where], keepdims=int(keep))

    def logsumexp(self, scores: gs.Tensor, name: str) -> gs.Variable:
        """Reduce the last axis, which stays with size 1, to the logarithm of the sum of exponentials."""
        return self.reduce("ReduceLogSumExp", scores, [-1], name, keep=True)

    def total(self, tensor: gs.Tensor, axis: int, name: str) -> gs.Variable:
        """Reduce an axis to its sum.

        Args:
            tensor: any tensor.
            axis: which to sum over; the result lacks it.
            name: of the node.
        """
        if self.opset < 13:
            return self.node("ReduceSum", name, [tensor], axes=[axis], keepdims=0)
        where = self.constant(f"{name}/axes", np.array([axis], np.int64))
        return self.node("ReduceSum", name, [tensor, where], keepdims=0)

    def expand(self, tensor: gs.Tensor, axis: int, name: str) -> gs.Variable:
        """Add a new axis of size 1.

        Args:
            tensor: any tensor.
            axis: where it lies in the result.
            name: of the node.
        """
        if self.opset < 13:
            return self.node("Unsqueeze", name, [tensor], axes=[axis])
        return self.node("Unsqueeze", name, [tensor, self.constant(f"{name}/axes", np.array([axis]))])

    def squeeze(self, tensor: gs.Tensor, axis: int, name: str) -> gs.Variable:
        """Drop an axis of size 1.

        Args:
            tensor: any tensor.
            axis: which.
            name: of the node.
        """
        if self.opset < 13:
            return self.node("Squeeze", name, [tensor], axes=[axis])
        return self.node("Squeeze", name, [tensor, self.constant(f"{name}/axes", np.array([axis]))])

    def split_axis(
        self, tensor: gs.Tensor, sizes: Sequence[int | None], axis: int, parts: Sequence[int], name: str
    ) -> gs.Variable:
        """Split one axis into several.

        Args:
            tensor: any tensor.
            sizes: of its axes; those before ``axis`` need not be known.
            axis: the one that is split.
            parts: sizes that it is split into; -1 for one that is found.
            name: of the node.
        """
        target = [*[0] * axis, *parts, *(size or 0 for size in sizes[axis + 1 :])]
        shape = self.constant(f"{name}/sizes", np.array(target, np.int64))
        return self.node("Reshape", name, [tensor, shape])
