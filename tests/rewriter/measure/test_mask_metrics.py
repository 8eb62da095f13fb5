"""Figures of masks, by hand."""

from __future__ import annotations

import numpy as np

from graft.rewriter.measure.mask_metrics import kernels, mask_jaccard, value_jaccard, zero_share
from tests import small

ONE = [np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([3.0, 0.0])]
TWO = [np.array([[1.0, 0.0], [0.0, 4.0]]), np.array([3.0, 0.0])]


def test_the_authors_index_counts_values() -> None:
    """0, 1 and 3 are in both: 3 over 6 + 6 - 3; a module with itself is far from 1."""
    assert value_jaccard(ONE, TWO) == 3 / 9
    assert value_jaccard(ONE, ONE) == 4 / 8


def test_the_index_of_masks_counts_places() -> None:
    assert mask_jaccard(ONE, TWO) == 2 / 4
    assert mask_jaccard(ONE, ONE) == 1


def test_zeros_are_those_of_weights_not_of_biases() -> None:
    assert zero_share(ONE) == 3 / 6
    model = small.model(small.dense_net())
    assert [each.shape for each in kernels(model)] == [(8, 6), (4, 8)]
    assert zero_share(kernels(model)) == 0
