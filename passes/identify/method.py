"""What a method of concern identification is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.arrays import Scores
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import consumer_of, operator_of
from graft.rewriter.record.profile import SQUARES, SUM, Profile, Statistic
from graft.rewriter.run.session import Device


@dataclass(frozen=True)
class ImportanceInputs:
    """What a method is asked: how much do ``classes`` need every channel of ``model``?

    Attributes:
        model: the normalized parent.
        groups: its analysis.
        profile: what its channels do for every class.
        labels: all classes of the parent, in the order of its outputs.
        classes: the classes of the module.
        seed: for methods that draw.
        samples: labelled samples of the parent, for methods that run the model.
        device: where these run it; ``None``: the best there is.
    """

    model: Model
    groups: ChannelGroups
    profile: Profile
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    seed: int = 0
    samples: Samples | None = None
    device: Device | None = None

    @property
    def rest(self) -> tuple[str, ...]:
        """The rows of the profile that the module is not for."""
        return tuple(name for name in self.profile.seen if name not in self.classes)


class Method:
    """Base of all methods: scores for channels, higher means needed more.

    Attributes:
        name: what ``--method`` takes.
        statistics: what the profile must have recorded.
    """

    name: ClassVar[str] = ""
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def scores(self, question: ImportanceInputs) -> Scores:
        """What would be lost with each channel: >= 0, one a channel number (length ``groups.count``).

        Scores add up and compare between groups; :class:`~graft.passes.select.budget.Budget` sets them
        against what the channels cost.
        """
        raise NotImplementedError

    def samples(self, question: ImportanceInputs) -> Samples:
        """The samples of a method that runs the model.

        Raises:
            GraftError: there are none.
        """
        if question.samples is None:
            raise GraftError(
                "method-data",
                f"the method {self.name} runs the model on labelled samples, and there are none",
                "give the data, or choose a method that needs none, such as relevance",
            )
        return question.samples


def contribution(question: ImportanceInputs, contrast: float = 0.0) -> Scores:
    """How much of what its readers read each channel brings, summed over the readers.

    For a reader with weights W and input x the part of channel c is ``var(x_c) * |W_c|^2`` over the sum
    of all its channels. The variance is taken where the module's classes together weigh as much as all
    others together; ``contrast`` times the squared difference between the two means is added to it.
    """
    profile, groups = question.profile, question.groups
    result = np.zeros(groups.count)
    for node in groups.nodes:
        consumer = consumer_of(node)
        if consumer is None:
            continue
        for read in consumer.reads(node, groups):
            tensor = groups.key(read.tensor(node).name, read.axis)
            if profile.has(SQUARES, tensor, len(read.channels)):
                spread = _spread(question, tensor, contrast)
                part = spread * (consumer.matrix(node, read) ** 2).sum(axis=(0, 1))
                np.add.at(result, read.channels, part / max(float(part.sum()), 1e-30))
    return result + unweighed(question, contrast)


def unweighed(question: ImportanceInputs, contrast: float = 0.0) -> Scores:
    """The share of each channel in the variance of what is summed over without a weight."""
    groups = question.groups
    result = np.zeros(groups.count)
    for node in groups.nodes:
        for read in operator_of(node).masks(node, groups):
            tensor = groups.key(read.tensor(node).name, read.axis)
            if question.profile.has(SQUARES, tensor, len(read.channels)):
                part = _spread(question, tensor, contrast)
                np.add.at(result, read.channels, part / max(float(part.sum()), 1e-30))
    return result


def readers(groups: ChannelGroups) -> Scores:
    """How many tensors that are read hold each channel, or products of it."""
    result = np.zeros(groups.count)
    for place in groups.reads():
        result[groups.behind(place.channels)] += 1
    return groups.close(result)


def gather(groups: ChannelGroups, found: Sequence[tuple[NDArray[np.int64], Scores]]) -> Scores:
    """Mean score of each channel over all positions of all places where it was seen; 0 if nowhere."""
    total, times = np.zeros(groups.count), np.zeros(groups.count)
    for channels, scores in found:
        np.add.at(total, channels, scores)
        np.add.at(times, channels, 1.0)
    result: Scores = total / np.maximum(times, 1.0)
    return result


def _spread(question: ImportanceInputs, tensor: str, contrast: float) -> Scores:
    """Variance of every position, classes and rest half and half, plus ``contrast`` between them."""
    profile, classes = question.profile, question.classes
    mean = profile.blend(SUM, tensor, classes)
    variance = np.maximum(0.0, profile.blend(SQUARES, tensor, classes) - mean**2)
    gap = profile.mean(SUM, tensor, classes) - mean  # half of what lies between classes and rest
    result: Scores = variance + contrast * (2 * gap) ** 2
    return result
