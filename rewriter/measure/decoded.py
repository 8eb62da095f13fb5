"""What an encoder-decoder writes for samples, and how good that is, language by language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graft.rewriter.arrays import Integers
from graft.rewriter.card.card import Card
from graft.rewriter.data.languages import first_words
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.translation import bleu, chrf, missing
from graft.rewriter.run.decoding import Decoding
from graft.rewriter.run.session import Device

BATCH = 256


@dataclass(frozen=True)
class Decoded:
    """Answers to the samples in one language.

    Attributes:
        language: of the decoder.
        answers: words of each answer, without the first one and the end.
        references: words of each target, likewise.
    """

    language: str
    answers: tuple[tuple[str, ...], ...]
    references: tuple[tuple[str, ...], ...]

    def figures(self) -> dict[str, Any]:
        """Return ``samples, exact, bleu, chrf``: the share of answers that are the target, and 0 to 100.

        ``bleu`` and ``chrf`` are ``None`` without sacrebleu.
        """
        exact = sum(one == two for one, two in zip(self.answers, self.references, strict=True))
        scored = missing() is None
        return {
            "samples": len(self.answers),
            "exact": exact / max(1, len(self.answers)),
            "bleu": bleu(self.answers, self.references) if scored else None,
            "chrf": chrf(self.answers, self.references) if scored else None,
        }


def decoded(
    model: Model, samples: Samples, device: Device, progress: Callable[[int], None] | None = None
) -> list[Decoded]:
    """Let a model write an answer to each sample, by greedy decoding.

    Args:
        model: with a card that has a decoder.
        samples: matched to this card.
        device: where it runs.
        progress: called with the number of samples done after each batch.

    Returns:
        One for each language of the model that has samples, in the order of its card.

    Raises:
        GraftError: the card has no decoder, or onnxruntime fails.
    """
    decoding, card = Decoding(model, device), model.require_card()
    starts = first_words(samples.split, card, samples.indices)
    names = word_names(card)
    answers: list[tuple[str, ...]] = []
    for inputs, labels in samples.batches(BATCH):
        part = starts[len(answers) : len(answers) + len(labels)]
        answers += [tuple(names[number] for number in each) for each in decoding.answers(inputs, part)]
        if progress:
            progress(len(labels))
    references = _references(samples)
    found = []
    for language, start in card.decoder.starts.items() if card.decoder else ():
        rows = np.flatnonzero(starts == start)
        if rows.size:
            mine = (tuple(each[row] for row in rows) for each in (answers, references))
            found.append(Decoded(language, *mine))
    return found


def word_names(card: Card) -> dict[int, str]:
    """Return the word of each number that a model writes."""
    decoder = card.decoder
    return {} if decoder is None else {decoder.number_of(n): name for n, name in enumerate(card.labels)}


def _references(samples: Samples) -> list[tuple[str, ...]]:
    """Return the words of the targets as the data has them, also those that the model lacks."""
    split, card = samples.split, samples.card
    names: Sequence[str] = split.class_names or card.labels
    labels: Integers = split.labels[samples.indices]
    special = {card.labels[place] for place in _special(card)}
    end = "" if card.decoder is None else card.labels[_place(card, card.decoder.end)]
    found = []
    for row in labels.tolist():
        words = [names[number] for number in row]
        words = words[: words.index(end)] if end in words else words
        found.append(tuple(word for word in words if word not in special))
    return found


def _special(card: Card) -> list[int]:
    """Return the positions of the end and of padding among the labels."""
    return [] if card.decoder is None else [_place(card, number) for number in card.decoder.specials]


def _place(card: Card, number: int) -> int:
    """Return the position of a special word among the labels, which a card is checked to have."""
    place = None if card.decoder is None else card.decoder.label_of(number, len(card.labels))
    if place is None:
        raise ValueError(f"word {number} is no label")
    return place
