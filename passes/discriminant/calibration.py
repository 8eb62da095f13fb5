"""Scale and offset that turn a discriminant into a logit among others, and its figures on folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.rewriter.arrays import Integers, Mask, Table
from graft.rewriter.numerics import solve

PRIOR = 0.1
"""Of the squared deviation of the scale from the one that old classes show, relative to it and to the share
of a class among all."""
STEPS = 50
ENOUGH = 1e-10


@dataclass(frozen=True)
class Task:
    """One class against the columns of the others.

    Attributes:
        scores: float64 (samples,), the discriminant of the class.
        others: float64 (samples,), logsumexp of the other logits.
        own: bool (samples,): samples of the class.
        weights: float64 (samples,), together 1.
        margin: float64 (samples,), the logit of the class less the mean of the others; ``None``: it has none.
    """

    scores: Table
    others: Table
    own: Mask
    weights: Table
    margin: Table | None

    def gap(self, values: Table) -> float:
        """Return how far ``values`` (samples,) of the class lie above those of the others, on average."""
        return float(values[self.own].mean() - values[~self.own].mean())


@dataclass(frozen=True)
class Calibration:
    """Scale and offset of a discriminant.

    Attributes:
        scale: above 0.
        offset: added after scaling.
        loss: weighted negative log-likelihood, and the penalty of the scale.
    """

    scale: float
    offset: float
    loss: float


def calibrate(teachers: Sequence[Task], own: Task) -> Calibration:
    """Return the scale and offset under which classes and the rest are the most likely.

    Args:
        teachers: old classes as if they were new; all together weigh as much as ``own``.
        own: the new class.
    """
    expected, prior = _expected_scale(teachers), PRIOR * float(own.weights[own.own].sum())
    share = 0.5 / len(teachers) if teachers else 0.0
    parts = [(task, share) for task in teachers] + [(own, 0.5 if teachers else 1.0)]
    scores = np.concatenate([task.scores for task, _ in parts]) * expected
    others = np.concatenate([task.others for task, _ in parts])
    signs = np.concatenate([np.where(task.own, 1.0, -1.0) for task, _ in parts])
    weights = np.concatenate([task.weights * factor for task, factor in parts])
    design = np.stack([scores, np.ones_like(scores)], axis=1)

    def measure(found: Table) -> tuple[float, Table]:
        margins = signs * (design @ found - others)
        loss = float(weights @ np.logaddexp(0, -margins)) + prior * float(found[0] - 1) ** 2
        return loss, margins

    found = np.array([1.0, float(np.median(others) - np.median(scores))])
    loss, margins = measure(found)
    for _ in range(STEPS):
        doubt = np.exp(-np.logaddexp(0, margins))  # of being on the wrong side
        slope = -(design.T @ (weights * signs * doubt)) + np.array([2 * prior * (found[0] - 1), 0])
        bend = (design * (weights * doubt * (1 - doubt))[:, None]).T @ design
        bend += np.diag([2 * prior, 1e-9])
        step, length = solve(bend, slope), 1.0
        while (tried := measure(found - length * step))[0] > loss and length > ENOUGH:
            length /= 2
        if loss - tried[0] < ENOUGH:
            break
        found, (loss, margins) = found - length * step, tried
    scale = max(float(found[0]), 1e-3)
    return Calibration(scale * expected, float(found[1]), loss)


def _expected_scale(teachers: Sequence[Task]) -> float:
    """Return by how much logits of old classes rise above the others where their discriminants rise by 1.

    Without old classes it is 1, which a discriminant has in theory.
    """
    rise = sum(task.gap(task.margin) for task in teachers if task.margin is not None)
    run = sum(task.gap(task.scores) for task in teachers)
    return rise / run if rise > 0 and run > 0 else 1.0


def figures(own: Table, logits: Table, labels: Integers, weights: Table) -> tuple[float, float | None, float]:
    """Return recall and precision of the new class, and top-1 of all.

    Args:
        own: float64 (samples,), the new column.
        logits: float64 (samples, columns), the others.
        labels: int64 (samples,): a column, or the number of columns for the new class.
        weights: float64 (samples,).
    """
    new = labels == logits.shape[1]
    decided = own > logits.max(axis=1)
    best = np.where(decided, logits.shape[1], logits.argmax(axis=1))
    recall = float(decided[new].mean())
    all_decided = float(weights[decided].sum())
    precision = float(weights[decided & new].sum()) / all_decided if all_decided else None
    top1 = float(weights[best == labels].sum() / weights.sum())
    return recall, precision, top1
