"""The card of an encoder-decoder."""

from __future__ import annotations

from typing import Any

import pytest

from graft.rewriter.card.card import Card
from graft.rewriter.errors import GraftError
from tests import translator


def test_the_card_is_written_and_read_again() -> None:
    card = translator.card()
    assert Card.from_json(card.to_json()) == card
    assert (
        "decoder: {input: target, starts: {Red: 3, Blue: 4}, end: 2, padding: 0, longest: 6}"
        in card.to_yaml()
    )
    assert card.classes == ("Red", "Blue") and card.written == card.inputs[1]


def test_labels_that_are_left_keep_their_numbers() -> None:
    card = translator.card()
    assert card.decoder is not None
    fewer = card.decoder.with_labels([0, 2, 4, 11])
    assert fewer.words == (0, 2, 4, 11) and fewer.number_of(3) == 11
    assert [fewer.label_of(number, 4) for number in (11, 3)] == [3, None]
    assert fewer.with_labels([1, 3]).words == (2, 11)
    assert card.decoder.label_of(20, 13) is None
    assert card.decoder.only(["Blue"]).starts == {"Blue": 4}


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"input": "target "}, "decoder.input is 'target '"),
        ({"starts": {}}, "decoder.starts is empty"),
        ({"starts": {"Red": 3, "Blue": 3}}, "two languages with one first word"),
        ({"end": 13}, "decoder.end is 13"),
        ({"padding": 99}, "decoder.padding is 99"),
        ({"words": [1, 2]}, "2 numbers for 13 labels"),
        ({"words": [1] * 13}, "names a number twice"),
        ({"end": -1}, "greater than or equal to 0"),
        ({"start": 3}, "unknown key 'decoder.start'"),
    ],
)
def test_what_does_not_fit_is_said(decoder: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftError, match=message):
        translator.card(**decoder)


def test_words_are_written_step_by_step() -> None:
    plain = translator.card().to_yaml().replace("steps: true", "steps: false")
    import yaml

    with pytest.raises(GraftError, match="one word a time step"):
        Card.model_validate(yaml.safe_load(plain))


def test_unknown_languages_get_the_nearest() -> None:
    with pytest.raises(GraftError, match=r"no language 'Rad'.*Red"):
        translator.card().check_class("Rad")
    translator.card().check_class("Red")
