"""The account of relevance: channels removed one after the other, against plain elimination."""

from __future__ import annotations

import numpy as np
import pytest

from graft.passes.identify import relevance


def eliminated(covariance: np.ndarray, weights: np.ndarray, step: int) -> np.ndarray:
    """Remove channels from the whole inverse each time; the error is the one of its diagonal."""
    whole = np.diag(covariance) @ np.diag(weights)
    loaded = covariance + relevance.RIDGE * np.diag(covariance).mean() * np.eye(len(covariance))
    left, scores, highest = np.arange(len(covariance)), np.zeros(len(covariance)), 0.0
    others = np.zeros(0, int)
    while len(left):
        precision = np.linalg.inv(loaded[np.ix_(left, left)])
        # what is removed is told by those that are left: their weights take it over
        maps = np.linalg.solve(loaded[np.ix_(left, left)], loaded[np.ix_(left, others)])
        taken = np.hstack([np.eye(len(left)), maps])
        order = np.concatenate([left, others])
        now = taken @ weights[np.ix_(order, order)] @ taken.T
        error = np.diag(now) / np.diag(precision)
        chosen = np.argsort(error, kind="stable")[:step]
        highest = max(highest, error[chosen].max())
        scores[left[chosen]] = highest if step == 1 else error[chosen]
        others = np.concatenate([others, left[chosen]])
        left = np.delete(left, chosen)
    return scores / whole


@pytest.mark.parametrize(("size", "steps"), [(12, 64), (40, 8)])
def test_the_account_is_that_of_plain_elimination(
    size: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relevance, "STEPS", steps)
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(3 * size, size)) @ draw.normal(size=(size, size))
    factors = draw.normal(size=(size // 2, size))
    covariance, weights = rows.T @ rows / len(rows), factors.T @ factors
    found = relevance._account(covariance, weights)
    np.testing.assert_allclose(found, eliminated(covariance, weights, max(1, size // steps)), rtol=1e-6)
