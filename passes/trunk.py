"""One network for several modules of one parent."""

from __future__ import annotations

from dataclasses import dataclass

from graft.passes.parent import Parent
from graft.rewriter.data.samples import Samples
from graft.rewriter.groups.outputs import last_features
from graft.rewriter.record.mahalanobis import DIRECTIONS
from graft.rewriter.record.profile import PRODUCTS, Profile


@dataclass(frozen=True)
class Source:
    """A parent at hand, with its profile: what a trunk is planned from; and samples, to refit it with."""

    parent: Parent
    profile: Profile
    data: Samples | None = None


def _score_macs(source: Source) -> int:
    """The most that comparing scores adds to a trunk: the projection of its last features."""
    parent = source.parent
    place = last_features(parent.model, parent.groups, parent.model.require_card().output.name)
    if place is None or not source.profile.has(PRODUCTS, place.tensor, len(place.channels)):
        return 0
    return len(place.channels) * min(len(place.channels), DIRECTIONS)
