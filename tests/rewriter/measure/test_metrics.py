"""Every measure against a count by hand or by brute force."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.rewriter.errors import GraftError
from graft.rewriter.measure import metrics

few_scores = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30)


@given(few_scores)
def test_auroc_counts_pairs(samples: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in samples], float)
    positive = np.array([flag for _, flag in samples])
    pairs = list(product(scores[positive], scores[~positive]))
    result = metrics.auroc(scores, positive)
    if not pairs:
        assert math.isnan(result)
    else:
        wins = [1.0 if high > low else 0.5 if high == low else 0.0 for high, low in pairs]
        assert result == pytest.approx(sum(wins) / len(wins))


def test_top_k_ranks_and_breaks_ties_in_order() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.5], [0.3, 0.2, 0.1]])
    labels = np.array([2, 2, 0])
    assert metrics.top_k(scores, labels, 1) == pytest.approx(1 / 3)
    assert metrics.top_k(scores, labels, 2) == pytest.approx(2 / 3)
    assert metrics.top_k(scores, labels, 3) == 1.0
    assert metrics.top_k(np.full((2, 3), np.nan), np.array([0, 1]), 3) == 0.0


@given(st.integers(0, 1000))
def test_top_1_is_the_accuracy_of_the_arg_max(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 3, (2, 6, 4)).astype(float)
    labels = generator.integers(0, 4, (2, 6))
    expected = metrics.accuracy(scores.argmax(-1), labels)
    assert metrics.top_k(scores, labels, 1) == pytest.approx(expected)


def test_per_class_counts() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, -1, 0])
    found = metrics.per_class(predictions, labels, ["a", "b", "c", "d"])
    assert found["a"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    assert found["b"] == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2})
    assert found["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert found["d"]["support"] == 0
    assert metrics.balanced_accuracy(predictions, labels) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_agreement() -> None:
    assert metrics.agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 0])) == 0.5


def test_standard_errors() -> None:
    values = np.array([1.0, 2.0, 3.0, 6.0])
    assert metrics.standard_error(values) == pytest.approx(math.sqrt(14 / 3) / 2)
    assert math.isnan(metrics.standard_error(values[:1]))
    right_a = np.array([True, True, True, False])
    right_b = np.array([True, False, False, False])
    difference, error = metrics.paired_difference(right_a, right_b)
    assert difference == 0.5
    assert error == pytest.approx(metrics.standard_error(np.array([0, 1, 1, 0])))
    assert metrics.paired_difference(right_a, right_a) == (0.0, 0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.accuracy(np.zeros(2), np.zeros(3)),
        lambda: metrics.accuracy(np.zeros(0), np.zeros(0)),
        lambda: metrics.top_k(np.zeros((2, 3)), np.array([0, 3]), 1),
        lambda: metrics.top_k(np.zeros((2, 3)), np.array([0, 1, 2]), 1),
        lambda: metrics.top_k(np.zeros((2, 3)), np.array([0, 1]), 0),
        lambda: metrics.per_class(np.array([0]), np.array([2]), ["a", "b"]),
        lambda: metrics.auroc(np.array([np.nan, 1.0]), np.array([True, False])),
    ],
)
def test_what_cannot_be_compared_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(GraftError) as caught:
        call()
    assert caught.value.code == "metric-input"


def test_false_positives_where_nearly_all_positive_samples_pass() -> None:
    scores = np.concatenate([np.arange(20.0), [0.5, 1.0, 30.0, -1.0]])
    positive = np.arange(24) < 20
    assert (
        metrics.false_positives(scores, positive) == 2 / 4
    )  # 19 of 20 pass from 1.0 on, and so do 1.0 and 30
    assert metrics.false_positives(scores, positive, 1.0) == 3 / 4
    assert np.isnan(metrics.false_positives(scores, np.ones(24, bool)))
    assert np.isnan(metrics.false_positives(scores, np.zeros(24, bool)))
    with pytest.raises(GraftError):
        metrics.false_positives(np.array([np.nan, 1.0]), np.array([True, False]))


def test_balanced_difference() -> None:
    """Each class counts alike; the error is that of a mean of independent means."""
    labels = np.array([0] * 4 + [1] * 16)
    right_a, right_b = np.ones(20, bool), np.ones(20, bool)
    right_a[[0, 1, 5]] = False
    right_b[[6, 7]] = False
    difference, error = metrics.balanced_difference(right_a, right_b, labels)
    assert difference == pytest.approx((-2 / 4 + 1 / 16) / 2)
    parts = [np.array([-1, -1, 0, 0.0]), np.array([-1, 1, 1] + [0] * 13, float)]
    expected = np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) / 2
    assert error == pytest.approx(expected)
