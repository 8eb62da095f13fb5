"""Fit the last layer of a model that writes words to the probabilities that its parent gives them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from graft.rewriter.arrays import Array, Single, Table

TURNS = 60
"""Steps of L-BFGS; more make it no better."""
PENALTY = 1e-4
"""On the change of the weights, relative to the mean variance of what is read."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The mean cross-entropy of an affine map behind a softmax, against probabilities that are to be met.

    It is convex. Its variables are scaled by the rows that are read, after which its second derivative is at
    most 1/2 (Boehning and Lindsay 1988): that makes the search short.

    Attributes:
        read: float32 (rows, columns).
        made: float32 (rows, outputs): scores whose softmax is to be met.
        beside: float32 (rows or 1, outputs): what is added to the outputs.
        share: float32 (rows,): weights that add up to 1.
    """

    read: Single
    made: Single
    beside: Single
    share: Single

    def loss(self, coefficients: Array, offset: Array) -> float:
        """Return the cross-entropy above that of the probabilities themselves, in nats.

        Args:
            coefficients: (outputs, columns).
            offset: (outputs,).
        """
        met = softmax(self.made, axis=1)
        said = log_softmax(
            self.read @ coefficients.T.astype(np.float32) + offset.astype(np.float32) + self.beside, axis=1
        )
        least = log_softmax(self.made, axis=1)
        return float(self.share @ (met * (least - said)).sum(axis=1))

    def fitted(self, coefficients: Table, offset: Table) -> tuple[Table, Table]:
        """Return coefficients and offset with the least cross-entropy, searched from those given."""
        rows = np.concatenate([self.read, np.ones((len(self.read), 1), np.float32)], axis=1)
        gram = (rows * self.share[:, None]).T.astype(np.float64) @ rows
        gram[np.diag_indices_from(gram)] += PENALTY * np.trace(gram) / len(gram)
        lower = cholesky(gram, lower=True)
        scaled = solve_triangular(lower, rows.T.astype(np.float64), lower=True).T.astype(np.float32)
        base = self.read @ coefficients.T.astype(np.float32) + offset.astype(np.float32) + self.beside
        met, shape = softmax(self.made, axis=1), (rows.shape[1], len(offset))

        def loss(flat: Table) -> tuple[float, Table]:
            step = flat.reshape(shape)
            said = log_softmax(base + scaled @ step.astype(np.float32), axis=1)
            value = -float(self.share @ (met * said).sum(axis=1)) + PENALTY * float(flat @ flat)
            wrong = (np.exp(said) - met) * self.share[:, None]
            return value, ((scaled.T @ wrong).astype(np.float64) + 2 * PENALTY * step).ravel()

        found = minimize(
            loss, np.zeros(np.prod(shape)), jac=True, method="L-BFGS-B", options={"maxiter": TURNS}
        )
        step = solve_triangular(lower, found.x.reshape(shape), lower=True, trans="T")
        return coefficients + step[:-1].T, offset + step[-1]


def most_likely(
    read: Single, made: Single, beside: Single, share: Single, coefficients: Table, offset: Table
) -> tuple[Table, Table]:
    """Return the layer that meets the parent's probabilities best, if it does so on rows held back, too.

    Args:
        read: as in :class:`Likelihood`.
        made: likewise.
        beside: likewise.
        share: likewise.
        coefficients: float64 (outputs, columns) of least squares, which are returned where they are better.
        offset: float64 (outputs,).
    """
    half = len(read) // 2
    parts = [
        Likelihood(read[rows], made[rows], beside if len(beside) == 1 else beside[rows], share[rows] / total)
        for rows in (slice(half), slice(half, None))
        if (total := share[rows].sum()) > 0
    ]
    if len(parts) < 2:
        return coefficients, offset
    first, second = parts
    if second.loss(*first.fitted(coefficients, offset)) >= second.loss(coefficients, offset):
        return coefficients, offset
    return Likelihood(read, made, beside, share).fitted(coefficients, offset)
