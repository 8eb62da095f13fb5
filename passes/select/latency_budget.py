"""Budgets of latency: what a table predicts is measured on the cut, and the limit is corrected."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from graft.passes.base import Context, Declined, Report, all_declined
from graft.passes.cut.slice import Slice, SliceReport
from graft.passes.select.budget import Budget, BudgetReport, Candidates
from graft.rewriter.arrays import Mask
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.latency import LatencyTable

log = logging.getLogger("graft")

ATTEMPTS = 4
TOLERANCE = 0.02
"""Measurements repeat about so well."""
ROOM = 0.05
"""A cut that leaves so much of the budget unused is planned again."""


@dataclass(frozen=True, eq=False)
class Timeable:
    """The channels that compete for a budget of latency, and what is measured.

    Attributes:
        candidates: channels, scores and predicted latency; their analysis is the table's.
        analysed: the model that is cut, with its own analysis.
        table: measured on the parent.
    """

    candidates: Candidates
    analysed: Analysed
    table: LatencyTable


@dataclass(frozen=True)
class LatencyBudget:
    """A share of the parent's latency that may stay: predicted, measured on the cut, and corrected.

    Attributes:
        keep: share of the parent's latency, 0..1.
        round_to: as in :class:`graft.passes.select.budget.Budget`.
    """

    keep: float
    round_to: int | None = None

    def __call__(self, subject: Timeable, context: Context) -> BudgetReport:
        """Choose the channels of a cut that measures at most the budget, and little less.

        Args:
            subject: channels, scores, and the model that is cut and measured; left as it is.
            context: handed on.

        Returns:
            The mask of the channels that stay; declined where the cut measures more than the budget, with
            what the cuts that were measured declined.

        Raises:
            GraftError: even the smallest cut is predicted to take longer.
        """
        whole, budget = subject.table.milliseconds, Budget(self.keep, "latency", self.round_to)

        def choose(milliseconds: float) -> BudgetReport:
            return budget(replace(subject.candidates, whole=milliseconds), context)

        best, share = choose(whole), float("inf")
        report = best
        reports: list[Report] = [best]
        for _ in range(ATTEMPTS):
            found, sliced = _measured(subject, report.kept, context)
            reports.append(sliced)
            room = self.keep + TOLERANCE
            if found < share if share > room else share < found <= room:
                best, share = report, found
            if self.keep - ROOM <= found <= room or report.kept.all():
                break
            whole *= self.keep / found
            report = choose(whole)
            reports.append(report)
        left = all_declined(reports)
        if share > self.keep + TOLERANCE:
            reason = f"the module takes {share:.3f} of the parent's latency, {self.keep:g} was wanted"
            log.warning(reason)
            left = (*left, Declined("latency", reason))
        return replace(best, declined=left)


def _measured(subject: Timeable, kept: Mask, context: Context) -> tuple[float, SliceReport]:
    """Return the share of the parent's latency that a cut to ``kept`` takes, and the report of the cut."""
    cut = subject.analysed.copy()
    report = Slice(Plan.of(subject.candidates.groups, kept, ""))(cut, context)
    return subject.table.compare(cut.model).ratio, report
