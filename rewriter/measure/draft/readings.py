"""Outputs as scores of classes, and what they reach on samples that ran."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graft.rewriter.arrays import Array, Integers, Mask
from graft.rewriter.data.split import Split
from graft.rewriter.measure.draft.figures import Figures, figures
from graft.rewriter.measure.draft.kinds import decide
from graft.rewriter.measure.draft.labels import Labels
from graft.rewriter.measure.draft.outputs import Form, Scores, rows_of
from graft.rewriter.measure.draft.subject import Candidate, single_column
from graft.rewriter.measure.draft.trial import Way


@dataclass(frozen=True)
class Reading:
    """An output with the labels of its columns."""

    scores: Scores
    form: Form
    labels: Labels


@dataclass(frozen=True)
class Tried:
    """A way to feed the model, and an output of it, with figures."""

    way: Way
    reading: Reading
    kind: str
    found: Figures

    def candidate(self) -> Candidate:
        """Return what is shown of it."""
        return Candidate(
            self.way.inputs,
            self.reading.scores.name,
            self.kind,
            self.found.top1,
            self.found.likelihood,
            self.way.samples,
        )


def known(labels: Labels, part: Split) -> Mask:
    """Return the mask of the samples whose class has a column; all of them where none is known."""
    if labels.place is None or not (labels.place >= 0).any():
        return np.ones(len(part), bool)
    return np.asarray((labels.place[part.labels] >= 0).reshape(len(part), -1).any(axis=1))


def truth_of(labels: Labels, part: Split, positions: Integers) -> Integers:
    """Return the column of every label (n,) or (n, steps) of some samples; -1 where there is none.

    Args:
        labels: of an output.
        part: labelled samples.
        positions: of the samples in it.
    """
    numbers = part.labels[positions]
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    assert labels.place is not None
    return np.asarray(labels.place[numbers])


def rows_in(way: Way, reading: Reading) -> Array:
    """Return the scores of an output for all samples that ran so far."""
    return rows_of(way.rows(reading.scores.name), reading.form)


def figured(ways: list[Way], readings: list[Reading], part: Split, order: Integers) -> list[Tried]:
    """Return figures of all ways that ran, with all outputs.

    Args:
        ways: with the scores that they have so far.
        readings: outputs.
        part: labelled samples.
        order: positions of the samples, as they ran.
    """
    running = [way for way in ways if not way.error and way.samples]
    found = []
    for reading in readings:
        # One kind for all ways: it is a matter of the output, and more rows show it more surely.
        rows = [rows_in(way, reading).reshape(-1, reading.form.columns) for way in running]
        kind = decide(reading.scores.by_graph, np.concatenate(rows), reading.form.columns) if rows else None
        if kind is None:
            if len(readings) == 1:
                raise single_column(reading.scores.name)
            continue
        for way in running:
            truth = truth_of(reading.labels, part, order[: way.samples])
            found.append(Tried(way, reading, kind, figures(rows_in(way, reading), kind, truth)))
    return found


def relabelled(each: Tried, reading: Reading, part: Split, order: Integers) -> Tried:
    """Return figures of the same output with the labels that were chosen in the end.

    Args:
        each: what was tried.
        reading: with the labels.
        part: labelled samples.
        order: positions of the samples, as they ran.
    """
    if each.reading.scores is not reading.scores:
        return each
    truth = truth_of(reading.labels, part, order[: each.way.samples])
    return replace(each, reading=reading, found=figures(rows_in(each.way, each.reading), each.kind, truth))
