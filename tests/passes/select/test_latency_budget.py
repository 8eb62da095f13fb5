"""Budgets of latency: blocks of channels, and the limit that measurements correct."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graft.passes.base import Declined
from graft.passes.cut.slice import Slice
from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.passes.select import latency_budget
from graft.passes.select.budget import Budget, Candidates
from graft.passes.select.latency_budget import LatencyBudget, Timeable
from graft.rewriter.arrays import Mask, Scores
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.measure.cost import CostModel, cost_of
from graft.rewriter.measure.latency import STEP, Timed
from tests import small
from tests.rewriter.measure.test_latency import case, wide


class Biased:
    """A table whose measurements are its multiply-accumulates, ``bias`` times."""

    milliseconds = 100.0

    def __init__(self, whole: int, bias: float) -> None:
        self.whole, self.bias = whole, bias
        self.asked = 0

    def compare(self, model: Model) -> Timed:
        self.asked += 1
        return Timed(self.bias * cost_of(model).macs, self.whole)


class ByMacs:
    """A cost whose latency is its multiply-accumulates."""

    def __init__(self, cost: CostModel) -> None:
        self.cost, self.whole = cost, cost.macs()

    def total(self, unit: str, kept: Mask | None = None) -> float:
        return self.cost.macs(kept) * Biased.milliseconds / self.whole

    def by_channel(self, unit: str) -> Scores:
        return self.cost.by_channel("macs")


class Case:
    """Channels that compete by multiply-accumulates, as if these were milliseconds."""

    def __init__(self) -> None:
        self.analysed = Analysed.of(small.model(wide()))
        self.groups = self.analysed.groups
        self.cost = CostModel(self.groups)
        scores = np.random.default_rng(0).random(self.groups.count)
        dead = np.zeros(self.groups.count, bool)
        by_macs = ByMacs(self.cost)
        self.candidates = Candidates(self.groups, scores, by_macs, 0.0, dead)  # type: ignore[arg-type]

    def kept(self, keep: float, table: Biased) -> Mask:
        timeable = Timeable(self.candidates, self.analysed, table)  # type: ignore[arg-type]
        return LatencyBudget(keep, round_to=1)(timeable, small.context()).kept


@pytest.mark.parametrize("bias", [0.6, 0.8, 1.0, 1.2, 1.5])
def test_the_limit_is_corrected_by_what_is_measured(bias: float) -> None:
    case = Case()
    table = Biased(case.cost.macs(), bias)
    kept = case.kept(0.5, table)
    found = bias * case.cost.macs(kept) / case.cost.macs()
    assert 0.5 - latency_budget.ROOM <= found <= 0.5 + latency_budget.TOLERANCE
    assert table.asked <= latency_budget.ATTEMPTS


def test_what_corrections_cannot_reach_is_told(caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    table = Biased(case.cost.macs(), 1.0)
    table.compare = lambda _: Timed(0.9, 1.0)  # type: ignore[method-assign]
    timeable = Timeable(case.candidates, case.analysed, table)  # type: ignore[arg-type]
    (declined,) = LatencyBudget(0.5, round_to=1)(timeable, small.context()).declined
    for told in (caplog.text, declined.reason):
        assert "0.9" in told and "0.5" in told


def test_what_measured_cuts_declined_is_told(declining: Callable[[type], Declined]) -> None:
    case, declined = Case(), declining(Slice)
    timeable = Timeable(case.candidates, case.analysed, Biased(case.cost.macs(), 1.2))  # type: ignore[arg-type]
    assert LatencyBudget(0.5, round_to=1)(timeable, small.context()).declined == (declined,)


def test_a_share_that_measures_too_much_cannot_be_reached() -> None:
    case = Case()
    least = case.cost.macs(~case.groups.cuttable()) / case.cost.macs()
    with pytest.raises(GraftError) as caught:
        case.kept(0.05, Biased(case.cost.macs(), 4000))
    assert caught.value.code == "budget-unreachable"
    assert least < 0.05


def test_by_latency_channels_fall_in_full_blocks() -> None:
    of = case()
    scores = np.random.default_rng(1).random(of.groups.count)
    budget = Budget(0.5, "latency")
    dead = np.zeros(of.groups.count, bool)
    candidates = Candidates(of.groups, scores, of.cost, of.cost.latency(), dead)
    kept = budget(candidates, small.context()).kept
    assert of.cost.latency(kept) <= 0.5 * of.cost.latency()
    counts = [int(kept[of.groups[name].channels].sum()) for name in ("conv0", "conv1", "up")]
    assert sum(counts) < 3 * 64
    assert all(count % STEP == 0 for count in counts)
    one = Budget(0.5, "latency", round_to=1)(candidates, small.context()).kept
    assert of.cost.latency(one) <= 0.5 * of.cost.latency()


@small.timed
def test_a_module_takes_its_share_of_the_time() -> None:
    parent = Parent(small.model(wide()))
    profile = small.profile(parent.model, small.samples(small.inputs([4, 16, 16])), parent.sha256)
    decompose = Decompose(["a", "c"], 0.6, "latency", together=True)
    report = decompose(parent, small.context(profile))
    assert report.timed is not None
    assert 0.3 < report.timed.ratio <= 0.75
    assert len(parent.latency_tables) == 1
    assert decompose.plan(parent, small.context(profile)).parent == parent.sha256
    assert len(parent.latency_tables) == 1
    assert Decompose(["a"], 0.6)(parent, small.context(profile)).timed is None
