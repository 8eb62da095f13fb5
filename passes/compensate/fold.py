"""Let the kept channels, or the biases, make up for the removed ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graft.passes.base import Context, Declined, Report
from graft.rewriter.arrays import Mask, Table
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.set_aside import page_out
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.plan import Plan
from graft.rewriter.numerics import ridge
from graft.rewriter.operators import consumer_of
from graft.rewriter.record.profile import PRODUCTS, SUM, Profile, Statistic

NONE, MEAN, FOLD, REFIT = "none", "mean", "fold", "refit"
STEPS = (NONE, MEAN, FOLD, REFIT)
"""How removed channels are made up for: from nothing to the most that is done."""
RIDGE = 1e-3
"""Regularisation of the linear map, relative to the mean variance of the kept channels."""


@dataclass(frozen=True)
class Fold:
    """Before the cut: give every consumer what the removed channels would have given it on average.

    ``y = W x + b`` becomes ``y = W x + (b + W' m)``, W' the part of W that reads removed channels
    and m their mean at the place where they are read. For a padded convolution each kernel tap counts
    by the share of positions where it lies inside, so that the bias is right on average over all
    positions, border included.

    The report counts the nodes that got another bias.

    Attributes:
        plan: the channels that stay.
        classes: those of the module. They weigh as much as all others together.
        step: of :data:`STEPS`; for ``refit``, which follows the cut, what ``fold`` does.
        alone: only the classes count: the module will see nothing else.
    """

    plan: Plan
    classes: tuple[str, ...]
    step: str = FOLD
    alone: bool = False

    def __post_init__(self) -> None:
        if self.step not in STEPS:
            raise GraftError(
                "compensate-unknown",
                f"cannot compensate by {self.step}",
                f"choose from {', '.join(STEPS)}",
            )

    def __call__(self, subject: Analysed, context: Context) -> Report:
        """Change the biases of the model of ``subject``, which is not cut yet, in place.

        Args:
            subject: the model with its analysis, which is extended by the nodes that are added.
            context: its profile tells the means.

        Returns:
            The number of nodes that got another bias, and those that could not, with the reason.

        Raises:
            GraftError: the plan does not fit the model, or there is no profile.
        """
        if self.step == NONE:
            return Report()
        graph, groups, profile = subject.model.graph, subject.groups, _profile(context)
        kept = self.plan.mask(groups)
        changed, declined = 0, []
        for node in list(graph.nodes):
            consumer = consumer_of(node)
            if consumer is None:
                continue
            for read in consumer.reads(node, groups):
                stays, tensor = kept[read.channels], read.tensor(node).name
                if stays.all():
                    continue
                key = groups.key(tensor, read.axis)
                if not profile.has(SUM, key, len(stays)):
                    declined.append(Declined(f"{node.op} {node.name}", f"the profile lacks {tensor}"))
                    continue
                into, constant = self._map(profile, key, stays, consumer.accepts_dense_map(node))
                delta = consumer.fold(node, read, into, constant, groups.sized())
                made = node.outputs[0]
                consumer.add_bias(node, delta, graph)
                groups.alias(node.outputs[0], like=made)  # an Add may have come between
                changed += 1
                page_out()  # the weights that these are made from
        groups.grow(subject.model)
        return Report(changed=changed, declined=tuple(declined))

    def _map(self, profile: Profile, tensor: str, stays: Mask, mixes: bool) -> tuple[Table, Table]:
        """Return matrix and constant that give all positions of ``tensor`` from those that stay."""
        mean = self._mean(profile, SUM, tensor)
        into = np.eye(len(stays))
        if self.step == MEAN or not mixes or not profile.has(PRODUCTS, tensor, len(stays)):
            return into, np.where(stays, 0.0, mean)
        size = len(stays)
        products = self._mean(profile, PRODUCTS, tensor).reshape(size, size)
        covariance = products - np.outer(mean, mean)
        inner = covariance[np.ix_(stays, stays)]
        penalty = RIDGE * max(float(np.trace(inner)) / max(1, len(inner)), 1e-12)
        solved = ridge(inner, covariance[np.ix_(stays, ~stays)], penalty)
        into[~stays] = 0.0
        into[np.ix_(~stays, stays)] = solved.T
        return into, np.where(stays, 0.0, mean - into @ np.where(stays, mean, 0.0))

    def _mean(self, profile: Profile, statistic: Statistic, tensor: str) -> Table:
        known = tuple(name for name in profile.classes if name in self.classes)
        if self.alone:
            return profile.mean(statistic, tensor, known)
        return profile.blend(statistic, tensor, known)


def _profile(context: Context) -> Profile:
    if context.profile is None:
        raise GraftError(
            "profile-missing",
            "compensation takes a profile of the parent",
            f"give one, or compensate by {NONE}",
        )
    return context.profile
