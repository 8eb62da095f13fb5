"""Draft a card with samples: all ways to read the input are tried, and the likeliest is taken."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from graft.rewriter.arrays import Integers
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.measure.draft.choice import best_of, trusted_way
from graft.rewriter.measure.draft.figures import clearly_worse
from graft.rewriter.measure.draft.matching import matched_likelihood, with_matched_columns
from graft.rewriter.measure.draft.outputs import form_of
from graft.rewriter.measure.draft.readings import Reading, Tried, figured, known, relabelled
from graft.rewriter.measure.draft.subject import (
    Candidate,
    CardDraft,
    Subject,
    other_outputs,
    output_card,
)
from graft.rewriter.measure.draft.trial import Trial, Way
from graft.rewriter.measure.draft.untried import draft_from_graph
from graft.rewriter.measure.speed import Timed

FIRST = 64
"""Samples that all ways are tried on; most of them are clearly worse then."""
MOST, MOST_OF_LARGE = 1000, 500
"""Samples that the best ways are tried on, and those of large inputs."""
LARGE = 50_000
"""Numbers of a large input."""
FINALISTS = 4
ERRORS = 3.0
"""Ways that are worse by so many standard errors are not tried further."""


def draft_from_samples(subject: Subject, timed: Timed | None = None) -> CardDraft:
    """Draft the card of the highest log-likelihood on samples.

    Args:
        subject: with labelled samples.
        timed: is called once a few samples ran, with the number of all runs and the seconds of one.

    Raises:
        GraftError: ``card-draft`` where no output is that of a classifier, and whatever is wrong with
            the samples.
    """
    part = subject.part
    assert part is not None
    trial = Trial(subject.session, [each.name for each in subject.outputs], part)
    ways = [Way(inputs) for inputs in subject.ways]
    order = np.random.default_rng(0).permutation(len(part))
    first, begun = order[: subject.session.batch or 2], time.perf_counter()
    trial.run(ways, first)
    took = time.perf_counter() - begun
    if all(way.error for way in ways):
        return _failed(subject, ways)
    if timed is not None:
        feedable = sum(not way.error for way in ways)
        some = min(len(order), _most(ways[0]))
        runs = feedable * min(some, FIRST) + min(feedable, FINALISTS) * max(0, some - FIRST)
        timed(runs, took / (len(ways) * len(first)))
    readings = [_checked(subject, each, ways) for each in _readings(subject, part, ways)]
    for way in ways:
        way.scores = {}
    if len(readings) == 1:
        order = order[known(readings[0].labels, part)[order]]
    order = order[: _most(ways[0])]
    trial.run(ways, order[:FIRST])
    if all(way.error for way in ways):
        return _failed(subject, ways)
    going = _finalists(ways, readings, part, order)
    trial.run(going, order[FIRST:])
    tried = figured(ways, readings, part, order)
    if not tried:
        return _failed(subject, ways)
    finals = [each for each in tried if any(each.way is way for way in going)]
    best = with_matched_columns(best_of(finals, trusted_way(subject, ways)), finals, part, order)
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
            subject.check_rows(each.name)
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


def _finalists(ways: list[Way], readings: list[Reading], part: Split, order: Integers) -> list[Way]:
    """Return the ways that may be the best; all of them where labels do not decide yet."""
    tried = figured(ways, readings, part, order)
    kept: list[Way] = [ways[0]]
    for reading in readings:
        own = sorted(
            (each for each in tried if each.reading is reading), key=lambda each: -each.found.likelihood
        )
        if not own:
            continue
        if not reading.labels.certain and not any(each.found.better_than_chance for each in own):
            own = sorted(own, key=lambda each: -matched_likelihood(each, part, order))[:FINALISTS]
            kept += [each.way for each in own]
            continue
        for rank, each in enumerate(own):
            if rank < FINALISTS or not clearly_worse(each.found, own[0].found, ERRORS):
                kept.append(each.way)
    return [way for way in ways if any(way is each for each in kept)]


def _draft(
    subject: Subject, best: Tried, tried: list[Tried], ways: list[Way], trial: Trial, order: Integers
) -> CardDraft:
    part = trial.part
    reading = best.reading
    output = output_card(reading.scores.name, best.kind, reading.form.steps)
    card = subject.card(best.way.inputs, output, reading.labels.names)
    if any(each.reading.labels is not reading.labels for each in tried):
        tried = [relabelled(each, reading, part, order) for each in tried]
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
