"""From scores to plans: the budget holds, dead channels are pruned first, nothing is emptied."""

from __future__ import annotations

import contextlib
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.passes.select.budget import Budget, Candidates, dead_by_group, dead_channels
from graft.rewriter.arrays import Mask
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import CostModel, cost_of
from tests import small
from tests.small import Net

SEEDS = st.integers(0, 2**20)
SHARES = st.floats(0.15, 1.0)


class Case:
    """The residual net with its analysis."""

    def __init__(self) -> None:
        self.model = small.model(small.residual_net())
        self.groups = ChannelGroups(self.model)
        self.cost = CostModel(self.groups)

    def measure(self, unit: str, kept: Mask | None = None) -> int:
        return self.cost.macs(kept) if unit == "macs" else self.cost.parameters(kept)

    def choose(
        self, keep: float, seed: int, dead: Mask, unit: str = "macs", round_to: int = 1
    ) -> Mask | None:
        scores = np.random.default_rng(seed).random(self.groups.count)
        budget = Budget(keep, unit, round_to)
        with contextlib.suppress(GraftError):
            candidates = Candidates(self.groups, scores, self.cost, self.measure(unit), dead)
            return budget(candidates, small.context()).kept
        return None


case = cache(Case)


def some_dead(seed: int, share: float) -> Mask:
    dead = np.random.default_rng([seed, 1]).random(case().groups.count) < share
    result: Mask = dead & case().groups.cuttable()
    return result


@settings(max_examples=60, deadline=None)
@given(SHARES, SEEDS, st.sampled_from(["macs", "parameters"]))
def test_the_written_model_keeps_to_the_budget(keep: float, seed: int, unit: str) -> None:
    kept = case().choose(keep, seed, some_dead(seed, 0.2), unit)
    assume(kept is not None)
    model = case().model.copy()
    small.prune(model, Plan.of(case().groups, kept, "p"))
    cost = cost_of(model)
    assert cost == case().cost.cost(kept)
    found = cost.macs if unit == "macs" else cost.parameters
    assert found <= keep * case().measure(unit)


@settings(max_examples=60, deadline=None)
@given(SHARES, SHARES, SEEDS)
def test_a_larger_budget_is_used(one: float, two: float, seed: int) -> None:
    dead = some_dead(seed, 0.1)
    less, more = (case().choose(keep, seed, dead) for keep in sorted([one, two]))
    assume(less is not None)
    assert more is not None, "what a smaller budget reaches, a larger one does"
    assert case().measure("macs", less) <= case().measure("macs", more)


@settings(max_examples=60, deadline=None)
@given(SHARES, SEEDS)
def test_nothing_that_would_still_fit_is_pruned(keep: float, seed: int) -> None:
    kept = case().choose(keep, seed, some_dead(seed, 0.0))
    assume(kept is not None)
    for channel in np.flatnonzero(case().groups.cuttable() & ~kept):
        wider = kept.copy()
        wider[channel] = True
        assert case().measure("macs", wider) > keep * case().measure("macs")


@settings(max_examples=60, deadline=None)
@given(SHARES, SEEDS, st.floats(0.0, 0.6))
def test_dead_channels_are_pruned_first_and_what_is_needed_stays(
    keep: float, seed: int, share: float
) -> None:
    dead = some_dead(seed, share)
    kept = case().choose(keep, seed, dead)
    assume(kept is not None)
    groups = case().groups
    assert all(kept[channels].any() for channels in groups.needed())
    assert kept[~groups.cuttable()].all()
    if (~kept & ~dead).any():
        for group in groups:
            alive = group.channels[~dead[group.channels]]
            assert not len(alive) or not kept[np.setdiff1d(group.channels, alive)].any()


def test_the_best_scores_for_their_cost_stay() -> None:
    groups, cost = case().groups, case().cost
    scores = np.zeros(groups.count)
    scores[groups["conv1"].channels] = np.arange(1, 9)
    scores[groups["conv0"].channels] = 1e6
    scores[groups["dense"].channels] = 1e6
    kept = Budget(0.8, round_to=1)(
        Candidates(groups, scores, cost, cost.macs(), np.zeros(groups.count, bool)), small.context()
    ).kept
    inner = kept[groups["conv1"].channels]
    assert 0 < inner.sum() < 8
    np.testing.assert_array_equal(inner, np.arange(8) >= 8 - inner.sum())
    assert kept[groups["conv0"].channels].all()


@pytest.mark.parametrize("seed", range(5))
def test_of_what_must_not_be_emptied_the_best_channel_stays(seed: int) -> None:
    groups, alive = case().groups, some_dead(seed, 0.0)
    scores = np.random.default_rng(seed).random(groups.count)
    cuts = (case().choose(float(keep), seed, alive) for keep in np.arange(0.01, 1, 0.01))
    smallest = next(kept for kept in cuts if kept is not None)
    assert min(smallest[channels].sum() for channels in groups.needed()) == 1
    for channels in groups.needed():
        assert smallest[channels[np.argmax(scores[channels])]]


def test_everything_fits_into_the_whole_budget() -> None:
    groups = case().groups
    kept = case().choose(1.0, 0, np.zeros(groups.count, bool))
    assert kept is not None
    assert kept.all()


def test_an_unreachable_budget_names_the_smallest_that_can_be_reached() -> None:
    groups, cost = case().groups, case().cost
    dead = np.zeros(groups.count, bool)
    scores = np.random.default_rng(0).random(groups.count)
    with pytest.raises(GraftError) as caught:
        Budget(0.001, round_to=1)(Candidates(groups, scores, cost, cost.macs(), dead), small.context())
    assert caught.value.code == "budget-unreachable"
    assert "of the MACs" in caught.value.message and "pinned by output y" in caught.value.message
    smallest = float(caught.value.hint.split()[2])
    kept = Budget(smallest, round_to=1)(
        Candidates(groups, scores, cost, cost.macs(), dead), small.context()
    ).kept
    assert smallest - 0.001 <= cost.macs(kept) / cost.macs() <= smallest
    assert case().choose(smallest - 0.002, 0, dead) is None


@pytest.mark.parametrize("keep", [0, -1, 1.01, float("nan")])
def test_a_share_lies_above_0_and_at_most_at_1(keep: float) -> None:
    with pytest.raises(GraftError) as caught:
        Budget(keep)
    assert caught.value.code == "budget-range"


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(GraftError) as caught:
        Budget(0.5, "grams")
    assert caught.value.code == "budget-unit"


def test_dead_channels_are_zero_for_every_sample() -> None:
    net = Net(3)
    biases = net.constant("dense.b", [0, -100, 0, 0, -100, 0])
    made = net.node("Gemm", "dense", "x", net.weight("dense.w", 3, 6), biases)
    net.gemm("y", net.node("Relu", "relu", made), 4, 6)
    model = small.model(net)
    groups = ChannelGroups(model)
    profile = small.profile(model, small.samples(small.inputs([3])))
    dead = dead_channels(groups, profile)
    assert sum(dead_by_group(groups, profile).values()) == dead.sum() > 0
    assert np.isin(groups["dense"].channels, np.flatnonzero(dead)).tolist() == [
        *(False, True, False, False, True, False)
    ]
    assert dead.sum() == 2


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_by_parameters_the_head_does_not_count(keep: float) -> None:
    model = small.model(small.residual_net())
    data = small.samples(small.inputs([2, 6, 6]))
    parent = Parent(model)
    profile = small.profile(parent.model, data)
    for classes in (["a"], ["b", "d"]):
        report = Decompose(classes, keep=keep, unit="parameters")(parent, small.context(profile))
        left = numbers(report.model) / numbers(model)
        assert keep - 0.1 < left <= keep


def numbers(model: Model) -> int:
    """Numbers in the weights before the last layer."""
    constants = {
        tensor.name: tensor.values.size
        for node in model.graph.nodes
        if node.name != "y"
        for tensor in node.inputs
        if tensor.name in model.graph.tensors() and hasattr(tensor, "values")
        if tensor.dtype == np.float32
    }
    return sum(constants.values())


@settings(max_examples=60, deadline=None)
@given(SHARES, SEEDS, st.sampled_from([2, 4]))
def test_rounding_leaves_multiples_on_every_axis(keep: float, seed: int, round_to: int) -> None:
    kept = case().choose(keep, seed, some_dead(seed, 0.1), round_to=round_to)
    assume(kept is not None)
    for channels in case().groups.lists():
        if len(channels) % round_to == 0:
            assert kept[channels].sum() % round_to == 0


def test_convolutions_round_by_themselves_where_the_budget_allows() -> None:
    groups = ChannelGroups(small.model(small.residual_net(width=16)))
    cost = CostModel(groups)
    scores, dead = np.random.default_rng(1).random(groups.count), np.zeros(groups.count, bool)
    inner = groups["conv1"].channels
    scores[inner] *= 1e-3
    kept = Budget(0.7)(Candidates(groups, scores, cost, cost.macs(), dead), small.context()).kept
    assert kept[inner].sum() in (4, 8, 12)
    least = groups.everything()
    least[groups.cuttable()] = False
    for channels in groups.needed():
        least[channels[0]] = True
    least[inner[:4]] = True
    share = cost.macs(least) / cost.macs()
    tight = Budget(share * 0.95)(Candidates(groups, scores, cost, cost.macs(), dead), small.context()).kept
    assert tight[inner].sum() < 4, "one by one, since blocks of four cannot reach it"
