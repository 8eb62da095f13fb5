"""Labels for samples that have none: the predictions of a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from graft.rewriter.arrays import Integers
from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import BATCH, check_finite, columns
from graft.rewriter.run.session import Device

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Called with the number of samples; gives what is called with those done."""


MANY_OUTSIDE = 0.5
"""Share of predictions outside of the classes asked for from which data seems to hold other classes."""
log = logging.getLogger("graft")


def predicted_labels(
    split: Split,
    model: Model,
    device: Device,
    progress: Callable[[int], None] | None = None,
    among: Sequence[str] | None = None,
) -> Split:
    """Return a split whose labels are what a model decides, among all of its classes or some.

    Args:
        split: samples; labels that they have are not used.
        model: with a card; a sample, or a time step, belongs to the class with the highest score.
        device: where it runs.
        progress: called with the number of samples done after each batch.
        among: the only classes that samples are of, two or more; ``None``: all classes of the model.

    Raises:
        GraftError: the samples do not fit the card, the outputs are not numbers, or ``bad-request``:
            fewer than two classes.
    """
    card = model.require_card()
    allowed = _allowed(card, among)
    session = device.open(model)
    none = Samples(split, np.arange(len(split)), np.zeros(len(split), np.int64), card)
    decisions, free = [], []
    name = card.output.name
    for feed, truth in session.batches(none, BATCH):
        scores = check_finite(session.rows(session.run(feed, [name])[name], name, truth), name)
        known = None if card.output.steps else truth
        found = columns(scores, card.output.kind, len(card.labels), known)
        free.append(found.argmax(axis=-1))
        decisions.append(free[-1] if allowed is None else allowed[found[..., allowed].argmax(axis=-1)])
        if progress:
            progress(len(truth))
    labels = np.concatenate(decisions).astype(np.int64)
    predicted = replace(split, labels=labels, class_names=card.labels, labelled=True, predicted=True)
    if allowed is None:
        return predicted
    share = float(1 - np.isin(np.concatenate(free), allowed).mean())
    if share > MANY_OUTSIDE:
        log.warning(
            "%.0f %% of the predictions in split '%s' are other classes than those asked for, and labels are "
            "predicted among these: leave out --labels-among if the data holds other classes",
            *(100 * share, split.name),
        )
    names = tuple(card.labels[number] for number in allowed)
    return replace(predicted, label_classes=names, predicted_outside=share)


def _allowed(card: Card, among: Sequence[str] | None) -> Integers | None:
    """Return the columns that labels are predicted among; ``None``: all."""
    if among is None:
        return None
    numbers = np.unique(np.array([card.class_index(name) for name in among], np.int64))
    if len(numbers) < 2:
        raise GraftError(
            "bad-request",
            "labels are to be predicted among the classes asked for, and fewer than two are: all samples "
            "would be of one class",
            "ask for more classes, or leave out --labels-among",
        )
    return None if len(numbers) == len(card.labels) else numbers


def describe_labels(samples: Samples, classes: Sequence[str]) -> dict[str, Any]:
    """Return what the split says of its labels and, of predictions, ``predicted_outside``.

    That is the share, from 0 to 1, that the model gives to other classes when it decides among all.

    Args:
        samples: with labels or predictions.
        classes: those asked for.
    """
    found = samples.split.describe()
    if samples.split.predicted and samples.split.label_classes is None:
        known = samples.labels[samples.labels != IGNORED]
        numbers = [samples.card.class_index(name) for name in classes]
        found["predicted_outside"] = float(1 - np.isin(known, numbers).mean())
    return found


def with_predictions(
    dataset: Dataset,
    model: Model,
    device: Device,
    progress: Progress | None = None,
    among: Sequence[str] | None = None,
) -> Dataset:
    """Return a data set whose unlabelled splits have the predictions of a model as labels.

    Args:
        dataset: with labels or without; labels that are there stay.
        model: with a card.
        device: where it runs, the first time that an unlabelled split is opened.
        progress: shows how far it is.
        among: the only classes that the unlabelled samples are of; ``None``: all classes of the model.
    """

    @cache
    def give(split: Split) -> Split:
        if progress is None:
            return predicted_labels(split, model, device, among=among)
        with progress(len(split)) as step:
            return predicted_labels(split, model, device, step, among)

    return dataset.labelled_by(give)
