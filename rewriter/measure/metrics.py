"""Metrics of classifiers. Pure numpy; every result is a plain Python number.

Where a number is not defined (one class only, one value only) the result is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.errors import GraftError


class ClassMetrics(TypedDict):
    """Figures of one class."""

    precision: float
    recall: float
    f1: float
    support: int


def top_k(scores: Array, labels: Array, k: int) -> float:
    """Return the share of samples whose label is among the k highest scores.

    Equal scores rank in the order of the classes, so that k=1 agrees with the arg max; a label
    whose score is NaN counts as missed.

    Args:
        scores: float (N, K), or (N, T, K) for one label a time step.
        labels: integers (N,) or (N, T), 0..K-1.
        k: 1 or more.

    Raises:
        GraftError: ``metric-input`` where shapes do not fit, labels are out of range, or N is 0.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    fits = scores.ndim > 0 and scores.shape[:-1] == labels.shape
    _require(fits, f"a row of scores for every label, found {scores.shape} for {labels.shape}")
    _require(scores.size > 0, "at least one sample and one class")
    classes = scores.shape[-1]
    _require(k >= 1, f"k of 1 or more, found {k}")
    _require(bool(((labels >= 0) & (labels < classes)).all()), f"labels from 0 to {classes - 1}")
    own = np.take_along_axis(scores, labels[..., None], axis=-1)
    earlier = np.arange(classes) < labels[..., None]
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=-1)
    return float(((rank < k) & ~np.isnan(own[..., 0])).mean())


def accuracy(predictions: Array, labels: Array) -> float:
    """Return the share of equal entries.

    Args:
        predictions: integers of any shape.
        labels: integers of the same shape.

    Raises:
        GraftError: ``metric-input`` where shapes differ or nothing is there.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    _require_same_shape(predictions, labels)
    return float((predictions == labels).mean())


def per_class(predictions: Array, labels: Array, names: Sequence[str]) -> dict[str, ClassMetrics]:
    """Return precision, recall, F1 and support of every class; 0 where nothing can be counted.

    Args:
        predictions: integers of any shape; numbers outside the names count as missed.
        labels: integers of the same shape, 0..len(names)-1.
        names: the classes in order.

    Raises:
        GraftError: ``metric-input`` where shapes differ, labels are out of range, or N is 0.
    """
    predictions, labels = np.asarray(predictions).ravel(), np.asarray(labels).ravel()
    _require_same_shape(predictions, labels)
    count = len(names)
    _require(bool(((labels >= 0) & (labels < count)).all()), f"labels from 0 to {count - 1}")
    known = (predictions >= 0) & (predictions < count)
    support = np.bincount(labels, minlength=count)
    predicted = np.bincount(predictions[known], minlength=count)
    hits = np.bincount(labels[predictions == labels], minlength=count)
    return {
        name: ClassMetrics(
            precision=_share(hits[index], predicted[index]),
            recall=_share(hits[index], support[index]),
            f1=_share(2 * hits[index], predicted[index] + support[index]),
            support=int(support[index]),
        )
        for index, name in enumerate(names)
    }


def balanced_accuracy(predictions: Array, labels: Array) -> float:
    """Return the mean recall over the classes that have samples.

    Args:
        predictions: integers of any shape.
        labels: integers of the same shape.

    Raises:
        GraftError: ``metric-input`` where shapes differ or nothing is there.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    _require_same_shape(predictions, labels)
    recalls = [(predictions[labels == label] == label).mean() for label in np.unique(labels)]
    return float(np.mean(recalls))


def auroc(scores: Array, positive: Array) -> float:
    """Return the probability that a positive sample scores higher than a negative one; ties count half.

    Args:
        scores: float (N,).
        positive: bool (N,).

    Returns:
        0..1; NaN where all samples are positive or none is.

    Raises:
        GraftError: ``metric-input`` where shapes differ, N is 0, or a score is NaN.
    """
    scores, positive = _sides(scores, positive)
    positives = int(positive.sum())
    negatives = positive.size - positives
    if positives == 0 or negatives == 0:
        return math.nan
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    midranks = np.cumsum(counts) - (counts - 1) / 2
    above = midranks[place][positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def false_positives(scores: Array, positive: Array, recall: float = 0.95) -> float:
    """Return the share of negative samples that pass where ``recall`` of the positive ones do.

    Args:
        scores: float (N,); those pass that are as high as the threshold or higher.
        positive: bool (N,).
        recall: share of positive samples that pass, above 0.

    Returns:
        0..1; NaN where all samples are positive or none is.

    Raises:
        GraftError: ``metric-input`` where shapes differ, N is 0, or a score is NaN.
    """
    scores, positive = _sides(scores, positive)
    own = np.sort(scores[positive])[::-1]
    if not len(own) or len(own) == len(scores):
        return math.nan
    threshold = own[max(1, math.ceil(recall * len(own))) - 1]
    return float((scores[~positive] >= threshold).mean())


def agreement(predictions_a: Array, predictions_b: Array) -> float:
    """Return the share of samples on which two classifiers agree.

    Args:
        predictions_a: integers of any shape.
        predictions_b: integers of the same shape.

    Raises:
        GraftError: ``metric-input`` where shapes differ or nothing is there.
    """
    return accuracy(predictions_a, predictions_b)


def standard_error(values: Array) -> float:
    """Return the standard error of the mean: sample standard deviation / sqrt(N).

    Args:
        values: numbers or bool (N,).

    Returns:
        NaN for fewer than two values.
    """
    values = np.asarray(values, np.float64).ravel()
    if values.size < 2:
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(values.size))


def paired_difference(correct_a: Array, correct_b: Array) -> tuple[float, float]:
    """Return the accuracy of a minus the accuracy of b on the same samples, and its standard error.

    Args:
        correct_a: bool (N,), samples that the result has right.
        correct_b: bool (N,), samples that the parent has right.

    Raises:
        GraftError: ``metric-input`` where shapes differ or nothing is there.
    """
    right_a, right_b = np.asarray(correct_a, np.float64), np.asarray(correct_b, np.float64)
    _require_same_shape(right_a, right_b)
    difference = right_a - right_b
    return float(difference.mean()), standard_error(difference)


def balanced_difference(correct_a: Array, correct_b: Array, labels: Array) -> tuple[float, float]:
    """Return the balanced accuracy of a minus that of b on the same samples, and its standard error.

    Args:
        correct_a: bool (N,), samples that the result has right.
        correct_b: bool (N,), samples that the parent has right.
        labels: integers (N,): each class counts alike, however many samples it has.

    Raises:
        GraftError: ``metric-input`` where shapes differ or nothing is there.
    """
    right_a, right_b = np.asarray(correct_a, np.float64), np.asarray(correct_b, np.float64)
    _require_same_shape(right_a, right_b)
    _require_same_shape(right_a, np.asarray(labels))
    parts = [(right_a - right_b)[labels == label] for label in np.unique(labels)]
    errors = [standard_error(part) for part in parts]
    return (
        float(np.mean([part.mean() for part in parts])),
        float(np.sqrt(np.sum(np.square(errors))) / len(parts)),
    )


def _share(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0


def _sides(scores: Array, positive: Array) -> tuple[Array, Array]:
    """Scores without NaN (N,), and the mask of positive ones."""
    scores, positive = np.asarray(scores).ravel(), np.asarray(positive, bool).ravel()
    _require_same_shape(scores, positive)
    _require(not np.isnan(scores).any(), "scores that are numbers, found NaN")
    return scores, positive


def _require_same_shape(first: Array, second: Array) -> None:
    _require(first.shape == second.shape, f"equal shapes, found {first.shape}, {second.shape}")
    _require(first.size > 0, "at least one sample")


def _require(condition: bool, expected: str) -> None:
    if not condition:
        raise GraftError("metric-input", f"expected {expected}", "check what is compared")
