"""Apply a plan: every parameter of every removed channel is gone from the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.groups import ChannelGroups, Mask
from graft.rewriter.model import Model
from graft.rewriter.operators import Parameter, operator_of
from graft.rewriter.plan import Plan
from graft.rewriter.shapes import Shape

Key = tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True)
class SliceReport:
    """How many channels of how many the plan kept, over all groups."""

    kept: int
    channels: int


class Slice:
    """Remove the channels that a plan drops.

    ``Slice(plan)(model)`` changes ``model`` in place::

        Conv(16 -> 32) -> Relu -> Conv(32 -> 8)   becomes   Conv(16 -> 20) -> Relu -> Conv(20 -> 8)

    The result computes what the parent computes with every weight that reads a removed channel set
    to zero (see :class:`graft.passes.verify.Verify`).
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, model: Model) -> SliceReport:
        """Cut ``model``.

        Raises:
            GraftError: the plan does not fit the model.
        """
        groups = ChannelGroups(model)
        kept = self.plan.mask(groups)
        if not kept.all():
            cut_graph(model, groups, kept)
        count, channels = self.plan.counts()
        return SliceReport(count, channels)


def cut_graph(model: Model, groups: ChannelGroups, kept: Mask) -> None:
    """Cut ``model``, which ``groups`` analysed, down to the channels that are ``kept``."""
    _Cutter(model.graph, groups, kept).run()
    model.tidy()
    model.refresh_shapes()


class _Cutter:
    """The cut of one graph; what operator classes see as :class:`~graft.rewriter.operators.base.Cut`."""

    def __init__(self, graph: gs.Graph, groups: ChannelGroups, kept: Mask) -> None:
        self.graph = graph
        self._groups = groups
        self._kept = kept
        bodies = graph.subgraphs(recursive=True)
        self._captured = {t.name for body in bodies for node in body.nodes for t in node.inputs}

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
        """Which positions of an axis stay; ``None`` for an axis without channels."""
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
