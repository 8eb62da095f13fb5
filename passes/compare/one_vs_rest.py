"""Log-odds of one class against all others, fitted to samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from graft.passes.compare.max_likelihood import PENALTY, max_likelihood
from graft.passes.compare.ridge_head import RidgeHead, choose
from graft.rewriter.arrays import Integers, Mask, Table
from graft.rewriter.data.folds import FOLDS, assign_folds, class_weights


@dataclass(frozen=True)
class Weighed:
    """Fitted log-odds, and how good they are.

    Attributes:
        correct: bool (samples,): where the whole classifier is right, each sample's fold left out of the
            fit.
        penalty: of the fit.
        hidden: random features beside the values themselves.
        head: makes the log-odds, fitted to all samples.
    """

    correct: Mask
    penalty: float
    hidden: int
    head: Callable[[], RidgeHead]


@dataclass(frozen=True)
class OneVsRest:
    """Fit the log-odds of one class of a classifier whose other columns stay as they are.

    Classes weigh the same, so that log-odds of 0 are even chances where every class is as frequent as
    every other.

    Attributes:
        labels: int64 (samples,).
        place: the class.
        others: float64 (samples, classes - 1), the other columns: logits.
        seed: draws the folds.
    """

    labels: Integers
    place: int
    others: Table
    seed: int = 0

    def correct(self, odds: Table) -> Mask:
        """Return where the label has the highest score; that of the class is ``odds + logsumexp(others)``."""
        top, rest = self.others.max(axis=1), logsumexp(self.others, axis=1)
        best = self.others.argmax(axis=1)
        predicted = np.where(odds > top - rest, self.place, best + (best >= self.place))
        return np.asarray(predicted == self.labels)

    def calibrated(self, evidence: Table) -> Weighed:
        """Fit weights and an offset of ``evidence`` (samples, columns)."""
        odds, found = self._moved(evidence)
        return Weighed(self.correct(odds), PENALTY, 0, lambda: found)

    def joint_head(self, values: Table, room: int) -> Weighed:
        """Fit a ridge regression of ``values`` (samples, columns); ``room`` as in :func:`choose`."""
        choice = choose(values, (self.labels != self.place).astype(np.int64), self.seed, room)
        odds, moved = self._moved((choice.scores[:, 0] - choice.scores[:, 1])[:, None])

        def head() -> RidgeHead:
            two, factor = choice.head, float(moved.weights[0, 0])
            weights = factor * (two.weights[:, :1] - two.weights[:, 1:])
            return RidgeHead(
                two.inner, weights, factor * (two.constant[:1] - two.constant[1:]) + moved.constant
            )

        return Weighed(self.correct(odds), choice.penalty, choice.hidden, head)

    def _moved(self, evidence: Table) -> tuple[Table, RidgeHead]:
        """Return log-odds on folds left out, and the head that makes them, fitted to all samples."""
        folds = assign_folds(self.labels, np.random.default_rng(self.seed))
        odds = np.zeros(len(evidence))
        for fold in range(FOLDS):
            inside, outside = folds != fold, folds == fold
            found = self._most_likely(evidence[inside], self.labels[inside])
            odds[outside] = evidence[outside] @ found[:-1] + found[-1]
        found = self._most_likely(evidence, self.labels)
        return odds, RidgeHead(None, found[:-1, None], found[-1:])

    def _most_likely(self, evidence: Table, labels: Integers) -> Table:
        """Return the most likely weights, the offset last."""
        own = np.concatenate([evidence, np.ones((len(evidence), 1))], axis=1)
        features = np.stack([own, np.zeros_like(own)], axis=1)
        start = np.ones(own.shape[1])
        start[-1] = 0
        return max_likelihood(features, (labels != self.place).astype(np.int64), class_weights(labels), start)
