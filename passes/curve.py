"""Accuracy against MACs: modules for one set of classes, by several methods at a ladder of budgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from graft.passes.base import Context, Declined, Report
from graft.passes.compensate.fold import REFIT
from graft.passes.decompose import Decompose, Headed
from graft.passes.identify import MEASURED
from graft.passes.parent import Parent
from graft.passes.select.uncuttable import require_cuttable
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.measure.evaluation import Scored, score

Outcome = TypeVar("Outcome", bound=Report)

ONE_PLAN = "one-plan"
"""The baseline that knows no classes: one plan for all of them, cut for the head of the set."""

BUDGETS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
METHODS = (MEASURED, "activity", "magnitude", "random", ONE_PLAN)
UNREACHABLE = "budget-unreachable"
HALVINGS = 12
"""So often the budget of a plan for all classes is bisected, where the module's head costs another share."""


@dataclass(frozen=True)
class Point:
    """Cost and accuracy of one module. A budget that cannot be reached has no figures.

    Attributes:
        method: importance method, or :data:`ONE_PLAN`.
        compensate: how removed channels were made up for.
        keep: share of the parent's MACs that it was allowed.
        unreachable: even the smallest cut costs more.
        macs: its multiply-accumulates.
        macs_ratio: over the MACs of the parent.
        parameters: numbers in its constants.
        top1: share of the held-out samples that it has right.
        difference: module minus parent, in percentage points of top-1; negative is worse.
        standard_error: of the difference, from sample to sample, both having seen the same ones.
        balanced_accuracy: for a module of one class, most of whose samples are (other).
        balanced_difference: module minus parent, in percentage points of balanced accuracy.
        balanced_standard_error: of that difference.
        precision: for a module of one class, of that class.
        recall: for a module of one class, of that class.
    """

    method: str
    compensate: str
    keep: float
    unreachable: bool = False
    macs: int | None = None
    macs_ratio: float | None = None
    parameters: int | None = None
    top1: float | None = None
    difference: float | None = None
    standard_error: float | None = None
    balanced_accuracy: float | None = None
    balanced_difference: float | None = None
    balanced_standard_error: float | None = None
    precision: float | None = None
    recall: float | None = None

    @property
    def shown(self) -> tuple[float, float, float] | None:
        """Accuracy, its difference and the standard error of that: balanced for one class, else top-1.

        ``None`` where the budget was not reached.
        """
        one = (self.balanced_accuracy, self.balanced_difference, self.balanced_standard_error)
        accuracy, difference, error = (
            (self.top1, self.difference, self.standard_error) if one[0] is None else one
        )
        if accuracy is None or difference is None or error is None:
            return None
        return accuracy, difference, error


@dataclass(frozen=True, kw_only=True)
class CurveReport(Report):
    """The parent, restricted to the classes, and the points; ``changed`` counts the modules that were cut.

    ``declined`` holds what all plans and modules left as it was.

    Attributes:
        top1: share of the held-out samples that the parent has right.
        balanced_accuracy: of the parent, for one class against (other).
        precision: of the parent, for one class.
        recall: of the parent, for one class.
        points: one for each module, by method, budget and compensation.
        train_samples: how many the modules could learn from.
        test_samples: how many everything was measured on.
        providers: those that ran the models.
    """

    top1: float
    balanced_accuracy: float | None
    precision: float | None
    recall: float | None
    points: tuple[Point, ...]
    train_samples: int
    test_samples: int
    providers: tuple[str, ...]


@dataclass(frozen=True)
class Curve:
    """Cut a module for the same classes by every method, at every budget, with every compensation.

    Attributes:
        decompose: the classes, and the remaining options of a cut.
        budgets: shares of the parent's MACs, each a point of every curve.
        methods: names of importance methods, and :data:`ONE_PLAN`.
        compensate: steps of :data:`graft.passes.compensate.fold.STEPS`.
        progress: called with 1 after each point.
    """

    decompose: Decompose
    budgets: tuple[float, ...] = BUDGETS
    methods: tuple[str, ...] = METHODS
    compensate: tuple[str, ...] = (REFIT,)
    progress: Callable[[int], None] | None = field(default=None, compare=False)

    def __call__(self, parent: Parent, context: Context) -> CurveReport:
        """Cut and measure; nothing is chosen by the held-out samples.

        Args:
            parent: the parent.
            context: samples that modules may learn from, and their profile; held-out samples that modules
                are measured on; all matched to the parent's card.

        Returns:
            The points.

        Raises:
            GraftError: an option is unknown, samples or profile are missing, nothing can be cut because
                operators have no rule, or the profile has no row for each class and :data:`ONE_PLAN` is among
                the methods.
        """
        train, test, profile = context.samples, context.held_out, context.profile
        if train is None or test is None or profile is None:
            raise GraftError(
                "curve-data", "a curve takes samples, their profile, and held-out samples", "give all three"
            )
        if ONE_PLAN in self.methods and OTHER in profile.seen:
            raise classes_merged()
        headed = self.decompose.headed(parent, context)
        require_cuttable(headed.analysed.groups)
        job = _Job(parent, context, test, headed, dict.fromkeys(headed.declined))
        whole = job.scored(job.headed.model)
        points = []
        for point in self._points(job, whole):
            points.append(point)
            if self.progress:
                self.progress(1)
        told, nothing = whole.summary(), {"precision": None, "recall": None}
        own = told["per_class"][whole.names[0]] if "balanced_accuracy" in told else nothing
        return CurveReport(
            changed=sum(not point.unreachable for point in points),
            declined=tuple(job.declined),
            top1=told["top1"],
            balanced_accuracy=told.get("balanced_accuracy"),
            precision=own["precision"],
            recall=own["recall"],
            points=tuple(points),
            train_samples=len(train),
            test_samples=len(whole.labels),
            providers=whole.providers,
        )

    def _points(self, job: _Job, whole: Scored) -> Iterator[Point]:
        for method in self.methods:
            own = replace(self.decompose, unit="macs")
            own = own if method == ONE_PLAN else replace(own, method=method)
            for keep in self.budgets:
                plan = _reached(job.one_plan if method == ONE_PLAN else job.plan, replace(own, keep=keep))
                for step in self.compensate:
                    point = Point(method, step, keep, unreachable=plan is None)
                    cut = replace(own, keep=keep, compensate=step, fixed_plan=plan)
                    yield point if plan is None else job.measured(point, cut, whole)


@dataclass(frozen=True)
class _Job:
    """Inputs that all points share.

    Attributes:
        parent: the parent.
        context: samples and profile that modules are made from.
        test: held-out samples that they are measured on.
        headed: the parent with the output of a module.
        declined: what its passes declined so far, each once; grows with the points.
    """

    parent: Parent
    context: Context
    test: Samples
    headed: Headed
    declined: dict[Declined, None]

    def measured(self, point: Point, decompose: Decompose, whole: Scored) -> Point:
        """Return ``point`` with the figures of the module that the plan leaves.

        Args:
            point: the point.
            decompose: cuts the module.
            whole: what the parent says of the held-out samples.
        """
        report = self._noted(decompose(self.parent, self.context))
        scored = self.scored(report.model)
        difference, error = metrics.paired_difference(scored.correct.ravel(), whole.correct.ravel())
        summary = scored.summary()
        if "balanced_accuracy" in summary:
            own = summary["per_class"][scored.names[0]]
            balanced, noise = metrics.balanced_difference(
                scored.correct.ravel(), whole.correct.ravel(), scored.labels.ravel()
            )
            point = replace(
                point,
                balanced_accuracy=summary["balanced_accuracy"],
                balanced_difference=100 * balanced,
                balanced_standard_error=100 * noise,
                precision=own["precision"],
                recall=own["recall"],
            )
        return replace(
            point,
            macs=report.cost.macs,
            macs_ratio=report.cost.macs / max(1, self.parent.cost.macs),
            parameters=report.cost.parameters,
            top1=summary["top1"],
            difference=100 * difference,
            standard_error=100 * error,
        )

    def scored(self, model: Model) -> Scored:
        """Return what a module, or the parent with the head of one, says of the samples of its classes."""
        own = Samples.match(self.test.split, model.require_card(), names=self.parent.card.labels)
        return score(model, own.take(np.isin(own.indices, self.test.indices)), self.context.device)

    def plan(self, decompose: Decompose) -> Plan:
        """Return the plan for the classes."""
        return self._noted(decompose.planned(self.parent, self.context)).plan

    def one_plan(self, decompose: Decompose) -> Plan:
        """Return the plan for all classes of the parent that leaves the largest module within the budget.

        The plan is one of the whole parent, whose head may cost more or less than the module's: by no
        more than both differ uncut. Within this difference the plan's own budget is bisected.

        Raises:
            GraftError: none is within the budget.
        """
        keep = 1.0 if decompose.keep is None else decompose.keep
        groups = self.headed.analysed.groups
        cost, whole = CostModel(groups), max(1, self.parent.cost.macs)
        between = abs(cost.macs() - whole) / whole
        low, high, best = max(0.0, keep - between), min(1.0, keep + between), None
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
        whole = replace(decompose, classes=self.parent.card.labels, together=True)
        return self._noted(whole.planned(self.parent, self.context)).plan

    def _noted(self, report: Outcome) -> Outcome:
        """Return ``report``; what it declined is kept."""
        self.declined.update(dict.fromkeys(report.declined))
        return report


def classes_merged() -> GraftError:
    """Return the error for a profile where other classes share a row."""
    return GraftError(
        "one-plan-profile",
        "one plan for all classes needs a profile with a row for each of them",
        f"leave {ONE_PLAN} out of --methods, or use samples of fewer classes",
    )


def _reached(plan: Callable[[Decompose], Plan], decompose: Decompose) -> Plan | None:
    """Return what ``plan`` says; ``None`` where the budget cannot be reached."""
    try:
        return plan(decompose)
    except GraftError as error:
        if error.code != UNREACHABLE:
            raise
        return None
