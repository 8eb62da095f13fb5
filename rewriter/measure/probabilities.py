"""Softmax and logsumexp of arrays, in one place; graphs have them from the builder."""

from __future__ import annotations

import numpy as np

from graft.rewriter.arrays import Array


def logsumexp(scores: Array) -> Array:
    """Return the logarithm of the sum of exponentials over the last axis, which stays with size 1."""
    return np.asarray(np.logaddexp.reduce(scores, axis=-1, keepdims=True))


def softmax(scores: Array) -> Array:
    """Return logits (..., K) as probabilities over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
