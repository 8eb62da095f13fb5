"""Importance by contrast: contributions in which differences between class and rest count more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graft.passes.identify.method import ImportanceInputs, Method, contribution
from graft.rewriter.arrays import Scores
from graft.rewriter.record.profile import SQUARES, SUM, Statistic

CONTRAST = 5.0
"""Chosen among 0, 5 and 20 on training images of CIFAR-10 (docs/results.md)."""


@dataclass(frozen=True)
class Contrast(Method):
    """Weigh a channel's contribution to what is read, differences between class and rest up-weighted.

    See :func:`graft.passes.identify.method.contribution`.
    """

    name: ClassVar[str] = "contrast"
    statistics: ClassVar[tuple[Statistic, ...]] = (SUM, SQUARES)

    def scores(self, inputs: ImportanceInputs) -> Scores:
        """Return the contribution with contrast."""
        return contribution(inputs, CONTRAST)
