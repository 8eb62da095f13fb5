"""Layers to leave alone and shares of one's own: plans have exactly these, the budget is spent elsewhere."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from graft.passes.base import Context
from graft.passes.compose import Compose
from graft.passes.decompose import Decompose
from graft.passes.modularize import Modularize
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.select.layers import LayerRules, joined
from graft.passes.trunk import Source
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.plan import Plan
from graft.rewriter.record.provenance import origin_of
from graft.rewriter.run.session import Session
from tests import small
from tests.small import Net


def chain() -> Net:
    """Three convolutions of 16, 12 and 10 channels, a BatchNormalization that is folded, a head."""
    net = Net(2, 5, 5)
    one = net.node("Relu", "relu1", net.conv("conv1", "x", 16, 2, pads=[1, 1, 1, 1]))
    inner = net.conv("conv2", one, 12, 16, pads=[1, 1, 1, 1])
    values = (np.linspace(0.5, 1.5, 12), np.zeros(12), np.zeros(12), np.ones(12))
    names = [net.constant(f"bn_{number}", value) for number, value in enumerate(values)]
    two = net.node("Relu", "relu2", net.node("BatchNormalization", "bn", inner, *names))
    three = net.node("Relu", "relu3", net.conv("conv3", two, 10, 12, pads=[1, 1, 1, 1]))
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", three)), 4, 10)
    return net


@cache
def case() -> tuple[Parent, Context]:
    net = chain()
    parent = Parent(small.model(net))
    samples = small.samples(small.inputs(net.shape, 80), of=parent.card)
    return parent, small.context(small.profile(parent.model, samples, parent.sha256), samples)


def plan(keep: float | None = 0.5, **options: object) -> Plan:
    parent, context = case()
    return Decompose(["a", "b"], keep, together=True, method="activity", **options).plan(parent, context)  # type: ignore[arg-type]


def kept(found: Plan, name: str) -> int:
    return int(found.kept[name].sum())


def test_a_frozen_layer_stays_whole_and_the_budget_is_met_elsewhere() -> None:
    parent, context = case()
    assert kept(plan(), "conv1") < 16, "else there is nothing to freeze"
    decompose = Decompose(["a", "b"], 0.5, together=True, freeze=["conv1"])
    report = decompose(parent, context)
    assert report.plan.kept["conv1"].all() and not report.plan.kept["conv2"].all()
    assert 0.4 < report.cost.macs / parent.cost.macs <= 0.5
    assert report.plan.frozen == ("conv1",)
    assert origin_of(report.model).options["freeze"] == ["conv1"]


@pytest.mark.parametrize(
    ("share", "round_to", "stay"),
    [
        (0.5, None, 6),
        (0.7, None, 8),
        (0.01, None, 1),
        (1.0, None, 12),
        (0.7, 4, 8),
        (0.55, 4, 8),
        (0.4, 4, 4),
    ],
)
@pytest.mark.parametrize("keep", [0.4, None])
def test_a_layer_keeps_exactly_its_share(
    share: float, round_to: int | None, stay: int, keep: float | None
) -> None:
    found = plan(keep, keep_layers={"conv2*": share}, round_to=round_to)
    assert kept(found, "conv2") == stay
    if keep is None:
        assert found.kept["conv1"].all() and found.kept["conv3"].all(), "nothing else is pruned"


def test_what_a_layer_keeps_is_what_matters_most() -> None:
    parent, context = case()
    found = plan(None, keep_layers=(("conv3", 0.5),))
    scores = Decompose(["a", "b"], together=True, method="activity")._scores(
        parent, Decompose(["a", "b"], together=True).headed(parent, context).analysed, context
    )
    own = scores[parent.groups["conv3"].channels]
    assert set(np.flatnonzero(found.kept["conv3"])) == set(np.argsort(-own, kind="stable")[:5])


@pytest.mark.parametrize("name", ["relu2", "bn", "conv2", "con?2", "*2"])
def test_names_are_those_of_all_nodes_of_the_file(name: str) -> None:
    """Of activations and of those that normalization folds away, too."""
    parent, _ = case()
    assert "bn" not in [node.name for node in parent.model.graph.nodes]
    assert LayerRules(freeze=(name,)).of(parent).frozen == ("conv2",)


def dense_block() -> Parent:
    """Two blocks whose outputs are concatenated, as in a DenseNet."""
    net = Net(2, 5, 5)
    one = net.node("Relu", "one/relu", net.conv("one/conv", "x", 8, 2, pads=[1, 1, 1, 1]))
    two = net.node("Relu", "two/relu", net.conv("two/conv", one, 8, 8, pads=[1, 1, 1, 1]))
    both = net.node("Concat", "two/cat", one, two, axis=1)
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", both)), 4, 16)
    return Parent(small.model(net))


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("two/*", ("two/conv",)),
        ("two/cat", ("one/conv", "two/conv")),
        ("*relu", ("one/conv", "two/conv")),
        ("one*", ("one/conv",)),
    ],
)
def test_a_module_of_the_network_means_the_layers_in_it(pattern: str, groups: tuple[str, ...]) -> None:
    """Not those whose channels it hands on."""
    assert LayerRules(freeze=(pattern,)).of(dense_block()).frozen == groups


def test_the_last_share_holds_and_a_share_of_one_is_frozen() -> None:
    parent, _ = case()
    found = LayerRules(keep_layers=(("*", 0.5), ("conv1", 0.7), ("conv3", 1.0))).of(parent)
    assert found.shares == {"conv1": 0.7, "conv2": 0.5}
    assert found.frozen == ("conv3",)


@pytest.mark.parametrize(
    ("rules", "code", "words"),
    [
        (LayerRules(freeze=("Conv1",)), "layer-unknown", "did you mean 'conv1'"),
        (LayerRules(keep_layers=(("cnov2", 0.5),)), "layer-unknown", "conv2"),
        (LayerRules(freeze=("",)), "layer-unknown", "did you mean"),
        (LayerRules(freeze=("conv1",), keep_layers=(("conv*", 0.5),)), "keep-layer-frozen", "--freeze conv1"),
        (LayerRules(keep_layers=(("y", 0.5),)), "keep-layer-pinned", "output"),
    ],
)
def test_what_cannot_be_done_is_said(rules: LayerRules, code: str, words: str) -> None:
    with pytest.raises(GraftError, match=words) as error:
        rules.of(case()[0])
    assert error.value.code == code


def test_what_cannot_be_pruned_can_be_frozen() -> None:
    assert LayerRules(freeze=("y",)).of(case()[0]).asked == ("--freeze y",)


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(GraftError, match="above 0"):
        Decompose(["a"], keep_layers={"conv1": share})


def test_a_budget_that_they_make_unreachable_names_them() -> None:
    with pytest.raises(
        GraftError, match=r"smallest cut keeps [01]\.\d+ of the MACs with --freeze conv\*"
    ) as error:
        plan(0.2, freeze="conv*")
    assert error.value.code == "budget-unreachable"


def test_the_plan_file_says_it() -> None:
    found = plan(freeze=["conv1"], keep_layers={"relu2": 0.5})
    text = json.loads(found.to_json())
    assert text["frozen"] == ["conv1"] and text["keep_layers"] == {"conv2": 0.5}
    again = Plan.from_json(found.to_json())
    assert (again.frozen, again.keep_layers) == (found.frozen, found.keep_layers)
    assert "frozen" not in json.loads(plan().to_json())
    by_plan = Decompose(["a", "b"], together=True, fixed_plan=again)
    assert by_plan.options()["freeze"] == ["conv1"]


def test_a_trunk_keeps_to_what_its_modules_were_planned_with() -> None:
    parent, context = case()
    cut = [
        Decompose([name], 0.5, method="activity", freeze=["conv1"], keep_layers={"conv2": 0.5})(
            parent, context
        ).model
        for name in "ab"
    ]
    assert context.profile is not None
    sources = {parent.sha256: Source(parent, context.profile)}
    found = _plan_of(Compose("trunk")(Modules(cut, sources), Context()).model)
    assert (len(found["conv1"]), len(found["conv2"])) == (16, 6)
    own = Compose("trunk", keep_layers={"conv2": 0.75, "conv1": 0.5})(Modules(cut, sources), Context())
    found = _plan_of(own.model)
    assert (len(found["conv1"]), len(found["conv2"])) == (8, 9), "what compose is told beats the modules"
    with pytest.raises(GraftError, match="did you mean 'conv1'"):
        Compose("trunk", freeze=["conf1"])(Modules(cut, sources), Context())
    with pytest.raises(GraftError, match="--freeze is for a trunk"):
        Compose("branches", freeze=["conv1"])(Modules(cut), Context())


def _plan_of(model: Model) -> dict[str, list[int]]:
    origin = origin_of(model)
    plan = Plan.from_json(
        json.dumps({"format": "graft/plan/1", "parent": "", "groups": origin.plan, "sizes": origin.sizes})
    )
    return {name: np.flatnonzero(mask).tolist() for name, mask in plan.kept.items()}


def test_rules_that_differ_are_joined_and_the_last_holds() -> None:
    one, two = LayerRules(freeze=("a",)), LayerRules(keep_layers=(("a", 0.5),))
    assert joined([one, LayerRules(), one]) == one
    assert joined([one, two]).keep_layers == (("a", 1.0), ("a", 0.5))
    assert joined([one, LayerRules(freeze=("b", "a"))]) == LayerRules(freeze=("a", "b"))


def test_a_search_for_a_budget_says_what_the_shares_cost(caplog: pytest.LogCaptureFixture) -> None:
    parent, context = case()
    decompose = Decompose(
        ["a", "b"],
        together=True,
        keep_layers={"conv1": 0.07, "conv3": 0.1},
        method="relevance",
        compensate="none",
    )
    report = Modularize((("a", "b"),), decompose, max_drop=0.0)(parent, context)
    assert kept(report.modules[0].plan, "conv3") == 1
    assert report.describe()["keep_layers"] == {"conv1": 0.07, "conv3": 0.1}
    assert report.searches[0].difference < 0
    assert "the shares of --keep-layer alone cost" in caplog.text


def test_a_budget_of_latency_keeps_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, context = case()

    def numbers(session: Session, inputs: dict[str, np.ndarray], seconds: float) -> float:
        """A clock that no other process disturbs: what is read and written."""
        return 1e-3 * sum(array.size for array in (*inputs.values(), *session.run(inputs).values()))

    monkeypatch.setattr("graft.rewriter.measure.latency._best", numbers)
    parent._tables.clear()
    decompose = Decompose(
        ["a", "b"], 1.0, "latency", "activity", "none", True, freeze=["conv1"], keep_layers={"conv2": 0.5}
    )
    found = decompose.plan(parent, context)
    parent._tables.clear()
    assert found.kept["conv1"].all() and kept(found, "conv2") == 6
