"""Importance by relevance: what separates the module's classes, from the head backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.identify.method import ImportanceInputs, Method, readers, unweighted
from graft.rewriter.arrays import Integers, Scores, Table
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.speed import Workload
from graft.rewriter.numerics import ridge, solve
from graft.rewriter.operators import consumer_of
from graft.rewriter.record.profile import ACTIVE, PRODUCTS, SQUARES, SUM, Statistic

RIDGE = 1e-3
ACCOUNT = 15.0
"""Operations of the account, in single precision, over the cube of the number of channels."""
STEPS = 64
"""The account removes the channels of a layer one by one, or in so many steps where there are more."""


@dataclass(frozen=True)
class Relevance(Method):
    """Estimate the error in separating the classes that is left when kept channels make up for pruned ones.

    1. *Sensitivity.* From the head backwards: how much do the differences between the logit of a wanted
       class and every other logit change with a channel? At the head the squared differences of weights;
       through a layer, the squared weights times the sensitivity of what they make; through an
       activation, times the share of positions where it is on (a linear network of independent units).
    2. *Account.* For each reader channels are removed in the order of the least error: the part of the
       channel that a linear map of those left cannot tell, times the squared sensitivity-weighted weights,
       which take the map over (the saliency of Optimal Brain Surgeon, Hassibi and Stork 1993, for whole
       channels). A channel's score is the error at its removal, over all that the reader reads.

    3. *Readers.* The sum over readers is multiplied by their number: what is missing from a residual
       stream is missing from each of its readers in the same way, so the errors add up before they are
       squared, and n equal ones weigh n times as much as n independent ones.

    Second moments are taken with the module's classes weighing as much as all others together.
    """

    name: ClassVar[str] = "relevance"
    statistics: ClassVar[tuple[Statistic, ...]] = (ACTIVE, SUM, SQUARES, PRODUCTS)

    def scores(self, inputs: ImportanceInputs) -> Scores:
        """Return shares of what readers read, summed over the readers of a channel, times their number."""
        groups = inputs.groups
        result, sensitivity = np.zeros(groups.count), np.zeros(groups.count)
        on = _shares(inputs)
        for node in reversed(groups.nodes):
            if node.outputs[0].name in on:
                channels, share = on[node.outputs[0].name]
                damping = np.ones(groups.count)
                damping[channels] = share
                sensitivity *= damping
            consumer = consumer_of(node)
            if consumer is None:
                continue
            for read in consumer.reads(node, groups):
                weights = _gram(inputs, node, consumer.matrix(node, read), sensitivity)
                np.add.at(sensitivity, read.channels, np.diag(weights))
                key = groups.key(read.tensor(node).name, read.axis)
                covariance = _covariance(inputs, key, len(read.channels))
                if covariance is not None:
                    np.add.at(result, read.channels, _account(covariance, weights))
        return (result + unweighted(inputs)) * readers(groups)

    def workload(self, groups: ChannelGroups) -> Workload:
        """Return the account of all readers: a system as large as the channels that each reads."""
        sizes = [len(place.channels) for place in groups.reads()]
        return Workload(flops=ACCOUNT * float(np.sum(np.asarray(sizes, float) ** 3)))


def _shares(inputs: ImportanceInputs) -> dict[str, tuple[np.ndarray, Table]]:
    """Return activations by name, each with its channels and how often each is on."""
    found = {}
    for place in inputs.groups.activations():
        key = inputs.groups.key(place.tensor, place.axis)
        if inputs.profile.has(ACTIVE, key, len(place.channels)):
            share = inputs.profile.mean(ACTIVE, key)
            found[place.tensor] = (place.channels, np.maximum(share, 1e-3))
    return found


def _gram(inputs: ImportanceInputs, node: gs.Node, matrix: Table, sensitivity: Scores) -> Table:
    """Return the sensitivity-weighted products of the weights of all pairs of channels of ``node``."""
    made = inputs.groups.of(node.outputs[0])
    lists = [channels for channels in made if channels is not None and len(channels) == len(matrix)]
    cuttable = inputs.groups.cuttable()
    if not lists or not cuttable[lists[-1]].any():
        return _contrasts(inputs, matrix.sum(axis=1))
    rows = np.maximum(sensitivity[lists[-1]], 1e-30)
    rows /= rows.mean()
    scaled = (matrix * np.sqrt(rows)[:, None, None]).reshape(-1, matrix.shape[-1])
    return np.asarray(scaled.T @ scaled)


def _contrasts(inputs: ImportanceInputs, weights: Table) -> Table:
    """Return the sum over wanted classes k and all rows j of (w_k - w_j)(w_k - w_j)', by the sums of rows."""
    wanted = weights
    if len(weights) == len(inputs.labels):
        wanted = weights[[inputs.labels.index(name) for name in inputs.classes]]
    mixed = np.outer(wanted.sum(axis=0), weights.sum(axis=0))
    squares = len(weights) * wanted.T @ wanted + len(wanted) * weights.T @ weights
    return np.asarray(squares - mixed - mixed.T)


def _covariance(inputs: ImportanceInputs, tensor: str, size: int) -> Table | None:
    """Return it for all pairs of positions; only variances where products were not recorded."""
    profile, classes = inputs.profile, inputs.classes
    if not profile.has(SUM, tensor, size):
        return None
    mean = profile.blend(SUM, tensor, classes)
    if profile.has(PRODUCTS, tensor, size):
        products = profile.blend(PRODUCTS, tensor, classes).reshape(size, size)
        return np.asarray(products - np.outer(mean, mean))
    return np.diag(np.maximum(0.0, profile.blend(SQUARES, tensor, classes) - mean**2))


def _account(covariance: Table, weights: Table) -> Scores:
    """Return the error at the removal of each channel over what all bring, never less than before."""
    size = len(covariance)
    whole = max(float(np.diag(covariance) @ np.diag(weights)), 1e-30)
    penalty = RIDGE * max(float(np.diag(covariance).mean()), 1e-12)
    precision = ridge(covariance, np.eye(size), penalty)  # the account needs the precision itself
    removal = _Removal(precision, weights)
    scores, highest, left = np.zeros(size), 0.0, np.arange(size)
    while len(left):
        error = removal.errors(left)
        chosen = np.sort(np.argsort(error, kind="stable")[: max(1, size // STEPS)])
        highest = max(highest, float(error[chosen].max()))
        scores[left[chosen]] = np.maximum(error[chosen], highest if len(chosen) == 1 else error[chosen])
        removal.remove(left[chosen])
        left = np.delete(left, chosen)
    return scores / whole


class _Removal:
    """Precision and weights of the channels that are left, while others are removed.

    Of both only the diagonal is brought up to date; a row is, when its channel is removed: half the
    operations of updating all, and in products of large matrices.

    Args:
        precision: of what is read, (channels, channels).
        weights: products of the weights of all pairs, of the same shape.
    """

    def __init__(self, precision: Table, weights: Table) -> None:
        self._precision, self._weights = precision, weights
        self._bent, self._lost = np.diag(precision).copy(), np.diag(weights).copy()
        self._rows, self._maps, self._moved = (np.empty_like(precision) for _ in range(3))
        self._count = 0

    def errors(self, left: Integers) -> Table:
        """Return the error at the removal of each of the channels ``left``."""
        return np.asarray(self._lost[left] / self._bent[left])

    def remove(self, channels: Integers) -> None:
        """Remove channels; those that are left take over what a linear map of them can tell."""
        done, new = slice(0, self._count), slice(self._count, self._count + len(channels))
        maps = self._maps[done, channels].T
        rows = self._precision[channels] - maps @ self._rows[done]
        moved = self._weights[channels] - maps @ self._moved[done]
        moved -= self._moved[done, channels].T @ self._maps[done]
        taken = solve(rows[:, channels], rows)
        moved -= 0.5 * moved[:, channels] @ taken
        self._rows[new], self._maps[new], self._moved[new] = rows, taken, moved
        self._bent -= (rows * taken).sum(axis=0)
        self._lost -= 2 * (moved * taken).sum(axis=0)
        self._count += len(channels)
