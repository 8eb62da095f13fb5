"""Discriminants become logits: directions, scale, offset and folds, against numbers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from graft.passes.discriminant.calibration import PRIOR, Task, calibrate, figures
from graft.passes.discriminant.evidence import Evidence
from graft.passes.discriminant.linear import fit_column
from graft.rewriter.data.folds import assign_folds


def task(seed: int, teacher: bool) -> Task:
    draw = np.random.default_rng(seed)
    own = np.arange(40) < 10
    scores = np.where(own, 2.0, -2.0) + draw.normal(size=40)
    weights = np.where(own, 0.1 / 10, 0.9 / 30)
    return Task(scores, draw.normal(size=40), own, weights, 3 * scores if teacher else None)


def test_scale_and_offset_are_the_most_likely_ones() -> None:
    teachers, own = [task(1, True), task(2, True)], task(3, False)
    found = calibrate(teachers, own)

    def loss(values: Any) -> float:
        total = PRIOR * 0.1 * (values[0] / 3 - 1) ** 2
        for each, share in ((teachers[0], 0.25), (teachers[1], 0.25), (own, 0.5)):
            odds = values[0] * each.scores + values[1] - each.others
            signs = np.where(each.own, 1, -1)
            total += share * float(each.weights @ np.logaddexp(0, -signs * odds))
        return float(total)

    best = minimize(loss, [3.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    assert (found.scale, found.offset) == pytest.approx(tuple(best.x), abs=1e-3)
    assert found.loss == pytest.approx(best.fun, abs=1e-8)


def test_figures_count_classes_alike() -> None:
    logits = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels = np.array([0, 0, 1, 2])
    weights = np.array([1 / 6, 1 / 6, 1 / 3, 1 / 3])
    recall, precision, top1 = figures(np.array([2.0, 0.0, 0.0, 2.0]), logits, labels, weights)
    assert (recall, precision, top1) == pytest.approx((1, (1 / 3) / (1 / 2), 5 / 6))
    assert figures(np.full(4, -1.0), logits, labels, weights)[1] is None


def gaussians(count: int, seed: int = 0) -> Evidence:
    """Four classes of normally distributed features, with the logits that are right for three of them."""
    draw = np.random.default_rng(seed)
    centers = 3 * np.eye(4, 6)
    labels = np.repeat(np.arange(4), count)
    features = centers[labels] + draw.normal(size=(len(labels), 6))
    logits = (features @ centers.T - 4.5)[:, :3]
    return Evidence.of(features, logits, labels, draw)


def test_the_column_is_the_logit_that_is_right() -> None:
    """Of normal distributions with one covariance: x'm - |m|^2 / 2, up to what all columns have in common."""
    column = fit_column(gaussians(2000))
    test = gaussians(500, 1)
    scores = np.concatenate(
        [test.logits, (test.features @ column.weights - column.threshold)[:, None]], axis=1
    )
    right = np.concatenate([test.logits, (3 * test.features[:, 3] - 4.5)[:, None]], axis=1)
    best = float((right.argmax(axis=1) == test.labels).mean())
    assert float((scores.argmax(axis=1) == test.labels).mean()) > best - 0.01
    assert column.recall > 0.9 and column.precision is not None and column.precision > 0.9
    odds = scores[:, 3] - logsumexp(scores[:, :3], axis=1)
    expected = right[:, 3] - logsumexp(right[:, :3], axis=1)
    assert np.corrcoef(odds, expected)[0, 1] > 0.98


def test_a_strict_threshold_lets_nine_of_ten_pass() -> None:
    evidence = gaussians(400)
    likely, strict = fit_column(evidence), fit_column(evidence, strictness=1.0)
    half = fit_column(evidence, strictness=0.5)
    assert likely.threshold < half.threshold < strict.threshold
    assert np.array_equal(likely.weights, strict.weights)
    assert strict.recall < likely.recall and abs(strict.recall - 0.9) < 0.03


def test_few_samples_of_many_features() -> None:
    """The covariance has fewer directions than there are features: no difference to all of them."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 6)
    features = np.eye(3, 50)[labels] * 4 + draw.normal(size=(18, 50)) * 0.3
    logits = features[:, :2] * 2
    evidence = Evidence(features, logits, labels, assign_folds(labels, draw))
    padded = Evidence(np.pad(features, ((0, 0), (0, 9))), logits, labels, evidence.folds)
    one, other = fit_column(evidence, (0.3,)), fit_column(padded, (0.3 * 59 / 50 / (1 + 0.3 * 9 / 50),))
    assert one.recall == other.recall == 1
    assert np.allclose(other.weights[50:], 0)
