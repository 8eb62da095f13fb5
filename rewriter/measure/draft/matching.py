"""Match the columns of an output to the names in the data by what the model says of the samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graft.rewriter.arrays import Integers
from graft.rewriter.data.split import Split
from graft.rewriter.measure.draft.choice import likeliest
from graft.rewriter.measure.draft.figures import Figures, figures, matched_columns
from graft.rewriter.measure.draft.labels import moved
from graft.rewriter.measure.draft.readings import Tried, rows_in

LEAST_MATCHED = 0.5
"""Columns are matched to names only if the model is right so often with them on other samples."""


def matched_likelihood(each: Tried, part: Split, order: Integers) -> float:
    """Return the log-likelihood with the columns that the model itself says most often for each class.

    Args:
        each: what was tried.
        part: labelled samples.
        order: positions of the samples, as they ran.
    """
    if not _matchable(each, part):
        return each.found.likelihood
    classes, rows = part.labels[order[: each.way.samples]], rows_in(each.way, each.reading)
    columns, _ = matched_columns(rows, each.kind, classes, len(part.class_names or ()))
    return figures(rows, each.kind, columns[classes]).likelihood


def with_matched_columns(best: Tried, tried: list[Tried], part: Split, order: Integers) -> Tried:
    """Match columns to the names in the data by what the model says, if that and nothing else fits.

    Args:
        best: the choice with the order of the data.
        tried: all that may be taken.
        part: labelled samples.
        order: positions of the samples, as they ran.
    """
    pairs = [pair for each in tried if _matchable(each, part) and (pair := _matched(each, part, order))]
    if not pairs:
        return best
    matched = likeliest([pair[0] for pair in pairs], None)
    other = next(figures for each, figures in pairs if each is matched)
    error = 0.5 / np.sqrt(len(other.truth))
    return matched if other.top1 > best.found.top1 + 2 * error else best


def _matchable(each: Tried, part: Split) -> bool:
    """Return True where names of the data can be matched to columns whose names nothing else says."""
    names = part.class_names
    plain = part.labels.ndim == 1 and not each.reading.form.steps and not each.reading.labels.certain
    return plain and names is not None and len(names) <= len(each.reading.labels.names)


def _matched(each: Tried, part: Split, order: Integers) -> tuple[Tried, Figures] | None:
    """Match on one half of the samples, and measure on the other."""
    positions = order[: each.way.samples]
    classes, rows = part.labels[positions], rows_in(each.way, each.reading)
    half = len(positions) // 2
    if half < 10:
        return None
    names = part.class_names or ()
    columns, _ = matched_columns(rows[:half], each.kind, classes[:half], len(names))
    other = figures(rows[half:], each.kind, columns[classes[half:]])
    if not other.better_than_chance or other.top1 < LEAST_MATCHED:
        return None
    columns, said = matched_columns(rows, each.kind, classes, len(names))
    if len(names) < len(each.reading.labels.names):
        columns = np.where(said, columns, -1)
    labels = moved(each.reading.labels, part, columns)
    whole = figures(rows, each.kind, columns[classes])
    return replace(each, reading=replace(each.reading, labels=labels), found=whole), other
