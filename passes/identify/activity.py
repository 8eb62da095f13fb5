"""Concern identification by activity: who is switched on more often for the module's classes?"""

from __future__ import annotations

import numpy as np

from graft.passes.identify.method import ImportanceInputs, Method, contribution, gather
from graft.rewriter.arrays import Scores
from graft.rewriter.record.profile import ACTIVE, SQUARES, SUM

FLOOR = 0.05
"""What is left of the score of a channel that is always on for the rest and never for the classes."""


class Activity(Method):
    """A channel's contribution, weighed by its activity for the module's classes.

    The activity is the share of active positions for the classes minus the share for the rest, the
    graded form of concern and tangling identification (Pan and Rajan, ICSE 2022, section 3), where a
    position that is never above zero for a class is not its concern. Every class weighs the same.
    Where the module takes all classes there is no rest, and the share itself is the activity.
    """

    name = "activity"
    statistics = (ACTIVE, SUM, SQUARES)

    def scores(self, question: ImportanceInputs) -> Scores:
        """``contribution * (1 + FLOOR + activity)``."""
        return contribution(question) * (1 + FLOOR + self.activity(question))

    def activity(self, question: ImportanceInputs) -> Scores:
        """From -1 (only for the rest) to 1 (only for the classes); 0 where no activation was seen."""
        found = []
        for place in question.groups.activations():
            key = question.groups.key(place.tensor, place.axis)
            if question.profile.has(ACTIVE, key, len(place.channels)):
                found.append((place.channels, self._at(question, key)))
        return gather(question.groups, found)

    @staticmethod
    def _at(question: ImportanceInputs, key: str) -> Scores:
        share = question.profile.mean(ACTIVE, key, question.classes)
        if not question.rest:
            return share
        return np.asarray(share - question.profile.mean(ACTIVE, key, question.rest))
