"""Heads and their width through all passes: scores, costs and budgets are for them, not for products."""

from __future__ import annotations

import numpy as np
import pytest

from graft.passes.decompose import Decompose
from graft.passes.identify import METHODS, ImportanceInputs, method_of
from graft.passes.parent import Parent
from graft.passes.select.budget import Budget, Candidates, dead_channels
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import CostModel, cost_of
from tests import small
from tests.small import Net

HEADS, WIDTH, TOKENS = 3, 4, 5


def attention_net(dead_head: bool = False) -> Net:
    """[N, 5, 6] through attention with three heads and a dense layer; mean over tokens: output ``y``."""
    net = Net(TOKENS, 6)
    parts = {}
    for name in ("q", "k", "v"):
        weight = net.rng.normal(0, 0.6, (6, HEADS * WIDTH))
        bias = net.rng.normal(0, 0.2, HEADS * WIDTH)
        if dead_head and name == "v":
            weight[:, :WIDTH] = bias[:WIDTH] = 0
        made = net.node("MatMul", name, "x", net.constant(f"{name}.w", weight))
        made = net.node("Add", f"{name}.add", made, net.constant(f"{name}.b", bias))
        made = net.node("Reshape", f"{name}.heads", made, net.ints(f"{name}.t", 0, TOKENS, HEADS, WIDTH))
        order = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
        parts[name] = net.node("Transpose", f"{name}.turned", made, perm=order)
    scores = net.node("MatMul", "scores", parts["q"], parts["k"])
    weights = net.node(
        "Softmax", "weights", net.node("Mul", "scaled", scores, net.constant("s", 0.5)), axis=-1
    )
    mixed = net.node("Transpose", "back", net.node("MatMul", "mixed", weights, parts["v"]), perm=[0, 2, 1, 3])
    flat = net.node("Reshape", "joined", mixed, net.ints("j", 0, TOKENS, HEADS * WIDTH))
    out = net.node(
        "Add", "out.add", net.node("MatMul", "out", flat, net.weight("o.w", 12, 7)), net.weight("o.b", 7)
    )
    mean = net.node("ReduceMean", "mean", net.node("Relu", "relu", out), axes=[1], keepdims=0)
    net.gemm("y", mean, 4, 7)
    return net


def parent() -> Model:
    return small.model(attention_net())


def question(model: Model) -> ImportanceInputs:
    data = small.samples(small.inputs((TOKENS, 6), 60))
    groups, profile = ChannelGroups(model), small.profile(model, data)
    return ImportanceInputs(Analysed(model, groups), profile, small.LABELS, ("a", "b"), 0, data, small.CPU)


def test_groups_are_heads_and_the_width_inside_them() -> None:
    groups = ChannelGroups(parent())
    assert {group.name: group.size for group in groups} == {
        "q/0": HEADS,
        "q/1": WIDTH,
        "v/1": WIDTH,
        "out": 7,
        "y": 4,
    }
    assert all(group.cuttable.all() for group in groups if group.name != "y")


@pytest.mark.parametrize("unit", ["macs", "parameters"])
def test_the_price_of_a_head_is_what_its_removal_saves(unit: str) -> None:
    model = parent()
    groups = ChannelGroups(model)
    cost = CostModel(groups)
    measure = cost.macs if unit == "macs" else cost.parameters
    price = cost.by_channel(unit)
    for group in groups:
        for channel in group.channels[group.cuttable].tolist():
            kept = groups.everything()
            kept[channel] = False
            assert measure() - measure(kept) == pytest.approx(price[channel])
            cut = model.copy()
            small.prune(cut, Plan.of(groups, kept, ""))
            assert getattr(cost_of(cut), unit) == measure(kept)


def test_macs_of_attention() -> None:
    projections = TOKENS * (3 * 6 * HEADS * WIDTH + HEADS * WIDTH * 7)
    products = 2 * HEADS * TOKENS * TOKENS * WIDTH
    assert cost_of(parent()).macs == projections + products + 7 * 4


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_head_and_every_place_of_its_width_has_a_score(method: object) -> None:
    asked = question(parent())
    scores = asked.groups.to_atoms(method_of(method.name).scores(asked))  # type: ignore[attr-defined]
    for name in ("q/0", "q/1", "v/1"):
        found = scores[asked.groups[name].channels]
        assert (found > 0).all()
        assert len(set(found.tolist())) == len(found)


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.8])
def test_a_budget_chooses_among_heads_and_widths(keep: float) -> None:
    asked = question(parent())
    groups, cost = asked.groups, CostModel(asked.groups)
    scores = method_of("relevance").scores(asked)
    kept = Budget(keep)(
        Candidates(groups, scores, cost, cost.macs(), np.zeros(groups.count, bool)), small.context()
    ).kept
    cut = asked.model.copy()
    small.prune(cut, Plan.of(groups, kept, ""))
    assert cost_of(cut).macs == cost.macs(kept) <= keep * cost.macs()


def test_a_head_whose_values_are_zero_is_dead() -> None:
    """Whatever its queries and keys are: nothing of it is read."""
    model = small.model(attention_net(dead_head=True))
    asked = question(model)
    dead = dead_channels(asked.groups, asked.profile)
    assert dead[asked.groups["v/1"].channels].tolist() == [False] * WIDTH
    assert dead[asked.groups["q/0"].channels].tolist() == [True, False, False]


@pytest.mark.parametrize("compensate", ["none", "mean", "fold"])
def test_decompose_cuts_heads_and_the_result_is_verified(compensate: str) -> None:
    model = parent()
    x = small.inputs((TOKENS, 6), 60)
    whole = Parent(model)
    profile = small.profile(whole.model, small.samples(x), whole.sha256)
    decompose = Decompose(["a", "b"], keep=0.5, compensate=compensate, verify=True)
    report = decompose(whole, small.context(profile, small.samples(x)))
    assert report.difference is not None
    assert report.cost.macs <= 0.5 * whole.cost.macs
    heads = report.plan.kept["q/0"].sum(), report.plan.kept["q/1"].sum(), report.plan.kept["v/1"].sum()
    assert sum(heads) < HEADS + 2 * WIDTH


def test_a_shifted_cut_of_heads_is_noticed() -> None:
    model = parent()
    groups = ChannelGroups(model)
    planned, shifted = (
        Plan("", {"q/0": np.arange(HEADS) != head, "q/1": np.arange(WIDTH) != head}) for head in (0, 1)
    )
    cut = model.copy()
    small.prune(cut, shifted)
    assert len(groups) == 5
    with pytest.raises(Exception, match="differs from the masked parent"):
        small.verify(model, planned, cut, {"x": small.inputs((TOKENS, 6), 8)})
