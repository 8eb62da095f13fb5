"""Branches that lose all channels: the constant in their place, when the budget removes them, what stays."""

from __future__ import annotations

import numpy as np
import pytest

from graft.passes.compensate.fold import Fold
from graft.passes.select.budget import Budget, Candidates
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import CostModel, cost_of
from tests import small


def net() -> tuple[Model, ChannelGroups]:
    model = small.model(small.residual_net())
    return model, ChannelGroups(model)


@pytest.mark.parametrize("step", ["mean", "fold"])
def test_the_mean_of_a_branch_takes_its_place(step: str) -> None:
    model, groups = net()
    inputs = small.inputs([2, 6, 6])
    profile = small.profile(model, small.samples(inputs))
    plan = Plan("p", {"conv1": np.zeros(groups["conv1"].size, bool)})
    cut = model.copy()
    Fold(plan, small.LABELS, step)(Analysed.of(cut), small.context(profile))
    small.prune(cut, plan)
    found = next(t for n in cut.graph.nodes if n.op == "Add" for t in n.inputs if hasattr(t, "values"))
    branch = small.activations(small.residual_net(), inputs, "conv2")["conv2"]
    np.testing.assert_allclose(found.values, branch.mean(axis=(0, 2, 3), keepdims=True), atol=0.05)


def test_a_worthless_branch_is_removed_as_a_whole() -> None:
    model, groups = net()
    cost, dead = CostModel(groups), np.zeros(groups.count, bool)
    scores = np.ones(groups.count)
    scores[groups["conv1"].channels] = 1e-6
    keep = (cost.macs(small.drop(groups, conv1=range(groups["conv1"].size))) + 1) / cost.macs()
    kept = Budget(keep, round_to=1)(Candidates(groups, scores, cost, cost.macs(), dead), small.context()).kept
    plan = Plan.of(groups, kept, "p")
    assert plan.ranges()["conv1"] == ""
    assert Plan.from_json(plan.to_json()).mask(groups).tolist() == kept.tolist()
    small.prune(model, plan)
    assert [node.name for node in model.graph.nodes if node.op == "Conv"] == ["conv0"]
    assert cost_of(model).macs == cost.macs(kept)
