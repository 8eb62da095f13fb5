"""What recurrent layers hold for examples of a class, and of the others, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.published.icse23_network import RecurrentNetwork
from graft.passes.published.icse23_units import central_tendency, opening
from graft.passes.published.method import MaskInputs
from graft.passes.published.observed import observed
from graft.rewriter.arrays import Integers, Scores, Single
from graft.rewriter.run.recurrent_cell import RecurrentCell

SWITCHES = ("sigmoid", "hardsigmoid")
"""Activations that open and close: of these the share of steps where they are half open counts."""
EMPTY = np.zeros((0, 1, 1), np.float32)
Rows = tuple[Integers, Integers]
"""Positions of examples of the class, and of the others, among the samples."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a layer holds at one time step, or at several together.

    Attributes:
        own: (samples, gates or 1, units), for examples of the class.
        others: the same for the others.
    """

    own: Single
    others: Single

    def difference(self, node: gs.Node, gates: bool) -> list[Scores] | None:
        """Return how much more strongly each unit is on for the class, float64 (units,), for each gate.

        Args:
            node: the layer.
            gates: the values are those of gates, not states.

        Returns:
            One array a gate; ``None`` where there are no examples of one kind.
        """
        if not len(self.own) or not len(self.others):
            return None
        found = []
        for gate in range(self.own.shape[1]):
            cell = RecurrentCell(node)
            switch = gates and cell.functions[cell.place(gate)] in SWITCHES
            measure = opening if switch else central_tendency
            found.append(measure(self.own[:, gate]) - measure(self.others[:, gate]))
        return found


def together(steps: Sequence[Examples]) -> Examples:
    """Return the examples of all steps."""
    own, others = ([each for step in steps if len(each := getattr(step, kind))] for kind in ("own", "others"))
    return Examples(*(np.concatenate(found) if found else EMPTY for found in (own, others)))


def observe(
    network: RecurrentNetwork, inputs: MaskInputs, rows: Sequence[Rows], gates: bool
) -> list[list[Examples]]:
    """Return what every layer holds at every step.

    Args:
        network: whose layers are those of the parent.
        inputs: parent and samples.
        rows: the examples of all steps, or of each.
        gates: look at gates, not at states.
    """
    sets = [[_values(network, inputs, part, gates) for part in pair] for pair in rows]
    found = []
    for layer in range(len(network.nodes)):
        steps = max(part[layer].shape[1] for pair in sets for part in pair if part)
        chosen = (sets[step if len(sets) > 1 else 0] for step in range(steps))
        found.append(
            [
                Examples(*(part[layer][:, step] if part else EMPTY for part in pair))
                for step, pair in enumerate(chosen)
            ]
        )
    return found


def _values(network: RecurrentNetwork, inputs: MaskInputs, rows: Integers, gates: bool) -> list[Single]:
    """Return states or gates of each layer for some samples; nothing for none.

    They are (samples, steps, gates or 1, units): states float32, gates float64.
    """
    if not len(rows):
        return []
    names = {node.outputs[0].name: None for node in network.nodes}
    if gates:
        names |= {name: None for node in network.nodes for name in RecurrentCell(node).reads()}
    parts: list[list[Single]] = [[] for _ in network.nodes]
    watched = network.model.copy()  # has not been changed yet, and names all states
    for values, labels in observed(watched, list(names), inputs.samples.take(rows), inputs.device):
        for node, part in zip(network.nodes, parts, strict=True):
            states = values[node.outputs[0].name]  # (steps, directions, samples, units)
            # in double precision, as numpy has it: many gates of the authors' networks tie
            found = RecurrentCell(node, np.float64).opened(values, states) if gates else states[:, 0]
            shaped = found.reshape(len(states), -1, found.shape[-2] if gates else 1, states.shape[3])
            part.append(shaped[:, : len(labels)].swapaxes(0, 1))
    return [np.concatenate(part) for part in parts]
