"""Samples of a single class: a folder of its images, or an array of them, without labels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.split import TEST, TRAIN, Split, Storage


def of_one_class(dataset: Dataset, name: str) -> Dataset:
    """Return a data set whose samples without labels are of one class.

    Where training and test samples would have to be drawn, all of them are training samples.

    Args:
        dataset: with labels or without; labels that are there stay.
        name: of the class.
    """

    def labelled(split: Split) -> Split:
        none = np.zeros(len(split), np.int64)
        return replace(split, labels=none, class_names=(name,), labelled=True, drawn=None)

    if TRAIN in dataset.splits:
        first = dataset.split(TRAIN)
        if not first.labelled and first.drawn is not None:
            parts = [labelled(dataset.split(each)) for each in (TRAIN, TEST) if each in dataset.splits]
            whole = partial(Split.join, parts)
            return Dataset(dataset.name, Storage({TRAIN: whole}, dataset.fingerprint))
    return dataset.labelled_by(labelled)
