"""A temperature and an offset for each network of a composite, fitted to samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Declined
from graft.passes.compare.branch import Branch
from graft.passes.compare.fitting import FitReport, decide, observe
from graft.passes.compare.max_likelihood import PENALTY, max_likelihood
from graft.passes.compare.one_vs_rest import OneVsRest, Weighed
from graft.passes.compare.score import Columns, Comparison, Pair, typical, typical_evidence
from graft.rewriter.arrays import Integers, Table
from graft.rewriter.data.folds import FOLDS, assign_folds, class_weights
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model


@dataclass(frozen=True)
class Calibrate:
    """Turn scores s of network b into ``a_b s + o_b``, with the most likely ``a_b`` and ``o_b``.

    ``a_b`` is an inverse temperature (temperature scaling: Guo et al., ICML 2017) for each network, ``o_b``
    favours one network over the others; classes weigh the same. The classes of one network keep their order.

    Attributes:
        networks: number of the network of each column.
    """

    networks: tuple[int, ...]

    def __call__(self, model: Model, context: Context) -> FitReport:
        """Change the scores of ``model``, whose output ``READ`` holds the columns.

        Args:
            model: a composite, changed in place.
            context: samples, device and seed, which draws the folds of the report.

        Raises:
            GraftError: there are no samples, or fewer than two of a class.
        """
        samples = context.samples
        if samples is None:
            raise GraftError("scores-data", "calibrated scores are fitted to samples", "name data")
        columns, before = observe(model, samples, context.device)
        labels, owners = samples.labels, np.asarray(self.networks)
        folds = assign_folds(labels, np.random.default_rng(context.seed))
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
        return FitReport(
            changed=int(used),
            samples=len(labels),
            top1=float(correct.mean()),
            before=float(before.mean()),
            penalty=PENALTY,
            hidden=0,
            used=used,
        )


class Calibrated(Comparison):
    """Typicality with a temperature and an offset for each network (:class:`Calibrate`).

    A newcomer's log-odds and nearness get a weight each, and an offset.
    """

    name = "calibrated"
    needs_data = True
    per_step = False
    uses_distances = True
    reads = "columns"
    patches = True

    def columns(self, branch: Branch, classes: Sequence[str]) -> Columns:
        """Make the columns without data."""
        return typical(branch, classes)

    def fit(self, model: Model, networks: Sequence[int], room: int, context: Context) -> FitReport:
        """Fit temperatures and offsets."""
        del room
        return Calibrate(tuple(networks))(model, context)

    def evidence(self, pair: Pair) -> tuple[list[gs.Tensor], Declined | None]:
        """Take the newcomer's log-odds, and how near the sample is to its class."""
        return typical_evidence(pair)

    def fit_log_odds(self, task: OneVsRest, values: Table, room: int) -> Weighed:
        """Fit weights and an offset.

        Args:
            task: labels, and the other columns.
            values: float64 (samples, values), what :meth:`head_input` holds.
            room: multiply-accumulates that the fit may add.
        """
        del room
        return task.calibrated(values)


def _fit(columns: Table, labels: Integers, owners: Integers) -> tuple[Table, Table]:
    """Return factor and offset of every column; those of one network are the same."""
    branches = np.eye(owners.max() + 1)[owners]  # (columns, branches)
    offsets = np.broadcast_to(branches, (*columns.shape, branches.shape[1]))
    features = np.concatenate([columns[:, :, None] * branches, offsets], axis=2)
    size = branches.shape[1]
    parameters = max_likelihood(features, labels, class_weights(labels), np.repeat([1.0, 0.0], size))
    return branches @ parameters[:size], branches @ parameters[size:]
