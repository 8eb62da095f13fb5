"""Profiles of parents as modules need them: made or read, checked, with warnings where they seem wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from graft.passes.base import Context
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe, ObserveReport, Progress
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.profile import Profile

FAR_BELOW = 0.05
"""Accuracy so far below what the card expects is warned of."""
FEW_SAMPLES = 20
MANY = 100
"""Beyond so many classes, those that no module is for are profiled together."""
MOST_LINES = 5
log = logging.getLogger("graft")


def rows_for(parent: Parent, classes: Sequence[str]) -> tuple[str, ...] | None:
    """Return the classes to profile on their own, all others together; ``None``: every class."""
    labels = parent.card.labels
    return tuple(classes) if len(classes) < len(labels) and len(labels) > MANY else None


def profiled(
    parent: Parent,
    context: Context,
    data: str = "",
    rows: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ObserveReport:
    """Profile a parent, with warnings where its card seems wrong or samples are few.

    Args:
        parent: the parent.
        context: labelled samples, and the device that runs them.
        data: fingerprint of the data.
        rows: classes to profile on their own, see :func:`rows_for`.
        progress: called with the number of samples done after each batch.

    Raises:
        GraftError: there are no samples, or the model puts out numbers that are not finite.
    """
    observe = Observe(None if rows is None else tuple(rows), data, progress=progress)
    report = observe(parent, context)
    profile = report.profile
    warn_if_few(dict(zip(profile.classes, profile.counts.tolist(), strict=True)))
    warn_if_far_below(profile.top1, parent.source)
    return report


def stored_profile(path: Path, parent: Parent, classes: Sequence[str] | None = None) -> Profile:
    """Read a profile, with a warning where samples are few.

    Args:
        path: the file.
        parent: the parent that it must be of.
        classes: classes that must have a row of their own; ``None``: any.

    Raises:
        GraftError: ``profile-of-another``, ``profile-class``, ``shape-unfit``, or the file cannot be read.
    """
    profile = Profile.load(path)
    if profile.parent != parent.sha256:
        raise GraftError(
            "profile-of-another",
            f"the profile {path} was made from another model",
            "profile this model with 'graft profile'",
        )
    parent.count_at(profile.sizes)
    own = classes_of(profile)
    for name in classes or ():
        if name not in own:
            raise GraftError(
                "profile-class",
                f"the profile {path} has no samples of class '{name}' on its own",
                "profile again with that class, or leave it out",
            )
    counts = dict(zip(profile.classes, profile.counts.tolist(), strict=True))
    warn_if_few({name: counts[name] for name in classes or own})
    return profile


def classes_of(profile: Profile) -> tuple[str, ...]:
    """Return the classes that ``profile`` has samples of, each on its own."""
    pairs = zip(profile.classes, profile.counts.tolist(), strict=True)
    return tuple(name for name, number in pairs if number and name != OTHER)


def warn_if_few(counts: Mapping[str, int]) -> None:
    """Warn of classes with few samples; ``counts`` by class."""
    few = {name: number for name, number in counts.items() if 0 < number < FEW_SAMPLES}
    if len(few) > MOST_LINES:
        name, least = min(few.items(), key=lambda pair: pair[1])
        log.warning(
            "%d classes have fewer than %d samples; the fewest, %d, has '%s'",
            *(len(few), FEW_SAMPLES, least, name),
        )
        return
    for name, number in few.items():
        log.warning("class '%s' has only %d samples; %d or more are wanted", name, number, FEW_SAMPLES)


def warn_if_far_below(top1: float, model: Model) -> None:
    """Warn where a model is far worse than its card expects: often scale, mean or colour are wrong."""
    card = model.require_card()
    expected = (card.expect or {}).get("top1")
    if expected is not None and top1 < expected - FAR_BELOW:
        log.warning(
            "top-1 is %.4f, the card %s expects %.4f: check its scale, mean, std, colour and layout",
            top1,
            card.name or model.card_file or "of the model",
            expected,
        )
