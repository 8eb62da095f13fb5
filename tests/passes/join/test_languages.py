"""Encoder-decoders for different languages in one graph."""

from __future__ import annotations

import numpy as np
import pytest

from graft.passes.base import Context
from graft.passes.cut.language import Restrict
from graft.passes.join.languages import JoinLanguages
from graft.rewriter.card.card import Card
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.run.decoding import Decoding
from tests import small, translator
from tests.translator import SPOKEN, WORDS


def alone(language: str, seed: int) -> Model:
    """A translator of its own for one language."""
    model = translator.model(seed)
    context = Context(samples=translator.samples(model), device=small.CPU)
    return Restrict((language,))(model, context).model


@pytest.mark.parametrize("opset", [11, 18])
def test_the_first_word_says_whose_scores_count(opset: int) -> None:
    red, blue = alone("Red", 1), translator.model(2, opset=opset)
    report = JoinLanguages()([red, Restrict(("Blue",))(blue, Context()).model], Context())
    joined = report.model
    card = joined.require_card()
    assert card.labels == WORDS and card.decoder is not None and card.decoder.words is None
    assert card.decoder.starts == {"Red": 3, "Blue": 4} and report.changed == 2
    found = translator.arrays(20, seed=9)
    scores = translator.run(joined, found)
    for name, model in (("Red", red), ("Blue", blue)):
        own = model.require_card().labels
        columns = [WORDS.index(label) for label in own]
        rows = found["target"][:, 0] == SPOKEN[name][0]
        expected = translator.run(model, found)[rows]
        np.testing.assert_allclose(scores[rows][..., columns], expected, rtol=1e-6, atol=1e-5)
        assert (np.delete(scores[rows], columns, axis=-1) < -9000).all()
    starts = found["target"][:, 0]
    answers = Decoding(joined, small.CPU).answers({"source": found["source"]}, starts)
    for name, model in (("Red", red), ("Blue", blue)):
        rows = np.flatnonzero(starts == SPOKEN[name][0])
        expected = Decoding(model, small.CPU).answers({"source": found["source"][rows]}, starts[rows])
        assert [answers[row] for row in rows] == expected


def test_three_networks_and_one_for_two_languages() -> None:
    green = translator.model(5)
    plain = translator.card(starts={"Green": 1})
    green.card = plain
    joined = JoinLanguages()([translator.model(4), green], Context()).model
    card = joined.require_card()
    assert card.classes == ("Red", "Blue", "Green")
    found = translator.arrays(8)
    found["target"][::4, 0] = 1
    scores = translator.run(joined, found)
    for model, rows in ((green, slice(0, None, 4)), (translator.model(4), slice(1, None, 4))):
        np.testing.assert_allclose(scores[rows], translator.run(model, found)[rows], rtol=1e-5, atol=1e-5)


def changed(**card: object) -> Model:
    model = Restrict(("Blue",))(translator.model(2), Context()).model
    model.card = Card.model_validate({**model.require_card()._plain(), **card})
    return model


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (translator.model(2), "two models speak Red"),
        (changed(labels=[*WORDS[:-1], "b9"]), "word 12 is 'b1' in one model and 'b9' in another"),
        (changed(decoder={"input": "target", "starts": {"Blue": 4}, "end": 1}), "end answers or fill"),
        (
            changed(
                inputs=[
                    {"name": "source", "kind": "tokens", "vocabulary": "letters"},
                    {"name": "target", "kind": "tokens", "vocabulary": "colours"},
                ]
            ),
            "numbers and letters",
        ),
    ],
)
def test_what_does_not_fit_is_refused(other: Model, message: str) -> None:
    with pytest.raises(GraftError, match=message):
        JoinLanguages()([Restrict(("Red",))(translator.model(1), Context()).model, other], Context())


def test_classifiers_are_not_joined_with_decoders() -> None:
    with pytest.raises(GraftError, match="has no decoder"):
        JoinLanguages()([alone("Red", 1), small.model(small.dense_net())], Context())
