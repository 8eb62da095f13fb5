"""A module's scores against its parent's, restricted to its classes: the difference that pruning made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from graft.rewriter.arrays import Array
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import columns
from graft.rewriter.record.provenance import ORIGIN_KEY, kind_of, origin_of
from graft.rewriter.runtimes.differences import Difference, relative
from graft.rewriter.runtimes.verification import Subject


@dataclass(frozen=True)
class Change:
    """How far a model is from another.

    Attributes:
        difference: of the scores, and of the decisions among the shared classes; ``None``: a share among one
            class says nothing.
        samples: number of samples, or of time steps.
        classes: that both have, as the first model calls them.
        compared: ``logits``, ``probabilities``, ``outputs`` or ``nothing``.
    """

    difference: Difference | None
    samples: int
    classes: tuple[str, ...]
    compared: str

    def plain(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        found = self.difference
        return {
            "max_difference": None if found is None else found.largest,
            "decisions_changed": None if found is None else found.changed,
            "samples": self.samples,
            "classes": list(self.classes),
            "compared": self.compared,
            "error": None if found is None else found.error,
        }


def change(subject: Subject, parent: Subject, samples: int) -> Change:
    """Compare what onnxruntime makes of two models.

    Logits of a module are compared as they are, those of other models by their softmax.

    Args:
        subject: the model in question.
        parent: what it was made from, or any model with some of its classes.
        samples: number of samples that both were fed with.

    Raises:
        GraftError: ``against-class`` where no class is shared; ``card-missing`` where cards are needed to
            tell which columns are the same.
    """
    if subject.model.card is None or parent.model.card is None:
        return _by_name(subject, parent, samples)
    card, other = subject.model.require_card(), parent.model.require_card()
    names, places, theirs = _shared(subject.model, other)
    found = _scores(subject, samples, card)[..., places]
    whole = _scores(parent, samples, other)
    expected = whole[..., theirs]
    kinds = card.output.kind, other.output.kind
    if OTHER in names:
        rest = np.delete(whole, theirs, axis=-1)
        together = logsumexp if kinds[1] == "logits" else np.sum
        expected = np.concatenate([expected, together(rest, axis=-1, keepdims=True)], axis=-1)
    compared = "logits"
    if kinds != ("logits", "logits") or kind_of(subject.model) == "composite":
        compared = "probabilities"
        found, expected = _shares(found, kinds[0]), _shares(expected, kinds[1])
        if len(names) == 1:  # its share is always 1
            return Change(None, samples, names, "nothing")
    if found.shape != expected.shape:
        raise GraftError(
            "against-shape",
            f"the scores have shape {list(found.shape)}, those of {parent.path.name} {list(expected.shape)}",
            "name a model whose output has as many axes",
        )
    changed = int((found.argmax(axis=-1) != expected.argmax(axis=-1)).sum())
    difference = relative(found, expected, "the scores") + Difference(changed=changed)
    return Change(difference, int(np.prod(found.shape[:-1])), names, compared)


def _by_name(subject: Subject, parent: Subject, samples: int) -> Change:
    """Compare outputs as they are where both files have the same ones."""
    ours, theirs = subject.expected.outputs, parent.expected.outputs
    shapes = [[[value.shape for value in batch] for batch in each] for each in (ours, theirs)]
    if subject.outputs.names != parent.outputs.names or shapes[0] != shapes[1]:
        for each in (subject, parent):
            each.model.require_card(each.path)
    total = Difference()
    for one, other in zip(ours, theirs, strict=True):
        total += subject.outputs.compare(one, other)
    return Change(total, samples, (), "outputs")


def _shared(model: Model, other: Card) -> tuple[tuple[str, ...], list[int], list[int]]:
    """Return the classes that a model shares with a card, and their columns in both.

    The column (other) is shared where all other classes are.
    """
    labels = model.require_card().labels
    renamed = origin_of(model).renamed if ORIGIN_KEY in model.metadata else {}
    named = [(name, renamed.get(name, name)) for name in labels]
    shared = [name for name, theirs in named if theirs in other.labels]
    if not shared:
        raise GraftError(
            "against-class",
            f"the models have no class in common: {', '.join(labels[:3])} and {', '.join(other.labels[:3])}",
            "name the parent, or another model of these classes",
        )
    theirs = [other.labels.index(renamed.get(name, name)) for name in shared]
    if OTHER in labels and OTHER not in shared and len(shared) == len(labels) - 1:
        shared.append(OTHER)
    return tuple(shared), [labels.index(name) for name in shared], theirs


def _scores(subject: Subject, samples: int, card: Card) -> Array:
    """Return the scores of all samples, classes on the last axis, in double precision."""
    outputs = subject.outputs
    if card.output.name not in outputs.names:
        raise GraftError(
            "against-output",
            f"{subject.path.name} has no output {card.output.name}, which its card names",
            "compare with a model that has the scores as an output",
        )
    place = outputs.names.index(card.output.name)
    rows = np.concatenate([batch[place] for batch in subject.expected.outputs])[:samples]
    return columns(rows, card.output.kind, len(card.labels)).astype(np.float64)


def _shares(scores: Array, kind: str) -> Array:
    """Return shares of 1 among the columns."""
    if kind == "logits":
        return np.asarray(softmax(scores, axis=-1))
    total = scores.sum(axis=-1, keepdims=True)
    return scores / np.where(total > 0, total, 1.0) if kind != "sigmoid" else scores
