"""The law that tests every rule: a cut graph computes what the masked parent computes.

Checked for random graphs and random plans, for one network per structure, and for published models;
:mod:`tests.law` says how.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from tests import bench, cases, graphs, masker, small
from tests.graphs import CLASSES, Builder, T
from tests.law import (
    SHARES,
    TOLERANCE,
    Law,
    differs,
    fails_for_shifted_cuts,
    holds_for_random_graphs,
    holds_when_lists_are_removed,
    shift_shows,
    shiftable,
)
from tests.masker import kept_outputs
from tests.seeds import graph_seed

# -------------------------------------------------------------------- random graphs

GRAPHS, PARTS = 320, 2
"""Random graphs of the law, in parts that run side by side; ``python -m benchmarks.law`` runs more."""
SHIFTED = 50
WITH_REMOVED = 60


@pytest.mark.parametrize("part", range(PARTS))
def test_law_holds_for_random_graphs(part: int) -> None:
    assert holds_for_random_graphs(GRAPHS // PARTS, graph_seed() + part) >= GRAPHS // PARTS


def test_law_fails_for_shifted_cuts_of_random_graphs() -> None:
    assert fails_for_shifted_cuts(SHIFTED, graph_seed()) >= SHIFTED


def test_law_holds_when_whole_lists_are_removed() -> None:
    assert holds_when_lists_are_removed(WITH_REMOVED, graph_seed()) >= WITH_REMOVED


@pytest.mark.parametrize("name", sorted(graphs.REMOVABLE))
def test_a_branch_without_channels_is_gone(name: str) -> None:
    """Its nodes leave the graph, what it put out is a constant, and the smaller graph can be cut again."""
    make, nodes_left = graphs.REMOVABLE[name]
    law = Law(make(Builder()))
    cut = law.check(law.plan(1.0, 0, whole=1.0))
    assert [node.op_type for node in cut.graph.node] == nodes_left
    again = Law(cut, law.inputs)
    again.check(again.plan(0.6, 2))


@pytest.mark.parametrize("name", sorted(graphs.STAYING))
def test_what_something_else_reads_keeps_a_channel(name: str) -> None:
    law = Law(graphs.STAYING[name](Builder()))
    assert not law.removable()
    for group in law.groups:
        if group.cuttable.all():
            with pytest.raises(GraftError) as caught:
                law.cut(Plan("", {group.name: np.zeros(group.size, bool)}))
            assert caught.value.code == "plan-empty"


# -------------------------------------------------------------------- one network per structure

NOTHING_TO_CUT: set[str] = set()


@pytest.mark.parametrize(("name", "opset"), cases.ALL)
def test_law_holds_for(name: str, opset: int) -> None:
    proto = cases.build(name, opset)
    onnx.checker.check_model(proto, full_check=True)
    law = Law(proto)
    assert law.varies()
    removed = 0
    for seed, share in enumerate((*SHARES, *SHARES)):
        plan = law.plan(share, seed)
        law.check(plan)
        kept, channels = plan.counts()
        removed += channels - kept
    assert removed or name in NOTHING_TO_CUT


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_law_fails_for_shifted_cuts_of(name: str) -> None:
    law = Law(cases.build(name))
    for group in shiftable(law.groups):
        assert shift_shows(law, group) > 10 * TOLERANCE, group.name


def test_law_holds_when_a_cut_graph_is_cut_again() -> None:
    for name in cases.CASES:
        law = Law(cases.build(name))
        again = Law(law.cut(law.plan(0.8, 1)), law.inputs)
        again.check(again.plan(0.6, 2))


def test_a_plan_that_keeps_all_changes_nothing() -> None:
    for name in cases.CASES:
        law = Law(cases.build(name))
        plan = Plan.of(law.groups, law.groups.everything(), parent="")
        assert differs(law.run(law.cut(plan)), law.run(law.proto)) < 1e-6


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_kept_channels_are_those_of_the_plan(name: str) -> None:
    """The markers left in the layer a group is named after are those that the plan keeps."""
    law = Law(cases.build(name))
    plan = law.plan(0.5, 3)
    cut = law.cut(plan)
    there = {node.name for node in cut.graph.node}
    for maker, flags in kept_outputs(law.proto, cut).items():
        planned = plan.kept.get(maker) if maker in there else None  # what nobody reads is gone
        if planned is not None and planned.size == flags.size:
            assert flags.tolist() == planned.tolist()


# -------------------------------------------------------------------- operators without a rule


def _lrn(b: Builder, x: T) -> T:
    return b.one("LRN", x, size=3)


def _topk(b: Builder, x: T) -> T:
    return b.node("TopK", [x, b.ints(3)], outputs=2, axis=1)[0]


def _cumulative(b: Builder, x: T) -> T:
    return b.one("CumSum", x, b.constant(1, np.int64))


def _layer_normalization(b: Builder, x: T) -> T:
    x = b.one("Transpose", x, perm=[0, 2, 3, 1])
    return b.one("LayerNormalization", x, b.weight(6), axis=-1)


def _mystery(b: Builder, x: T) -> T:
    return b.one("Mystery", x, domain="com.example")


WITHOUT_RULE = {
    "LRN": _lrn,
    "TopK": _topk,
    "CumSum": _cumulative,
    "LayerNormalization": _layer_normalization,
    "Mystery": _mystery,
}


def groups_of(proto: onnx.ModelProto) -> ChannelGroups:
    return ChannelGroups(Model.from_proto(proto))


@pytest.mark.parametrize("operator", sorted(WITHOUT_RULE))
def test_an_operator_without_a_rule_pins_what_reaches_it(operator: str) -> None:
    b = Builder(opset=17)
    x = graphs.features(b)
    first, free = b.nodes[0].name, b.conv(x, 5)
    last = WITHOUT_RULE[operator](b, b.one("Tanh", x))
    named = next(node.name for node in b.nodes if node.op_type == operator)
    proto = b.model(b.gemm(b.pooled(b.relu(free)), CLASSES))
    proto.graph.output.append(helper.make_tensor_value_info(last.name, TensorProto.FLOAT, None))
    groups = groups_of(proto)
    assert not groups[first].cuttable.any()
    assert operator in groups[first].reason
    assert named in groups[first].reason
    assert groups[free.name.removesuffix("_out")].cuttable.all()


@pytest.mark.parametrize(
    "follow",
    ["Relu", "ReduceMean", "Squeeze", "Unsqueeze", "MaxPool", "Flatten", "Transpose", "Split"],
)
def test_operators_behind_a_tensor_of_unknown_rank(follow: str) -> None:
    """The analysis passes over what it cannot know, and does not stumble."""
    attributes: dict[str, dict[str, Any]] = {
        "ReduceMean": {"axes": [2, 3]},
        "Squeeze": {"axes": [2]},
        "Unsqueeze": {"axes": [1]},
        "MaxPool": {"kernel_shape": [2, 2]},
        "Transpose": {"perm": [0, 2, 1, 3]},
        "Split": {"axis": 1},
    }
    b = Builder(opset=11)
    x = graphs.features(b)
    first = b.nodes[0].name
    strange = _mystery(b, x)
    proto = b.model(b.gemm(b.pooled(b.relu(b.conv(x, 5))), CLASSES))
    more = attributes.get(follow, {})
    proto.graph.node.append(helper.make_node(follow, [strange.name], ["y"], name="follow", **more))
    proto.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    groups = groups_of(proto)
    assert not groups[first].cuttable.any()
    assert any(group.cuttable.any() for group in groups)


@pytest.mark.parametrize("operator", ["LRN", "LayerNormalization"])
def test_law_holds_around_an_operator_without_a_rule(operator: str) -> None:
    b = Builder(opset=17)
    x = b.relu(b.conv(graphs.features(b, 8), 6))
    x = WITHOUT_RULE[operator](b, x)
    if operator == "LayerNormalization":
        x = b.one("Transpose", x, perm=[0, 3, 1, 2])
    law = Law(graphs.classify(b, x))
    assert law.varies()
    for seed, share in enumerate(SHARES):
        law.check(law.plan(share, seed))


def test_what_an_if_captures_is_pinned() -> None:
    b = Builder()
    x = graphs.features(b)
    y = b.relu(b.conv(x, 4))
    bodies = {
        f"{branch}_branch": helper.make_graph(
            [helper.make_node(operator, [x.name], [f"{branch}_out"])],
            branch,
            [],
            [helper.make_tensor_value_info(f"{branch}_out", TensorProto.FLOAT, None)],
        )
        for branch, operator in (("then", "Relu"), ("else", "Neg"))
    }
    condition = b.constant(True, np.bool_)
    b.nodes.append(helper.make_node("If", [condition.name], ["chosen"], name="choice", **bodies))
    b.nodes.append(helper.make_node("GlobalAveragePool", ["chosen"], ["mean"], name="mean"))
    proto = b.model(b.gemm(b.pooled(y), CLASSES))
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N", 6, 1, 1])
    proto.graph.output.append(mean)
    groups = groups_of(proto)
    captured, free = (groups[node.name] for node in proto.graph.node if node.op_type == "Conv")
    assert not captured.cuttable.any()
    assert "If choice" in captured.reason
    assert free.cuttable.all()
    cut = Model.from_proto(proto)
    small.prune(cut, Plan("", {free.name: np.arange(4) < 2}))
    onnx.checker.check_model(cut.proto(), full_check=True)
    inputs = graphs.samples(proto)
    assert masker.run(cut.proto(), inputs)["mean"].shape == (4, 6, 1, 1)


def test_a_weight_shared_with_a_captured_use_stays_whole_there() -> None:
    """A constant that a body reads is not replaced by the piece that the layer outside takes."""
    b = Builder()
    values = b.constant(b.rng.uniform(0.5, 1.5, (6, 1, 1)))
    x = b.one("Mul", graphs.features(b), values)
    body = helper.make_graph(
        [helper.make_node("Identity", [values.name], ["copied"])],
        "body",
        [],
        [helper.make_tensor_value_info("copied", TensorProto.FLOAT, None)],
    )
    condition = b.constant(True, np.bool_)
    choice = helper.make_node(
        "If", [condition.name], ["kept"], name="choice", then_branch=body, else_branch=body
    )
    b.nodes.append(choice)
    proto = b.model(b.gemm(b.pooled(b.relu(b.conv(x, 4))), CLASSES))
    proto.graph.output.append(helper.make_tensor_value_info("kept", TensorProto.FLOAT, None))
    group = next(iter(groups_of(proto)))
    cut = Model.from_proto(proto)
    small.prune(cut, Plan("", {group.name: np.arange(6) < 3}))
    assert masker.run(cut.proto(), graphs.samples(proto))["kept"].shape == (6, 1, 1)


# -------------------------------------------------------------------- published models


def bench_law(name: str, *size: int, threads: int = 2) -> Law:
    """The law for a model of the benchmark, on normal samples; its biases made distinct."""
    proto = onnx.load(bench.VISION / f"{name}.onnx")
    rng = np.random.default_rng(0)
    values = masker.constant_values(proto.graph)
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            bias = values[node.input[2]]
            bias = bias + rng.uniform(-1e-4, 1e-4, bias.shape).astype(np.float32)
            stored = next(t for t in proto.graph.initializer if t.name == node.input[2])
            stored.CopyFrom(numpy_helper.from_array(bias, stored.name))
    inputs = {proto.graph.input[0].name: rng.normal(0, 1, (2, *size)).astype(np.float32)}
    return Law(proto, inputs, threads)


@bench.needed
def test_law_holds_for_resnet20() -> None:
    law = bench_law("resnet20_cifar10", 3, 32, 32)
    assert law.varies()
    for share in SHARES:
        for seed in range(20):
            law.check(law.plan(share, seed))
    for share, whole in ((1.0, 1.0), (0.5, 1.0), (0.5, 0.3)):
        law.check(law.plan(share, 0, whole))


@bench.needed
def test_law_holds_for_efficientnet() -> None:
    law = bench_law("efficientnet_lite0_imagenet", 3, 224, 224)
    assert law.varies()
    for seed, share in enumerate((0.5, 0.8)):
        law.check(law.plan(share, seed, whole=seed))


@bench.needed
@pytest.mark.parametrize("name", ["dense_mnist_4", "dense_fmnist_4"])
def test_law_holds_for_dense_networks(name: str) -> None:
    proto = onnx.load(bench.VISION / f"{name}.onnx")
    rng = np.random.default_rng(0)
    law = Law(proto, {proto.graph.input[0].name: rng.uniform(0, 1, (4, 28, 28, 1)).astype("f")})
    for seed, share in enumerate(SHARES):
        law.check(law.plan(share, seed))
