"""Samples as a classifier sees them: features, logits and labels, those of a new class among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.passes.discriminant.others import Drawn
from graft.rewriter.arrays import Integers, Table
from graft.rewriter.data.folds import assign_folds, class_weights


@dataclass(frozen=True)
class Evidence:
    """Samples as a classifier sees them, those of the new class among them.

    Attributes:
        features: float64 (samples, values).
        logits: float64 (samples, columns): the columns that stay.
        labels: int64 (samples,): a column, or the number of columns for the new class.
        folds: int64 (samples,): below :data:`FOLDS`; a sample and its mirror image share one.
    """

    features: Table
    logits: Table
    labels: Integers
    folds: Integers

    @classmethod
    def of(cls, features: Table, logits: Table, labels: Integers, draw: np.random.Generator) -> Evidence:
        """Return samples with folds.

        Args:
            features: float64 (samples, values).
            logits: float64 (samples, columns): the columns that stay.
            labels: int64 (samples,), or (originals,) where the second half are mirror images.
            draw: draws the folds.
        """
        times = len(features) // len(labels)
        return cls(features, logits, np.tile(labels, times), np.tile(assign_folds(labels, draw), times))

    @property
    def new(self) -> int:
        """The label of the new class."""
        return int(self.logits.shape[1])

    @property
    def new_samples(self) -> int:
        """The number of samples of the new class."""
        return int((self.labels == self.new).sum())

    @property
    def old(self) -> list[int]:
        """The columns that have samples."""
        return [int(label) for label in np.unique(self.labels) if label != self.new]

    def with_drawn(self, drawn: Drawn, stay: Sequence[int], draw: np.random.Generator) -> Evidence:
        """Return the samples and what was drawn for the others.

        Args:
            drawn: with the columns of the classifier as labels.
            stay: those that :attr:`logits` hold.
            draw: draws folds.
        """
        place = {column: number for number, column in enumerate(stay)}
        labels = np.array([place[column] for column in drawn.labels.tolist()], np.int64)
        others = Evidence.of(drawn.features, drawn.logits[:, list(stay)], labels, draw)
        names = ("features", "logits", "labels", "folds")
        return Evidence(*(np.concatenate([getattr(each, name) for each in (others, self)]) for name in names))

    def scales(self, widths: Sequence[int]) -> Table:
        """Return divisors (values,) that bring features of several layers to one scale.

        Args:
            widths: values of each layer.
        """
        if len(widths) < 2:
            return np.ones(self.features.shape[1])
        parts = np.split(self.features, np.cumsum(widths)[:-1], axis=1)
        return np.concatenate([np.full(part.shape[1], max(float(part.std()), 1e-12)) for part in parts])

    def accuracy_before(self) -> float:
        """Return the accuracy of the columns that stay on their own classes, which weigh the same."""
        old = self.labels != self.new
        right = self.logits[old].argmax(axis=1) == self.labels[old]
        return float(class_weights(self.labels[old]) @ right)
