"""Figures of a written model and of what a patch did to it, for people and for ``--json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import Scored, score
from graft.rewriter.record.provenance import numbering, origin_of
from graft.rewriter.run.equivalence import check
from graft.rewriter.run.session import Device


def describe(model: Model, device: Device) -> dict[str, Any]:
    """Check a composite and return its classes, inputs, parents, cost, and where it runs.

    Args:
        model: with its card and origin.
        device: where it is to run.

    Raises:
        GraftError: it is not valid, or onnxruntime does not load it.
    """
    check(model)
    session = device.open(model)
    cost, card = cost_of(model), model.require_card()
    return {
        "classes": list(card.classes),
        "batch": session.batch,
        "inputs": [each.plain() for each in card.inputs],
        "parents": [each.model_dump(mode="json", exclude={"labels"}) for each in origin_of(model).parents],
        "macs": cost.known_macs,
        "parameters": cost.parameters,
        "providers": list(session.providers),
    }


def evaluate_composite(model: Model, part: Split, device: Device) -> dict[str, Any]:
    """Return accuracy, and how well ``(other)`` is recognised, on samples of the classes of a composite.

    Args:
        model: with its card.
        part: samples whose classes are called as in the composite.
        device: where it runs.

    Raises:
        GraftError: there are no samples of its classes.
    """
    card = model.require_card()
    chosen = None if OTHER in card.labels else _present(part, card.labels, None)
    found = score(model, Samples.match(part, card, chosen), device).summary()
    keys = ("samples", "top1", "auroc", "fpr_at_95_recall")
    return {key: found[key] for key in keys if key in found}


def evaluate_before_after(
    models: tuple[Model, Model],
    changed: tuple[Sequence[str], Sequence[str]],
    part: Split,
    numbers: Sequence[str] | None,
    device: Device,
) -> dict[str, Any]:
    """Return accuracy before and after a patch: of the changed class, and of the others.

    Args:
        models: before and after.
        changed: classes that were changed, before and after; a single one gets precision, recall and F1.
        part: samples whose classes are called as in the models.
        numbers: what class numbers mean where the data has no names.
        device: where the models run.

    Raises:
        GraftError: there are no samples of the classes.
    """
    before, after = models
    both = {"before": _resizing(before, after), "after": after}
    apart = {*changed[0], *changed[1]}
    result: dict[str, Any] = {}
    for (key, model), names in zip(both.items(), changed, strict=True):
        card, meaning = model.require_card(), numbering(model) or numbers
        chosen = None if OTHER in card.labels else _present(part, card.labels, meaning)
        if chosen == ():
            result[key] = dict.fromkeys(("top1", "class", "others")) | {"samples": 0, "others_samples": 0}
            continue
        samples = Samples.match(part, card, chosen, names=meaning)
        result[key] = _figures(score(model, samples, device), names, apart)
    return result


def held_out(part: Split, card: Card, classes: Sequence[str], numbers: Sequence[str] | None) -> Split | None:
    """Check held-out samples before the work, with a warning that names classes without any.

    Args:
        part: samples whose classes are called as in the result.
        card: of a model that takes them.
        classes: of the result.
        numbers: what class numbers mean where the data has no names.

    Returns:
        The samples; ``None`` where no class has any.

    Raises:
        GraftError: they do not fit the card.
    """
    labels = tuple(dict.fromkeys(name for name in classes if name != OTHER))
    asked = card.model_copy(update={"labels": labels})  # unchecked: it may be one class alone
    found = Samples.present(part, asked, labels, numbers)
    return None if found is None else part


def _resizing(before: Model, after: Model) -> Model:
    """Return ``before``, which takes images of all sizes if ``after`` does."""
    new = after.require_card().inputs[0]
    if new.kind != "image" or not new.resize:
        return before
    found = before.copy()
    found.card = before.require_card().resizing(new)
    return found


def _present(part: Split, labels: Sequence[str], numbers: Sequence[str] | None) -> tuple[str, ...]:
    """Return those of ``labels`` that have samples."""
    names = part.class_names or tuple(numbers or labels)
    seen = np.unique(part.labels)
    having = {names[number] for number in seen.tolist() if 0 <= number < len(names)}
    return tuple(name for name in labels if name in having)


def _figures(scored: Scored, changed: Sequence[str], apart: set[str]) -> dict[str, Any]:
    labels, correct = scored.labels.reshape(-1), scored.correct.reshape(-1)
    others = ~np.isin(labels, [place for place, each in enumerate(scored.names) if each in apart])
    per_class = metrics.per_class(scored.predictions.reshape(-1), labels, scored.names)
    own = per_class.get(changed[0]) if len(changed) == 1 else None
    return {
        "samples": scored.samples,
        "top1": float(correct.mean()),
        "class": own if own and own["support"] else None,
        "others": float(correct[others].mean()) if others.any() else None,
        "others_samples": int(others.sum()),
    }
