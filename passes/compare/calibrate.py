"""A temperature and an offset for each branch of a composite, fitted to samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.passes.compare.joint_head import FOLDS, JointReport, balance, decide, observe, spread
from graft.passes.compare.max_likelihood import PENALTY, max_likelihood
from graft.rewriter.arrays import Table
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device


@dataclass(frozen=True)
class Calibrate:
    """Scores of branch b become ``a_b s + o_b``, with the most likely ``a_b`` and ``o_b``.

    The parameters of temperature scaling (Guo et al., ICML 2017) for each branch, and what one branch is
    favoured over the others; classes weigh the same. What a branch says of its own classes keeps its order.

    Attributes:
        device: where the composite runs.
        branches: the number of the branch of each column.
        seed: draws the folds of the report.
    """

    device: Device
    branches: Sequence[int]
    seed: int = 0

    def __call__(self, model: Model, samples: Samples) -> JointReport:
        """Change the scores of ``model``, whose output ``READ`` holds the columns."""
        columns, before = observe(model, samples, self.device)
        labels, owners = samples.labels, np.asarray(self.branches)
        folds = spread(labels, np.random.default_rng(self.seed))
        correct = np.zeros(len(labels), bool)
        for fold in range(FOLDS):
            inside, outside = folds != fold, folds == fold
            scale, offset = _fit(columns[inside], labels[inside], owners)
            correct[outside] = (columns[outside] * scale + offset).argmax(axis=1) == labels[outside]
        scale, offset = _fit(columns, labels, owners)

        def scores(build: Builder, read: gs.Tensor) -> gs.Tensor:
            scaled = build.node("Mul", "scaled", [read, build.constant("scale", scale.astype(np.float32))])
            return build.node("Add", "scores", [scaled, build.constant("offset", offset.astype(np.float32))])

        used = bool(correct.mean() >= before.mean())
        decide(model, scores if used else None)
        return JointReport(len(labels), float(correct.mean()), float(before.mean()), PENALTY, 0, used)


def _fit(columns: Table, labels: NDArray[np.int64], owners: NDArray[np.int64]) -> tuple[Table, Table]:
    """Factor and offset of every column; those of one branch are the same."""
    branches = np.eye(owners.max() + 1)[owners]  # (columns, branches)
    offsets = np.broadcast_to(branches, (*columns.shape, branches.shape[1]))
    features = np.concatenate([columns[:, :, None] * branches, offsets], axis=2)
    size = branches.shape[1]
    parameters = max_likelihood(features, labels, balance(labels), np.repeat([1.0, 0.0], size))
    return branches @ parameters[:size], branches @ parameters[size:]
