"""A joint head: one closed-form classifier over the features and shares of all networks of a composite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graft.passes.base import Context, Declined
from graft.passes.compare.branch import Branch
from graft.passes.compare.fitting import FitReport, decide, observe
from graft.passes.compare.one_vs_rest import OneVsRest, Weighed
from graft.passes.compare.ridge_head import choose
from graft.passes.compare.score import Columns, Comparison, Pair, Situation, typical
from graft.rewriter.arrays import Table
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model


@dataclass(frozen=True)
class JointHead:
    """Fit a head to samples and let it decide.

    Least squares of one-hot labels with a penalty on the weights, every class weighing the same; the
    penalty is the best of :data:`graft.passes.compare.ridge_head.PENALTIES` by the squared error on five
    folds. Where there is room, a layer of random features stands beside the values if it is better on the
    folds. Scores are divided by the temperature that makes them the most likely logits on the folds.

    Attributes:
        room: multiply-accumulates that a head with random features may take.
    """

    room: int = 0

    def __call__(self, model: Model, context: Context) -> FitReport:
        """Fit the head of ``model``, which has the output ``READ`` and loses it.

        Args:
            model: a composite, changed in place.
            context: samples, device and seed, which draws folds and random features.

        Raises:
            GraftError: there are no samples, or fewer than two of a class.
        """
        samples = context.samples
        if samples is None:
            raise GraftError("scores-data", "a joint head is fitted to samples", "name data")
        values, before = observe(model, samples, context.device)
        best = choose(values, samples.labels, context.seed, self.room)
        used = bool(best.correct.mean() >= before.mean())
        decide(model, (lambda build, read: best.head.write(build, read)) if used else None)
        return FitReport(
            changed=int(used),
            samples=len(values),
            top1=float(best.correct.mean()),
            before=float(before.mean()),
            penalty=best.penalty,
            hidden=best.hidden,
            used=used,
        )


class Joint(Comparison):
    """One head over the features and shares of all networks (:class:`JointHead`).

    Until it is fitted, and where it is no better, networks are compared by typicality. A newcomer gets one
    ridge regression of the features of both networks, its class against all others.
    """

    name = "joint"
    needs_data = True
    per_step = False
    uses_distances = True
    reads = "features"
    patches = True

    def default_for(self, situation: Situation) -> bool:
        """Prefer it for several parents with data of all classes."""
        return situation.parents != 1 and situation.data and not situation.steps

    def columns(self, branch: Branch, classes: Sequence[str]) -> Columns:
        """Make the columns without data."""
        return typical(branch, classes)

    def fit(self, model: Model, networks: Sequence[int], room: int, context: Context) -> FitReport:
        """Fit a joint head."""
        del networks
        return JointHead(max(0, room))(model, context)

    def evidence(self, pair: Pair) -> tuple[list[gs.Tensor], Declined | None]:
        """Take the features and shares of both networks."""
        return [pair.base.joint_features, pair.newcomer.joint_features], None

    def head_input(self, pair: Pair) -> tuple[gs.Tensor, Declined | None]:
        """Put them side by side."""
        evidence, declined = self.evidence(pair)
        return pair.build.node("Concat", "newcomer/known", evidence, axis=-1), declined

    def fit_log_odds(self, task: OneVsRest, values: Table, room: int) -> Weighed:
        """Fit a ridge regression.

        Args:
            task: labels, and the other columns.
            values: float64 (samples, values), what :meth:`head_input` holds.
            room: multiply-accumulates that the fit may add.
        """
        return task.joint_head(values, room)
