"""Importance by activity: which channels are on more often for the module's classes?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graft.passes.identify.method import ImportanceInputs, Method, contribution, mean_over_places
from graft.rewriter.arrays import Scores
from graft.rewriter.record.profile import ACTIVE, SQUARES, SUM, Statistic

FLOOR = 0.05
"""The factor of a channel that is always on for the rest and never for the classes."""


@dataclass(frozen=True)
class Activity(Method):
    """Weigh a channel's contribution by its activity for the module's classes.

    The activity is the share of active positions for the classes minus the share for the rest, the
    graded form of concern and tangling identification (Pan and Rajan, ICSE 2022, section 3), where a
    position that is never above zero for a class is not its concern. Every class weighs the same.
    Where the module takes all classes there is no rest, and the share itself is the activity.
    """

    name: ClassVar[str] = "activity"
    statistics: ClassVar[tuple[Statistic, ...]] = (ACTIVE, SUM, SQUARES)

    def scores(self, inputs: ImportanceInputs) -> Scores:
        """Return ``contribution * (1 + FLOOR + activity)``."""
        return contribution(inputs) * (1 + FLOOR + self.activity(inputs))

    def activity(self, inputs: ImportanceInputs) -> Scores:
        """Return from -1 (on for the rest only) to 1 (for the classes only); 0 without an activation."""
        found = []
        for place in inputs.groups.activations():
            key = inputs.groups.key(place.tensor, place.axis)
            if inputs.profile.has(ACTIVE, key, len(place.channels)):
                found.append((place.channels, self._difference(inputs, key)))
        return mean_over_places(inputs.groups, found)

    @staticmethod
    def _difference(inputs: ImportanceInputs, key: str) -> Scores:
        share = inputs.profile.mean(ACTIVE, key, inputs.classes)
        if not inputs.rest:
            return share
        return np.asarray(share - inputs.profile.mean(ACTIVE, key, inputs.rest))
