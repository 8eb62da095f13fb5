"""Targets of encoder-decoders: in which language they are, and which of their words count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graft.rewriter.arrays import Integers
from graft.rewriter.card.card import Card
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError

BATCH = 4096


def as_written(labels: Integers, card: Card) -> Integers:
    """Return labels with the unknown word for words that were removed: leaving a word out is an error.

    Args:
        labels: int64 (N, T), positions in the card's labels, negative where it has none.
        card: of a model with a decoder.
    """
    decoder, written = card.decoder, card.written
    if decoder is None or written is None or decoder.words is None or written.unknown is None:
        return labels
    unknown = decoder.label_of(written.unknown, len(card.labels))
    return labels if unknown is None else np.where(labels < 0, unknown, labels)


def unspoken(labels: Integers, split: Split, card: Card) -> npt.NDArray[np.bool_]:
    """Mark the labels that do not count: padding, and targets in languages that the model does not speak.

    Args:
        labels: int64 (N, T), positions in the card's labels.
        split: the samples, whose targets are read.
        card: of a model with a decoder.

    Returns:
        bool (N, T).

    Raises:
        GraftError: the samples have no targets.
    """
    decoder = card.decoder
    if decoder is None:
        return np.zeros(labels.shape, bool)
    starts = first_words(split, card, np.arange(len(split)))
    marked = np.repeat(~np.isin(starts, list(decoder.starts.values()))[:, None], labels.shape[1], axis=1)
    if decoder.padding is not None:
        marked |= labels == decoder.label_of(decoder.padding, len(card.labels))
    return marked


def first_words(split: Split, card: Card, indices: Integers) -> Integers:
    """Return the first number of each target.

    Args:
        split: the samples.
        card: of a model with a decoder.
        indices: int64 (n,), positions in the split.

    Returns:
        int64 (n,).

    Raises:
        GraftError: ``data-inputs`` where the samples have no targets, ``data-shape`` where these are empty.
    """
    name = "" if card.decoder is None else card.decoder.input
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(indices), BATCH):
        raw = split.raw(indices[start : start + BATCH])
        if name not in raw and len(raw) > 1:
            raise GraftError(
                "data-inputs",
                f"expected data for input '{name}', found {', '.join(raw)}",
                f"name it in the .npz file: x_{split.name}.{name}",
            )
        words = raw[name] if name in raw else next(iter(raw.values()))
        if words.ndim != 2 or not words.shape[1]:
            raise GraftError(
                "data-shape",
                f"input '{name}': expected one number a word (N, T), found {list(words.shape)}",
                "correct the data",
            )
        found.append(words[:, 0].astype(np.int64))
    return np.concatenate(found)
