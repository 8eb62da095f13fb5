"""A linear discriminant of one class, on the scale of the logits that a classifier has already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from graft.passes.discriminant.calibration import Task, calibrate, figures
from graft.passes.discriminant.evidence import Evidence
from graft.rewriter.arrays import Mask, Table
from graft.rewriter.data.folds import FOLDS, class_weights

SHRINKAGES = (1.0, 0.6, 0.3, 0.1, 0.03)
"""Shares of the scaled identity in the covariance within classes; the rest is what the samples show."""
DEVIATIONS = 1.28
"""Of its margins a class lies above a strict threshold: nine of ten of its samples pass."""
TEACHERS = 20
"""At most so many old classes show how a discriminant compares with a logit."""


@dataclass(frozen=True)
class Column:
    """One more logit: ``features @ weights - threshold``.

    Attributes:
        weights: float64 (values,).
        threshold: what the weighted features have to exceed for a logit above 0.
        shrinkage: of the covariance, the best on folds.
        recall: of the new class on folds that were left out of the discriminant.
        precision: the same, every class weighing the same; ``None``: it is never decided.
        top1: accuracy of the whole on these folds, every class weighing the same.
    """

    weights: Table
    threshold: float
    shrinkage: float
    recall: float
    precision: float | None
    top1: float


def fit_column(
    evidence: Evidence,
    shrinkages: Sequence[float] = SHRINKAGES,
    strictness: float = 0.0,
    taught: bool = True,
) -> Column:
    """Return the column of the new class.

    Its direction is that of Fisher's linear discriminant, ``inverse(S) (m - r)`` for the mean ``m`` of the
    class and ``r`` of the others, with the pooled covariance within classes shrunk towards a multiple of
    the identity: ``(1 - g) S + g trace(S)/p I`` (Friedman, Regularized Discriminant Analysis, JASA 84, 1989;
    Ledoit and Wolf, J. Multivariate Analysis 88, 2004, who derive ``g``; here folds choose it). Scale and
    offset make it a logit among those that are there: the most likely ones on folds that were left out, for
    the class itself and, with the same weight altogether, for old classes that are treated as if they were
    new, with as few samples. So a handful of samples suffices: the old classes show how a discriminant from
    so few compares with logits.

    Args:
        evidence: the samples; one of the new class and of another class in each fold that is left in.
        shrinkages: what is tried, the strongest first.
        strictness: from 0 to 1: how far the threshold goes from the most likely one to the one that nine of
            ten samples of the class pass, if that is higher: for old classes that are not really known.
        taught: old classes are treated as if they were new; not where a column takes all that is unlike
            them, since it does not take them.
    """
    teachers = evidence.old if taught and len(evidence.old) > 1 else []
    teachers = [teachers[place] for place in _spread(len(teachers), TEACHERS)]
    classes = [*teachers, evidence.new]
    scores = _left_out(evidence, classes, shrinkages)
    best, chosen = None, 0
    for number in range(len(shrinkages)):
        tasks = [_task(evidence, label, scores[number, :, place]) for place, label in enumerate(classes)]
        found = calibrate(tasks[:-1], tasks[-1])
        if best is None or found.loss < best.loss - 1e-12:
            best, chosen = found, number
    if best is None:
        raise RuntimeError("no shrinkage to try")
    everything = np.ones(len(evidence.labels), bool)
    ((directions, constants),) = _discriminants(evidence, everything, [evidence.new], [shrinkages[chosen]])
    own = best.scale * scores[chosen, :, -1] + best.offset
    raised = strictness * _room(own, evidence)
    own -= raised
    weights = class_weights(evidence.labels)
    recall, precision, top1 = figures(own, evidence.logits, evidence.labels, weights)
    return Column(
        weights=best.scale * directions[0],
        threshold=raised - float(best.scale * constants[0] + best.offset),
        shrinkage=shrinkages[chosen],
        recall=recall,
        precision=precision,
        top1=top1,
    )


def _room(own: Table, evidence: Evidence) -> float:
    """Return by how much the threshold can be raised before more than one of ten samples is lost."""
    new = evidence.labels == evidence.new
    margins = own[new] - evidence.logits[new].max(axis=1)
    return max(0.0, float(margins.mean() - DEVIATIONS * margins.std(ddof=1)))


def _spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` positions below ``count``, evenly spread."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _task(evidence: Evidence, label: int, scores: Table) -> Task:
    """Return one class against the columns of the others; samples of the new class only count for itself.

    The class weighs as one of all columns, and those of the others that have samples as all others.
    """
    new = label == evidence.new
    kept = np.ones(len(scores), bool) if new else evidence.labels != evidence.new
    others = evidence.logits if new else np.delete(evidence.logits, label, axis=1)
    own = evidence.labels[kept] == label
    margin = None if new else (evidence.logits[:, label] - others.mean(axis=1))[kept]
    share = 1 / (evidence.new + 1)
    weights = np.full(len(own), share / own.sum())
    weights[~own] = class_weights(evidence.labels[kept][~own]) * (1 - share)
    return Task(scores[kept], logsumexp(others[kept], axis=1), own, weights, margin)


def _left_out(evidence: Evidence, classes: Sequence[int], shrinkages: Sequence[float]) -> Table:
    """Return discriminants (shrinkages, samples, classes) of samples that were left out of them."""
    found = np.zeros((len(shrinkages), len(evidence.labels), len(classes)))
    for fold in range(FOLDS):
        outside = evidence.folds == fold
        if not outside.any():
            continue
        rows = _discriminants(evidence, ~outside, classes, shrinkages)
        for scores, (directions, constants) in zip(found, rows, strict=True):
            scores[outside] = evidence.features[outside] @ directions.T + constants
    return found


def _discriminants(
    evidence: Evidence, inside: Mask, classes: Sequence[int], shrinkages: Sequence[float]
) -> list[tuple[Table, Table]]:
    """Return for each shrinkage directions (classes, values) and constants (classes,).

    Args:
        evidence: the samples.
        inside: bool (samples,): those that count.
        classes: an old one takes no more samples for its mean than the new class has.
        shrinkages: of the covariance.
    """
    values, labels = evidence.features[inside], evidence.labels[inside]
    known = [int(label) for label in np.unique(labels)]
    means = {label: values[labels == label].mean(axis=0) for label in known}
    within = _Within.of(values - np.stack([means[label] for label in known])[np.searchsorted(known, labels)])
    few = int((labels == evidence.new).sum())
    own = {
        label: means[label] if label == evidence.new else values[labels == label][:few].mean(axis=0)
        for label in classes
        if label in means
    }
    total = np.sum([mean for label, mean in means.items() if label != evidence.new], axis=0)
    count = sum(label != evidence.new for label in known)
    centers, rests = np.zeros((2, len(classes), values.shape[1]))
    for place, label in enumerate(classes):
        if label not in own:
            continue
        left = means[label] if label != evidence.new else 0
        centers[place] = own[label]
        rests[place] = (total - left) / max(1, count - (label != evidence.new))
    found = []
    for shrinkage in shrinkages:
        directions = within.solve(centers - rests, shrinkage)
        found.append((directions, -((centers + rests) * directions).sum(axis=1) / 2))
    return found


@dataclass(frozen=True)
class _Within:
    """The covariance within classes, along its principal directions.

    Attributes:
        directions: float64 (directions, values), orthonormal.
        variances: float64 (directions,); across them the variance is 0.
    """

    directions: Table
    variances: Table

    @classmethod
    def of(cls, apart: Table) -> _Within:
        """Decompose the covariance of ``apart`` (samples, values), whose class means are 0."""
        count, size = apart.shape
        if size <= count:
            variances, vectors = np.linalg.eigh(apart.T @ apart / count)
            return cls(vectors.T, np.maximum(variances, 0))
        variances, vectors = np.linalg.eigh(apart @ apart.T / count)
        kept = variances > 1e-10 * max(float(variances.max(initial=0)), 1e-30)
        scale = np.sqrt(variances[kept] * count)
        return cls((apart.T @ vectors[:, kept] / scale).T, variances[kept])

    def solve(self, rows: Table, shrinkage: float) -> Table:
        """Return ``rows`` (rows, values) times the inverse of the shrunk covariance."""
        mean = max(float(self.variances.sum()) / rows.shape[1], 1e-12)
        along = rows @ self.directions.T
        inverse = 1 / ((1 - shrinkage) * self.variances + shrinkage * mean) - 1 / (shrinkage * mean)
        found: Table = rows / (shrinkage * mean) + (along * inverse) @ self.directions
        return found
