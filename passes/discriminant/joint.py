"""One ridge regression for all classes of a classifier, a new one among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.passes.compare.ridge_head import RidgeHead, choose
from graft.passes.discriminant.evidence import Evidence
from graft.rewriter.arrays import Integers, Table
from graft.rewriter.data.folds import class_weights


@dataclass(frozen=True)
class JointColumns:
    """One ridge regression for all classes, with its scores on folds that were left out.

    Attributes:
        head: makes the scores.
        shrinkage: its penalty.
        scores: float64 (samples, classes).
        labels: int64 (samples,).
        place: the new class.
    """

    head: RidgeHead
    shrinkage: float
    scores: Table
    labels: Integers
    place: int

    @property
    def recall(self) -> float:
        """Of the new class."""
        return float((self.scores.argmax(axis=1) == self.place)[self.labels == self.place].mean())

    @property
    def precision(self) -> float | None:
        """Of the new class, every class weighing the same."""
        weights, decided = class_weights(self.labels), self.scores.argmax(axis=1) == self.place
        right = float(weights[decided & (self.labels == self.place)].sum())
        return right / float(weights[decided].sum()) if decided.any() else None

    @property
    def top1(self) -> float:
        """Of all classes, every class weighing the same."""
        return float(class_weights(self.labels) @ (self.scores.argmax(axis=1) == self.labels))

    @classmethod
    def fit(cls, evidence: Evidence, places: Sequence[int], seed: int) -> JointColumns:
        """Fit the regression.

        Args:
            evidence: samples of all classes.
            places: of the columns that stay, in order, and of the new class: columns of the result.
            seed: draws folds.
        """
        labels = np.asarray(places, np.int64)[evidence.labels]
        choice = choose(evidence.features, labels, seed, 0)
        return cls(choice.head, choice.penalty, choice.scores, labels, int(places[-1]))
