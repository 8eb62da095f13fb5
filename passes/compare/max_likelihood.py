"""Maximum likelihood: parameters of logits that make labels the most likely."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from graft.rewriter.arrays import Integers, Table
from graft.rewriter.numerics import ridge

STEPS = 50
ENOUGH = 1e-9
PENALTY = 1e-3
"""Of the squared parameters, which would grow for ever where no mistake is left."""


def max_likelihood(features: Table, labels: Integers, weights: Table, start: Table) -> Table:
    """Return ``p`` for which logits ``features @ p`` give the labels the highest mean log-probability.

    Newton's method finds it; steps that do not raise it are halved. The problem is convex.

    Args:
        features: (samples, classes, parameters).
        labels: (samples,), numbers of classes.
        weights: (samples,), together 1.
        start: (parameters,): where to begin, and what :data:`PENALTY` draws to.
    """
    rows = np.arange(len(labels))

    def measure(parameters: Table) -> tuple[float, Table]:
        logarithms = log_softmax(features @ parameters, axis=1)
        likely = weights @ logarithms[rows, labels]
        return float(PENALTY / 2 * ((parameters - start) ** 2).sum() - likely), np.exp(logarithms)

    parameters = start
    loss, shares = measure(parameters)
    for _ in range(STEPS):
        means = np.einsum("nc,ncp->np", shares, features)
        slope = weights @ (means - features[rows, labels]) + PENALTY * (parameters - start)
        bend = np.einsum("n,nc,ncp,ncq->pq", weights, shares, features, features, optimize=True)
        bend -= (means * weights[:, None]).T @ means
        step = ridge(bend, slope, PENALTY)
        length = 1.0
        while (found := measure(parameters - length * step))[0] > loss and length > ENOUGH:
            length /= 2
        if loss - found[0] < ENOUGH:
            break
        parameters, (loss, shares) = parameters - length * step, found
    return parameters
