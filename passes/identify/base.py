"""What a method of concern identification is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.groups import ChannelGroups
from graft.rewriter.model import Model
from graft.rewriter.profile import Profile, Statistic

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """What a method is asked: how much do ``classes`` need every channel of ``model``?

    Attributes:
        model: the normalized parent.
        groups: its analysis.
        profile: what its channels do for every class.
        classes: the classes of the module.
        seed: for methods that draw.
    """

    model: Model
    groups: ChannelGroups
    profile: Profile
    classes: tuple[str, ...]
    seed: int = 0

    @property
    def rest(self) -> tuple[str, ...]:
        """The rows of the profile that the module is not for."""
        return tuple(name for name in self.profile.classes if name not in self.classes)


class Method:
    """Base of all methods: scores for channels, higher means needed more.

    Attributes:
        name: what ``--method`` takes.
        statistics: what the profile must have recorded.
    """

    name: ClassVar[str] = ""
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def scores(self, question: Question) -> Scores:
        """One score a channel number (length ``groups.count``); comparable between groups."""
        raise NotImplementedError


def gather(groups: ChannelGroups, found: Sequence[tuple[NDArray[np.int64], Scores]]) -> Scores:
    """Mean score of each channel over all positions of all places where it was seen; 0 if nowhere."""
    total, times = np.zeros(groups.count), np.zeros(groups.count)
    for channels, scores in found:
        np.add.at(total, channels, scores)
        np.add.at(times, channels, 1.0)
    result: Scores = total / np.maximum(times, 1.0)
    return result
