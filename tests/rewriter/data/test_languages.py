"""Targets of encoder-decoders."""

from __future__ import annotations

import numpy as np
import pytest

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.errors import GraftError
from tests import translator
from tests.translator import BLUE, END, PADDING, RED, UNKNOWN

TARGET = np.array([[RED, 5, 6, PADDING], [BLUE, 11, PADDING, PADDING], [7, 5, PADDING, PADDING]])
LABELS = np.array([[5, 6, END, PADDING], [11, END, PADDING, PADDING], [5, END, PADDING, PADDING]])
SOURCE = np.full((3, translator.SOURCE), 2)


def matched(**decoder: object) -> Samples:
    card = translator.card(**decoder)
    split = Dataset.from_arrays({"source": SOURCE, "target": TARGET}, LABELS).split("train")
    return Samples.match(split, card, names=translator.WORDS)


def test_padding_and_other_languages_do_not_count() -> None:
    found = matched()
    assert len(found) == 2 and found.left_out == 1
    np.testing.assert_array_equal(found.labels, np.where(LABELS[:2] == PADDING, IGNORED, LABELS[:2]))
    np.testing.assert_array_equal(matched(padding=None).labels, LABELS[:2])
    np.testing.assert_array_equal(matched(starts={"Blue": BLUE}).indices, [1])


def test_a_word_that_was_removed_counts_as_unknown() -> None:
    card = translator.card()
    assert card.decoder is not None
    kept = [PADDING, UNKNOWN, END, RED, 5]
    fewer = card.replace(
        labels=[card.labels[each] for each in kept], decoder=card.decoder.with_labels(kept).only(["Red"])
    )
    split = Dataset.from_arrays({"source": SOURCE, "target": TARGET}, LABELS).split("train")
    found = Samples.match(split, fewer, names=translator.WORDS)
    np.testing.assert_array_equal(found.labels, [[4, 1, 2, IGNORED]])


def test_sentences_by_language() -> None:
    found = matched()
    np.testing.assert_array_equal(found.speaking(["Blue"]).indices, [1])
    assert len(found.speaking(["Blue", "Red"])) == 2
    with pytest.raises(GraftError, match="no sample of split 'train' begins with the first word of Red"):
        found.take([1]).speaking(["Red"])


def test_data_without_targets_is_refused() -> None:
    split = Dataset.from_arrays({"source": SOURCE, "goal": TARGET}, LABELS).split("train")
    with pytest.raises(GraftError, match="expected data for input 'target'"):
        Samples.match(split, translator.card())
