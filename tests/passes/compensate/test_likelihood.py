"""The last layer of a model that writes words is fitted to the parent's probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import log_softmax, softmax

from graft.passes.compensate.likelihood import Likelihood, most_likely

ROWS, COLUMNS, OUTPUTS = 400, 3, 5


def problem(seed: int = 0, noise: float = 0.3) -> tuple[Likelihood, np.ndarray, np.ndarray]:
    """Scores that no affine map makes, with the least squares fit."""
    random = np.random.default_rng(seed)
    read = random.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    made = read @ random.normal(0, 2, (COLUMNS, OUTPUTS)) + noise * random.normal(size=(ROWS, OUTPUTS)) ** 3
    share = random.uniform(size=ROWS)
    share[::7] = 0
    beside = random.normal(size=(1, OUTPUTS))
    rows = np.concatenate([read, np.ones((ROWS, 1))], axis=1) * np.sqrt(share)[:, None]
    found = np.linalg.lstsq(rows, (made - beside) * np.sqrt(share)[:, None], rcond=None)[0]
    values = [each.astype(np.float32) for each in (read, made, beside, share / share.sum())]
    return Likelihood(*values), found[:-1].T, found[-1]


def cross_entropy(of: Likelihood, flat: np.ndarray) -> float:
    weights = flat.reshape(OUTPUTS, COLUMNS + 1)
    said = of.read.astype(float) @ weights[:, :-1].T + weights[:, -1] + of.beside
    return -float(of.share @ (softmax(of.made, axis=1) * log_softmax(said, axis=1)).sum(axis=1))


def test_it_is_the_least_cross_entropy() -> None:
    """As an optimiser finds it that knows nothing of scaled variables and bounds."""
    of, coefficients, offset = problem()
    ours = np.concatenate([(found := of.fitted(coefficients, offset))[0], found[1][:, None]], axis=1).ravel()
    best = minimize(lambda flat: cross_entropy(of, flat), np.zeros_like(ours), method="BFGS")
    assert cross_entropy(of, ours) == pytest.approx(best.fun, abs=1e-3)
    before = np.concatenate([coefficients, offset[:, None]], axis=1).ravel()
    assert cross_entropy(of, ours) < cross_entropy(of, before) - 1e-3
    assert np.abs(approx_fprime(ours, lambda flat: cross_entropy(of, flat))).max() < 5e-3


def test_rows_that_do_not_count_change_nothing() -> None:
    of, coefficients, offset = problem()
    others = of.made.copy()
    others[of.share == 0] = 100
    again = Likelihood(of.read, others, of.beside, of.share)
    for one, two in zip(of.fitted(coefficients, offset), again.fitted(coefficients, offset), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_what_is_met_already_stays() -> None:
    """Least squares that leaves nothing is not made worse by the penalty."""
    of, coefficients, offset = problem(noise=0.0)
    values = (of.read, of.made, of.beside, of.share, coefficients, offset)
    assert of.loss(coefficients, offset) == pytest.approx(0, abs=1e-5)
    found = most_likely(*values)
    assert of.loss(*found) == pytest.approx(0, abs=1e-4)


def test_a_fit_that_rows_held_back_do_not_bear_out_is_not_taken() -> None:
    """Few rows of many columns: the half that is fitted says nothing of the other."""
    random = np.random.default_rng(3)
    read = random.normal(size=(24, 20)).astype(np.float32)
    made = random.normal(0, 8, (24, OUTPUTS)).astype(np.float32)
    share = np.full(24, 1 / 24, np.float32)
    coefficients, offset = np.zeros((OUTPUTS, 20)), np.zeros(OUTPUTS)
    found = most_likely(read, made, np.zeros((1, OUTPUTS), np.float32), share, coefficients, offset)
    assert found[0] is coefficients and found[1] is offset
