"""Labels for samples that have none: the predictions of a model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache

import numpy as np

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import BATCH, check_finite, columns
from graft.rewriter.run.session import Device

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Called with the number of samples; gives what is called with those done."""


def predicted_labels(
    split: Split, model: Model, device: Device, progress: Callable[[int], None] | None = None
) -> Split:
    """Return a split whose labels are what a model decides, among all of its classes.

    Args:
        split: samples; labels that they have are not used.
        model: with a card; a sample, or a time step, belongs to the class with the highest score.
        device: where it runs.
        progress: called with the number of samples done after each batch.

    Raises:
        GraftError: the samples do not fit the card, or the outputs are not numbers.
    """
    card = model.require_card()
    session = device.open(model)
    none = Samples(split, np.arange(len(split)), np.zeros(len(split), np.int64), card)
    decisions = []
    name = card.output.name
    for feed, truth in session.batches(none, BATCH):
        scores = check_finite(session.rows(session.run(feed, [name])[name], name, truth), name)
        known = None if card.output.steps else truth
        decisions.append(columns(scores, card.output.kind, len(card.labels), known).argmax(axis=-1))
        if progress:
            progress(len(truth))
    labels = np.concatenate(decisions).astype(np.int64)
    return replace(split, labels=labels, class_names=card.labels, labelled=True, predicted=True)


def with_predictions(
    dataset: Dataset, model: Model, device: Device, progress: Progress | None = None
) -> Dataset:
    """Return a data set whose unlabelled splits have the predictions of a model as labels.

    Args:
        dataset: with labels or without; labels that are there stay.
        model: with a card.
        device: where it runs, the first time that an unlabelled split is opened.
        progress: shows how far it is.
    """

    @cache
    def give(split: Split) -> Split:
        if progress is None:
            return predicted_labels(split, model, device)
        with progress(len(split)) as step:
            return predicted_labels(split, model, device, step)

    return dataset.labelled_by(give)
