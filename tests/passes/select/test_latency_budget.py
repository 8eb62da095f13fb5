"""Budgets of latency: blocks of channels, and the limit that measurements correct."""

from __future__ import annotations

import numpy as np
import pytest

from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.passes.select import latency_budget as measured
from graft.passes.select.budget import Budget
from graft.passes.select.latency_budget import Stopwatch, within
from graft.rewriter.arrays import Mask
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
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


class Chooser:
    """The budget by multiply-accumulates, as if these were milliseconds."""

    def __init__(self, keep: float) -> None:
        self.model = small.model(wide())
        self.groups = ChannelGroups(self.model)
        self.cost = CostModel(self.groups)
        self.budget = Budget(keep, round_to=1)
        self.scores = np.random.default_rng(0).random(self.groups.count)

    def __call__(self, whole: float) -> Mask:
        limit = self.cost.macs() * whole / Biased.milliseconds
        dead = np.zeros(self.groups.count, bool)
        return self.budget.choose(self.groups, self.scores, self.cost, limit, dead)


@pytest.mark.parametrize("bias", [0.6, 0.8, 1.0, 1.2, 1.5])
def test_the_limit_is_corrected_by_what_is_measured(bias: float) -> None:
    choose = Chooser(0.5)
    table = Biased(choose.cost.macs(), bias)
    kept = within(0.5, choose, choose.model, choose.groups, table)  # type: ignore[arg-type]
    found = bias * choose.cost.macs(kept) / choose.cost.macs()
    assert 0.5 - measured.ROOM <= found <= 0.5 + measured.TOLERANCE
    assert table.asked <= measured.ATTEMPTS


def test_what_corrections_cannot_reach_is_told(caplog: pytest.LogCaptureFixture) -> None:
    choose = Chooser(0.5)
    table = Biased(choose.cost.macs(), 1.0)
    table.compare = lambda _: Timed(0.9, 1.0)  # type: ignore[method-assign]
    within(0.5, choose, choose.model, choose.groups, table)  # type: ignore[arg-type]
    assert "0.9" in caplog.text and "0.5" in caplog.text


def test_a_share_that_measures_too_much_cannot_be_reached() -> None:
    choose = Chooser(0.05)
    least = choose.cost.macs(~choose.groups.cuttable()) / choose.cost.macs()
    table = Biased(choose.cost.macs(), 4000)
    with pytest.raises(GraftError) as caught:
        within(0.05, choose, choose.model, choose.groups, table)  # type: ignore[arg-type]
    assert caught.value.code == "budget-unreachable"
    assert least < 0.05


def test_by_latency_channels_fall_in_full_blocks() -> None:
    of = case()
    scores = np.random.default_rng(1).random(of.groups.count)
    budget = Budget(0.5, "latency")
    dead = np.zeros(of.groups.count, bool)
    kept = budget.choose(of.groups, scores, of.cost, of.cost.latency(), dead)
    assert of.cost.latency(kept) <= 0.5 * of.cost.latency()
    counts = [int(kept[of.groups[name].channels].sum()) for name in ("conv0", "conv1", "up")]
    assert sum(counts) < 3 * 64
    assert all(count % STEP == 0 for count in counts)
    one = Budget(0.5, "latency", round_to=1).choose(of.groups, scores, of.cost, of.cost.latency(), dead)
    assert of.cost.latency(one) <= 0.5 * of.cost.latency()


@small.timed
def test_a_module_takes_its_share_of_the_time() -> None:
    parent = Parent(small.model(wide()))
    profile = small.profile(parent.model, small.samples(small.inputs([4, 16, 16])), parent.sha256)
    stopwatch = Stopwatch(small.CPU)
    decompose = Decompose(0.6, "latency", together=True, stopwatch=stopwatch)
    report = decompose(parent, profile, ["a", "c"])
    assert report.timed is not None
    assert 0.3 < report.timed.ratio <= 0.75
    assert len(stopwatch.tables) == 1
    assert decompose.options() == Decompose(0.6, "latency", together=True).options()
    assert Decompose(0.6)(parent, profile, ["a"]).timed is None
