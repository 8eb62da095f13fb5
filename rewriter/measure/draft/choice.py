"""Choose among what was tried: the likeliest, unless that only makes the model surer."""

from __future__ import annotations

from graft.rewriter.measure.draft.figures import clearly_less_right, clearly_worse
from graft.rewriter.measure.draft.readings import Tried
from graft.rewriter.measure.draft.subject import Subject
from graft.rewriter.measure.draft.trial import Way

SURE = 0.01
"""Log-likelihoods so near to 0, and to each other, differ by how sure the model is, not by how right."""
ALIKE = 2.0
"""Log-likelihoods within so many standard errors of each other are equal."""
SURER = 20.0
"""Inputs so many times as large make a network surer of the same answers, not better."""
LEAST_GAIN = 0.05
"""A gain of log-likelihood below that is no sign that larger inputs are meant."""


def trusted_way(subject: Subject, ways: list[Way]) -> Way | None:
    """Return the way that something speaks for: a configuration, or samples that fit as they are."""
    first = ways[0]
    written = subject.written.preprocessing is not None and first.inputs[0].kind == "image"
    return first if written or first.inputs[0].kind != "image" else None


def best_of(tried: list[Tried], trusted: Way | None) -> Tried:
    """Return the likeliest way of each output, and of those the most accurate."""
    finals = []
    for name in dict.fromkeys(each.reading.scores.name for each in tried):
        own = [each for each in tried if each.reading.scores.name == name]
        finals.append(likeliest(own, trusted))
    return max(finals, key=lambda each: (round(each.found.top1, 6), round(each.found.likelihood, 6)))


def likeliest(tried: list[Tried], trusted: Way | None) -> Tried:
    """Return the likeliest way; of two that are nearly alike, not the one that only makes the model surer."""
    best = max(tried, key=lambda each: each.found.likelihood)
    for each in tried:
        gain = best.found.likelihood - each.found.likelihood
        if each.way is trusted and (gain < LEAST_GAIN or not clearly_worse(each.found, best.found, ALIKE)):
            return each
    if best.found.likelihood > -SURE:  # hardly an error is left to learn from: the more usual way
        alike = [each for each in tried if each.found.likelihood > best.found.likelihood - SURE]
        best = next(each for each in alike if each.found.top1 >= best.found.top1)
    # Within its error the likelihood does not separate these: accuracy decides, and where that does not
    # differ by more than its own error, the more usual way is taken.
    alike = [each for each in tried if not clearly_worse(each.found, best.found, ALIKE)]
    most = max(alike, key=lambda each: each.found.top1)
    best = next(each for each in alike if not clearly_less_right(each.found, most.found, ALIKE))
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
