"""A classifier in closed form: ridge regression on values, chosen on folds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from scipy.special import log_softmax

from graft.rewriter.arrays import Integers, Mask, Table
from graft.rewriter.data.folds import FOLDS, assign_folds, class_weights
from graft.rewriter.graph.builder import Builder
from graft.rewriter.measure import metrics
from graft.rewriter.numerics import ridge

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of the squared weights, of values that vary by 1."""
HIDDEN = 512
FEWEST_HIDDEN = 32
TEMPERATURES = np.geomspace(0.02, 10, 61)


@dataclass(frozen=True)
class RidgeHead:
    """``scores(x) = (x, relu(x A + a)) W + b``.

    Attributes:
        inner: float32 (values, hidden) and (hidden,); ``None``: nothing hidden.
        weights: float64 (values + hidden, classes).
        constant: float64 (classes,).
    """

    inner: tuple[Table, Table] | None
    weights: Table
    constant: Table

    def write(self, build: Builder, read: gs.Tensor) -> gs.Variable:
        """Return the scores (samples, classes) of ``read`` (samples, values), float32."""
        if self.inner is None:
            return build.affine("scores", read, self.weights, self.constant)
        hidden = build.node("Relu", "hidden", [build.affine("random", read, *self.inner)])
        both = build.node("Concat", "all", [read, hidden], axis=1)
        return build.affine("scores", both, self.weights, self.constant)


@dataclass(frozen=True)
class Choice:
    """A kind of head, with its scores on samples that were left out of the fit.

    Attributes:
        rows: float64 (samples, values), standardised.
        moved: float64 (values,) each: centre and scale of the values.
        labels: int64 (samples,).
        inner: weights and constants of random features; ``None``: there are none.
        penalty: of :data:`PENALTIES`, the best on the folds.
        temperature: divisor of the scores.
        scores: float64 (samples, classes), each as predicted by the fit without its fold.
    """

    rows: Table
    moved: tuple[Table, Table]
    labels: Integers
    inner: tuple[Table, Table] | None
    penalty: float
    temperature: float
    scores: Table

    @classmethod
    def find(
        cls,
        rows: Table,
        moved: tuple[Table, Table],
        labels: Integers,
        folds: Integers,
        inner: tuple[Table, Table] | None,
    ) -> Choice:
        """Return the choice with the penalty that has the smallest squared error on the folds.

        Args:
            rows: float64 (samples, values), standardised.
            moved: centre and scale of the values.
            labels: int64 (samples,).
            folds: int64 (samples,), see :func:`spread`.
            inner: weights and constants of random features.
        """
        values = _extended(rows, inner)
        weights, targets = class_weights(labels), np.eye(labels.max() + 1)[labels]
        scores = np.zeros((len(PENALTIES), *targets.shape))
        for fold in range(FOLDS):
            inside, outside = folds != fold, folds == fold
            fits = _ridge(values[inside], targets[inside], weights[inside], PENALTIES)
            for found, (coefficients, constant) in zip(scores, fits, strict=True):
                found[outside] = values[outside] @ coefficients + constant
        errors = [float(weights @ ((found - targets) ** 2).sum(axis=1)) for found in scores]
        best = int(np.argmin(errors))
        temperature = _temperature(scores[best], labels, weights)
        return cls(rows, moved, labels, inner, PENALTIES[best], temperature, scores[best] / temperature)

    @property
    def correct(self) -> Mask:
        """Bool (samples,): the highest score is that of the label."""
        return np.asarray(self.scores.argmax(axis=1) == self.labels)

    @property
    def hidden(self) -> int:
        """The number of random features."""
        return 0 if self.inner is None else len(self.inner[1])

    @functools.cached_property
    def head(self) -> RidgeHead:
        """The head fitted to all samples, for values as they come; its scores are the likeliest logits."""
        targets = np.eye(self.labels.max() + 1)[self.labels]
        values = _extended(self.rows, self.inner)
        ((weights, constant),) = _ridge(values, targets, class_weights(self.labels), [self.penalty])
        weights, constant = weights / self.temperature, constant / self.temperature
        center, scale = self.moved
        direct = weights[: len(center)] / scale[:, None]
        weights = np.concatenate([direct, weights[len(center) :]])
        constant = constant - center @ direct
        if self.inner is None:
            return RidgeHead(None, weights, constant)
        inner = self.inner[0] / scale[:, None]
        return RidgeHead((inner, self.inner[1] - center @ inner), weights, constant)


def choose(values: Table, labels: Integers, seed: int, room: int) -> Choice:
    """Return the head that is best on folds: over ``values``, and random features if there is room.

    Random weights, rectified: Rahimi and Recht, NeurIPS 2008. They are taken where they are better on the
    folds by more than one standard error.

    Args:
        values: float64 (samples, values).
        labels: int64 (samples,).
        seed: draws the folds and the random features.
        room: multiply-accumulates that the head may take.
    """
    draw = np.random.default_rng(seed)
    folds = assign_folds(labels, draw)
    scale = values.std(axis=0)
    center, scale = values.mean(axis=0), np.where(scale > 1e-6 * scale.max(initial=1e-30), scale, np.inf)
    rows = (values - center) / scale
    best = Choice.find(rows, (center, scale), labels, folds, None)
    size, classes = values.shape[1], int(labels.max()) + 1
    hidden = min(HIDDEN, (room - size * classes) // (size + classes))
    if hidden >= FEWEST_HIDDEN:
        inner = (draw.normal(size=(size, hidden)) / size**0.5, draw.normal(size=hidden) / 2)
        other = Choice.find(rows, (center, scale), labels, folds, inner)
        gain, error = metrics.paired_difference(other.correct, best.correct)
        best = other if gain > error else best
    return best


def _extended(rows: Table, inner: tuple[Table, Table] | None) -> Table:
    """Return ``rows`` with the random features beside them."""
    if inner is None:
        return rows
    return np.concatenate([rows, np.maximum(rows @ inner[0] + inner[1], 0)], axis=1)


def _ridge(
    rows: Table, targets: Table, weights: Table, penalties: Sequence[float]
) -> list[tuple[Table, Table]]:
    """Solve weighted least squares for each penalty: coefficients (columns, classes), and constants.

    The equations are over the columns, or over the rows where there are fewer of them.
    """
    weights = weights / weights.sum()
    mean: Table = weights @ rows
    level: Table = weights @ targets
    root = np.sqrt(weights)[:, None]
    x, y = (rows - mean) * root, (targets - level) * root
    found: list[tuple[Table, Table]] = []
    primal = x.shape[1] <= len(x)
    gram = x.T @ x if primal else x @ x.T
    right = x.T @ y if primal else y
    for penalty in penalties:
        solved = ridge(gram, right, penalty)
        coefficients: Table = solved if primal else x.T @ solved
        found.append((coefficients, level - mean @ coefficients))
    return found


def _temperature(scores: Table, labels: Integers, weights: Table) -> float:
    """Return the divisor of ``scores`` that makes the labels most likely (Guo et al., ICML 2017)."""
    likely = []
    for temperature in TEMPERATURES:
        own = log_softmax(scores / temperature, axis=1)[np.arange(len(labels)), labels]
        likely.append(float(weights @ own))
    return float(TEMPERATURES[int(np.argmax(likely))])
