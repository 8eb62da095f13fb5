"""The old classes of a classifier where none of their samples are at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graft.passes.discriminant.head import Head
from graft.passes.discriminant.opened import Opened
from graft.rewriter.arrays import Integers, Table
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.mahalanobis import Mahalanobis
from graft.rewriter.run.session import Device

SAMPLES, STATISTICS, HEAD = "samples", "statistics", "head"
"""The three that represent the old classes, the best first."""
PER_CLASS = 50
FEWEST = 5
IMPOSSIBLE = 0.1
"""Share of values below 0, behind a ReLU, from which on centres that a head implies are not believed."""
MOST = 10_000
"""Drawn features of all classes together, unless each would have fewer than :data:`FEWEST`."""


@dataclass(frozen=True)
class Drawn:
    """Features of old classes that were drawn.

    Attributes:
        source: :data:`STATISTICS` or :data:`HEAD`.
        features: float64 (samples, values).
        logits: float64 (samples, columns): all columns of the classifier.
        labels: int64 (samples,): names of classes by their column.
        doubt: from 0 to 1: how little the model is as the draw supposes.
    """

    source: str
    features: Table
    logits: Table
    labels: Integers
    doubt: float = 0.0


def draw_others(
    model: Model, opened: Opened, new: Table, columns: list[int], device: Device, draw: np.random.Generator
) -> Drawn:
    """Draw features of the old classes.

    From the class centres and the covariance that the model carries (:class:`Mahalanobis`), as a normal
    distribution; else around centres that the rows of the head imply, with the deviations of the new samples.

    Args:
        model: the classifier.
        opened: itself, laid open.
        new: float64 (samples, values), features of the new class.
        columns: those that stay.
        device: where the head runs.
        draw: draws.

    Raises:
        GraftError: ``new-class-others`` where neither is there.
    """
    labels = model.require_card().labels
    head = opened.head(device)
    if OTHER in labels or len(columns) < 2:
        reason = f"the model has a class {OTHER}" if OTHER in labels else "only one class stays"
        raise _asks_for_samples(reason)
    if head is None:
        raise _asks_for_samples("its scores depend on more than the means of one layer of features")
    stored = Mahalanobis.of(model)
    try:
        return _drawn(stored, opened, head, new, (columns, [labels[column] for column in columns]), draw)
    except GraftError as error:
        if error.code != "run-failed":
            raise
        raise _asks_for_samples("its head does not run by itself") from error


def _drawn(
    stored: Mahalanobis | None,
    opened: Opened,
    head: Head,
    new: Table,
    others: tuple[list[int], list[str]],
    draw: np.random.Generator,
) -> Drawn:
    """Draw features by the statistics, or else by the head.

    Args:
        stored: statistics that the model carries.
        opened: the model, laid open.
        head: its head.
        new: float64 (samples, values), features of the new class.
        others: columns and names of the other classes.
        draw: draws.
    """
    columns, names = others
    count = max(FEWEST, min(PER_CLASS, MOST // len(columns)))
    if stored is not None and _covers(stored, opened, names):
        features = _from_statistics(stored, names, count, draw)
        return _finish(STATISTICS, features, new, head, columns)
    affine = head.affine()
    if affine is None:
        raise _asks_for_samples("it carries no statistics of classes, and its head is not affine")
    centers, doubt = _implied_centers(affine[0][columns], new)
    features = _around(centers, new, count, draw)
    return replace(_finish(HEAD, features, new, head, columns), doubt=doubt)


def _covers(stored: Mahalanobis, opened: Opened, names: list[str]) -> bool:
    """Return ``True`` where the statistics are of these features, and of all these classes."""
    source = opened.source
    same = source is not None and stored.tensor == source.name
    return same and stored.centers.shape[1] == opened.widths[0] and set(names) <= set(stored.classes)


def _finish(source: str, features: Table, new: Table, head: Head, columns: list[int]) -> Drawn:
    count = len(features) // len(columns)
    if new.min() >= 0:  # behind a ReLU
        features = np.maximum(features, 0)
    return Drawn(source, features, head.logits(features), np.repeat(np.array(columns, np.int64), count))


def _from_statistics(stored: Mahalanobis, names: list[str], count: int, draw: np.random.Generator) -> Table:
    """Draw ``count`` features of each class (samples, values) from its normal distribution."""
    lengths = np.linalg.norm(stored.directions, axis=0).astype(np.float64)
    unit = stored.directions / lengths
    found = []
    for name in names:
        noise = draw.normal(size=(count, len(unit)))
        along = noise @ unit
        across = (noise - along @ unit.T) / np.sqrt(stored.across[0]) if stored.across[0] > 0 else 0.0
        found.append(stored.centers[stored.classes.index(name)] + (along / lengths) @ unit.T + across)
    return np.concatenate(found)


def _implied_centers(weights: Table, new: Table) -> tuple[Table, float]:
    """Return the centres of classes (columns, values) that rows of a head imply, and the doubt about them.

    In a trained network centres and rows point the same way, seen from the mean of all centres, and centres
    are about equally far from it (neural collapse: Papyan, Han and Donoho, PNAS 2020). The mean itself is
    taken halfway between two guesses: all values alike, and, behind a ReLU, each value as large as the class
    that has the least of it allows without going below 0. Centres below 0 show, there, how wrong that is.

    Args:
        weights: float64 (columns, values).
        new: float64 (samples, values), features of the new class.
    """
    center = new.mean(axis=0)
    rows = weights - weights.mean(axis=0)
    mean = np.full(len(center), center.mean())
    least, positive = -rows.min(axis=0), new.min() >= 0
    if positive and least.mean() > 0:
        mean = (mean + least * center.mean() / least.mean()) / 2
    radius = float(np.linalg.norm(center - mean))
    length = max(float(np.linalg.norm(rows, axis=1).mean()), 1e-12)
    centers: Table = mean + rows * radius / length
    below = -np.minimum(centers, 0).sum() / max(1e-12, float(np.abs(centers).sum()))
    return centers, min(1.0, float(below) / IMPOSSIBLE) if positive else 1.0


def _around(centers: Table, new: Table, count: int, draw: np.random.Generator) -> Table:
    """Draw ``count`` features around each of ``centers``, with the deviations of the new samples.

    Args:
        centers: float64 (columns, values).
        new: float64 (samples, values), features of the new class.
        count: of each class.
        draw: chooses the deviations.
    """
    factor = np.sqrt(len(new) / max(1, len(new) - 1))
    chosen = draw.integers(0, len(new), (len(centers), count))
    apart = (new - new.mean(axis=0)) * factor
    found: Table = (centers[:, None] + apart[chosen]).reshape(-1, new.shape[1])
    return found


def _asks_for_samples(reason: str) -> GraftError:
    return GraftError(
        "new-class-others",
        f"nothing in the model represents the other classes: {reason}",
        "name a data set that holds samples of the old classes, too: another --data, or train/CLASS/*.jpg",
    )
