"""The output of a module as published by Pan and Rajan (ESEC/FSE 2020): one node for all other classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.passes.published.dense_network import Dense
from graft.rewriter.arrays import Integers

IRRELEVANT = 0.05
"""The code: a unit whose weight to the class is smaller than this serves the other classes only."""


def negative_node(place: int) -> int:
    """Return the output that takes the place of all other classes: the first one that is not the class."""
    return 1 if place == 0 else 0


@dataclass(frozen=True)
class Channel:
    """Average what leads to the other classes into one of their outputs (algorithm 4).

    Attributes:
        slip: the bias of a class but the first is divided by one too many, as in the authors' code.
    """

    slip: bool = True

    def apply(self, layers: Sequence[Dense], place: int) -> None:
        """Change the output layer in place.

        Args:
            layers: of a module.
            place: of its class among the outputs.
        """
        output, node = layers[-1], negative_node(place)
        others = np.delete(np.arange(output.bias.size), place)
        weights, bias = output.weights[:, others].mean(axis=1), output.bias[others].sum()
        output.weights[:, others] = 0
        output.bias[others] = 0
        output.weights[:, node] = weights
        output.bias[node] = bias / (len(others) + (1 if self.slip and place > 0 else 0))


@dataclass(frozen=True)
class RemoveIrrelevant:
    """Merge the units of the last hidden layer that serve the other classes only (algorithm 5).

    Attributes:
        below: a unit is irrelevant where its weight to the class is nearer to 0 than this; 0: where it is 0.
        with_edge: and not 0.
        keep_mean: the mean of its other weights stays in the negative node. In the authors' code it is
            cleared again, and the first unit takes the mean of another column.
        merge: what leads to these units is averaged into the first of them.
    """

    below: float = IRRELEVANT
    with_edge: bool = False
    keep_mean: bool = False
    merge: bool = True

    def apply(self, layers: Sequence[Dense], place: int) -> Integers:
        """Change the last two layers in place.

        Args:
            layers: of a module.
            place: of its class among the outputs.

        Returns:
            int64 (n,), the units of the last hidden layer that were irrelevant.
        """
        output, before, node = layers[-1], layers[-2], negative_node(place)
        units = self.irrelevant(output, place)
        others = np.delete(np.arange(output.bias.size), place)
        for unit in units:
            used = others[output.weights[unit, others] != 0]
            mean = output.weights[unit, used].mean() if len(used) else np.float32(0)
            output.weights[unit, used] = 0
            if self.keep_mean or node not in used:
                output.weights[unit, node] = mean
        if len(units) < 2:
            return units
        first, rest = units[0], units[1:]
        column = node if self.keep_mean else 1 - node
        output.weights[first, node] = output.weights[units, column].mean()
        output.weights[rest, node] = 0
        if self.merge:
            before.weights[:, first] = before.weights[:, units].mean(axis=1)
            before.weights[:, rest] = 0
        return units

    def irrelevant(self, output: Dense, place: int) -> Integers:
        """Return the units whose weight to the class is next to nothing: int64 (n,)."""
        weights = np.abs(output.weights[:, place])
        small = weights < self.below if self.below else weights == 0
        return np.flatnonzero(small & (weights != 0) if self.with_edge else small)
