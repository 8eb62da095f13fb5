"""Importance of recurrent units as published: how strongly are they on for the classes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.passes.identify.method import ImportanceInputs, Method
from graft.passes.published.icse23_examples import SWITCHES
from graft.passes.published.icse23_units import central_tendency, opening
from graft.passes.published.observed import observed
from graft.rewriter.arrays import Channels, Scores
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.operators import operator_of
from graft.rewriter.run.recurrent_cell import RecurrentCell

POSITIVES = NEGATIVES = 500
"""Samples of the classes, and of all others together, as the authors take them."""


@dataclass(frozen=True)
class Rolled(Method):
    """Compare the central tendency of a unit's absolute state for the classes with that for the rest.

    Imtiaz et al., ICSE 2023, algorithms 1, 2 and 4 in the mode *rolled*: all time steps of the first 500
    samples of the classes against as many steps of others, with one label a time step the steps that have
    it; values far from the median are left out. The authors remove only units with a negative difference,
    5 % at most (``--keep 0.95``); a smaller budget goes on in the same order. Channels that are no hidden
    units stay as long as there are any.
    """

    name: ClassVar[str] = "icse23:rolled"
    samples: ClassVar[bool] = True
    gates: ClassVar[bool] = False
    """Compare the gates instead of the hidden states."""

    def scores(self, inputs: ImportanceInputs) -> Scores:
        """Return differences from the least one up; the highest for what is no hidden unit.

        Raises:
            GraftError: there are no samples, or no recurrent layers.
        """
        samples, groups = self.required_samples(inputs), inputs.groups
        nodes = [
            (node, read.channels)
            for node in groups.nodes
            for read in operator_of(node).reads(node, groups)
            if read.recurrent_weight is not None
        ]
        if not nodes:
            raise GraftError(
                "method-recurrent",
                f"the method {self.name} is for recurrent layers, and the model has none",
                "choose another method, such as ablation",
            )
        numbers = [samples.card.class_index(name) for name in inputs.classes]
        found, wanted = _rows_of(inputs, samples.take(_choose(samples, numbers)), nodes, self.gates)
        result = np.zeros(groups.count)
        seen = np.zeros(groups.count, bool)
        for (node, channels), values in zip(nodes, found, strict=True):
            for gate, rows in enumerate(values.swapaxes(0, 1)):
                measure = opening if self.gates and _is_switch(node, gate) else central_tendency
                if (wanted == 1).any():
                    result[channels] += measure(rows[wanted == 1])
                if (wanted == 0).any():
                    result[channels] -= measure(rows[wanted == 0])
            seen[channels] = True
        result[seen] -= result[seen].min()
        result[~seen] = 2 * result.max(initial=0.0) + 1
        return groups.close(result)


@dataclass(frozen=True)
class RolledGates(Rolled):
    """Compare the gates instead of the hidden states (the authors' option (i)).

    Of gates of a sigmoid the share of steps where they are half open is compared, else the tendency. The
    authors zero each gate by itself; a unit that is cut takes all its gates along, so they count together.
    """

    name: ClassVar[str] = "icse23:rolled-gates"
    gates: ClassVar[bool] = True


def _is_switch(node: gs.Node, gate: int) -> bool:
    cell = RecurrentCell(node)
    return cell.functions[cell.place(gate)] in SWITCHES


def _choose(samples: Samples, numbers: Sequence[int]) -> NDArray[np.int64]:
    """Return positions of the first samples of the wanted classes, and of as many of every other."""
    labels = samples.labels.reshape(len(samples), -1)
    own = np.isin(labels, numbers)
    others = [number for number in range(len(samples.card.labels)) if number not in numbers]
    each = max(1, NEGATIVES // max(1, len(others)))
    found = [np.flatnonzero((labels == number).any(axis=1) & ~own.all(axis=1))[:each] for number in others]
    return np.unique(np.concatenate([np.flatnonzero(own.any(axis=1))[:POSITIVES], *found]))


def _rows_of(
    inputs: ImportanceInputs, samples: Samples, nodes: Sequence[tuple[gs.Node, Channels]], gates: bool
) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """Return states or gates of each node, (rows, gates or 1, units), and whose the rows are.

    A row is a time step of a sample: 1 of the wanted classes, 0 of others, ``IGNORED`` of none that counts.
    """
    numbers = [samples.card.class_index(name) for name in inputs.classes]
    names = {node.outputs[0].name: None for node, _ in nodes}
    names |= {name: None for node, _ in nodes for name in RecurrentCell(node).reads() if gates}
    parts: list[list[NDArray[Any]]] = [[] for _ in nodes]
    flags = []
    for values, labels in observed(inputs.model, list(names), samples, inputs.device):
        labels = labels.reshape(len(labels), -1)
        wanted = np.where(labels == IGNORED, IGNORED, np.isin(labels, numbers))
        for (node, _), part in zip(nodes, parts, strict=True):
            states = values[node.outputs[0].name]  # (steps, directions, samples, units)
            rows = (
                RecurrentCell(node).opened(values, states)
                if gates
                else states[:, 0].reshape(-1, 1, states.shape[3])
            )
            by_step = rows.reshape(len(states), -1, *rows.shape[1:])[:, : len(labels)]
            part.append(by_step.reshape(-1, *rows.shape[1:]))
        if wanted.shape[1] != len(states):
            wanted = wanted.max(axis=1, keepdims=True)
        flags.append(np.broadcast_to(wanted, (len(labels), len(states))).T.reshape(-1))
    return [np.concatenate(part) for part in parts], np.concatenate(flags)
