"""Scores restricted to some classes, and the probabilities of scores."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from graft.rewriter.card.card import OTHER
from graft.rewriter.measure import evaluation
from graft.rewriter.measure.evaluation import Scored, columns, latencies
from tests.small import softmax

SCORES = np.random.default_rng(0).normal(size=(12, 4))
LABELS = np.arange(12) % 4


def scored(scores: np.ndarray = SCORES) -> Scored:
    return Scored(scores, LABELS, tuple("abcd"), ("cpu",), 12)


def test_restricted_scores_leave_out_samples_of_other_classes() -> None:
    found = scored().restricted(["c", "a"], "logits")
    own = np.isin(LABELS, [0, 2])
    assert found.names == ("c", "a")
    np.testing.assert_array_equal(found.scores, SCORES[own][:, [2, 0]])
    np.testing.assert_array_equal(found.labels, np.where(LABELS[own] == 2, 0, 1))
    whole = scored()
    assert whole.restricted(tuple("abcd"), "logits") is whole


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_what_a_model_without_other_says_of_all_other_classes(kind: str) -> None:
    """The probability of ``(other)`` is the sum of those of all other classes."""
    scores = SCORES if kind == "logits" else softmax(SCORES)
    found = scored(scores).restricted(["b", OTHER], kind)
    shares = softmax(found.scores) if kind == "logits" else found.scores
    expected = softmax(SCORES)
    np.testing.assert_allclose(shares[:, 0], expected[:, 1])
    np.testing.assert_allclose(shares[:, 1], expected[:, [0, 2, 3]].sum(axis=1))
    np.testing.assert_array_equal(found.labels, LABELS != 1)


def test_large_scores_do_not_overflow() -> None:
    large = np.repeat([[1000.0, 999, -1000, -1000]], 12, axis=0)
    found = scored(large).restricted(["d", OTHER], "logits").scores
    np.testing.assert_allclose(found[:, 1], 1000 + np.log1p(np.exp(-1)))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("form", ["(N,)", "(N, 1)", "(N, 1, 1)"])
def test_a_single_column_becomes_two_whatever_the_batch(count: int, form: str) -> None:
    shares = np.linspace(0.1, 0.9, count)
    scores = shares.reshape(-1, *[1] * (form.count("1")))
    found = columns(scores, "binary", 2, np.zeros(count, np.int64))
    np.testing.assert_allclose(found, np.stack([1 - shares, shares], 1))


@pytest.mark.parametrize(("seconds", "runs", "most"), [(0.01, 20, 1), (0.5, 7, 6), (30, 1, 61)])
def test_slow_models_are_timed_less_often(
    seconds: float, runs: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of half a second a run has 7 runs in its five seconds; one run counts however long it takes."""
    now = [0.0]
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: now[0])

    def run(inputs: object) -> None:
        now[0] += seconds

    session = SimpleNamespace(run=run, count=lambda inputs: 1)
    (found,) = latencies([(session, {})], 1)
    assert found["runs"] == runs
    assert found["median"] == pytest.approx(seconds * 1e3)
    assert now[0] <= most
