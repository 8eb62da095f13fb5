"""Transposed convolutions, normalizations, reductions, space: attributes, numbers and reasons by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper

from graft.passes.cut.verify import mask
from graft.passes.normalize.simplify import Normalize
from graft.rewriter.channels.flow import Flow
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import Cost, CostModel, cost_of
from graft.rewriter.operators import Read, consumer_of, operator_of
from tests import cases_operators as cases
from tests import graphs, masker, small
from tests.graphs import CLASSES, Builder, T
from tests.rewriter.operators.test_operators import attributes, cut, groups_of, nodes, sizes, values
from tests.small import Net


def network(b: Builder, x: T) -> onnx.ModelProto:
    """A consumer and a head for features of any size of space."""
    return b.model(b.gemm(b.pooled(b.relu(b.conv(x, 5))), CLASSES))


def reasons(proto: onnx.ModelProto) -> str:
    return "; ".join(group.reason for group in groups_of(proto))


# -------------------------------------------------------------------- transposed convolutions


def test_transposed_convolution_loses_rows_that_read_and_columns_that_make() -> None:
    b = Builder()
    x = b.relu(cases.transposed_conv(b, graphs.features(b, 6), 4, strides=[2, 2]))
    proto = network(b, x)
    result = cut(proto, [1, 4], [0])
    before, after = (nodes(p, "ConvTranspose")[0] for p in (proto, result))
    whole = values(proto, before, 1)
    assert np.array_equal(values(result, after, 1), whole[[0, 2, 3, 5]][:, [1, 2, 3]])
    assert np.array_equal(values(result, after, 2), values(proto, before, 2)[[1, 2, 3]])


def test_grouped_transposed_convolution_keeps_its_groups_equally_wide() -> None:
    b = Builder()
    proto = network(b, b.relu(cases.transposed_conv(b, graphs.features(b, 6), 4, group=2)))
    assert sizes(proto) == [3, 2, 5]
    result = cut(proto, [1], [0])
    before, after = (nodes(p, "ConvTranspose")[0] for p in (proto, result))
    assert attributes(after)["group"] == 2
    assert np.array_equal(values(result, after, 1), values(proto, before, 1)[[0, 2, 3, 5]][:, [1]])


def test_depthwise_transposed_convolution_has_as_many_groups_as_inputs_are_left() -> None:
    b = Builder()
    proto = network(b, cases.transposed_conv(b, graphs.features(b, 4), 8, group=4))
    assert sizes(proto) == [4, 5]
    result = cut(proto, [1])
    before, after = (nodes(p, "ConvTranspose")[0] for p in (proto, result))
    assert attributes(after)["group"] == 3
    assert np.array_equal(values(result, after, 1), values(proto, before, 1)[[0, 2, 3]])
    assert np.array_equal(values(result, after, 2), values(proto, before, 2)[[0, 1, 4, 5, 6, 7]])


FOLDS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 1, 1, 1]},
    {"strides": [2, 1], "pads": [1, 0, 2, 1], "output_padding": [1, 0]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [1, 2]},
    {"dilations": [2, 1], "group": 2},
    {"strides": [2, 2], "output_shape": [11, 12]},
]


@pytest.mark.parametrize("more", FOLDS)
def test_transposed_convolution_takes_a_linear_map(more: dict[str, Any]) -> None:
    """What it puts out for ``into @ x + constant``; on average over positions, at the border too."""
    b, rng = Builder(opset=17), np.random.default_rng(0)
    y = cases.transposed_conv(b, b.input(4, 5, 6), 6, **more)
    proto = b.model(y)
    model = Model.from_proto(proto)
    (node,) = model.graph.nodes
    operator, read = consumer_of(node), Read(0, 1, np.arange(4))
    assert operator is not None
    into = rng.normal(size=(4, 4)) if operator.accepts_dense_map(node) else np.eye(4)
    constant = rng.normal(size=4)
    x = rng.normal(size=(2, 4, 5, 6)).astype(np.float32)
    mapped = (np.einsum("ij,njhw->nihw", into, x) + constant[:, None, None]).astype(np.float32)
    expected = masker.run(proto, {"x": mapped})[y.name].mean(axis=(0, 2, 3))
    delta = operator.fold(node, read, into, constant, ChannelGroups(model))
    operator.add_bias(node, delta, model.graph)
    found = masker.run(model.proto(), {"x": x})[y.name].mean(axis=(0, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_matrix_of_a_transposed_convolution(group: int) -> None:
    """Without padding every tap of every input lands in the output once."""
    b = Builder()
    y = cases.transposed_conv(b, b.input(4, 5, 6), 8, group=group, strides=[2, 2])
    proto = b.model(y)
    (node,) = Model.from_proto(proto).graph.nodes
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    result = masker.run(proto, {"x": x})[y.name]
    bias = values(proto, proto.graph.node[0], 2)[:, None, None]
    operator = consumer_of(node)
    assert operator is not None
    expected = operator.matrix(node, Read(0, 1, np.arange(4))).sum(axis=1) @ x.sum(axis=(2, 3))[0]
    np.testing.assert_allclose((result[0] - bias).sum(axis=(1, 2)), expected, rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------- costs


@pytest.mark.parametrize("group", [1, 2, 4])
def test_work_of_a_transposed_convolution(group: int) -> None:
    b = Builder()
    proto = b.model(cases.transposed_conv(b, b.input(4, 5, 6), 8, group=group, strides=[2, 2]))
    weights = 4 * (8 // group) * 9
    assert cost_of(Model.from_proto(proto)) == Cost(5 * 6 * weights, weights + 8)


def test_work_of_a_volume() -> None:
    b = Builder()
    proto = b.model(b.conv(b.input(2, 4, 5, 6), 3))
    assert cost_of(Model.from_proto(proto)).macs == 4 * 5 * 6 * 27 * 2 * 3


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_work_of_recurrent_layers(operator: str, gates: int, directions: int) -> None:
    b = Builder()
    x = b.one("Transpose", b.input(7, 6), perm=[1, 0, 2])
    shapes = (directions, gates * 5, 6), (directions, gates * 5, 5)
    weights = [b.weight(*shape) for shape in shapes]
    direction = "bidirectional" if directions == 2 else "forward"
    y = b.node(operator, [x, *weights], hidden_size=5, direction=direction)[0]
    y = b.one("Transpose", y, perm=[2, 0, 1, 3])
    assert cost_of(Model.from_proto(b.model(y))).macs == 7 * directions * gates * 5 * (6 + 5)


def test_the_work_of_a_cut_transposed_convolution_is_that_under_the_mask() -> None:
    b = Builder()
    x = cases.transposed_conv(b, graphs.features(b, 6), 4, group=2)
    x = cases.transposed_conv(b, cases.transposed_conv(b, b.relu(x), 8, group=4), 5)
    model = Model.from_proto(network(b, x))
    groups = ChannelGroups(model)
    kept = np.random.default_rng(3).random(groups.count) < 0.5
    kept |= ~groups.cuttable()
    for channels in groups.lists():
        kept[channels[0]] = True
    whole, predicted = CostModel(groups).cost(), CostModel(groups).cost(kept)
    small.prune(model, Plan.of(groups, kept, ""))
    assert cost_of(model) == predicted
    assert predicted.macs < whole.macs


# -------------------------------------------------------------------- normalization


@pytest.mark.parametrize("values_each", [1, 2])
def test_whole_normalization_groups_go(values_each: int) -> None:
    """Scale and bias hold a value for each normalization group before opset 21, for each channel since."""
    b = Builder(opset=21)
    x = graphs.features(b, 6)
    scale, bias = (b.constant(np.arange(3 * values_each)) for _ in range(2))
    x = b.declare(b.one("GroupNormalization", x, scale, bias, num_groups=3), x.shape)
    model = Model.from_proto(network(b, x))
    groups = ChannelGroups(model)
    assert next(group.size for group in groups) == 3
    small.prune(model, Plan("", {next(iter(groups)).name: np.array([True, False, True])}))
    (node,) = nodes(model.proto(), "GroupNormalization")
    assert attributes(node)["num_groups"] == 2
    left = np.arange(3 * values_each).reshape(3, values_each)[[0, 2]].ravel()
    for index in (1, 2):
        assert np.array_equal(values(model.proto(), node, index), left)


def test_spelled_group_normalization_loses_whole_groups() -> None:
    b = Builder()
    proto = network(b, cases.spelled_group_norm(b, graphs.features(b, 6), 3))
    result = cut(proto, [1])
    first, back = nodes(result, "Reshape")
    assert values(result, first, 1).tolist() == [0, 2, -1]
    assert values(result, back, 1).tolist() == [-1, 4, 6, 5]
    (node,) = nodes(result, "InstanceNormalization")
    assert values(result, node, 1).shape == (2,)


@pytest.mark.parametrize("operator", ["LayerNormalization", "RMSNormalization"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_normalization_over_channels_pins_them_and_is_named(operator: str, axis: int) -> None:
    b = Builder(opset=23)
    x = graphs.features(b, 6)
    x = b.one(operator, x, b.constant(np.ones(x.shape[axis:])), axis=axis)
    proto = network(b, x)
    named = nodes(proto, operator)[0].name
    expected = f"{operator} {named}: normalizes over the channels"
    assert (expected in reasons(proto)) == (axis == 1)
    assert next(iter(groups_of(proto))).cuttable.all() == (axis == -1)


# -------------------------------------------------------------------- reductions


def test_a_mean_over_fewer_channels_is_scaled_to_what_the_parent_divides_by() -> None:
    b = Builder()
    x = graphs.features(b, 6)
    proto = network(b, b.one("Mul", x, b.reduce(x, axes=[1])))
    result = cut(proto, [0, 3, 4, 5])
    scale = next(node for node in nodes(result, "Mul") if node.name.endswith("as_before"))
    assert values(result, scale, 1) == pytest.approx(2 / 6)


def test_a_sum_needs_no_scale_and_a_maximum_pins() -> None:
    for operator, removed in (("ReduceL1", True), ("ReduceMax", False)):
        b = Builder()
        x = b.relu(b.conv(graphs.features(b, 6), 4))
        proto = network(b, b.conv(b.reduce(x, operator, axes=[1]), 3))
        groups = groups_of(proto)
        made = list(groups)[1]
        assert made.cuttable.all() == removed
        assert (operator in made.reason) != removed
        if removed:
            assert len(nodes(cut(proto, [], [0, 1]), "Mul")) == 0


def test_verify_masks_what_a_reduction_reads() -> None:
    """The masked parent of :mod:`graft.passes.cut.verify` reads zeros where there is no weight to set to
    zero."""
    b = Builder()
    x = b.relu(b.conv(graphs.features(b, 6), 4))
    proto = network(b, b.conv(b.reduce(x, "ReduceSumSquare", axes=[1]), 3))
    model = Model.from_proto(proto)
    name = list(ChannelGroups(model))[1].name
    masked = mask(Analysed.of(model), Plan("", {name: np.array([True, False, True, False])})).proto()
    (where,) = nodes(masked, "Where")
    assert where.output[0] == nodes(masked, "ReduceSumSquare")[0].input[0]
    assert values(masked, where, 0).reshape(-1).tolist() == [True, False, True, False]


# -------------------------------------------------------------------- space


def test_sizes_of_a_resize_count_the_channels_that_are_left() -> None:
    b = Builder()
    b.fixed = True
    proto = network(b, cases.resize(b, graphs.features(b, 6), sizes=True))
    (node,) = nodes(cut(proto, [0, 1]), "Resize")
    assert values(cut(proto, [0, 1]), node, 3).tolist() == [2, 4, 12, 10]


def test_a_resize_of_the_channels_pins_them() -> None:
    b = Builder()
    scales = b.constant([1, 2, 1, 1])
    x = b.one("Resize", graphs.features(b, 4), None, scales)
    proto = network(b, b.declare(x, (2, 8, 6, 5)))
    assert not next(iter(groups_of(proto))).cuttable.any()
    assert "resizes the channel axis" in reasons(proto)


@pytest.mark.parametrize(("mode", "tied"), [("DCR", [0, 2, 4, 6]), ("CRD", [0, 1, 2, 3])])
def test_the_channels_of_a_block_go_together(mode: str, tied: list[int]) -> None:
    b = Builder()
    proto = network(b, cases.depth_to_space(b, graphs.features(b, 8), mode))
    first = nodes(proto, "Conv")[0]
    left = np.setdiff1d(np.arange(8), tied)
    result = cut(proto, [0])
    assert np.array_equal(values(result, nodes(result, "Conv")[0], 2), values(proto, first, 2)[left])


# -------------------------------------------------------------------- functions and foreign operators


def with_function() -> Net:
    """A dense net whose activation is a function of the model's own."""
    net = Net(3)
    inner = [helper.make_node("Sigmoid", ["a"], ["b"]), helper.make_node("Mul", ["b", "a"], ["c"])]
    opsets = [helper.make_opsetid("", net.opset)]
    net.functions.append(helper.make_function("here", "Smooth", ["a"], ["c"], inner, opsets))
    net.gemm("y", net.node("Smooth", "smooth", net.gemm("made", "x", 6, 3), domain="here"), 4, 6)
    return net


def test_a_function_pins_until_it_is_inlined() -> None:
    model = Model.from_proto(with_function().proto(y=[4]))
    group = ChannelGroups(model)["made"]
    assert not group.cuttable.any()
    assert "Smooth smooth: no rule" in group.reason
    assert not Normalize()(model, small.context()).declined
    group = ChannelGroups(model)["made"]
    assert group.cuttable.all()
    plan = Plan("", {"made": np.array([1, 0, 1, 0, 0, 1], bool)})
    x = small.inputs([3], 5)
    expected = small.run(mask(Analysed.of(model), plan), x)["y"]
    small.prune(model, plan)
    np.testing.assert_allclose(small.run(model, x)["y"], expected, rtol=1e-4, atol=1e-6)
    assert not model.proto().functions


def test_operators_of_other_domains_pin() -> None:
    b = Builder()
    x = graphs.features(b, 6)
    y = b.one("FusedConv", x, b.weight(4, 6, 3, 3), domain="com.microsoft", activation="Relu", pads=[1] * 4)
    proto = network(b, b.declare(y, (2, 4, 6, 5)))
    assert not next(iter(groups_of(proto))).cuttable.any()
    assert "FusedConv" in reasons(proto)


def test_channels_of_what_steers_an_operator_stay() -> None:
    """Sizes, places and numbers of largest values are no features."""
    for operator, inputs in (("TopK", 2), ("GridSample", 2), ("Resize", 3)):
        node = gs.Node(operator, "node", {"axis": 1}, [gs.Variable(f"x{i}") for i in range(inputs)])
        node.outputs = [gs.Variable("y")]
        flow = Flow({"x0": (2, 3, 4, 4), f"x{inputs - 1}": (5,), "y": (2, 3, 4, 4)}, 17)
        steering = flow.make(node, 5)
        flow.give(node.inputs[-1], [steering])
        operator_of(node).flow(node, flow)
        pinned = flow.pinned(*flow.resolved())
        assert all(channel in pinned for channel in steering.tolist())


def test_kinds_of_embedding_tables() -> None:
    """A table of integers is none: what it gives is no feature."""
    for dtype, made in ((np.float32, True), (np.int64, False)):
        b = Builder()
        x = b.one("Cast", b.input(3), to=TensorProto.INT64)
        table = b.constant(np.arange(20).reshape(5, 4), dtype)
        y = b.one("Cast", b.one("Gather", table, x), to=TensorProto.FLOAT)
        proto = b.model(b.matmul(y, 2))
        assert any(group.name.startswith("gather") for group in groups_of(proto)) == made
