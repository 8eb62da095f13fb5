"""Concern identification by contrast: what tells the module's classes from the rest?"""

from __future__ import annotations

from graft.passes.identify.method import ImportanceInputs, Method, contribution
from graft.rewriter.arrays import Scores
from graft.rewriter.record.profile import SQUARES, SUM

CONTRAST = 5.0
"""Chosen among 0, 5 and 20 on training images of CIFAR-10 (docs/results.md)."""


class Contrast(Method):
    """A channel's contribution to what its readers read, differences between class and rest up-weighted.

    See :func:`graft.passes.identify.method.contribution`.
    """

    name = "contrast"
    statistics = (SUM, SQUARES)

    def scores(self, question: ImportanceInputs) -> Scores:
        """The contribution with contrast."""
        return contribution(question, CONTRAST)
