"""A normal distribution for each class, and distances to the nearest of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Integers, Table
from graft.rewriter.graph.builder import Builder

PRIOR = 200
"""Samples that the covariance of all classes counts as, beside those of a class."""
FEWEST_DIRECTIONS = 8
MOST_NUMBERS = 1 << 22
"""Of the directions of all classes."""
LEAST_VARIANCE = 1e-3
"""Of directions, where all values vary by 1."""


@dataclass(frozen=True)
class ClassGaussians:
    """A normal distribution for each class.

    Values x become p = x D + offset, which vary by 1 and independently within classes on average. The
    covariance of class k there has eigenvalues e_kj along directions u_kj; those that differ most from 1
    are kept, and of the others their mean m_k. The distance to the class is minus twice the logarithm of
    its density, up to a constant::

        |p - c_k|^2 / m_k + sum_j ((p - c_k) u_kj)^2 (1 / e_kj - 1 / m_k) + log of the determinant

    Attributes:
        directions: float64 (values, values): D.
        offset: float64 (values,).
        centers: float64 (classes, values).
        own: float64 (classes, values, kept): u.
        variances: float64 (classes, kept): e.
        others: float64 (classes,): m.
        volumes: float64 (classes,): logarithms of the determinants.
    """

    directions: Table
    offset: Table
    centers: Table
    own: Table
    variances: Table
    others: Table
    volumes: Table

    @classmethod
    def fit(cls, values: Table, labels: Integers, kept: int) -> ClassGaussians:
        """Fit a distribution to each class.

        Args:
            values: float64 (samples, values).
            labels: int64 (samples,): each number from 0 to the highest has samples.
            kept: directions that are kept of each class.
        """
        mean, scale = values.mean(axis=0), values.std(axis=0)
        scale = scale + 1e-3 * max(float(values.std()), 1e-12)
        rows, classes = (values - mean) / scale, int(labels.max()) + 1
        centers = np.stack([rows[labels == label].mean(axis=0) for label in range(classes)])
        apart = rows - centers[labels]
        within, turned = np.linalg.eigh(apart.T @ apart / len(apart))
        whiten = turned / np.sqrt(np.maximum(within, 0) + LEAST_VARIANCE)
        apart = apart @ whiten
        size = apart.shape[1]
        found = []
        for label in range(classes):
            mine = apart[labels == label]
            covariance = (mine.T @ mine + PRIOR * np.eye(size)) / (len(mine) + PRIOR)
            variances, directions = np.linalg.eigh(covariance)
            order = np.argsort(-np.abs(np.log(variances)))
            chosen, left = order[:kept], variances[order[kept:]]
            other = float(left.mean()) if len(left) else 1.0
            volume = float(np.log(variances[chosen]).sum() + len(left) * np.log(other))
            found.append((directions[:, chosen], variances[chosen], other, volume))
        own, kept_variances, others, volumes = (np.array(each) for each in zip(*found, strict=True))
        directions = whiten / scale[:, None]
        return cls(directions, -mean @ directions, centers @ whiten, own, kept_variances, others, volumes)

    def distance(self, values: Table) -> Table:
        """Return the distance of each row of ``values`` to the nearest class (samples,)."""
        places = values @ self.directions + self.offset
        found = []
        for center, own, variances, other, volume in zip(
            self.centers, self.own, self.variances, self.others, self.volumes, strict=True
        ):
            apart = places - center
            along = (apart @ own) ** 2 @ (1 / variances - 1 / other)
            found.append((apart**2).sum(axis=1) / other + along + volume)
        nearest: Table = np.min(found, axis=0)
        return nearest

    def write(self, build: Builder, read: gs.Tensor) -> gs.Variable:
        """Write nodes that make :meth:`distance` of ``read`` (samples, 1), float32."""
        classes, _, kept = self.own.shape
        places = build.affine("places", read, self.directions, self.offset)
        terms = [build.node("Mul", "squares", [places, places]), places]
        weights = [np.repeat(1 / self.others[None], len(self.offset), axis=0)]
        weights.append(-2 * (self.centers / self.others[:, None]).T)
        if kept:
            turned = self.own.transpose(1, 0, 2).reshape(len(self.offset), classes * kept)
            moved = -np.einsum("kv,kvj->kj", self.centers, self.own).reshape(-1)
            along = build.affine("along", places, turned, moved)
            terms.append(build.node("Mul", "along_squares", [along, along]))
            excess = 1 / self.variances - 1 / self.others[:, None]
            blocks = np.zeros((classes, kept, classes))
            blocks[np.arange(classes), :, np.arange(classes)] = excess
            weights.append(blocks.reshape(classes * kept, classes))
        both = build.node("Concat", "terms", terms, axis=1)
        constant = (self.centers**2).sum(axis=1) / self.others + self.volumes
        distances = build.affine("distances", both, np.concatenate(weights), constant)
        return build.largest(distances, "nearest", least=True)


def directions_for(room: int, values: int, classes: int) -> int:
    """Return how many directions of each class fit into a budget; some in any case.

    Args:
        room: multiply-accumulates.
        values: number of values.
        classes: number of classes.
    """
    fit = (room - values**2 - 2 * values * classes) // (values * classes + classes**2)
    return int(min(values, max(FEWEST_DIRECTIONS, fit), MOST_NUMBERS // (values * classes)))
