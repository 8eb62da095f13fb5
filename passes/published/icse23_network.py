"""A recurrent classifier as the method sees it: recurrent layers, then one dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.published.dense_network import DenseLayer, layer_behind, logits_of
from graft.passes.published.icse23_cell import Cell
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import given
from graft.rewriter.operators.recurrent import BIAS, CELL, DATA, HIDDEN, WEIGHT, Recurrent
from graft.rewriter.run.recurrent_cell import RecurrentCell

OUTPUTS = {"LSTM": ("states", "last", "cell"), "GRU": ("states", "last"), "RNN": ("states", "last")}
ONLY = "it is for LSTM, GRU or RNN layers of one direction, then one dense layer, and logits or a softmax"


@dataclass(frozen=True)
class RecurrentNetwork:
    """The layers of a recurrent classifier.

    Attributes:
        model: the classifier.
        nodes: its recurrent layers, in the order of the file.
        head: its dense layer.
    """

    model: Model
    nodes: tuple[gs.Node, ...]
    head: DenseLayer

    @classmethod
    def of(cls, model: Model, method: str) -> RecurrentNetwork:
        """Read a classifier.

        Args:
            model: with one output.
            method: named in errors.

        Raises:
            GraftError: ``method-recurrent`` where it has other layers.
        """
        head = layer_behind(logits_of(model))
        nodes = tuple(node for node in model.graph.nodes if node.op in Recurrent.types)
        why = _unfit(nodes, head)
        if why or head is None:
            raise GraftError(
                "method-recurrent",
                f"the method {method} does not fit the model ({why}): {ONLY}",
                "choose another method, such as ablation",
            )
        if any(node.inputs[DATA].shape is None for node in nodes):
            model.refresh_shapes()
        for node in nodes:
            if not node.outputs[0].name:
                node.outputs[0].name = f"{node.name}/states"
        return cls(model, nodes, head)

    def cells(self) -> list[Cell]:
        """Return copies of the weights of the recurrent layers."""
        return [Cell.of(node) for node in self.nodes]

    def steps(self, method: str) -> int:
        """Return the number of time steps; the same for all layers.

        Args:
            method: named in errors.

        Raises:
            GraftError: it is not fixed, or 1.
        """
        found = {(node.inputs[DATA].shape or [None])[0] for node in self.nodes}
        (steps,) = found if len(found) == 1 else (None,)
        if not isinstance(steps, int) or steps < 2:
            raise GraftError(
                "method-steps",
                f"the method {method} takes a fixed number of time steps, 2 or more; found {steps or 'none'}",
                "use icse23:rolled",
            )
        return steps

    def unroll(self, node: gs.Node, cells: Sequence[Cell]) -> None:
        """Let every time step of a layer have weights of its own.

        Args:
            node: the layer, which goes.
            cells: the weights of each step.
        """
        graph = self.model.graph
        build = Builder(graph, self.model.opset, f"{node.name}/step")
        before = [given(node, index) for index in (HIDDEN, CELL)]
        states = []
        for step, cell in enumerate(cells):
            at = build.constant(f"{step}/number", np.array([step]))
            data = build.node("Gather", f"{step}/data", [node.inputs[DATA], at], axis=0)
            outputs = [gs.Variable(f"{build.prefix}/{step}/{name}") for name in OUTPUTS[node.op]]
            starts = [start if start is not None else gs.Variable.empty() for start in before]
            inputs = [data, *node.inputs[WEIGHT : BIAS + 1], gs.Variable.empty(), *starts]
            inputs = inputs[
                : len(OUTPUTS[node.op]) + 4
            ]  # beside the states of LSTM there is one of its cells
            graph.nodes.append(gs.Node(node.op, f"{build.prefix}/{step}", dict(node.attrs), inputs, outputs))
            cell.write(graph.nodes[-1])
            states.append(outputs[0])
            before = list(outputs[1:])
        new = [build.node("Concat", "states", states, axis=0), *before]
        for old, value in zip(node.outputs, new, strict=False):
            for reader in list(old.outputs):
                reader.inputs = [value if tensor is old else tensor for tensor in reader.inputs]
        self.model.tidy()
        self.model.refresh_shapes()


def _unfit(nodes: Sequence[gs.Node], head: DenseLayer | None) -> str:
    if not nodes:
        return "there is no recurrent layer"
    odd = next((node.name for node in nodes if not RecurrentCell.fits(node) and node.outputs[0].name), None)
    if odd is not None:
        return f"recurrent layer {odd}"
    if head is None:
        return "no dense layer makes the classes"
    units = RecurrentCell(nodes[-1]).units
    return "" if head.weights().shape[0] == units else "the dense layer reads something else, too"
