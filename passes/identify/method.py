"""Importance methods: what one is, what it is given, and figures that several of them share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from graft.passes.published.method import NamedMethod
from graft.rewriter.arrays import Channels, Scores
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.speed import Workload
from graft.rewriter.operators import consumer_of, operator_of
from graft.rewriter.record.profile import SQUARES, SUM, Profile, Statistic
from graft.rewriter.run.session import Device


@dataclass(frozen=True, eq=False)
class ImportanceInputs:
    """Inputs of an importance method: a model, and the classes that need some of its channels.

    Attributes:
        analysed: the parent with the output of the module, and its channel groups.
        profile: statistics of its channels for every class.
        labels: all classes of the parent, in the order of its outputs.
        classes: the classes of the module.
        seed: for methods that draw.
        samples: labelled samples of the parent, for methods that run the model.
        device: where these run it.
    """

    analysed: Analysed
    profile: Profile
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    seed: int = 0
    samples: Samples | None = None
    device: Device = field(default_factory=Device)

    @property
    def model(self) -> Model:
        """The parent with the output of the module."""
        return self.analysed.model

    @property
    def groups(self) -> ChannelGroups:
        """Its channel groups."""
        return self.analysed.groups

    @property
    def rest(self) -> tuple[str, ...]:
        """The rows of the profile that are not of the module's classes."""
        return tuple(name for name in self.profile.seen if name not in self.classes)


class Method(NamedMethod):
    """Base of importance methods: scores for channels, higher means needed more.

    A method is a frozen dataclass: its fields are its configuration, and two that are equal give equal
    scores.
    """

    statistics: ClassVar[tuple[Statistic, ...]] = ()
    """Statistics that it takes from the profile."""
    samples: ClassVar[bool] = False
    """It runs the model on labelled samples."""

    @abstractmethod
    def scores(self, inputs: ImportanceInputs) -> Scores:
        """Return the importance of each channel number: float64 (``inputs.groups.count``,), 0 or more.

        Scores add up and compare between groups; :class:`~graft.passes.select.budget.Budget` sets them
        against what the channels cost.

        Raises:
            GraftError: the model or the samples do not suit the method.
        """

    def workload(self, groups: ChannelGroups) -> Workload:
        """Return what :meth:`scores` does for one set of classes, for estimates of time; may be rough.

        Nothing by default: the statistics of a profile are read in no time.
        """
        return Workload()

    def required_samples(self, inputs: ImportanceInputs) -> Samples:
        """Return the samples of a method that runs the model.

        Raises:
            GraftError: there are none.
        """
        if inputs.samples is None:
            raise GraftError(
                "method-data",
                f"the method {self.name} runs the model on labelled samples, and there are none",
                "give the data, or choose a method that needs none, such as relevance",
            )
        return inputs.samples


def contribution(inputs: ImportanceInputs, contrast: float = 0.0) -> Scores:
    """Return how much of what its readers read each channel brings, summed over the readers.

    For a reader with weights W and input x the part of channel c is ``var(x_c) * |W_c|^2`` over the sum
    of all its channels. The variance is taken where the module's classes together weigh as much as all
    others together; ``contrast`` times the squared difference between the two means is added to it.
    """
    profile, groups = inputs.profile, inputs.groups
    result = np.zeros(groups.count)
    for node in groups.nodes:
        consumer = consumer_of(node)
        if consumer is None:
            continue
        for read in consumer.reads(node, groups):
            key = groups.key(read.tensor(node).name, read.axis)
            if profile.has(SQUARES, key, len(read.channels)):
                weights = (consumer.matrix(node, read) ** 2).sum(axis=(0, 1))
                part = _variance(inputs, key, contrast) * weights
                np.add.at(result, read.channels, part / max(float(part.sum()), 1e-30))
    return result + unweighted(inputs, contrast)


def unweighted(inputs: ImportanceInputs, contrast: float = 0.0) -> Scores:
    """Return the share of each channel in the variance of what is summed over without a weight."""
    groups = inputs.groups
    result = np.zeros(groups.count)
    for node in groups.nodes:
        for read in operator_of(node).masks(node, groups):
            key = groups.key(read.tensor(node).name, read.axis)
            if inputs.profile.has(SQUARES, key, len(read.channels)):
                part = _variance(inputs, key, contrast)
                np.add.at(result, read.channels, part / max(float(part.sum()), 1e-30))
    return result


def readers(groups: ChannelGroups) -> Scores:
    """Return the number of tensors that are read and hold each channel, or products of it."""
    result = np.zeros(groups.count)
    for place in groups.reads():
        result[groups.behind(place.channels)] += 1
    return groups.close(result)


def mean_over_places(groups: ChannelGroups, places: Sequence[tuple[Channels, Scores]]) -> Scores:
    """Return the mean score of each channel over all positions of all places; 0 for one without any."""
    total, times = np.zeros(groups.count), np.zeros(groups.count)
    for channels, scores in places:
        np.add.at(total, channels, scores)
        np.add.at(times, channels, 1.0)
    result: Scores = total / np.maximum(times, 1.0)
    return result


def _variance(inputs: ImportanceInputs, key: str, contrast: float) -> Scores:
    """Return the variance of every position, classes and rest half and half, plus their contrast."""
    profile, classes = inputs.profile, inputs.classes
    mean = profile.blend(SUM, key, classes)
    variance = np.maximum(0.0, profile.blend(SQUARES, key, classes) - mean**2)
    gap = profile.mean(SUM, key, classes) - mean  # half of what lies between classes and rest
    result: Scores = variance + contrast * (2 * gap) ** 2
    return result
