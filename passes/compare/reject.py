"""Rejection of out-of-distribution samples: a column for samples that are far from all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Report
from graft.passes.compare.branch import ATYPICAL, Branch
from graft.passes.compare.class_gaussians import ClassGaussians, directions_for
from graft.passes.compare.fitting import read_outputs, require_two
from graft.rewriter.arrays import Integers, Table
from graft.rewriter.card.card import OTHER
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.folds import FOLDS, assign_folds
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.logits import logits_behind

READ = "graft/reject/read"
"""The output of a composite that rejection reads: features, or a distance."""
FALSE_POSITIVE_RATE = 0.05
GRID = 8
"""An image is reduced to about so many by so many means."""


@dataclass(frozen=True, kw_only=True)
class RejectReport(Report):
    """The limit of rejection.

    Attributes:
        false_positive_rate: share of in-distribution samples that may be rejected.
        samples: number of samples that distances were fitted to; 0: they come from statistics that modules
            carry.
    """

    false_positive_rate: float
    samples: int

    def plain(self) -> dict[str, Any]:
        """Return the figures, as ``--json`` prints them; the rate under its former name, too."""
        rate = self.false_positive_rate
        return {"false_positive_rate": rate, "false_alarms": rate, "samples": self.samples}


@dataclass(frozen=True)
class Reject:
    """Give a composite the column ``(other)``, which wins for out-of-distribution samples.

    With samples the limit is a quantile of the distances of samples to the nearest class
    (:class:`graft.passes.compare.class_gaussians.ClassGaussians`, each sample measured without its fold);
    without, it is the same quantile of the distances that modules remember of their parents' samples, if
    these were normally distributed (:class:`graft.rewriter.record.mahalanobis.Mahalanobis`).

    Attributes:
        false_positive_rate: share of in-distribution samples that the column may win.
        room: multiply-accumulates that it may take; it takes more where it could not do with them.
    """

    false_positive_rate: float = FALSE_POSITIVE_RATE
    room: int = 0

    def __call__(self, model: Model, context: Context) -> RejectReport:
        """Change ``model``, which has the output :data:`READ` and loses it.

        Args:
            model: a composite.
            context: samples to fit distances to, if there are any; device and seed.
        """
        samples = context.samples
        if samples is None:
            gaussians, unit = None, ATYPICAL
            limit = ATYPICAL * NormalDist().inv_cdf(1 - self.false_positive_rate)
        else:
            require_two(samples)
            (values,) = read_outputs(model, samples, context.device, [READ])
            kept = directions_for(self.room, values.shape[1], int(samples.labels.max()) + 1)
            limit, unit = self._limit(values, samples.labels, kept, context.seed)
            gaussians = ClassGaussians.fit(values, samples.labels, kept)
        graph = model.graph
        read = next(tensor for tensor in graph.outputs if tensor.name == READ)
        graph.outputs.remove(read)
        build = Builder(graph, model.opset, "graft/reject")
        distance = gaussians.write(build, read) if gaussians else read
        _add_column(model, build, distance, limit, unit)
        return RejectReport(
            changed=1, false_positive_rate=self.false_positive_rate, samples=len(samples) if samples else 0
        )

    def _limit(self, values: Table, labels: Integers, kept: int, seed: int) -> tuple[float, float]:
        """Return the distance where rejection begins, and the standard deviation of distances."""
        folds, distances = assign_folds(labels, np.random.default_rng(seed)), np.zeros(len(labels))
        for fold in range(FOLDS):
            inside, outside = folds != fold, folds == fold
            gaussians = ClassGaussians.fit(values[inside], labels[inside], kept)
            distances[outside] = gaussians.distance(values[outside])
        limit = float(np.quantile(distances, 1 - self.false_positive_rate))
        return limit, max(float(np.std(distances)), 1e-6)


def rejection_features(
    branches: Sequence[Branch], image: InputCard | None, raw: gs.Tensor, build: Builder
) -> list[gs.Tensor]:
    """Return what distances are fitted to: activations of all branches, and a coarse view of an image.

    Args:
        branches: the networks of the composite.
        image: the card of ``raw`` where that is an image of known size.
        raw: the input of the composite.
        build: adds nodes that belong to none of the branches.
    """
    found = [tensor for branch in branches for tensor in branch.pooled]
    return found if image is None else [*found, coarse(raw, image, build)]


def stored_distances(
    branches: Sequence[Branch], classes: Sequence[Sequence[str]], build: Builder
) -> list[gs.Tensor]:
    """Return the distance to the nearest class by the statistics that modules carry (samples, 1).

    Args:
        branches: the networks of the composite.
        classes: those of each network.
        build: adds nodes that belong to none of the branches.

    Raises:
        GraftError: a module carries no statistics.
    """
    for branch, names in zip(branches, classes, strict=True):
        missing = branch.without_distances(names)
        if missing:
            raise GraftError(
                "other-unknown",
                f"samples that no class owns cannot be recognised: {missing}",
                "name data with a training split",
            )
    distances = [branch.distances(names) for branch, names in zip(branches, classes, strict=True)]
    joined = build.node("Concat", "reject/distances", distances, axis=-1)
    nearest = build.largest(joined, "reject/nearest", least=True)
    nearest.dtype = joined.dtype = np.dtype(branches[0].dtype)
    return [nearest]


def coarse(raw: gs.Tensor, card: InputCard, build: Builder) -> gs.Variable:
    """Return means over about :data:`GRID` by :data:`GRID` patches of an image (samples, means).

    Args:
        raw: the image, in the layout of its card.
        card: with a size.
        build: adds the nodes.
    """
    height, width = card.size or (1, 1)
    image = build.cast(raw, np.float32, "coarse/float")
    if card.layout in ("flat", "NHW"):
        shape = build.constant("coarse/shape", np.array([-1, height, width, card.channels]))
        image = build.node("Reshape", "coarse/image", [image, shape])
    if card.layout != "NCHW":
        image = build.node("Transpose", "coarse/nchw", [image], perm=[0, 3, 1, 2])
    kernel = [max(1, round(height / GRID)), max(1, round(width / GRID))]
    means = build.node("AveragePool", "coarse/means", [image], kernel_shape=kernel, strides=kernel)
    flat = build.node("Flatten", "coarse/flat", [means], axis=1)
    flat.dtype = np.dtype(np.float32)
    return flat


def _add_column(model: Model, build: Builder, distance: gs.Tensor, limit: float, unit: float) -> None:
    """Add the column ``(other)``, which equals the highest score where the distance is ``limit``."""
    graph, card = model.graph, model.require_card()
    output = next(tensor for tensor in graph.outputs if tensor.name == card.output.name)
    scores = logits_behind(output, 1, build) if card.output.kind == "probabilities" else output
    dtype = np.dtype(output.dtype)
    scale, far = (
        build.constant(name, np.array(value, np.float32))
        for name, value in (("unit", unit), ("limit", limit))
    )
    beyond = build.node("Div", "beyond", [build.node("Sub", "apart", [distance, far]), scale])
    beyond = build.cast(beyond, dtype, "beyond_typed", np.float32)
    best = build.largest(scores, "best")
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
