"""Compare the scores of a model with its card: a wrong kind makes every later number wrong."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.card.output_card import OutputCard

FEWEST_ROWS = 5
"""Fewer rows may sum to 1 by chance."""
OUTSIDE = 0.01
"""Probabilities are never so far outside of 0..1."""
log = logging.getLogger("graft")


def within(scores: NDArray[Any]) -> bool:
    """Return True where all scores are from 0 to 1, as far as their type resolves that."""
    tolerance = sum_tolerance(scores.dtype)
    return bool(((scores >= -tolerance) & (scores <= 1 + tolerance)).all())


def sum_to_one(scores: NDArray[Any]) -> bool:
    """Return True where every row (last axis) sums to 1, as far as its type resolves that."""
    totals = scores.astype(np.float64).sum(axis=-1)
    return bool((np.abs(totals - 1) <= sum_tolerance(scores.dtype)).all())


def sum_tolerance(dtype: np.dtype[Any]) -> float:
    """Return how far from 1 the sum of probabilities of a type may be: half precision rounds each."""
    return 2e-2 if dtype == np.float16 else 1e-3


class OutputCheck:
    """Looks at the scores of a run, batch after batch, and warns where the card names another kind.

    Args:
        card: of the output.
    """

    def __init__(self, card: OutputCard) -> None:
        self.card = card
        self.rows = 0
        self.distributions = True
        self.outside = 0.0

    def see(self, scores: NDArray[Any]) -> None:
        """Look at the scores (..., classes) of a batch."""
        if not scores.size or scores.shape[-1] < 2:
            return
        self.rows += scores.size // scores.shape[-1]
        self.distributions = self.distributions and within(scores) and sum_to_one(scores)
        self.outside = max(self.outside, float(-scores.min()), float(scores.max()) - 1)

    def warn(self) -> None:
        """Warn of logits that are probabilities, and of probabilities that are none."""
        if self.rows < FEWEST_ROWS:
            return
        if self.card.kind == "logits" and self.distributions:
            log.warning(
                "output '%s' is probabilities: every row is from 0 to 1 and sums to 1, but the card says "
                "kind: logits; correct it to kind: probabilities",
                self.card.name,
            )
        elif self.card.kind == "probabilities" and self.outside > OUTSIDE:
            log.warning(
                "output '%s' has values outside of 0..1, but the card says kind: probabilities; "
                "is it kind: logits?",
                self.card.name,
            )
