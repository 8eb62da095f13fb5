"""The normal form computes the same and keeps the names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from graft.passes.normalize import simplify as normalize
from graft.passes.normalize.simplify import Normalize
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from tests import small
from tests.small import Net


def normalized(net: Net, y: list[int] | None = None) -> Model:
    """The normal form of a net, numerically equal to it."""
    proto = net.proto(y=[4] if y is None else y)
    model = Model.from_proto(proto)
    report = Normalize()(model, small.context())
    assert not report.declined
    assert (report.before, report.after) == (len(net.nodes), len(model.graph.nodes))
    x = small.inputs(net.shape, 7)
    wanted, found = small.run(proto, x), small.run(model, x)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)
    assert model.proto().ir_version == proto.ir_version
    assert [o.version for o in model.proto().opset_import if not o.domain] == [net.opset]
    return model


def batch_normalization(net: Net, name: str, x: str, size: int) -> str:
    values = [net.weight(f"{name}.{key}", size) for key in ("scale", "bias", "mean")]
    variance = net.constant(f"{name}.variance", net.rng.uniform(0.5, 2, size))
    return net.node("BatchNormalization", name, x, *values, variance)


def ops(model: Model) -> list[str]:
    return [node.op for node in model.graph.nodes]


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_batch_normalization_is_folded_into_the_convolution(opset: int) -> None:
    net = Net(2, 6, 5, opset=opset)
    normal = batch_normalization(net, "bn", net.conv("conv", "x", 6, 2), 6)
    flat = net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", normal))
    net.gemm("y", flat, 4, 6)
    model = normalized(net)
    assert ops(model) == ["Conv", "GlobalAveragePool", "Flatten", "Gemm"]
    assert [node.name for node in model.graph.nodes] == ["conv", "pool", "flat", "y"]


def test_batch_normalization_behind_a_relu_stays() -> None:
    net = Net(2, 6, 5)
    relu = net.node("Relu", "relu", net.conv("conv", "x", 6, 2))
    normal = batch_normalization(net, "bn", relu, 6)
    flat = net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", normal))
    net.gemm("y", flat, 4, 6)
    assert [node.name for node in normalized(net).graph.nodes] == [node.name for node in net.nodes]


def test_functions_are_inlined() -> None:
    net = Net(3)
    body = [
        helper.make_node("Relu", ["a"], ["b"], name="inner"),
        helper.make_node("Add", ["b", "a"], ["c"], name="outer"),
    ]
    opsets = [helper.make_opsetid("", net.opset)]
    net.functions.append(helper.make_function("here", "Twice", ["a"], ["c"], body, opsets))
    made = net.node("Twice", "twice", net.gemm("dense", "x", 6, 3), domain="here")
    net.gemm("y", made, 4, 6)
    model = normalized(net)
    assert sorted(ops(model)) == ["Add", "Gemm", "Gemm", "Relu"]
    assert not model.proto().functions
    assert all(group.cuttable.all() for group in ChannelGroups(model) if group.name != "y")


@pytest.mark.parametrize("opset", [11, 17])
def test_a_computed_shape_becomes_a_constant(opset: int) -> None:
    net = Net(2, 4, 4, opset=opset)
    relu = net.node("Relu", "relu", net.conv("conv", "x", 6, 2))
    shape = net.node("Shape", "shape", relu)
    first = net.node("Gather", "first", shape, net.ints("zero", 0), axis=0)
    target = net.node("Concat", "target", first, net.ints("rest", -1), axis=0)
    net.gemm("y", net.node("Reshape", "flat", relu, target), 4, 24)
    model = normalized(net)
    assert ops(model) == ["Conv", "Relu", "Reshape", "Gemm"]
    assert [node.name for node in model.graph.nodes] == ["conv", "relu", "flat", "y"]
    assert ChannelGroups(model)["conv"].cuttable.all()


def test_constants_are_computed() -> None:
    net = Net(3)
    one, two = net.weight("one", 3, 6), net.weight("two", 3, 6)
    made = net.node("MatMul", "made", "x", net.node("Add", "sum", one, two))
    net.gemm("y", net.node("Relu", "relu", made), 4, 6)
    assert [node.name for node in normalized(net).graph.nodes] == ["made", "relu", "y"]


def test_other_fusions_are_not_made() -> None:
    net = Net(5, 3)
    product = net.node("MatMul", "product", "x", net.weight("w", 3, 4))
    total = net.node("Add", "sum", product, net.weight("b", 4))
    net.node("ReduceMean", "y", total, axes=[1], keepdims=0)
    assert [node.name for node in normalized(net).graph.nodes] == ["product", "sum", "y"]


def test_a_result_that_differs_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(proto: onnx.ModelProto) -> onnx.ModelProto:
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        bias = next(t for t in changed.graph.initializer if t.name == "y.b")
        bias.CopyFrom(small.numpy_helper.from_array(np.ones(4, np.float32), "y.b"))
        return changed

    monkeypatch.setattr(normalize, "_simplify", wrong)
    model = small.model(small.dense_net())
    before = model.proto().SerializeToString(deterministic=True)
    report = Normalize()(model, small.context())
    assert [each.reason for each in report.declined] == ["the changed graph computes another y"]
    assert report.before == report.after and not report.changed
    assert model.proto().SerializeToString(deterministic=True) == before


def test_a_simplifier_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(proto: onnx.ModelProto) -> onnx.ModelProto:
        raise RuntimeError("no idea")

    monkeypatch.setattr(normalize, "_simplify", broken)
    report = Normalize()(small.model(small.dense_net()), small.context())
    assert "RuntimeError: no idea" in report.declined[0].reason


def test_renamed_nodes_get_their_names_back() -> None:
    original = small.conv_net().proto(y=[4]).graph
    simple = onnx.GraphProto()
    simple.CopyFrom(original)
    for node in (simple.node[0], simple.node[2], simple.node[-1]):
        node.name = f"renamed_{node.name}"
    simple.node[2].op_type = "FusedConv"  # found by its output
    simple.node[-1].output[0] = "z"  # found by operator and input
    normalize._keep_names(original, simple)
    assert [node.name for node in simple.node] == [node.name for node in original.node]


def test_card_and_metadata_stay() -> None:
    net = small.Net(6)
    net.gemm("y", net.node("Identity", "same", net.node("Relu", "relu", net.gemm("dense", "x", 8, 6))), 4, 8)
    model = small.model(net)
    model.metadata["theirs"] = "1"
    before = model.card
    assert Normalize()(model, small.context()).changed
    assert "same" not in {node.name for node in model.graph.nodes}
    assert model.card is before
    assert model.metadata == {"theirs": "1"}


@pytest.mark.parametrize("on", [True, False])
def test_a_dropout_in_training_mode_that_goes_is_said(on: bool, caplog: pytest.LogCaptureFixture) -> None:
    net = Net(5)
    mode, ratio = net.constant("mode", on, bool), net.constant("ratio", 0.3)
    net.node("Dropout", "first", net.gemm("dense", "x", 6, 5), ratio, mode)
    net.node("Dropout", "second", net.node("Relu", "relu", "first"), ratio, mode)
    net.gemm("y", "second", 4, 6)
    model = small.model(net)
    report = Normalize()(model, small.context())
    assert "Dropout" not in ops(model)
    assert [each.where for each in report.declined] == (["first", "second"] if on else [])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(report.declined) and all("training mode" in each for each in said)


def test_batch_normalization_in_training_mode_is_named() -> None:
    net = Net(2, 6, 5)
    values = [net.constant(f"bn.{key}", np.full(6, 0.5 + at)) for at, key in enumerate("sbmv")]
    node = helper.make_node(
        "BatchNormalization",
        [net.conv("conv", "x", 6, 2), *values],
        ["bn", "m", "v"],
        name="bn",
        training_mode=1,
    )
    net.nodes.append(node)
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", "bn")), 4, 6)
    model = small.model(net)
    Normalize()(model, small.context())
    assert "training mode" in ChannelGroups(model)["conv"].reason


def test_a_computed_shape_of_more_axes_than_there_are_is_not_written_down() -> None:
    """onnxslim takes the repeats of a Tile as they are, and invents a name for every axis."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("Tile", ["shape", "repeats"], ["longer"], "tile"),
        helper.make_node("Reshape", ["r", "longer"], ["y"], "reshape"),
    ]
    constants = {"shape": np.array([0, 4]), "repeats": np.array([2**36, 1])}
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    ends = [[helper.make_tensor_value_info(name, 1, ["n", 4])] for name in "xy"]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    model = Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    Normalize()(model, small.context())
    assert model.graph.nodes[0].name == "relu"


@pytest.mark.parametrize("op", ["RandomUniformLike", "Bernoulli", "RandomNormal"])
def test_numbers_drawn_at_random_are_no_constants(op: str, caplog: pytest.LogCaptureFixture) -> None:
    net = Net(6)
    read = [] if op == "RandomNormal" else [net.constant("half", np.full((6, 5), 0.5))]
    attributes = {"shape": [6, 5]} if op == "RandomNormal" else {}
    drawn = net.node(op, "drawn", *read, **attributes)
    net.gemm("y", net.node("MatMul", "dense", "x", drawn), 4, 5)
    model = small.model(net)
    report = Normalize()(model, small.context())
    assert op in ops(model)
    assert report.declined[0].reason == f"{op} drawn draws numbers at random: no two runs are alike"
    assert "the graph is used as it is" in caplog.text


def test_a_draw_that_follows_the_sample_does_not_stop_the_normal_form() -> None:
    net = Net(6)
    noise = net.node("RandomNormalLike", "noise", "x", scale=1e-3, mean=1.0)
    net.gemm("y", net.node("Mul", "noisy", "x", noise), 4, 6)
    model = small.model(net)
    assert not Normalize()(model, small.context()).declined
    assert "RandomNormalLike" in ops(model)
