"""The last layer of a classifier by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graft.rewriter.arrays import Array, Table

TOLERANCE = 1e-2
"""Of a head on random features, relative to its largest logit: below it the head is affine."""


@dataclass(frozen=True)
class Head:
    """The last layer of a classifier by itself.

    Attributes:
        run: runs it on named inputs.
        name: of its input.
        example: an input of one sample.
        axis: of the channels in it.
    """

    run: Callable[[dict[str, Array]], dict[str, Array]]
    name: str
    example: Array
    axis: int

    def logits(self, features: Table) -> Table:
        """Return the logits (samples, columns) of ``features`` (samples, values).

        Where the head reads maps, all positions of a channel have its value.
        """
        shape = [1] * self.example.ndim
        shape[0], shape[self.axis] = features.shape
        return self._run(np.broadcast_to(features.reshape(shape), [len(features), *self.example.shape[1:]]))

    def _run(self, rows: Array) -> Table:
        (found,) = self.run({self.name: np.ascontiguousarray(rows, self.example.dtype)}).values()
        return np.asarray(found, np.float64)

    def reads_means(self) -> bool:
        """Return ``True`` if only the mean of each channel counts: of maps that the head averages."""
        if self.example.size == self.example.shape[self.axis]:
            return True
        probe = np.abs(np.random.default_rng(0).normal(size=(4, *self.example.shape[1:])))
        others = tuple(axis for axis in range(1, probe.ndim) if axis != self.axis)
        return _close(self.logits(probe.mean(axis=others)), self._run(probe))

    def affine(self) -> tuple[Table, Table] | None:
        """Return weights (columns, values) and constants (columns,), from which the mean of all is taken.

        That mean changes no decision, and a ``LogSoftmax`` changes nothing else. ``None``: the head is not
        affine.
        """
        size = self.example.shape[self.axis]
        constant = _centered(self.logits(np.zeros((1, size))))
        weights = _centered(self.logits(np.eye(size))) - constant
        probe = np.random.default_rng(0).normal(size=(4, size))
        if not _close(probe @ weights + constant, _centered(self.logits(probe))):
            return None
        return weights.T, constant[0]


def _centered(logits: Table) -> Table:
    found: Table = logits - logits.mean(axis=1, keepdims=True)
    return found


def _close(expected: Table, found: Table) -> bool:
    return np.allclose(expected, found, atol=TOLERANCE * max(1e-6, float(np.abs(expected).max())))
