"""How well scores fit labels: top-1 and log-likelihood, what chance makes, which candidate is best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from graft.rewriter.arrays import Integers

FAINTEST = 1e-12
"""Probabilities are taken to be at least this before their logarithm."""
LOWEST = -1e4
"""A class at minus infinity counts as this log-likelihood."""


@dataclass(frozen=True, eq=False)
class Figures:
    """Figures of one candidate.

    Attributes:
        likelihoods: logarithm of what the scores give the label of each sample (or time step).
        predictions: column with the highest score.
        truth: column of the label.
    """

    likelihoods: NDArray[np.float64]
    predictions: Integers
    truth: Integers

    @property
    def top1(self) -> float:
        """Accuracy."""
        return float((self.predictions == self.truth).mean())

    @property
    def likelihood(self) -> float:
        """Mean log-likelihood."""
        return float(self.likelihoods.mean())

    @property
    def better_than_chance(self) -> bool:
        """Return True if it beats independent labels and predictions by two standard errors."""
        count = max(int(self.truth.max(initial=0)), int(self.predictions.max(initial=0))) + 1
        said = np.bincount(self.predictions, minlength=count) / len(self.predictions)
        true = np.bincount(self.truth, minlength=count) / len(self.truth)
        chance = float(said @ true)
        return self.top1 >= chance + 2 * math.sqrt(chance * (1 - chance) / len(self.truth))


def two_columns(rows: NDArray[Any], kind: str) -> NDArray[np.float64]:
    """Return scores as float64; a single column of a binary output becomes two."""
    rows = rows.astype(np.float64)
    return np.concatenate([1 - rows, rows], axis=-1) if kind == "binary" and rows.shape[-1] == 1 else rows


def figures(rows: NDArray[Any], kind: str, truth: Integers) -> Figures:
    """Return the figures of scores.

    Args:
        rows: (n, columns), or (n, steps, columns).
        kind: of the output.
        truth: column of each label (n,) or (n, steps); -1 does not count.
    """
    scores = two_columns(rows, kind).reshape(-1, max(2 if kind == "binary" else 1, rows.shape[-1]))
    flat = truth.reshape(-1)
    counts = (flat >= 0) & (flat < scores.shape[1])
    scores, flat = scores[counts], flat[counts]
    if not len(flat):
        return Figures(np.array([LOWEST]), np.array([0]), np.array([1]))
    own = np.take_along_axis(scores, flat[:, None], axis=1)[:, 0]
    if kind == "logits":
        total = logsumexp(scores, axis=1)
        likelihoods = np.where(np.isfinite(total), own - np.where(np.isfinite(total), total, 0), LOWEST)
    elif kind == "sigmoid":
        # Every column says yes or no: the label's yes, and no of all others.
        no = np.log(np.clip(1 - scores, FAINTEST, 1))
        yes = np.log(np.clip(own, FAINTEST, 1))
        likelihoods = yes + no.sum(axis=1) - np.take_along_axis(no, flat[:, None], axis=1)[:, 0]
    else:
        likelihoods = np.log(np.clip(own, FAINTEST, 1))
    return Figures(np.maximum(likelihoods, LOWEST), scores.argmax(axis=1), flat)


def clearly_worse(one: Figures, best: Figures, errors: float) -> bool:
    """Return True where ``one`` is less likely than ``best`` on the same samples, by standard errors."""
    return _clearly_above(best.likelihoods, one.likelihoods, errors)


def clearly_less_right(one: Figures, best: Figures, errors: float) -> bool:
    """Return True where ``one`` is right less often on the same samples, by standard errors."""
    right, other = ((each.predictions == each.truth).astype(np.float64) for each in (best, one))
    return _clearly_above(right, other, errors)


def _clearly_above(higher: NDArray[np.float64], lower: NDArray[np.float64], errors: float) -> bool:
    length = min(len(higher), len(lower))
    difference = higher[:length] - lower[:length]
    error = difference.std(ddof=1) / math.sqrt(length) if length > 1 else math.inf
    return bool(difference.mean() > errors * error)


def matched_columns(
    rows: NDArray[Any], kind: str, classes: Integers, count: int
) -> tuple[Integers, NDArray[np.bool_]]:
    """Give each class of the data a column of its own, by how often the model says it.

    Args:
        rows: (n, columns).
        kind: of the output.
        classes: number of each sample's class in the data (n,).
        count: number of classes in the data, at most that of the columns.

    Returns:
        The column of each class, and a mask of the classes that the model says at least once; the
        others got what was left.
    """
    scores = two_columns(rows, kind)
    table = np.zeros((count, scores.shape[1]), np.int64)
    np.add.at(table, (classes, scores.argmax(axis=1)), 1)
    _, columns = linear_sum_assignment(-table)
    return columns, table[np.arange(count), columns] > 0
