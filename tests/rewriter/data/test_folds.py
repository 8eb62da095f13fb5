"""Folds hold every class evenly, and under the weights every class counts the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.rewriter.data.folds import FOLDS, assign_folds, class_weights

LABELS = st.lists(st.sampled_from([0, 1, 3]), min_size=1, max_size=60).map(np.array)


@given(LABELS, st.integers(0, 99))
def test_every_class_is_spread_evenly(labels: np.ndarray, seed: int) -> None:
    folds = assign_folds(labels, np.random.default_rng(seed))
    for label in np.unique(labels):
        counts = np.bincount(folds[labels == label], minlength=FOLDS)
        assert len(counts) == FOLDS
        assert counts.max() - counts.min() <= 1


def test_the_seed_says_which_sample_goes_where() -> None:
    labels = np.arange(60) % 3
    one, two, again = (assign_folds(labels, np.random.default_rng(seed)) for seed in (0, 1, 0))
    assert (one == again).all() and (one != two).any()


@given(LABELS)
def test_every_class_has_the_same_weight(labels: np.ndarray) -> None:
    weights, present = class_weights(labels), np.unique(labels)
    for label in present:
        own = weights[labels == label]
        assert own.sum() == pytest.approx(1 / len(present))
        assert (own == own[0]).all()
