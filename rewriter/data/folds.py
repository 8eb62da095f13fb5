"""Folds for cross-validation, and weights under which every class counts the same."""

from __future__ import annotations

import numpy as np

from graft.rewriter.arrays import Integers, Table

FOLDS = 5


def assign_folds(labels: Integers, draw: np.random.Generator) -> Integers:
    """Return the number of the fold of each sample, the samples of every class spread evenly.

    Args:
        labels: class numbers, int64 (samples,).
        draw: says which sample goes where.
    """
    folds = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        places = draw.permutation(np.flatnonzero(labels == label))
        folds[places] = np.arange(len(places)) % FOLDS
    return folds


def class_weights(labels: Integers) -> Table:
    """Return weights of samples: every class has the same, all together 1.

    Args:
        labels: class numbers, int64 (samples,).
    """
    counts = np.bincount(labels)
    share: Table = 1 / (counts[labels] * (counts > 0).sum())
    return share
