"""Which of the ways to read an input is taken."""

import numpy as np
import pytest

from graft.rewriter.card.input_card import InputCard
from graft.rewriter.measure.draft.choice import likeliest
from graft.rewriter.measure.draft.figures import Figures
from graft.rewriter.measure.draft.readings import Reading, Tried
from graft.rewriter.measure.draft.trial import Way


def way(scale: float, likelihoods: np.ndarray, right: int) -> Tried:
    """A way with so many right answers."""
    card = InputCard(name="x", kind="image", color="GRAY", size=(8, 8), scale=scale)
    truth = np.arange(len(likelihoods)) % 10
    said = np.where(np.arange(len(truth)) < right, truth, (truth + 1) % 10)
    return Tried(Way((card,)), Reading(None, None, None), "logits", Figures(likelihoods, said, truth))


@pytest.mark.parametrize(("gain", "chosen"), [(0.003, 1 / 255), (0.06, 1 / 128)])
def test_accuracy_decides_between_likelihoods_that_are_equal_within_their_error(
    gain: float, chosen: float
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, 1000)
    usual = way(1 / 255, np.full(1000, -0.2), right=986)
    other = way(1 / 128, -0.2 + gain + noise - noise.mean(), right=978)
    assert likeliest([usual, other], None).way.inputs[0].scale == chosen


@pytest.mark.parametrize(("more", "chosen"), [(3, 1 / 255), (30, 1 / 128)])
def test_accuracy_decides_only_beyond_its_own_error(more: int, chosen: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, 1000)
    usual = way(1 / 255, np.full(1000, -0.2), right=950)
    other = way(1 / 128, -0.199 + noise - noise.mean(), right=950 + more)
    assert likeliest([usual, other], None).way.inputs[0].scale == chosen


def test_the_more_usual_is_taken_where_nothing_differs() -> None:
    usual = way(1 / 255, np.full(1000, -0.2), right=900)
    other = way(1 / 128, np.full(1000, -0.2), right=900)
    assert likeliest([usual, other], None).way is usual.way
