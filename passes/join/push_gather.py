"""Pick columns where they come from, so that columns nobody picks are not computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Report
from graft.rewriter.arrays import Integers
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import is_constant, positive


@dataclass(frozen=True)
class PushGather:
    """Move each ``Gather`` of fixed columns behind the ``Concat`` or ``Gather`` that makes the columns.

    For the last axis only, where classes are.
    """

    def __call__(self, model: Model, context: Context) -> Report:
        """Change ``model``; the report counts nodes that were moved.

        Args:
            model: changed in place.
            context: nothing of it is used.
        """
        del context
        moved = 0
        while (node := next(filter(_can_move, model.graph.nodes), None)) is not None:
            maker, columns = node.inputs[0].inputs[0], _columns(node)
            build = Builder(model.graph, model.opset, f"{node.name}/narrow_{moved}")
            inner = _columns(maker)
            if inner.size:
                node.inputs = [maker.inputs[0], build.constant("columns", inner[columns])]
            else:
                self._into_parts(node, maker, columns, build)
            moved += 1
            model.tidy()
        return Report(changed=moved)

    @staticmethod
    def _into_parts(node: gs.Node, concat: gs.Node, columns: Integers, build: Builder) -> None:
        """Pick from each part the columns that ``node`` picks of all, and bring them into order."""
        starts = np.cumsum([0, *_widths(concat)])
        owners = np.searchsorted(starts, columns, side="right") - 1
        pieces: list[gs.Tensor] = []
        order: list[int] = []
        for part, tensor in enumerate(concat.inputs):
            mine = np.flatnonzero(owners == part)
            order += mine.tolist()
            if not len(mine):
                continue
            own = (columns[mine] - starts[part]).tolist()
            if own != list(range(tensor.shape[-1])):
                whole, tensor = tensor, build.pick(tensor, own, f"part_{part}")
                tensor.dtype, tensor.shape = whole.dtype, [*whole.shape[:-1], len(own)]
            pieces.append(tensor)
        joined = pieces[0] if len(pieces) == 1 else build.node("Concat", "joined", pieces, axis=-1)
        joined.dtype, joined.shape = node.outputs[0].dtype, node.outputs[0].shape
        node.inputs = [joined, build.constant("order", np.argsort(order))]


def _can_move(node: gs.Node) -> bool:
    """Return ``True`` where ``node`` picks columns of other picked columns, or some of a ``Concat``."""
    columns = _columns(node)
    if not columns.size or not node.inputs[0].inputs:
        return False
    maker = node.inputs[0].inputs[0]
    return bool(_columns(maker).size) or len(set(columns.tolist())) < sum(_widths(maker))


def _columns(node: gs.Node) -> Integers:
    """Return the fixed columns that a ``Gather`` over the last axis picks; of other nodes none."""
    none = np.zeros(0, np.int64)
    if node.op != "Gather" or not is_constant(node.inputs[1]):
        return none
    rank = len(node.inputs[0].shape or ())
    indices = np.asarray(node.inputs[1].values)
    if not rank or indices.ndim != 1 or positive(node.attrs.get("axis", 0), rank) != rank - 1:
        return none
    width = node.inputs[0].shape[-1]
    return np.where(indices < 0, indices + width, indices) if isinstance(width, int) else none


def _widths(node: gs.Node) -> list[int]:
    """Return the columns of each part of a ``Concat`` over the last axis; of other nodes none."""
    if node.op != "Concat" or any(not tensor.shape for tensor in node.inputs):
        return []
    rank = len(node.inputs[0].shape)
    widths = [tensor.shape[-1] for tensor in node.inputs]
    last = positive(node.attrs["axis"], rank) == rank - 1
    return widths if last and all(isinstance(width, int) for width in widths) else []
