"""A column for what no class owns: how far a sample is from all that was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.passes.compare.joint_head import FOLDS, run, spread
from graft.passes.compare.score import ATYPICAL, Branch
from graft.rewriter.arrays import Table
from graft.rewriter.card.card import OTHER, InputCard
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.outputs import logits_behind
from graft.rewriter.run.session import Device

READ = "graft/reject/read"
"""The output of a composite that holds what samples are told apart by: features, or a distance."""
FALSE_ALARMS = 0.05
GRID = 8
"""An image is also seen as about so many by so many means."""
PRIOR = 200
"""Samples that the covariance of all classes counts as, beside those of a class."""
FEWEST_DIRECTIONS = 8
MOST_NUMBERS = 1 << 22
"""Of the directions of all classes."""
LEAST_VARIANCE = 1e-3
"""Of directions, where all values vary by 1."""


@dataclass(frozen=True)
class RejectReport:
    """What is rejected.

    Attributes:
        false_alarms: share of samples of known classes that were to be rejected.
        samples: those that distances were fitted to; 0: from statistics that modules carry.
    """

    false_alarms: float
    samples: int


@dataclass(frozen=True)
class ClassGaussians:
    """Where classes lie: a normal distribution for each.

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
    def fit(cls, values: Table, labels: NDArray[np.int64], kept: int) -> ClassGaussians:
        """To ``values`` (samples, values) of ``labels`` (samples,), of which each number has some."""
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
        """Of each row, to the nearest class (samples,)."""
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
        """The distance (samples, 1), float32."""
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
        return build.reduce("ReduceMin", distances, [1], "nearest", keep=True)


def directions_for(room: int, values: int, classes: int) -> int:
    """How many directions of each class fit into ``room`` multiply-accumulates; some in any case."""
    fit = (room - values**2 - 2 * values * classes) // (values * classes + classes**2)
    return int(min(values, max(FEWEST_DIRECTIONS, fit), MOST_NUMBERS // (values * classes)))


class Reject:
    """Give a composite the column ``(other)``, which wins for samples that are far from all classes.

    With samples, far is what lies beyond nearly all of them (:class:`ClassGaussians`, each sample measured
    without its fold); without, what lies beyond the distances that modules remember of their parents'
    samples, if these were normally distributed (:class:`graft.rewriter.record.mahalanobis.Typicality`).

    Args:
        device: where the composite runs.
        false_alarms: share of samples of known classes that the column may win.
        room: multiply-accumulates that it may take; more where it could not do with them.
        seed: draws the folds.
    """

    def __init__(
        self, device: Device, false_alarms: float = FALSE_ALARMS, room: int = 0, seed: int = 0
    ) -> None:
        self.device = device
        self.room = room
        self.false_alarms = false_alarms
        self.seed = seed

    def __call__(self, model: Model, samples: Samples | None) -> RejectReport:
        """Change ``model``, which has the output :data:`READ` and loses it."""
        if samples is None:
            limit, unit, clouds = ATYPICAL * NormalDist().inv_cdf(1 - self.false_alarms), ATYPICAL, None
        else:
            values, _ = run(model, samples, self.device, READ)
            kept = directions_for(self.room, values.shape[1], int(samples.labels.max()) + 1)
            limit, unit = self._limit(values, samples.labels, kept)
            clouds = ClassGaussians.fit(values, samples.labels, kept)
        graph = model.graph
        read = next(tensor for tensor in graph.outputs if tensor.name == READ)
        graph.outputs.remove(read)
        build = Builder(graph, model.opset, "graft/reject")
        distance = clouds.write(build, read) if clouds else read
        _add_column(model, build, distance, limit, unit)
        return RejectReport(self.false_alarms, len(samples) if samples else 0)

    def _limit(self, values: Table, labels: NDArray[np.int64], kept: int) -> tuple[float, float]:
        """Where far begins, and how much distances differ among known samples."""
        folds, distances = spread(labels, np.random.default_rng(self.seed)), np.zeros(len(labels))
        for fold in range(FOLDS):
            inside, outside = folds != fold, folds == fold
            distances[outside] = ClassGaussians.fit(values[inside], labels[inside], kept).distance(
                values[outside]
            )
        limit = float(np.quantile(distances, 1 - self.false_alarms))
        return limit, max(float(np.std(distances)), 1e-6)


def rejection_features(
    branches: Sequence[Branch], image: InputCard | None, raw: gs.Tensor, build: Builder
) -> list[gs.Tensor]:
    """What samples are told apart by with data: what branches know, and a coarse view of an image."""
    found = [tensor for branch in branches for tensor in branch.known]
    return found if image is None else [*found, coarse(raw, image, build)]


def stored_distances(
    branches: Sequence[Branch], classes: Sequence[Sequence[str]], build: Builder
) -> list[gs.Tensor]:
    """The distance to the nearest class by what modules carry (samples, 1).

    Raises:
        GraftError: a module carries nothing.
    """
    for branch, names in zip(branches, classes, strict=True):
        reason = branch.atypical_reason(names)
        if reason:
            raise GraftError(
                "other-unknown",
                f"what no class owns cannot be told: {reason}",
                "name data with a training split",
            )
    distances = [branch.distances(names) for branch, names in zip(branches, classes, strict=True)]
    joined = build.node("Concat", "reject/distances", distances, axis=-1)
    return [build.reduce("ReduceMin", joined, [-1], "reject/nearest", keep=True)]


def coarse(raw: gs.Tensor, card: InputCard, build: Builder) -> gs.Variable:
    """Means over about :data:`GRID` by :data:`GRID` patches of an image (samples, means)."""
    height, width = card.size or (1, 1)
    image = build.node("Cast", "coarse/float", [raw], to=1)
    if card.layout == "flat":
        shape = build.constant("coarse/shape", np.array([-1, height, width, card.channels]))
        image = build.node("Reshape", "coarse/image", [image, shape])
    if card.layout != "NCHW":
        image = build.node("Transpose", "coarse/nchw", [image], perm=[0, 3, 1, 2])
    kernel = [max(1, round(height / GRID)), max(1, round(width / GRID))]
    means = build.node("AveragePool", "coarse/means", [image], kernel_shape=kernel, strides=kernel)
    return build.node("Flatten", "coarse/flat", [means], axis=1)


def _add_column(model: Model, build: Builder, distance: gs.Tensor, limit: float, unit: float) -> None:
    """``(other)`` is as likely as the likeliest class at ``limit``."""
    graph, card = model.graph, model.require_card()
    output = next(tensor for tensor in graph.outputs if tensor.name == card.output.name)
    scores = logits_behind(output, 1, build) if card.output.kind == "probabilities" else output
    dtype = np.dtype(output.dtype)
    scale, far = (
        build.constant(name, np.array(value, np.float32))
        for name, value in (("unit", unit), ("limit", limit))
    )
    beyond = build.node("Div", "beyond", [build.node("Sub", "apart", [distance, far]), scale])
    beyond = build.node("Cast", "beyond_typed", [beyond], to=int(onnx.helper.np_dtype_to_tensor_dtype(dtype)))
    best = build.reduce("ReduceMax", scores, [-1], "best", keep=True)
    other = build.node("Add", "other", [best, beyond])
    columns = build.node("Concat", "columns", [scores, other], axis=-1)
    if card.output.kind == "probabilities":
        columns = build.node("Softmax", "shares", [columns], axis=-1)
    shape = [*list(output.shape or [None])[:-1], len(card.labels) + 1]
    graph.outputs.remove(output)
    columns.name, output.name = output.name, f"{build.prefix}/before"
    columns.dtype, columns.shape = dtype, shape
    graph.outputs.insert(0, columns)
    model.card = card.replace(labels=(*card.labels, OTHER))
    model.tidy()
    model.refresh_shapes()
