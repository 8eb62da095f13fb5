"""Concern identification of recurrent networks as published: how strongly are units on for the classes?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft.passes.identify.base import Method, Question, Scores
from graft.rewriter.calibration import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.operators import operator_of
from graft.rewriter.session import Device, fit

POSITIVES = NEGATIVES = 500
"""Samples of the classes, and of all others together, as the authors take them."""
OUTLIER = 2.0
"""Times the median distance from the median; what lies further out does not count."""
BATCH = 64


class Rolled(Method):
    """The central tendency of a unit's absolute state for the classes, less that for the rest.

    Imtiaz et al., ICSE 2023, algorithms 1, 2 and 4 in the mode *rolled*: all time steps of the first 500
    samples of the classes against as many steps of others, with one label a time step the steps that have
    it; values far from the median are left out; all gates of a unit go with its hidden state. The authors
    remove only units with a negative difference, 5 % at most; a smaller budget goes on in the same order.
    Channels that are no hidden units stay as long as there are any.
    """

    name = "icse23:rolled"

    def scores(self, question: Question) -> Scores:
        """Differences from the least one up; the highest for what is no hidden unit."""
        samples = self.samples(question)
        groups = question.groups
        reads = [(node, read) for node in groups.nodes for read in operator_of(node).reads(node, groups)]
        own = {read.tensor(node).name: read.channels for node, read in reads if read.own is not None}
        if not own:
            raise GraftError(
                "method-recurrent",
                f"the method {self.name} is for recurrent layers, and the model has none",
                "choose another method, such as ablation",
            )
        states, wanted = _states(question, samples, list(own))
        result = np.zeros(groups.count)
        seen = np.zeros(groups.count, bool)
        for name, channels in own.items():
            difference = tendency(states[name][wanted]) - tendency(states[name][~wanted])
            result[channels] = difference
            seen[channels] = True
        result[seen] -= result[seen].min()
        result[~seen] = 2 * result.max(initial=0.0) + 1
        return groups.close(result)


def tendency(values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean absolute value of each column without outliers: (rows, units) to (units,)."""
    size = np.abs(values.astype(np.float64))
    away = np.abs(size - np.median(size, axis=0))
    usual = away < OUTLIER * np.median(away, axis=0)
    usual |= ~usual.any(axis=0)  # where half of the values are equal
    mean: NDArray[np.float64] = np.where(usual, size, 0).sum(axis=0) / usual.sum(axis=0)
    return mean


def _states(
    question: Question, samples: Samples, names: list[str]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """States by row, a time step of a sample, and whether each is one of the wanted classes."""
    numbers = [samples.card.class_index(name) for name in question.classes]
    own = np.isin(samples.labels.reshape(len(samples), -1), numbers)
    positive, negative = np.flatnonzero(own.any(axis=1)), np.flatnonzero(~own.all(axis=1))
    chosen = np.union1d(positive[:POSITIVES], _first_of_each(samples, negative, numbers))
    samples = samples.take(chosen)
    model = question.model.copy()
    tensors = model.graph.tensors()
    for name in names:
        tensors[name].dtype = tensors[name].dtype or np.dtype(np.float32)
    model.graph.outputs = [tensors[name] for name in names]
    session = (question.device or Device()).open(model)
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    flags = []
    for inputs, labels in samples.batches(session.batch or BATCH):
        outputs = session.run(fit(inputs, session.batch), names)
        steps = next(iter(outputs.values())).shape[0]
        wanted = np.isin(labels.reshape(len(labels), -1), numbers)
        if wanted.shape[1] != steps:
            wanted = np.asarray(wanted.any(axis=1, keepdims=True))
        flags.append(np.broadcast_to(wanted, (len(labels), steps)).reshape(-1))
        for name in names:
            found = outputs[name][:, :, : len(labels)]  # (steps, directions, samples, units)
            parts[name].append(
                found.transpose(2, 0, 1, 3).reshape(len(labels) * steps, -1, found.shape[3])[:, 0]
            )
    return {name: np.concatenate(found) for name, found in parts.items()}, np.concatenate(flags)


def _first_of_each(samples: Samples, negative: NDArray[np.int64], numbers: list[int]) -> NDArray[np.int64]:
    """The first samples of every other class, as many of each."""
    labels = samples.labels.reshape(len(samples), -1)[negative]
    others = [number for number in range(len(samples.card.labels)) if number not in numbers]
    each = max(1, NEGATIVES // max(1, len(others)))
    found = [negative[(labels == number).any(axis=1)][:each] for number in others]
    return np.concatenate([np.zeros(0, np.int64), *found])
