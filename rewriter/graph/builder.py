"""Adds nodes to a graph, named under a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

CASTLIKE_OPSET = 15


class Builder:
    """Writes nodes in the dialect of an opset.

    Its methods are the constructs that runtimes compute alike, which operators of the same meaning do not
    (:mod:`graft.rewriter.graph.vocabulary`).

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

    def cast(self, tensor: gs.Tensor, dtype: Any, name: str, own: Any = None) -> gs.Tensor:
        """Return a tensor in another type; itself where it has this type.

        Integers become float32 by the type of a constant where the opset can: converters to half precision
        know that, and leave a type that a ``Cast`` names as it is.

        Args:
            tensor: any tensor.
            dtype: of the result.
            name: of the node.
            own: type of the tensor; ``None``: that which it is declared to have.
        """
        own = tensor.dtype if own is None else own
        if own is not None and np.dtype(own) == np.dtype(dtype):
            return tensor
        integers = own is not None and np.dtype(own).kind in "iu"
        if integers and np.dtype(dtype) == np.float32 and self.opset >= CASTLIKE_OPSET:
            like = self.constant(f"{name}/type", np.array(1, np.float32))
            return self.node("CastLike", name, [tensor, like])
        return self.node(
            "Cast", name, [tensor], to=int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        )

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
        """Reduce some axes to their sum or mean.

        Args:
            op: ``ReduceSum`` or ``ReduceMean``; shape inference of onnxruntime knows no others.
            tensor: any tensor.
            axes: which to reduce.
            name: of the node.
            keep: leave them with size 1.
        """
        if not keep:  # OpenVINO merges a sum without its axis wrongly with what follows
            return self.squeeze(self.reduce(op, tensor, axes, f"{name}/kept", keep=True), axes, name)
        if self.opset < (13 if op == "ReduceSum" else 18):
            return self.node(op, name, [tensor], axes=list(axes), keepdims=1)
        where = self.constant(f"{name}/axes", np.array(axes, np.int64))
        return self.node(op, name, [tensor, where], keepdims=1)

    def largest(self, tensor: gs.Tensor, name: str, least: bool = False) -> gs.Variable:
        """Return the largest entry along the last axis, which stays with size 1.

        Args:
            tensor: any tensor.
            name: of the node.
            least: the smallest instead.
        """
        return self._top(tensor, name, {"largest": 0} if least else {})[0]

    def place_of_largest(self, tensor: gs.Tensor, name: str) -> gs.Variable:
        """Return the index of the (first) largest entry along the last axis, int64; the axis stays."""
        return self._top(tensor, name, {})[1]

    def _top(self, tensor: gs.Tensor, name: str, attributes: dict[str, int]) -> list[gs.Variable]:
        """Return the first entry of an order along the last axis, and its index."""
        found = [gs.Variable(f"{self.prefix}/{name}"), gs.Variable(f"{self.prefix}/{name}/places")]
        one = self.constant(f"{name}/one", np.array([1]))
        node = gs.Node("TopK", found[0].name, {"axis": -1, **attributes}, [tensor, one], found)
        self.graph.nodes.append(node)
        return found

    def log_shares(self, scores: gs.Tensor, name: str) -> gs.Variable:
        """Return logarithms of the softmax over the last axis.

        Written out: tract takes the logarithm of the softmax, which is 0 for entries far below the largest.
        """
        apart = self.node("Sub", f"{name}/apart", [scores, self.largest(scores, f"{name}/most")])
        total = self.total(self.node("Exp", f"{name}/exp", [apart]), -1, f"{name}/total", keep=True)
        return self.node("Sub", name, [apart, self.node("Log", f"{name}/log", [total])])

    def logsumexp(self, scores: gs.Tensor, name: str) -> gs.Variable:
        """Reduce the last axis, which stays with size 1, to the logarithm of the sum of exponentials.

        What the logarithm of the softmax subtracts from each entry. It is read off the largest one: there
        nothing is lost to rounding, and entries of minus infinity do not matter beside a finite one. Unlike
        :meth:`log_shares` it reads no entry far below the largest, and takes fewer nodes.
        """
        shares = self.node("LogSoftmax", f"{name}/shares", [scores], axis=-1)
        most, share = self.largest(scores, f"{name}/most"), self.largest(shares, f"{name}/share")
        return self.node("Sub", name, [most, share])

    def total(self, tensor: gs.Tensor, axis: int, name: str, keep: bool = False) -> gs.Variable:
        """Reduce an axis to its sum.

        Args:
            tensor: any tensor.
            axis: which to sum over.
            name: of the node.
            keep: leave it with size 1.
        """
        return self.reduce("ReduceSum", tensor, [axis], name, keep)

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

    def squeeze(self, tensor: gs.Tensor, axes: int | Sequence[int], name: str) -> gs.Variable:
        """Drop axes of size 1.

        Args:
            tensor: any tensor.
            axes: which.
            name: of the node.
        """
        axes = [axes] if isinstance(axes, int) else list(axes)
        if self.opset < 13:
            return self.node("Squeeze", name, [tensor], axes=axes)
        return self.node("Squeeze", name, [tensor, self.constant(f"{name}/axes", np.array(axes))])

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
