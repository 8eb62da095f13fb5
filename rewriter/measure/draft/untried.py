"""Draft a card without samples: by operators, names and shapes, and what random numbers lead to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.measure.draft.kinds import decide
from graft.rewriter.measure.draft.outputs import Form, Scores, form_of, rows_of
from graft.rewriter.measure.draft.subject import CardDraft, Subject, other_outputs, output_card, single_column
from graft.rewriter.measure.draft.trial import FAILURES, prepared

GUESSED_ROWS = 16
"""Rows of random numbers that show what an output looks like."""
GUESSED_LENGTH = 12
TOKENS = 8


def draft_from_graph(subject: Subject) -> CardDraft:
    """Draft a card of the most usual way to read the input.

    Raises:
        GraftError: ``card-draft`` where no output is that of a classifier.
    """
    inputs = subject.ways[0]
    numbers, length = _guess(subject, inputs)
    fitting: list[tuple[Scores, Form, str]] = []
    refused: GraftError | None = None
    for each in subject.outputs:
        try:
            form = _form(subject, each, numbers, length)
            rows = rows_of(numbers[each.name], form) if each.name in numbers else None
            rows = None if rows is None else rows.reshape(-1, form.columns)
            kind = decide(each.by_graph, rows, form.columns)
            if kind is None:
                raise single_column(each.name)
            fitting.append((each, form, kind))
        except GraftError as error:
            refused = refused or error
    if not fitting:
        raise refused or GraftError(
            "card-draft", "the model has no output of numbers", "write the card by hand"
        )
    labelled = [(subject.labels(each.name, form), each, form, kind) for each, form, kind in fitting]
    # An output whose columns have names in the file is the one; a softmax is more likely than features.
    labels, best, form, kind = min(
        labelled,
        key=lambda found: (found[0].source == "numbers", found[3] == "logits" and found[1].by_graph is None),
    )
    card = subject.card(inputs, output_card(best.name, kind, form.steps), labels.names)
    notes = [*labels.notes, *other_outputs(subject, best.name)]
    return CardDraft(card, notes=tuple(notes))


def _form(subject: Subject, each: Scores, numbers: dict[str, Array], length: int | None) -> Form:
    subject.check_rows(each.name)
    if each.name in numbers:
        found = numbers[each.name]
        if len(found) % GUESSED_ROWS and subject.part is None:
            raise GraftError(
                "card-draft",
                f"output '{each.name}': {len(found)} rows for {GUESSED_ROWS} samples: rows are not samples",
                "where samples lie on another axis of an input, write a card with batch_axis: 1",
            )
        return form_of(each.name, found.shape, length, unsure=True)
    shape = subject.model.outputs()[each.name][1]
    if not shape:
        return Form(2)
    return form_of(each.name, shape, length, unsure=True)


def _guess(subject: Subject, inputs: Sequence[InputCard]) -> tuple[dict[str, Array], int | None]:
    """Return outputs for a few samples, or random ones, and the length of random sequences."""
    if subject.part is not None:
        return _run(subject, _samples(subject.part, inputs)), None
    rng = np.random.default_rng(0)
    feed, length = {}, None
    for card in (each for each in inputs if each.constant is None):
        dtype, shape = subject.model.inputs()[card.name]
        inner = [side if isinstance(side, int) else GUESSED_LENGTH for side in shape[1:]]
        if card.kind == "image":
            height, width = card.size or (1, 1)
            feed[card.name] = card.prepare(rng.integers(0, 256, (GUESSED_ROWS, height, width, card.channels)))
            continue
        if inner and len(shape) in (2, 3):
            sequence = card.kind == "tokens" or len(shape) == 3
            length = inner[0] if sequence else length
        if card.kind == "tokens" or (dtype is not None and dtype.kind in "iu"):
            feed[card.name] = rng.integers(0, TOKENS, (GUESSED_ROWS, *inner))
        else:
            feed[card.name] = rng.normal(size=(GUESSED_ROWS, *inner)).astype(np.float32)
    return _run(subject, feed), length


def _samples(part: Split, inputs: Sequence[InputCard]) -> dict[str, Array]:
    """Return some samples as the model takes them; nothing where the card does not fit them."""
    fed = [each for each in inputs if each.constant is None]
    try:
        return prepared(
            inputs, part.raw(range(min(GUESSED_ROWS, len(part))), fed[0] if len(fed) == 1 else None)
        )
    except GraftError as error:
        if error.code not in FAILURES:
            raise
        return {}


def _run(subject: Subject, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs for prepared samples; nothing where the model does not run."""
    rows = len(next(iter(feed.values()), ()))
    found: dict[str, list[Array]] = {}
    try:
        size = subject.session.batch or max(1, rows)
        for start in range(0, rows, size):
            part = {name: values[start : start + size] for name, values in feed.items()}
            outputs = subject.session.run(subject.session.feed(part), [each.name for each in subject.outputs])
            for name, values in outputs.items():
                found.setdefault(name, []).append(values)
    except (GraftError, ValueError):
        return {}
    return {name: np.concatenate(values) for name, values in found.items() if values[0].ndim}
