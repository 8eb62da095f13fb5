"""The law that tests every rule: a cut graph computes what the masked parent computes.

Checked for random graphs and random plans, for one network per structure, and for two published
models, against the masker of the tests, which knows nothing of groups and operator classes, and
against the one that verifies written models.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graft.passes.cut import verify
from graft.passes.cut.slice import Slice
from graft.rewriter.arrays import Channels
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups, Group
from graft.rewriter.groups.plan import Plan
from tests import cases_attention, cases_operators, graphs, masker  # noqa: F401  (registers its cases)
from tests.graphs import CLASSES, Builder, T
from tests.masker import Array, MaskedParent, kept_outputs

TOLERANCE = 1e-4
SHARES = (0.2, 0.5, 0.8)
UNHURRIED = (HealthCheck.too_slow, HealthCheck.filter_too_much)
BENCH = Path(os.environ.get("GRAFT_BENCH", Path(__file__).parents[3] / "shared" / "bench"))


class Law:
    """One parent with its groups and its masked parent.

    Args:
        proto: the parent.
        inputs: prepared samples; normal ones if left out.
        threads: onnxruntime's threads.
        tolerance: largest difference between cut graph and masked parent.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        inputs: Mapping[str, Array] | None = None,
        threads: int = 1,
        tolerance: float = TOLERANCE,
    ) -> None:
        self.tolerance = tolerance
        self.proto = proto
        self.inputs = graphs.samples(proto) if inputs is None else inputs
        self.threads = threads
        self.parent = Model.from_proto(proto)
        self.groups = ChannelGroups(self.parent)
        self.masked = MaskedParent(proto, threads)

    def varies(self) -> bool:
        """Whether the parent's outputs differ between samples and between classes."""
        whole = {name: values.astype(np.float64) for name, values in self.run(self.proto).items()}
        scale = {name: float(np.abs(values).max()) for name, values in whole.items()}
        return all(
            min(values.std(axis=0).max(), values.std(axis=1).max()) > 1e-2 * scale[name] > 0
            for name, values in whole.items()
        )

    def run(self, proto: onnx.ModelProto) -> dict[str, Array]:
        """Outputs of a graph for the samples."""
        return masker.run(proto, self.inputs, self.threads)

    def plan(self, share: float, seed: int, fall: float = 0) -> Plan:
        """A random plan that keeps about ``share`` of what can go, and a channel where one has to stay.

        Of the lists that may fall to nothing, about ``fall`` do.
        """
        rng = np.random.default_rng(seed)
        kept = ~self.groups.cuttable() | (rng.random(self.groups.count) < share)
        for channels in self.falling():
            if rng.random() < fall:
                kept[channels] = False
        for channels in self.groups.needed():
            if not self.groups.close(kept)[channels].any():
                kept[self.groups.behind(rng.choice(channels, 1))] = True
        return Plan.of(self.groups, kept, parent="")

    def falling(self) -> list[Channels]:
        """Lists of channels that may fall to nothing."""
        needed = {channels.tobytes() for channels in self.groups.needed()}
        return [channels for channels in self.groups.lists() if channels.tobytes() not in needed]

    def cut(self, plan: Plan) -> onnx.ModelProto:
        """The parent cut by ``plan``."""
        model = self.parent.copy()
        Slice(plan)(model)
        return model.proto()

    def check(self, plan: Plan) -> onnx.ModelProto:
        """Assert the law for one plan; return the cut graph."""
        cut = self.cut(plan)
        onnx.checker.check_model(cut, full_check=True)
        found = self.run(cut)
        assert differs(found, self.masked_as(cut)) < self.tolerance
        assert differs(found, self.run(verify.mask(self.parent, plan).proto())) < self.tolerance
        self._check_size(plan, cut)
        return cut

    def masked_as(self, cut: onnx.ModelProto) -> dict[str, Array]:
        """What the masked parent computes without the channels that ``cut`` lacks."""
        return self.masked.run(kept_outputs(self.proto, cut), self.inputs)

    def _check_size(self, plan: Plan, cut: onnx.ModelProto) -> None:
        kept, channels = plan.counts()
        assert all(0 not in tensor.dims for tensor in cut.graph.initializer)
        if kept < channels:
            assert numbers(cut) < numbers(self.proto)
        else:
            assert numbers(cut) == numbers(self.proto)


def differs(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Largest difference, relative to the largest value expected."""
    assert found.keys() == expected.keys()
    worst = 0.0
    for name, array in expected.items():
        values, result = (each.astype(np.float64) for each in (array, found[name]))
        assert result.shape == values.shape
        assert np.isfinite(values).all()
        scale = float(np.abs(values).max())
        worst = max(worst, float(np.abs(result - values).max()) / scale)
    return worst


def numbers(proto: onnx.ModelProto) -> int:
    """How many constant values the nodes read; one that is shared counts for each reader."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in proto.graph.initializer}
    return sum(sizes.get(name, 0) for node in proto.graph.node for name in node.input)


def shift_shows(law: Law, group: Group) -> float:
    """How far off a cut is that removes the next channel of ``group`` instead of the planned one."""
    return max((differs(law.run(shifted), planned) for shifted, planned in _shifts(law, group)), default=0)


def shift_matters(law: Law, group: Group) -> float:
    """How far the masked parents of these cuts are apart: what nobody reads cannot show."""
    return max(
        (differs(law.masked_as(shifted), planned) for shifted, planned in _shifts(law, group)), default=0
    )


def _shifts(law: Law, group: Group, tries: int = 4) -> Iterator[tuple[onnx.ModelProto, dict[str, Array]]]:
    """The cut of the next channel, and what that of the planned one has to compute; for a few channels."""
    places = np.flatnonzero(group.cuttable).tolist()
    for place, wrong in list(zip(places, [*places[1:], places[0]], strict=True))[:tries]:
        with contextlib.suppress(GraftError):  # would leave no channel on an axis
            planned, shifted = (law.cut(_without(group, one)) for one in (place, wrong))
            yield shifted, law.masked_as(planned)


def _without(group: Group, channel: int) -> Plan:
    return Plan("", {group.name: np.arange(group.size) != channel})


def shiftable(groups: ChannelGroups) -> list[Group]:
    """Groups with two channels to confuse; zeros that a Pad makes are all alike."""
    return [g for g in groups if g.cuttable.sum() > 1 and not g.name.startswith("pad")]


# -------------------------------------------------------------------- random graphs


NETWORKS = st.one_of(graphs.networks(), cases_attention.networks())
GRAPHS, PARTS = 2000, 4
"""Random graphs of the law, in parts that run side by side."""


@pytest.mark.parametrize("part", range(PARTS))
def test_law_holds_for_random_graphs(part: int) -> None:
    found: list[int] = []

    @seeded(part)
    @settings(deadline=None, database=None, max_examples=GRAPHS // PARTS, suppress_health_check=UNHURRIED)
    @given(NETWORKS, st.integers(0, 2**16))
    def holds(proto: onnx.ModelProto, number: int) -> None:
        onnx.checker.check_model(proto, full_check=True)
        law = Law(proto)
        assume(law.varies())
        for share in SHARES:
            law.check(law.plan(share, number))
        found.append(number)

    holds()
    assert len(found) >= GRAPHS // PARTS


@settings(deadline=None, derandomize=True, max_examples=100, suppress_health_check=UNHURRIED)
@given(NETWORKS)
def test_law_fails_for_shifted_cuts_of_random_graphs(proto: onnx.ModelProto) -> None:
    law = Law(proto)
    groups = shiftable(law.groups)
    assume(groups and law.varies())
    if max(shift_shows(law, group) for group in groups) <= 10 * TOLERANCE:
        assert max(shift_matters(law, group) for group in groups) <= 20 * TOLERANCE


# -------------------------------------------------------------------- lists that fall to nothing


BRANCHING = [
    *(graphs.residual, graphs.squeeze_excite, graphs.shortcut, graphs.concatenation, graphs.channels_last),
    *(graphs.branch, graphs.inverted, graphs.dense_block),
]


@st.composite
def branching_networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Random networks of structures that channels may fall in, among others."""

    def pick(options: Any) -> Any:
        return draw(st.sampled_from(list(options)))

    b = Builder(draw(st.integers(0, 2**16)), pick(graphs.OPSETS))
    x = b.relu(b.layer(b.input(*pick([(3, 6, 5), (2, 9), (6,)])), pick([3, 4, 6])))
    for _ in range(draw(st.integers(1, 4))):
        x = pick([*BRANCHING, *BRANCHING, *graphs.STRUCTURES])(b, x, pick)
        if x.channels > 12:
            x = b.layer(x, 4, 1)
    return b.model(graphs.head(b, x, pick))


def test_law_holds_when_lists_fall_to_nothing() -> None:
    fell: list[int] = []

    @settings(deadline=None, derandomize=True, max_examples=200, suppress_health_check=UNHURRIED)
    @given(branching_networks(), st.integers(0, 2**16))
    def holds(proto: onnx.ModelProto, number: int) -> None:
        law = Law(proto)
        assume(law.falling() and law.varies())
        for share, fall in ((1.0, 1.0), (0.6, 1.0), (0.6, 0.5)):
            plan = law.plan(share, number, fall)
            law.check(plan)
            mask = plan.mask(law.groups)
            fell.append(sum(not mask[channels].any() for channels in law.falling()))

    holds()
    assert sum(fell) >= 200


@pytest.mark.parametrize("name", sorted(graphs.FALLING))
def test_a_branch_that_falls_is_gone(name: str) -> None:
    """Its nodes leave the graph, what it put out is a constant, and the smaller graph can be cut again."""
    make, nodes_left = graphs.FALLING[name]
    law = Law(make(Builder()))
    cut = law.check(law.plan(1.0, 0, fall=1.0))
    assert [node.op_type for node in cut.graph.node] == nodes_left
    again = Law(cut, law.inputs)
    again.check(again.plan(0.6, 2))


@pytest.mark.parametrize("name", sorted(graphs.STAYING))
def test_what_something_else_reads_keeps_a_channel(name: str) -> None:
    law = Law(graphs.STAYING[name](Builder()))
    assert not law.falling()
    for group in law.groups:
        if group.cuttable.all():
            with pytest.raises(GraftError) as caught:
                law.cut(Plan("", {group.name: np.zeros(group.size, bool)}))
            assert caught.value.code == "plan-empty"


# -------------------------------------------------------------------- one network per structure

NOTHING_TO_CUT: set[str] = set()
EVERY_CASE = [(name, opset) for name, (_, opsets) in graphs.CASES.items() for opset in opsets]


@pytest.mark.parametrize(("name", "opset"), EVERY_CASE)
def test_law_holds_for(name: str, opset: int) -> None:
    proto = graphs.build(name, opset)
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


@pytest.mark.parametrize("name", sorted(graphs.CASES))
def test_law_fails_for_shifted_cuts_of(name: str) -> None:
    law = Law(graphs.build(name, graphs.CASES[name][1][-1]))
    for group in shiftable(law.groups):
        assert shift_shows(law, group) > 10 * TOLERANCE, group.name


def test_law_holds_when_a_cut_graph_is_cut_again() -> None:
    for name, (_, opsets) in graphs.CASES.items():
        law = Law(graphs.build(name, opsets[-1]))
        again = Law(law.cut(law.plan(0.8, 1)), law.inputs)
        again.check(again.plan(0.6, 2))


def test_a_plan_that_keeps_all_changes_nothing() -> None:
    for name, (_, opsets) in graphs.CASES.items():
        law = Law(graphs.build(name, opsets[-1]))
        plan = Plan.of(law.groups, law.groups.everything(), parent="")
        assert differs(law.run(law.cut(plan)), law.run(law.proto)) < 1e-6


@pytest.mark.parametrize("name", sorted(graphs.CASES))
def test_kept_channels_are_those_of_the_plan(name: str) -> None:
    """The markers left in the layer a group is named after are those that the plan keeps."""
    law = Law(graphs.build(name, graphs.CASES[name][1][-1]))
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
    Slice(Plan("", {free.name: np.arange(4) < 2}))(cut)
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
    Slice(Plan("", {group.name: np.arange(6) < 3}))(cut)
    assert masker.run(cut.proto(), graphs.samples(proto))["kept"].shape == (6, 1, 1)


# -------------------------------------------------------------------- published models


def bench_law(name: str, *size: int, threads: int = 2) -> Law:
    """The law for a model of the benchmark, on normal samples; its biases made distinct."""
    path = BENCH / "vision" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is missing: set GRAFT_BENCH to the folder of the benchmark")
    proto = onnx.load(path)
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


@pytest.mark.bench
def test_law_holds_for_resnet20() -> None:
    law = bench_law("resnet20_cifar10", 3, 32, 32)
    assert law.varies()
    for share in SHARES:
        for seed in range(20):
            law.check(law.plan(share, seed))
    for share, fall in ((1.0, 1.0), (0.5, 1.0), (0.5, 0.3)):
        law.check(law.plan(share, 0, fall))


@pytest.mark.bench
def test_law_holds_for_efficientnet() -> None:
    law = bench_law("efficientnet_lite0_imagenet", 3, 224, 224)
    assert law.varies()
    for seed, share in enumerate((0.5, 0.8)):
        law.check(law.plan(share, seed, fall=seed))


@pytest.mark.bench
@pytest.mark.parametrize("name", ["dense_mnist_4", "dense_fmnist_4"])
def test_law_holds_for_dense_networks(name: str) -> None:
    path = BENCH / "vision" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is missing: set GRAFT_BENCH to the folder of the benchmark")
    proto = onnx.load(path)
    rng = np.random.default_rng(0)
    law = Law(proto, {proto.graph.input[0].name: rng.uniform(0, 1, (4, 28, 28, 1)).astype("f")})
    for seed, share in enumerate(SHARES):
        law.check(law.plan(share, seed))
