"""Parents as commands need them: loaded, profiled, and checked against their card."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from graft.passes.base import Context
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device
from graft.tools import console as show

FAR_BELOW = 0.05
FEW_SAMPLES = 20
MANY = 100
"""Beyond so many classes, those that were not asked for are profiled together."""
MOST_LINES = 5
log = logging.getLogger("graft")


def load_parent(path: Path, card: Path | None) -> Parent:
    """The parent at ``path``; its card is required."""
    model = Model.load(path, card)
    model.card = model.require_card(path)
    return Parent(model)


def observe(
    parent: Parent,
    samples: Samples,
    data: str,
    device: Device,
    classes: Sequence[str] | None = None,
) -> Profile:
    """Profile ``parent``, with a progress bar; warns where the card seems wrong or samples are few."""
    with show.progress("profiling", len(samples)) as step:
        context = Context(samples=samples, device=device)
        apart = None if classes is None else tuple(classes)
        profile = Observe(apart, data, progress=step)(parent, context).profile
    warn_if_few(dict(zip(profile.classes, profile.counts.tolist(), strict=True)))
    warn_if_far_below(profile.top1, parent.source)
    return profile


def apart(parent: Parent, classes: Sequence[str]) -> Sequence[str] | None:
    """The classes to profile on their own, all others together; ``None``: every class."""
    labels = parent.card.labels
    return classes if len(classes) < len(labels) and len(labels) > MANY else None


def profile_of(
    parent: Parent,
    classes: Sequence[str],
    path: Path | None,
    samples: Samples,
    data: str,
    device: Device,
) -> Profile:
    """The profile at ``path``, which must tell ``classes`` apart, or a new one."""
    if path:
        return matching_profile(path, parent, classes)
    return observe(parent, samples, data, device, apart(parent, classes))


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


def profiled(profile: Profile) -> tuple[str, ...]:
    """The classes that ``profile`` has samples of, each on its own."""
    pairs = zip(profile.classes, profile.counts.tolist(), strict=True)
    return tuple(name for name, number in pairs if number and name != OTHER)


def matching_profile(path: Path, parent: Parent, classes: Sequence[str] | None = None) -> Profile:
    """The profile at ``path``, which must be of ``parent`` and tell ``classes`` apart."""
    profile = Profile.load(path)
    if profile.parent != parent.sha256:
        raise GraftError(
            "profile-of-another",
            f"the profile {path} was made from another model",
            "profile this model with 'graft profile'",
        )
    for name in classes or ():
        if name not in profiled(profile):
            raise GraftError(
                "profile-class",
                f"the profile {path} has no samples of class '{name}' on its own",
                "profile again with that class, or leave it out",
            )
    counts = dict(zip(profile.classes, profile.counts.tolist(), strict=True))
    warn_if_few({name: counts[name] for name in classes or profiled(profile)})
    return profile
