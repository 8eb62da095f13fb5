"""The linear part of a node by itself, with any weights, and its transpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Single, Table
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators import affine_map_of
from graft.rewriter.run.session import Device, Session


class LinearMap:
    """An affine node without its offset, in single precision.

    Args:
        node: of ``model``, with an affine map (see :func:`graft.rewriter.operators.affine_map_of`).
        model: gives the opset.
        device: where it runs.
    """

    def __init__(self, node: gs.Node, model: Model, device: Device) -> None:
        self._node, self._model, self._device = node, model, device
        operator = affine_map_of(node)
        if operator is None:
            raise ValueError(f"{node.op} {node.name} is no affine map")
        self._operator = operator
        self._sessions: dict[tuple[int, ...], Session] = {}

    def forward(self, data: Single, coefficients: Table, offset: Table | None = None) -> Single:
        """Apply the map.

        Args:
            data: float32, as the node's input.
            coefficients: in place of the node's own.
            offset: (groups * outputs,), added; ``None``: nothing.
        """
        made = self._run(
            (),
            lambda build, *read: build.node(self._node.op, "made", read, **self._node.attrs),
            data,
            coefficients,
        )
        if offset is None:
            return made
        shape = np.ones(made.ndim, int)
        shape[self._operator.made_axis] = -1
        made += offset.reshape(shape).astype(np.float32)
        return made

    def back(self, errors: Single, coefficients: Table, sizes: tuple[int, ...]) -> Single:
        """Apply the transpose: bring errors of the output to the input.

        Args:
            errors: float32, as the node's output.
            coefficients: in place of the node's own.
            sizes: of the axes of the input behind the samples.
        """
        return self._run(
            sizes,
            lambda build, errors, weight: self._operator.transpose(self._node, build, errors, weight, sizes),
            errors,
            coefficients,
        )

    def _run(
        self,
        key: tuple[int, ...],
        write: Callable[[Builder, gs.Tensor, gs.Tensor], gs.Variable],
        data: Single,
        coefficients: Table,
    ) -> Single:
        weight = self._operator.weight(self._node, coefficients)
        feed = {"data": _single(data), "weight": _single(weight)}
        if key not in self._sessions:
            build = Builder(gs.Graph(opset=self._model.opset), self._model.opset, "linear")
            result = write(build, *(gs.Variable(name, np.dtype(np.float32)) for name in feed))
            result.dtype = np.dtype(np.float32)
            self._sessions[key] = self._device.open(self._model.piece(build.graph.nodes, feed, [result.name]))
        (found,) = self._sessions[key].run(feed).values()
        return found


def _single(values: Table | Single) -> Single:
    return np.asarray(values, np.float32)
