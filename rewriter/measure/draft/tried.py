"""Draft a card with samples: all ways to read the input are tried, and the likeliest is taken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.measure.draft.figures import Figures, clearly_worse, figures, matched_columns
from graft.rewriter.measure.draft.kinds import decide
from graft.rewriter.measure.draft.labels import Labels, moved
from graft.rewriter.measure.draft.outputs import Form, Scores, form_of, rows_of
from graft.rewriter.measure.draft.subject import (
    Candidate,
    CardDraft,
    Subject,
    other_outputs,
    output_card,
    single_column,
)
from graft.rewriter.measure.draft.trial import Trial, Way
from graft.rewriter.measure.draft.untried import draft_from_graph

FIRST = 64
"""Samples that all ways are tried on; most of them are clearly worse then."""
MOST, MOST_OF_LARGE = 1000, 500
"""Samples that the best ways are tried on, and those of large inputs."""
LARGE = 50_000
"""Numbers of a large input."""
FINALISTS = 4
ERRORS = 3.0
"""Ways that are worse by so many standard errors are not tried further."""
LEAST_MATCHED = 0.5
"""Columns are matched to names only if the model is right so often with them on other samples."""
SURER = 20.0
"""Inputs so many times as large make a network surer of the same answers, not better."""
LEAST_GAIN = 0.05
"""A gain of log-likelihood below that is no sign that larger inputs are meant."""


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


def draft_from_samples(subject: Subject) -> CardDraft:
    """Draft the card of the highest log-likelihood on samples.

    Args:
        subject: with labelled samples.

    Raises:
        GraftError: ``card-draft`` where no output is that of a classifier, and whatever is wrong with
            the samples.
    """
    part = subject.part
    assert part is not None
    trial = Trial(subject.session, [each.name for each in subject.outputs], part)
    ways = [Way(inputs) for inputs in subject.ways]
    order = np.random.default_rng(0).permutation(len(part))
    trial.run(ways, order[: subject.session.batch or 2])
    if all(way.error for way in ways):
        return _failed(subject, ways)
    readings = [_checked(subject, each, ways) for each in _readings(subject, part, ways)]
    for way in ways:
        way.scores = {}
    if len(readings) == 1:
        order = order[_known(readings[0].labels, part)[order]]
    order = order[: _most(ways[0])]
    trial.run(ways, order[:FIRST])
    if all(way.error for way in ways):
        return _failed(subject, ways)
    going = _finalists(ways, readings, part, order)
    trial.run(going, order[FIRST:])
    tried = _figured(ways, readings, part, order)
    if not tried:
        return _failed(subject, ways)
    finals = [each for each in tried if any(each.way is way for way in going)]
    best = _moved(_best(finals, _trusted(subject, ways)), finals, part, order)
    return _draft(subject, best, tried, ways, trial, order)


def _most(way: Way) -> int:
    """Return the number of samples to try."""
    height, width = way.inputs[0].size or (1, 1)
    return MOST_OF_LARGE if height * width * way.inputs[0].channels > LARGE else MOST


def _steps(part: Split) -> int | None:
    return part.labels.shape[1] if part.labels.ndim == 2 and part.labels.shape[1] > 1 else None


def _readings(subject: Subject, part: Split, ways: list[Way]) -> list[Reading]:
    """Return the outputs that can be scores of the samples' classes, by the shape that they came in."""
    ran = next(way for way in ways if not way.error)
    found: list[Reading] = []
    refused: GraftError | None = None
    for each in subject.outputs:
        try:
            form = form_of(each.name, ran.rows(each.name).shape, _steps(part))
            found.append(Reading(each, form, subject.labels(each.name, form)))
        except GraftError as error:
            refused = refused or error
    if not found:
        raise refused or GraftError(
            "card-draft", "the model has no output of numbers", "write the card by hand"
        )
    named = [each for each in found if each.labels.source not in ("numbers", "the data")]
    return named or _wide_enough(found, part)


def _wide_enough(found: list[Reading], part: Split) -> list[Reading]:
    """Leave out outputs with fewer columns than the data have classes, if others have enough."""
    classes = int(part.labels.max(initial=0)) + 1
    return [each for each in found if len(each.labels.names) >= classes] or found


def _checked(subject: Subject, reading: Reading, ways: list[Way]) -> Reading:
    """Let a card match the samples as every command will, so that wrong labels are told here."""
    ran = next(way for way in ways if not way.error)
    kind = reading.scores.by_graph or "logits"
    kind = "binary" if reading.form.columns == 1 else kind
    output = output_card(reading.scores.name, kind, reading.form.steps)
    card = subject.card(ran.inputs, output, reading.labels.names)
    assert subject.part is not None
    try:
        Samples.match(subject.part, card)
    except GraftError as error:
        if error.code != "data-classes":
            raise
    return reading


def _known(labels: Labels, part: Split) -> np.ndarray:
    """Mask of the samples whose class has a column; all of them where none is known."""
    if labels.place is None or not (labels.place >= 0).any():
        return np.ones(len(part), bool)
    return np.asarray((labels.place[part.labels] >= 0).reshape(len(part), -1).any(axis=1))


def _truth(labels: Labels, part: Split, positions: Integers) -> Integers:
    numbers = part.labels[positions]
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    assert labels.place is not None
    return np.asarray(labels.place[numbers])


def _rows(way: Way, reading: Reading) -> Array:
    return rows_of(way.rows(reading.scores.name), reading.form)


def _figured(ways: list[Way], readings: list[Reading], part: Split, order: Integers) -> list[Tried]:
    """Return figures of all ways that ran, with all outputs."""
    running = [way for way in ways if not way.error and way.samples]
    found = []
    for reading in readings:
        # One kind for all ways: it is a matter of the output, and more rows show it more surely.
        rows = [_rows(way, reading).reshape(-1, reading.form.columns) for way in running]
        kind = decide(reading.scores.by_graph, np.concatenate(rows), reading.form.columns) if rows else None
        if kind is None:
            if len(readings) == 1:
                raise single_column(reading.scores.name)
            continue
        for way in running:
            truth = _truth(reading.labels, part, order[: way.samples])
            found.append(Tried(way, reading, kind, figures(_rows(way, reading), kind, truth)))
    return found


def _finalists(ways: list[Way], readings: list[Reading], part: Split, order: Integers) -> list[Way]:
    """Return the ways that may be the best; all of them where labels do not decide yet."""
    tried = _figured(ways, readings, part, order)
    kept: list[Way] = [ways[0]]
    for reading in readings:
        own = sorted(
            (each for each in tried if each.reading is reading), key=lambda each: -each.found.likelihood
        )
        if not own:
            continue
        if not reading.labels.certain and not any(each.found.better_than_chance for each in own):
            own = sorted(own, key=lambda each: -_matched_likelihood(each, part, order))[:FINALISTS]
            kept += [each.way for each in own]
            continue
        for rank, each in enumerate(own):
            if rank < FINALISTS or not clearly_worse(each.found, own[0].found, ERRORS):
                kept.append(each.way)
    return [way for way in ways if any(way is each for each in kept)]


def _matched_likelihood(each: Tried, part: Split, order: Integers) -> float:
    """Return the log-likelihood with the columns that the model itself says most often for each class."""
    if not _matchable(each, part):
        return each.found.likelihood
    classes, rows = part.labels[order[: each.way.samples]], _rows(each.way, each.reading)
    columns, _ = matched_columns(rows, each.kind, classes, len(part.class_names or ()))
    return figures(rows, each.kind, columns[classes]).likelihood


def _trusted(subject: Subject, ways: list[Way]) -> Way | None:
    """Return the way that something speaks for: a configuration, or samples that fit as they are."""
    first = ways[0]
    written = subject.written.preprocessing is not None and first.inputs[0].kind == "image"
    return first if written or first.inputs[0].kind != "image" else None


def _best(tried: list[Tried], trusted: Way | None) -> Tried:
    """Return the likeliest way of each output, and of those the most accurate."""
    finals = []
    for name in dict.fromkeys(each.reading.scores.name for each in tried):
        own = [each for each in tried if each.reading.scores.name == name]
        finals.append(_likeliest(own, trusted))
    return max(finals, key=lambda each: (round(each.found.top1, 6), round(each.found.likelihood, 6)))


def _likeliest(tried: list[Tried], trusted: Way | None) -> Tried:
    """Return the likeliest way; of two that are nearly alike, not the one that only makes the model surer."""
    best = max(tried, key=lambda each: each.found.likelihood)
    for each in tried:
        gain = best.found.likelihood - each.found.likelihood
        if each.way is trusted and (gain < LEAST_GAIN or not clearly_worse(each.found, best.found, 2)):
            return each
    smaller = [each for each in tried if SURER * _reach(each.way) <= _reach(best.way)]
    as_good = [
        each
        for each in smaller
        if each.found.likelihood >= best.found.likelihood - LEAST_GAIN
        and each.found.top1 >= best.found.top1 - LEAST_GAIN / 5
    ]
    return max(as_good, key=lambda each: each.found.likelihood, default=best)


def _reach(way: Way) -> float:
    """Return what a step of one in a sample changes in the input."""
    card = way.inputs[0]
    return card.scale / min(map(abs, card.std)) if card.kind == "image" else 1.0


def _moved(best: Tried, tried: list[Tried], part: Split, order: Integers) -> Tried:
    """Match columns to the names in the data by what the model says, if that and nothing else fits."""
    found = [_matched(each, part, order) for each in tried if _matchable(each, part)]
    matched = max((each for each in found if each), key=lambda each: each[1].top1, default=None)
    if matched is None:
        return best
    error = 0.5 / np.sqrt(len(matched[1].truth))
    return matched[0] if matched[1].top1 > best.found.top1 + 2 * error else best


def _matchable(each: Tried, part: Split) -> bool:
    """Return True where names of the data can be matched to columns whose names nothing else says."""
    names = part.class_names
    plain = part.labels.ndim == 1 and not each.reading.form.steps and not each.reading.labels.certain
    return plain and names is not None and len(names) <= len(each.reading.labels.names)


def _matched(each: Tried, part: Split, order: Integers) -> tuple[Tried, Figures] | None:
    """Match on one half of the samples, and measure on the other."""
    positions = order[: each.way.samples]
    classes, rows = part.labels[positions], _rows(each.way, each.reading)
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


def _labelled(each: Tried, reading: Reading, part: Split, order: Integers) -> Tried:
    """Return figures of the same output with the labels that were chosen in the end."""
    if each.reading.scores is not reading.scores:
        return each
    truth = _truth(reading.labels, part, order[: each.way.samples])
    return replace(each, reading=reading, found=figures(_rows(each.way, each.reading), each.kind, truth))


def _draft(
    subject: Subject, best: Tried, tried: list[Tried], ways: list[Way], trial: Trial, order: Integers
) -> CardDraft:
    part = trial.part
    reading = best.reading
    output = output_card(reading.scores.name, best.kind, reading.form.steps)
    card = subject.card(best.way.inputs, output, reading.labels.names)
    if any(each.reading.labels is not reading.labels for each in tried):
        tried = [_labelled(each, reading, part, order) for each in tried]
    same = (best.way.inputs, reading.scores)
    ranked = sorted(tried, key=lambda each: (-each.way.samples, -each.found.likelihood))
    others = [each for each in ranked if (each.way.inputs, each.reading.scores) != same]
    candidates = [each.candidate() for each in (best, *others)]
    candidates += [
        Candidate(way.inputs, reading.scores.name, best.kind, error=way.error) for way in ways if way.error
    ]
    notes = [*reading.labels.notes, *other_outputs(subject, reading.scores.name)]
    if trial.singly:
        notes.append("the model takes one sample at a time, although its input has a free batch axis")
    problem = ""
    if not best.found.better_than_chance:
        problem = (
            f"top-1 {100 * best.found.top1:.2f} % on {best.way.samples} samples is no better than chance: "
            "input, labels or their order are not those of this card"
        )
    return CardDraft(
        card,
        best.found.top1,
        subject.session.providers,
        best.found.likelihood,
        best.way.samples,
        tuple(candidates),
        tuple(notes),
        problem,
    )


def _failed(subject: Subject, ways: list[Way]) -> CardDraft:
    """Draft from the graph alone, because no way to feed the model ran."""
    draft = draft_from_graph(subject)
    output = draft.card.output
    return replace(
        draft,
        candidates=tuple(Candidate(way.inputs, output.name, output.kind, error=way.error) for way in ways),
        problem=f"the model did not run on the samples: {ways[0].error}",
    )
