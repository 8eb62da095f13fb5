"""Concern identification by relevance: what tells the module's classes apart, from the head backwards."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.identify.method import ImportanceInputs, Method, readers, unweighed
from graft.rewriter.arrays import Scores, Table
from graft.rewriter.numerics import Cholesky, ridge
from graft.rewriter.operators import consumer_of
from graft.rewriter.record.profile import ACTIVE, PRODUCTS, SQUARES, SUM

RIDGE = 1e-3
STEPS = 64
"""Channels of a layer fall one by one in the account, or in so many steps where there are more."""


class Relevance(Method):
    """The error in telling the classes apart that is left when kept channels stand in for the fallen.

    1. *Sensitivity.* From the head backwards: how much do the differences between the logit of a wanted
       class and every other logit change with a channel? At the head the squared differences of weights;
       through a layer, the squared weights times the sensitivity of what they make; through an
       activation, times the share of positions where it is on (a linear network of independent units).
    2. *Account.* For each reader channels fall in the order of the least error: the part of the channel
       that a linear map of those left cannot tell, times the squared sensitivity-weighted weights, which
       take the map over (the saliency of Optimal Brain Surgeon, Hassibi and Stork 1993, for whole
       channels). A channel's score is the error at its fall, over all that the reader reads.

    3. *Readers.* The sum over readers is multiplied by their number: what is missing from a residual
       stream is missing from each of its readers in the same way, so the errors add up before they are
       squared, and n equal ones weigh n times as much as n independent ones.

    Second moments are taken with the module's classes weighing as much as all others together.
    """

    name = "relevance"
    statistics = (ACTIVE, SUM, SQUARES, PRODUCTS)

    def scores(self, question: ImportanceInputs) -> Scores:
        """Shares of what readers read, summed over the readers of a channel, times their number."""
        groups = question.groups
        result, sensitivity = np.zeros(groups.count), np.zeros(groups.count)
        on = _shares(question)
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
                weights = _gram(question, node, consumer.matrix(node, read), sensitivity)
                np.add.at(sensitivity, read.channels, np.diag(weights))
                key = groups.key(read.tensor(node).name, read.axis)
                covariance = _covariance(question, key, len(read.channels))
                if covariance is not None:
                    np.add.at(result, read.channels, _account(covariance, weights))
        return (result + unweighed(question)) * readers(groups)


def _shares(question: ImportanceInputs) -> dict[str, tuple[np.ndarray, Table]]:
    """Activation to its channels and how often each is on."""
    found = {}
    for place in question.groups.activations():
        key = question.groups.key(place.tensor, place.axis)
        if question.profile.has(ACTIVE, key, len(place.channels)):
            share = question.profile.mean(ACTIVE, key)
            found[place.tensor] = (place.channels, np.maximum(share, 1e-3))
    return found


def _gram(question: ImportanceInputs, node: gs.Node, matrix: Table, sensitivity: Scores) -> Table:
    """Sensitivity-weighted products of the weights of all pairs of channels that ``node`` reads."""
    made = question.groups.of(node.outputs[0])
    lists = [channels for channels in made if channels is not None and len(channels) == len(matrix)]
    cuttable = question.groups.cuttable()
    if not lists or not cuttable[lists[-1]].any():
        return _contrasts(question, matrix.sum(axis=1))
    rows = np.maximum(sensitivity[lists[-1]], 1e-30)
    rows /= rows.mean()
    scaled = (matrix * np.sqrt(rows)[:, None, None]).reshape(-1, matrix.shape[-1])
    return np.asarray(scaled.T @ scaled)


def _contrasts(question: ImportanceInputs, weights: Table) -> Table:
    """Sum over wanted classes k and all rows j of (w_k - w_j)(w_k - w_j)', by the sums of rows."""
    wanted = weights
    if len(weights) == len(question.labels):
        wanted = weights[[question.labels.index(name) for name in question.classes]]
    mixed = np.outer(wanted.sum(axis=0), weights.sum(axis=0))
    squares = len(weights) * wanted.T @ wanted + len(wanted) * weights.T @ weights
    return np.asarray(squares - mixed - mixed.T)


def _covariance(question: ImportanceInputs, tensor: str, size: int) -> Table | None:
    """Of all pairs of positions; only variances where products were not recorded."""
    profile, classes = question.profile, question.classes
    if not profile.has(SUM, tensor, size):
        return None
    mean = profile.blend(SUM, tensor, classes)
    if profile.has(PRODUCTS, tensor, size):
        products = profile.blend(PRODUCTS, tensor, classes).reshape(size, size)
        return np.asarray(products - np.outer(mean, mean))
    return np.diag(np.maximum(0.0, profile.blend(SQUARES, tensor, classes) - mean**2))


def _account(covariance: Table, weights: Table) -> Scores:
    """The error at the fall of each channel, over what all of them bring; never falling."""
    size = len(covariance)
    whole = max(float(np.diag(covariance) @ np.diag(weights)), 1e-30)
    penalty = RIDGE * max(float(np.diag(covariance).mean()), 1e-12)
    precision = ridge(covariance, np.eye(size), penalty)  # the account needs the precision itself
    weights, left = weights.copy(), np.arange(size)
    scores, highest = np.zeros(size), 0.0
    while len(left):
        error = np.diag(weights) / np.diag(precision)
        fall = np.sort(np.argsort(error, kind="stable")[: max(1, size // STEPS)])
        stay = np.setdiff1d(np.arange(len(left)), fall)
        highest = max(highest, float(error[fall].max()))
        scores[left[fall]] = np.maximum(error[fall], highest if len(fall) == 1 else error[fall])
        taken = Cholesky(precision[np.ix_(fall, fall)]).solve(precision[np.ix_(fall, stay)])
        precision = precision[np.ix_(stay, stay)] - precision[np.ix_(stay, fall)] @ taken
        across = weights[np.ix_(stay, fall)] @ taken
        own = taken.T @ weights[np.ix_(fall, fall)] @ taken
        weights = weights[np.ix_(stay, stay)] - across - across.T + own
        left = left[stay]
    return scores / whole
