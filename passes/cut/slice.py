"""Apply a plan: every parameter of every removed channel is gone from the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.passes.base import Context, Report
from graft.rewriter.arrays import Array, Mask
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.operators import Parameter, consumer_of, operator_of
from graft.rewriter.run.constants import evaluate

Key = tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class SliceReport(Report):
    """Numbers of channels; ``changed`` counts those that were removed.

    Attributes:
        kept: number of channels that are left, over all groups of the plan.
        channels: number of channels before, over the same groups.
    """

    kept: int
    channels: int


@dataclass(frozen=True)
class Slice:
    """Remove the channels that a plan drops, in place.

    ::

        Conv(16 -> 32) -> Relu -> Conv(32 -> 8)   becomes   Conv(16 -> 20) -> Relu -> Conv(20 -> 8)

    The result computes what the parent computes with every weight that reads a removed channel set
    to zero (see :class:`graft.passes.cut.verify.Verify`).

    Attributes:
        plan: the channels that stay.
    """

    plan: Plan

    def __call__(self, subject: Analysed, context: Context) -> SliceReport:
        """Cut the model of ``subject``; its analysis remains that of the uncut model.

        Args:
            subject: the model that is changed, with its analysis.
            context: not used.

        Returns:
            How many channels are left.

        Raises:
            GraftError: the plan does not fit the model.
        """
        kept = self.plan.mask(subject.groups)
        if not kept.all():
            cut_graph(subject.model, subject.groups, kept)
        count, channels = self.plan.counts()
        return SliceReport(changed=channels - count, kept=count, channels=channels)


def cut_graph(model: Model, groups: ChannelGroups, kept: Mask) -> None:
    """Remove channels from a model, in place.

    Args:
        model: the model.
        groups: its analysis.
        kept: one flag a channel number; products are kept with all of their factors.
    """
    cutter = _Cutter(model.graph, groups, kept)
    if cutter.drop_empty():
        model.tidy()
    cutter.run()
    model.tidy()
    model.refresh_shapes()


class _Cutter:
    """The cut of one graph, in two steps.

    Operator classes see it as :class:`~graft.rewriter.operators.base.Cut`.
    """

    def __init__(self, graph: gs.Graph, groups: ChannelGroups, kept: Mask) -> None:
        self.graph = graph
        self._groups = groups
        self._kept = kept
        bodies = graph.subgraphs(recursive=True)
        self._captured = {t.name for body in bodies for node in body.nodes for t in node.inputs}

    def drop_empty(self) -> bool:
        """Drop the tensors of which no channel stays, and say if there were any.

        What a node that reads them puts out becomes a constant, uncut still: :meth:`run` cuts it where it is
        used. Nodes that are left with constants only go the same way; the others are unused then.
        """
        dropped, constants = False, set[str]()
        for node in list(self.graph.nodes):
            operator = operator_of(node)
            if not node.outputs or all(map(self._is_empty, node.outputs)):
                dropped = dropped or bool(node.outputs)
                continue
            left = [tensor for tensor in node.inputs if not self._is_empty(tensor)]
            if len(left) < len(node.inputs) and operator.skips_empty_inputs:
                node.inputs = left  # one may be left alone: what follows counts by the whole list
            elif len(left) < len(node.inputs):
                consumer = consumer_of(node)
                self._settle(node, consumer.constant_output(node) if consumer else None, constants)
            elif any(tensor.name in constants for tensor in left):
                if all(isinstance(tensor, gs.Constant) or tensor.name == "" for tensor in left):
                    self._settle(node, self._evaluate(node), constants)
                elif node.op == "Add":
                    self._pass_by(node)
        return dropped

    def _is_empty(self, tensor: gs.Tensor) -> bool:
        return any(c is not None and not self._kept[c].any() for c in self._groups.of(tensor))

    def _settle(self, node: gs.Node, values: Array | None, constants: set[str]) -> None:
        """Let the output of ``node`` be a constant."""
        output = node.outputs[0]
        if values is None:
            raise ValueError(f"{node.op} {node.name} has to read something")
        rank = len(self.shape(output) or ())
        values = values.reshape((1,) * (rank - values.ndim) + values.shape)
        output.inputs.clear()
        output.to_constant(np.ascontiguousarray(values))
        constants.add(output.name)

    def _evaluate(self, node: gs.Node) -> Array:
        """Return the output of a node that reads constants only."""
        values = [tensor.values if tensor.name else None for tensor in node.inputs]
        return evaluate(node, values, self.graph.opset, self.graph.import_domains)[0]

    def _pass_by(self, node: gs.Node) -> None:
        """Leave out the sum of a tensor and zero, unless its name is needed."""
        output, terms = node.outputs[0], [tensor for tensor in node.inputs if not _is_zero(tensor)]
        needed = output.name in self._captured or any(output is end for end in self.graph.outputs)
        if needed or len(terms) != 1 or self.shape(terms[0]) != self.shape(output):
            return
        for reader in list(output.outputs):
            reader.inputs = [terms[0] if tensor is output else tensor for tensor in reader.inputs]

    def run(self) -> None:
        """Cut all constants first, so that every operator's ``rewrite`` finds them cut."""
        nodes = list(self.graph.nodes)
        wanted: dict[str, dict[Key, list[tuple[gs.Node, int]]]] = {}
        for node in nodes:
            for parameter in operator_of(node).parameters(node, self._groups):
                key = self._key(parameter)
                if key:
                    whole = node.inputs[parameter.index].name
                    users = wanted.setdefault(whole, {}).setdefault(key, [])
                    users.append((node, parameter.index))
        for pieces in wanted.values():
            self._replace(pieces)
        for node in nodes:
            operator_of(node).rewrite(node, self)

    def keeps(self, tensor: gs.Tensor, axis: int) -> NDArray[np.bool_] | None:
        """Return the positions of an axis that stay; ``None`` for an axis without channels."""
        axes = self._groups.of(tensor)
        if not -len(axes) <= axis < len(axes):
            return None
        channels = axes[axis]
        return None if channels is None else self._kept[channels]

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Shape of a tensor before the cut."""
        return self._groups.shape(tensor)

    def _key(self, parameter: Parameter) -> Key:
        """Axes that lose something, each with the places that stay."""
        masks = ((axis, self._kept[channels]) for axis, channels in sorted(parameter.axes.items()))
        return tuple((axis, tuple(np.flatnonzero(m).tolist())) for axis, m in masks if not m.all())

    def _replace(self, pieces: dict[Key, list[tuple[gs.Node, int]]]) -> None:
        """Give the users of one constant their pieces of it; users of equal pieces share one."""
        node, index = next(iter(pieces.values()))[0]
        whole = node.inputs[index]
        alike = whole.name not in self._captured and len(pieces) == 1
        alike = alike and sum(map(len, pieces.values())) == len(whole.outputs)
        for number, (key, users) in enumerate(pieces.items()):
            values = whole.values
            for axis, places in key:
                values = np.take(values, places, axis=axis)
            name = whole.name if alike else f"{whole.name}/piece_{number}"
            piece = gs.Constant(name, np.ascontiguousarray(values))
            for user, position in users:
                user.inputs[position] = piece


def _is_zero(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant) and not tensor.values.any()
