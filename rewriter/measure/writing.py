"""Let an encoder-decoder write answers to samples in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.card import Card
from graft.rewriter.card.decoder_card import DecoderCard
from graft.rewriter.data.npz import open_samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.decoded import word_names
from graft.rewriter.run.decoding import Decoding
from graft.rewriter.run.session import Device

BATCH = 256


@dataclass(frozen=True)
class Written:
    """The answer to one sample.

    Attributes:
        sample: its file.
        index: position in the file.
        language: that the answer is in.
        words: of the answer.
    """

    sample: Path
    index: int
    language: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Writings:
    """The answers to several samples.

    Attributes:
        answers: in the order of the samples.
        providers: short names of the providers that ran.
    """

    answers: tuple[Written, ...]
    providers: tuple[str, ...]


def write(model: Model, files: Sequence[Path], device: Device, language: str | None = None) -> Writings:
    """Write an answer to each sample, by greedy decoding.

    Args:
        model: with a card that has a decoder.
        files: ``.npz`` files with an array for each input (``x.NAME``, or those of a split).
        device: where the model runs.
        language: of the answers; ``None``: the one that the first word of each target says, where the files
            have targets, else the only one.

    Raises:
        GraftError: a file cannot be read or lacks an input, a language is unknown or not named.
    """
    card = model.require_card()
    decoding, decoder = Decoding(model, device), _decoder(card)
    if language is not None:
        card.check_class(language)
    names, spoken = word_names(card), {start: name for name, start in decoder.starts.items()}
    found: list[Written] = []
    for path in files:
        if path.suffix.lower() != ".npz":
            raise GraftError(
                "data-inputs",
                f"{path}: an encoder-decoder takes .npz files with an array for each input",
                f"save x.NAME for {', '.join(each.name for each in card.fed if each.name != decoder.input)}",
            )
        split = open_samples(path)
        for start in range(0, len(split), BATCH):
            rows = np.arange(start, min(start + BATCH, len(split)))
            raw = split.raw(rows)
            first = _first(raw.get(decoder.input), decoder, language, path, len(rows))
            inputs = _prepared(card, raw, decoder.input, path)
            for row, number, words in zip(rows, first, decoding.answers(inputs, first), strict=True):
                said = tuple(names[each] for each in words)
                found.append(Written(path, int(row), spoken[int(number)], said))
    return Writings(tuple(found), decoding.providers)


def _decoder(card: Card) -> DecoderCard:
    """Return the decoder of a card, which :class:`Decoding` has asked for."""
    if card.decoder is None:
        raise ValueError("the model has no decoder")
    return card.decoder


def _prepared(card: Card, raw: dict[str, Array], written: str, path: Path) -> dict[str, Array]:
    """Return the inputs that are not written word by word, as the model takes them."""
    found = {}
    for each in card.fed:
        if each.name == written:
            continue
        only = raw.get("") if len(card.fed) == 2 and len(raw) == 1 else None
        values = raw.get(each.name, only)
        if values is None:
            raise GraftError(
                "data-inputs",
                f"{path}: expected data for input '{each.name}', found {', '.join(filter(None, raw)) or 'x'}",
                f"save it as x.{each.name}",
            )
        found[each.name] = each.prepare(values)
    return found


def _first(
    targets: Array | None, decoder: DecoderCard, language: str | None, path: Path, count: int
) -> Integers:
    """Return the first words of the answers (count,).

    Args:
        targets: (count, steps), or ``None``.
        decoder: of the card.
        language: that was asked for.
        path: the file.
        count: number of samples.
    """
    only = decoder.languages[0] if len(decoder.starts) == 1 else None
    if language is not None or only is not None:
        return np.full(count, decoder.starts[language or only or ""], np.int64)
    if targets is None or targets.ndim != 2 or not targets.shape[1]:
        raise GraftError(
            "language-missing",
            f"{path} does not say in which language to answer",
            f"name one: --language {'|'.join(decoder.languages)}",
        )
    first = targets[:, 0].astype(np.int64)
    unknown = first[~np.isin(first, list(decoder.starts.values()))]
    if unknown.size:
        raise GraftError(
            "language-missing",
            f"{path}: a target begins with word {unknown[0]}, which is the first word of no language",
            f"name one: --language {'|'.join(decoder.languages)}",
        )
    return first
