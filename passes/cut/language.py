"""Restrict an encoder-decoder to one of its languages: the words of the others leave its embedding, too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graft.passes.base import Context, Declined
from graft.passes.cut.head import Head
from graft.passes.cut.vocabulary import VocabularyReport, Words, embeddings, remove_rows
from graft.rewriter.arrays import Integers
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model


@dataclass(frozen=True)
class Language:
    """Remove from a model, in place, the words that it cannot write any more, from where it reads them.

    The output has lost the columns of other languages already (:class:`graft.passes.cut.head.Head`); the
    rows of the embedding that are read for them are the same channels. The card says which number is fed
    for each column that is left. On targets in the language the scores stay the same, bit for bit.

    Attributes:
        languages: the languages that stay.
    """

    languages: tuple[str, ...]

    def __call__(self, subject: Model, context: Context) -> VocabularyReport:
        """Remove rows from the embedding of ``subject``.

        Args:
            subject: a model with a card, changed in place.
            context: not used.

        Returns:
            The words, and embeddings that were left as they were.

        Raises:
            GraftError: the card has no decoder.
        """
        card = subject.require_card()
        decoder, written = card.decoder, card.written
        if decoder is None or written is None:
            raise GraftError("card-decoder", "the model has no decoder", "describe it in the card: decoder")
        decoder = decoder.only(self.languages)
        subject.card = card.replace(decoder=decoder)
        numbers = np.array(
            sorted({*map(decoder.number_of, range(len(card.labels))), *decoder.starts.values()}), np.int64
        )
        words: list[Words] = []
        declined: list[Declined] = []
        for node in embeddings(subject, written.name):
            others = [reader for reader in node.inputs[0].outputs if reader is not node]
            if others:
                declined.append(Declined(node.name, f"its words are read by {others[0].name}, too"))
            else:
                words.append(remove_rows(subject, node, written, numbers))
        if not words and not declined:
            declined.append(Declined(written.name, "no embedding reads these tokens"))
        subject.tidy()
        gone = sum(word.before - word.kept for word in words)
        return VocabularyReport(changed=gone, declined=tuple(declined), words=tuple(words))


def words_of(samples: Samples, languages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words that a model for some languages writes, in the order of the card's labels.

    These are the words of the samples' targets, the end, padding, the unknown word, and those that begin an
    answer in the languages.

    Args:
        samples: in these languages, matched to the card of a model with a decoder.
        languages: of its decoder.

    Raises:
        GraftError: the card has no decoder.
    """
    card = samples.card
    decoder, written = card.decoder, card.written
    if decoder is None or written is None:
        raise GraftError("card-decoder", "the model has no decoder", "describe it in the card: decoder")
    starts = {decoder.starts[name] for name in languages}
    special = starts | decoder.specials | ({written.unknown} - {None})
    places: list[int | None] = [
        decoder.label_of(each, len(card.labels)) for each in special if each is not None
    ]
    used: Integers = np.unique(samples.labels[samples.labels >= 0])
    kept = sorted({*used.tolist(), *(each for each in places if each is not None)})
    return tuple(card.labels[each] for each in kept)


@dataclass(frozen=True, kw_only=True)
class RestrictReport(VocabularyReport):
    """An encoder-decoder for some of its languages; ``changed`` counts the words that it lost.

    Attributes:
        model: with its card.
    """

    model: Model


@dataclass(frozen=True)
class Restrict:
    """Leave out some languages of an encoder-decoder, with the words that only they need.

    Attributes:
        languages: those that stay.
    """

    languages: tuple[str, ...]

    def __call__(self, subject: Model, context: Context) -> RestrictReport:
        """Return a copy of ``subject`` for the languages.

        Args:
            subject: with a card that has a decoder; left as it is.
            context: samples in these languages say which words stay; without samples all do.

        Raises:
            GraftError: the card has no decoder, or there are no samples in a language.
        """
        model, samples = subject.copy(), context.samples
        if samples is None:
            card = model.require_card()
            model.card = card.replace(decoder=card.decoder and card.decoder.only(self.languages))
            return RestrictReport(model=model)
        words = words_of(samples.speaking(self.languages), self.languages)
        before = len(model.require_card().labels)
        head = Head(words, together=True)(model, context)
        cut = Language(self.languages)(model, context)
        declined = (*head.declined, *cut.declined)
        return RestrictReport(changed=before - len(words), declined=declined, words=cut.words, model=model)
