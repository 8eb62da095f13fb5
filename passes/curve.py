"""Accuracy against MACs: modules for one set of classes, by several methods at a ladder of budgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graft.passes.compensate.fold import LADDER as COMPENSATE
from graft.passes.decompose import Decompose
from graft.passes.identify import MEASURED
from graft.passes.parent import Parent
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.measure.evaluation import Scored, score
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device

ONE_PLAN = "one-plan"
"""The baseline that knows no classes: one plan for all of them, cut for the head of the set."""

LADDER = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
METHODS = (MEASURED, "activity", "magnitude", "random", ONE_PLAN)
UNREACHABLE = "budget-unreachable"
HALVINGS = 12
"""So often the budget of a plan for all classes is bisected, where the module's head costs another share."""


@dataclass(frozen=True)
class Point:
    """One module: what it costs and how good it is. A budget that cannot be reached has no figures.

    Attributes:
        method: what chose its channels.
        compensate: how kept channels stand in for removed ones.
        keep: share of the parent's MACs that it was allowed.
        unreachable: even the smallest cut costs more.
        macs: what it costs.
        macs_ratio: over the MACs of the parent.
        parameters: numbers in its constants.
        top1: share of the test samples that it has right.
        loss: parent minus module, in points of top-1.
        standard_error: of the loss, from sample to sample, both having seen the same ones.
        balanced_accuracy: for a module of one class, most of whose samples are (other).
    """

    method: str
    compensate: str
    keep: float
    unreachable: bool = False
    macs: int | None = None
    macs_ratio: float | None = None
    parameters: int | None = None
    top1: float | None = None
    loss: float | None = None
    standard_error: float | None = None
    balanced_accuracy: float | None = None


@dataclass(frozen=True)
class CurveReport:
    """The parent, restricted to the classes, and the points by method, budget and compensation.

    Attributes:
        top1: share of the test samples that the parent has right.
        balanced_accuracy: of the parent, for one class against (other).
        points: one for each module.
        train_samples: how many the modules could learn from.
        test_samples: how many everything was measured on.
        providers: what ran.
    """

    top1: float
    balanced_accuracy: float | None
    points: tuple[Point, ...]
    train_samples: int
    test_samples: int
    providers: tuple[str, ...]


class Curve:
    """Cut a module for the same classes by every method, at every budget, with every compensation.

    Args:
        device: where to run.
        budgets: shares of the parent's MACs, each a point of every curve.
        methods: names of methods of concern identification, and :data:`ONE_PLAN`.
        compensate: steps of :data:`graft.passes.compensate.fold.LADDER`.
        progress: called with 1 after each point.
    """

    def __init__(
        self,
        device: Device,
        budgets: Sequence[float] = LADDER,
        methods: Sequence[str] = METHODS,
        compensate: Sequence[str] = (COMPENSATE[-1],),
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.device = device
        self.budgets = tuple(budgets)
        self.methods = tuple(methods)
        self.compensate = tuple(compensate)
        self.progress = progress

    def __call__(
        self,
        parent: Parent,
        profile: Profile,
        train: Samples,
        test: Samples,
        decompose: Decompose,
        classes: Sequence[str],
    ) -> CurveReport:
        """Cut and measure; nothing is chosen by the test samples.

        Args:
            parent: the parent.
            profile: of ``train``.
            train: what modules may learn from, matched to the parent's card.
            test: what they are measured on, matched to the parent's card.
            decompose: the remaining options of a cut.
            classes: names, in the order of the modules' columns; one alone is told from ``(other)``.

        Raises:
            GraftError: an option is unknown, or the profile does not tell all classes apart and
                :data:`ONE_PLAN` is among the methods.
        """
        if ONE_PLAN in self.methods and OTHER in profile.seen:
            raise classes_merged()
        job = _Job(parent, profile, train, test, self.device, tuple(classes))
        whole = job.scored(job.headed(decompose))
        points = []
        for point in self._points(job, decompose, whole):
            points.append(point)
            if self.progress:
                self.progress(1)
        return CurveReport(
            whole.summary()["top1"],
            whole.summary().get("balanced_accuracy"),
            tuple(points),
            len(train),
            len(whole.labels),
            whole.providers,
        )

    def _points(self, job: _Job, decompose: Decompose, whole: Scored) -> Iterator[Point]:
        for method in self.methods:
            own = replace(decompose, unit="macs")
            own = own if method == ONE_PLAN else replace(own, method=method)
            for keep in self.budgets:
                plan = _reached(job.one_plan if method == ONE_PLAN else job.plan, replace(own, keep=keep))
                for step in self.compensate:
                    point = Point(method, step, keep, unreachable=plan is None)
                    cut = replace(own, keep=keep, compensate=step)
                    yield point if plan is None else job.measured(point, cut, plan, whole)


@dataclass(frozen=True)
class _Job:
    """What every point needs."""

    parent: Parent
    profile: Profile
    train: Samples
    test: Samples
    device: Device
    classes: tuple[str, ...]

    def measured(self, point: Point, decompose: Decompose, plan: Plan, whole: Scored) -> Point:
        """``point`` with the figures of the module that ``plan`` leaves."""
        report = decompose(self.parent, self.profile, self.classes, plan, data=self.train, device=self.device)
        scored = self.scored(report.model)
        loss, error = metrics.paired_difference(whole.correct.ravel(), scored.correct.ravel())
        summary = scored.summary()
        return replace(
            point,
            macs=report.cost.macs,
            macs_ratio=report.cost.macs / max(1, self.parent.cost.macs),
            parameters=report.cost.parameters,
            top1=summary["top1"],
            loss=100 * loss,
            standard_error=100 * error,
            balanced_accuracy=summary.get("balanced_accuracy"),
        )

    def scored(self, model: Model) -> Scored:
        """What a module, or the parent with the head of one, says of the test samples of its classes."""
        own = Samples.match(self.test.split, model.require_card(), names=self.parent.card.labels)
        return score(model, own.take(np.isin(own.indices, self.test.indices)), self.device)

    def headed(self, decompose: Decompose) -> Model:
        """The parent with the output of a module: by the law, the parent restricted to the classes."""
        model = self.parent.model.copy()
        decompose.head(self.classes)(model)
        return model

    def plan(self, decompose: Decompose) -> Plan:
        """The plan for the classes."""
        return decompose.plan(self.parent, self.profile, self.classes, self.train, self.device)

    def one_plan(self, decompose: Decompose) -> Plan:
        """The plan for all classes of the parent that leaves the largest module within the budget.

        The plan is one of the whole parent, whose head may cost more or less than the module's: by no
        more than both differ uncut. Within this difference the plan's own budget is bisected.

        Raises:
            GraftError: none is within the budget.
        """
        keep = 1.0 if decompose.keep is None else decompose.keep
        groups = ChannelGroups(self.headed(decompose))
        cost, whole = CostModel(groups), max(1, self.parent.cost.macs)
        apart = abs(cost.macs() - whole) / whole
        low, high, best = max(0.0, keep - apart), min(1.0, keep + apart), None
        for turn in range(HALVINGS):
            middle = (low + high) / 2 if turn else high
            plan = _reached(self._plan_of_all, replace(decompose, keep=middle))
            if plan is None or cost.macs(plan.mask(groups)) <= keep * whole:
                low, best = middle, plan or best
            else:
                high = middle
            if low == high:
                break
        if best is None:
            raise GraftError(UNREACHABLE, f"no plan for all classes keeps {keep:g} of the MACs", "keep more")
        return best

    def _plan_of_all(self, decompose: Decompose) -> Plan:
        labels = self.parent.card.labels
        together = replace(decompose, together=True)
        return together.plan(self.parent, self.profile, labels, self.train, self.device)


def classes_merged() -> GraftError:
    """What to say where classes that were not asked for share a row of the profile."""
    return GraftError(
        "one-plan-profile",
        "one plan for all classes needs a profile that tells all of them apart",
        f"leave {ONE_PLAN} out of --methods, or use samples of fewer classes",
    )


def _reached(plan: Callable[[Decompose], Plan], decompose: Decompose) -> Plan | None:
    """What ``plan`` says; ``None`` where the budget cannot be reached."""
    try:
        return plan(decompose)
    except GraftError as error:
        if error.code != UNREACHABLE:
            raise
        return None
