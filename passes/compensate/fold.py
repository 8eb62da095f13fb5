"""Make the kept channels, or the biases, stand in for the removed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.rewriter.arrays import Mask, Table
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.operators import operator_of
from graft.rewriter.record.profile import PRODUCTS, SUM, Profile, Statistic

LADDER = ("none", "mean", "fold", "refit")
RIDGE = 1e-3
"""Regularisation of the linear map, relative to the mean variance of the kept channels."""


@dataclass(frozen=True)
class CompensateReport:
    """How many nodes got another bias, and those that could not, with the reason."""

    changed: int
    declined: tuple[str, ...] = ()


class Compensate:
    """Before the cut: give every consumer what the removed channels would have given it on average.

    ``y = W x + b`` becomes ``y = W x + (b + W' m)``, W' the part of W that reads removed channels
    and m their mean at the place where they are read. For a padded convolution each kernel tap counts
    by the share of positions where it lies inside, so that the bias is right on average over all
    positions, border included.

    Args:
        step: of :data:`LADDER`; for ``refit``, which follows the cut, what ``fold`` does.
        profile: where the means come from.
        classes: those of the module. They weigh as much as all others together.
        alone: only the classes count: the module will see nothing else.
    """

    def __init__(self, step: str, profile: Profile, classes: Sequence[str], alone: bool = False) -> None:
        if step not in LADDER:
            raise GraftError(
                "compensate-unknown",
                f"cannot compensate by {step}",
                f"choose from {', '.join(LADDER)}",
            )
        self.step = step
        self.profile = profile
        self.classes = tuple(classes)
        self.alone = alone

    def __call__(self, model: Model, plan: Plan) -> CompensateReport:
        """Change the biases of ``model``, which is not cut yet."""
        groups = ChannelGroups(model)
        kept = plan.mask(groups)
        changed, declined = 0, []
        for node in groups.nodes if self.step != "none" else ():
            operator = operator_of(node)
            for read in operator.reads(node, groups):
                stays, tensor = kept[read.channels], read.tensor(node).name
                if stays.all():
                    continue
                key = groups.key(tensor, read.axis)
                if not self.profile.has(SUM, key, len(stays)):
                    declined.append(f"{node.op} {node.name}: the profile lacks {tensor}")
                    continue
                into, constant = self._map(key, stays, operator.mixes(node))
                fold = operator.fold if read.own is None else operator.fold_own
                delta = fold(node, into, constant, groups)
                operator.add_bias(node, delta, model.graph)
                changed += 1
        return CompensateReport(changed, tuple(declined))

    def _map(self, tensor: str, stays: Mask, mixes: bool) -> tuple[Table, Table]:
        """Matrix and constant that give all positions of ``tensor`` from those that stay."""
        mean = self._mean(SUM, tensor)
        into = np.eye(len(stays))
        if self.step == "mean" or not mixes or not self.profile.has(PRODUCTS, tensor, len(stays)):
            return into, np.where(stays, 0.0, mean)
        size = len(stays)
        products = self._mean(PRODUCTS, tensor).reshape(size, size)
        covariance = products - np.outer(mean, mean)
        inner = covariance[np.ix_(stays, stays)]
        ridge = RIDGE * max(float(np.trace(inner)) / max(1, len(inner)), 1e-12)
        solved = np.linalg.solve(inner + ridge * np.eye(len(inner)), covariance[np.ix_(stays, ~stays)])
        into[~stays] = 0.0
        into[np.ix_(~stays, stays)] = solved.T
        return into, np.where(stays, 0.0, mean - into @ np.where(stays, mean, 0.0))

    def _mean(self, statistic: Statistic, tensor: str) -> Table:
        known = tuple(name for name in self.profile.classes if name in self.classes)
        if self.alone:
            return self.profile.mean(statistic, tensor, known)
        return self.profile.blend(statistic, tensor, known)
