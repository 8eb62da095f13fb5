"""Concern identification by activity: who is switched on more often for the module's classes?"""

from __future__ import annotations

import numpy as np

from graft.passes.identify.base import Method, Question, Scores, gather
from graft.rewriter.groups import Place
from graft.rewriter.profile import ACTIVE


class Activity(Method):
    """Share of active positions for the module's classes minus the share for the rest.

    The graded form of concern and tangling identification (Pan and Rajan, ICSE 2022, section 3): there
    a position that is never above zero for a class is not its concern. Every class weighs the same.
    Where the module takes all classes there is no rest, and the share itself is the score.
    """

    name = "activity"
    statistics = (ACTIVE,)

    def scores(self, question: Question) -> Scores:
        """From -1 (only for the rest) to 1 (only for the module's classes)."""
        places = [p for p in question.groups.activations() if question.profile.has(ACTIVE, p.tensor)]
        scores = gather(question.groups, [(p.channels, self._at(question, p)) for p in places])
        seen = np.zeros(question.groups.count, bool)
        for place in places:
            seen[place.channels] = True
        scores[~seen] = float(scores[seen].mean()) if seen.any() else 0.0
        return scores

    @staticmethod
    def _at(question: Question, place: Place) -> Scores:
        share = question.profile.mean(ACTIVE, place.tensor, question.classes)
        if not question.rest:
            return share
        return share - question.profile.mean(ACTIVE, place.tensor, question.rest)
