"""Modules of dense networks as published by Pan and Rajan (ESEC/FSE 2020): which edges a class needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from graft.passes.published.dense_network import Dense
from graft.rewriter.arrays import Mask, Single

FEW_EDGES = 45
"""The code: edges of a module's output layer below which the next positive example starts it afresh."""


@dataclass(frozen=True)
class Procedure:
    """Choices that differ between approaches, variants, and single scripts of the authors.

    Attributes:
        negatives_first: first restore what negative examples need, then remove what positive ones do not.
        punish_at_or_below: a positive example removes outputs of this probability or less; ``None``: none.
        restore_output_above: a negative example restores outputs of a higher probability; ``None``: none.
        clear_next_rows: an inactive unit loses its outgoing edges, too, except in the last hidden layer.
        clear_output_rows: in the last hidden layer, too, before the output's own rule.
        relu_negatives: negative examples pass through Relu; everything else is linear.
        few_edges: edges of the output layer below which a module starts afresh.
    """

    negatives_first: bool = False
    punish_at_or_below: float | None = None
    restore_output_above: float | None = 0.5
    clear_next_rows: bool = True
    clear_output_rows: bool = False
    relu_negatives: bool = False
    few_edges: int = FEW_EDGES

    def module(self, parent: Sequence[Dense], positives: Single, negatives: Single) -> list[Dense]:
        """Make the layers of a module (algorithms 1 and 2 of the paper).

        Args:
            parent: its layers.
            positives: float32 (samples, values), examples of the class, in order.
            negatives: float32 (samples, values), examples of the other classes.

        Returns:
            Layers of the same shapes: the edges and biases that stay, zeros elsewhere.
        """
        work = _Module(self, parent)
        if self.negatives_first:
            work.restore(negatives)
        for example in positives:
            work.remove(example[None])
        if not self.negatives_first:
            work.restore(negatives)
        return work.layers


class _Module:
    """A module in the making: it starts without edges."""

    def __init__(self, procedure: Procedure, parent: Sequence[Dense]) -> None:
        self._how = procedure
        self._parent = [layer.copy() for layer in parent]  # punishing changes the output's bias
        self._positive = [layer.weights >= 0 for layer in parent]
        self.layers = [layer.zeros() for layer in parent]
        self._afresh = True

    def remove(self, example: Single) -> None:
        """Let one positive example remove what it does not use: (1, values)."""
        values = propagate(self._parent, example)
        last = len(self.layers) - 1
        for number, value in enumerate(values[:-1]):
            self._hidden(number, value[0] > 0, number < last - 1)
        if self._how.clear_output_rows:
            self.layers[-1].weights[values[-2][0] <= 0] = 0
        self._output(softmax(values[-1][0]))
        self._afresh = bool(np.count_nonzero(self.layers[-1].weights) < self._how.few_edges)

    def _hidden(self, number: int, active: Mask, clears: bool) -> None:
        layer, parent = self.layers[number], self._parent[number]
        layer.weights[:, ~active] = 0
        layer.bias[:] = np.where(active, parent.bias, 0)
        if self._how.clear_next_rows and clears:
            self.layers[number + 1].weights[~active] = 0
        if self._afresh:
            layer.weights[:, active] = parent.weights[:, active]
        else:  # max of a negative edge and min of a positive one; what is below 0 then becomes 0
            layer.weights[:, active] *= self._positive[number][:, active]

    def _output(self, shares: NDArray[np.floating]) -> None:
        layer, parent = self.layers[-1], self._parent[-1]
        limit = self._how.punish_at_or_below
        punished = np.zeros(len(shares), bool) if limit is None else shares <= limit
        if self._afresh:
            layer.weights[:, ~punished] = parent.weights[:, ~punished]
        layer.bias[~punished] = parent.bias[~punished]
        layer.weights[:, punished] = 0
        parent.bias[punished] = 0

    def restore(self, examples: Single) -> None:
        """Restore what negative examples use: (samples, values)."""
        if not len(examples):
            return
        values = propagate(self._parent, examples, self._how.relu_negatives)
        used = [(value > 0).any(axis=0) for value in values[:-1]]
        limit = self._how.restore_output_above
        shares = softmax(values[-1], axis=1)
        used.append((shares > limit).any(axis=0) if limit is not None else np.zeros(shares.shape[1], bool))
        for layer, parent, units in zip(self.layers, self._parent, used, strict=True):
            layer.weights[:, units] = parent.weights[:, units]
            layer.bias[units] = parent.bias[units]


def propagate(layers: Sequence[Dense], examples: Single, relu: bool = False) -> list[Single]:
    """Return what each layer makes, without the activations between them, as the authors' code does.

    Args:
        layers: of the parent.
        examples: float32 (samples, values).
        relu: with a Relu between the layers.

    Returns:
        float32 (samples, units) of each layer, the logits last.
    """
    found: list[Single] = []
    for layer in layers:
        found.append(examples @ layer.weights + layer.bias)
        examples = np.maximum(found[-1], 0) if relu else found[-1]
    return found
