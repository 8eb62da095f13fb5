"""Weights of a recurrent layer as a module has them: zeros where units or gates are removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Integers, Single
from graft.rewriter.run.recurrent_cell import RecurrentCell

ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (0, 1, 2), "RNN": (0,)}
"""Gates of ONNX in the order of Keras, in which the authors count them: input, forget, candidate, output."""


@dataclass(frozen=True)
class Cell:
    """Weights of a recurrent layer.

    Attributes:
        weight: float32 (gates, units, inputs).
        recurrence: float32 (gates, units, units): what each gate of a unit reads of the units before.
        bias: float32 (2, gates, units).
    """

    weight: Single
    recurrence: Single
    bias: Single

    @classmethod
    def of(cls, node: gs.Node) -> Cell:
        """Return the weights of a node of one direction."""
        cell = RecurrentCell(node)
        shape = (cell.gates, cell.units, -1)
        return cls(
            cell.weight.reshape(shape).copy(),
            cell.recurrence.reshape(shape).copy(),
            cell.bias.reshape(2, cell.gates, cell.units).copy(),
        )

    def write(self, node: gs.Node) -> None:
        """Give a node these weights."""
        cell = RecurrentCell(node)
        cell.weight = self.weight.reshape(cell.weight.shape)
        cell.recurrence = self.recurrence.reshape(cell.recurrence.shape)
        cell.bias = self.bias.reshape(cell.bias.shape)
        cell.write()

    def clear_gates(self, units: Integers) -> None:
        """Let no gate of units read anything, in place."""
        self.weight[:, units] = 0
        self.recurrence[:, units] = 0
        self.bias[:, :, units] = 0

    def remove(self, units: Integers) -> None:
        """Remove units, in place: their gates read nothing, and nothing reads them."""
        self.clear_gates(units)
        self.recurrence[:, :, units] = 0

    def remove_at_a_step(self, units: Integers) -> None:
        """Remove units from the copy of one time step as the authors' code does, in place.

        It writes back the recurrent weights of the units that it keeps last of all: only what removed units
        read of removed units is 0 then.
        """
        kept = self.recurrence.copy()
        self.clear_gates(units)
        self.recurrence[:] = kept
        self.recurrence[:, units[:, None], units[None, :]] = 0

    def remove_gates(self, walk: Sequence[tuple[int, int, bool]], keep: bool) -> Integers:
        """Remove gates of units one by one, in place.

        Args:
            walk: gate, unit, and whether it is removed, in the order of the authors.
            keep: a gate that is kept gets its weights back, as in the copy of a time step.

        Returns:
            The units whose first gate is removed, which count as removed for what reads them.
        """
        parent = Cell(self.weight.copy(), self.recurrence.copy(), self.bias.copy())
        nothing = Cell(*map(np.zeros_like, (self.weight, self.recurrence, self.bias)))
        for gate, unit, goes in walk:
            if goes or keep:
                source = nothing if goes else parent
                self.weight[gate, unit] = source.weight[gate, unit]
                self.recurrence[gate, unit] = source.recurrence[gate, unit]
                self.bias[:, gate, unit] = source.bias[:, gate, unit]
                if gate == 0:
                    self.recurrence[:, :, unit] = source.recurrence[:, :, unit]
        return np.asarray([unit for gate, unit, goes in walk if goes and gate == 0], np.int64)
