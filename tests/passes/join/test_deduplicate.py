"""A model whose equal parts are shared computes the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graft.passes.base import Context
from graft.passes.join.deduplicate import Deduplicate, DeduplicateReport
from graft.rewriter.graph.model import Model
from tests import cases, graphs, small
from tests.small import Net

Array = NDArray[Any]
X = small.inputs([6], 7)


def shared(model: Model) -> tuple[Model, DeduplicateReport]:
    """The model after sharing: valid, sorted, with the ends it had."""
    result = model.copy()
    report = Deduplicate()(result, Context())
    onnx.checker.check_model(result.proto(), full_check=True)
    assert result.inputs() == model.inputs() and result.outputs() == model.outputs()
    return result, report


def run(model: Model, feed: dict[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.proto().SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, feed)


def same(one: Model, two: Model, feed: dict[str, Array]) -> None:
    for before, after in zip(run(one, feed), run(two, feed), strict=True):
        np.testing.assert_array_equal(before, after)
        assert before.size == 1 or np.ptp(before.astype(float)) > 0


def operators(model: Model) -> list[str]:
    return sorted(node.op for node in model.graph.nodes)


def of(net: Net, **outputs: list[int]) -> Model:
    return Model.from_proto(net.proto(**outputs))


# -------------------------------------------------------------------- the law


@settings(max_examples=25, deadline=None)
@given(cases.convolutional(), st.integers(0, 100))
def test_a_shared_model_computes_the_same(proto: onnx.ModelProto, seed: int) -> None:
    """Whatever is equal in it; a weight that is there twice is one afterwards."""
    model = Model.from_proto(proto)
    values = np.linspace(0, 1, 7, dtype=np.float32)
    for name in ("one", "twin"):
        end = gs.Variable(f"{name}/end", np.float32, [7])
        model.graph.nodes.append(gs.Node("Neg", f"{name}/neg", {}, [gs.Constant(name, values)], [end]))
        model.graph.outputs.append(end)
    result = model.copy()
    report = Deduplicate()(result, Context())
    assert report.weights > 0
    assert not {"one", "twin"} <= result.graph.tensors().keys()
    feed = graphs.samples(proto, seed)
    for before, after in zip(run(model, feed), run(result, feed), strict=True):
        np.testing.assert_array_equal(before, after)


def doubled(proto: onnx.ModelProto, other: bool) -> onnx.ModelProto:
    """The graph beside a copy of itself on the same inputs, optionally with one weight changed."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    ends = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        copy = result.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = f"copy/{tensor.name}"
    if other:
        floats = [t for t in result.graph.initializer if t.name.startswith("copy/") and t.data_type == 1]
        values = numpy_helper.to_array(floats[0]) + np.float32(0.5)
        floats[0].CopyFrom(numpy_helper.from_array(values, floats[0].name))
    for node in proto.graph.node:
        copy = result.graph.node.add()
        copy.CopyFrom(node)
        copy.name = f"copy/{node.name}"
        copy.input[:] = [name if name in ends or not name else f"copy/{name}" for name in node.input]
        copy.output[:] = [name and f"copy/{name}" for name in node.output]
    for value in proto.graph.output:
        copy = result.graph.output.add()
        copy.CopyFrom(value)
        copy.name = f"copy/{value.name}"
    return result


@settings(max_examples=25, deadline=None)
@given(cases.convolutional(), st.booleans())
def test_a_graph_beside_its_copy_runs_once(proto: onnx.ModelProto, other: bool) -> None:
    """All but what makes the outputs, which keep their names; unless a weight differs."""
    model = Model.from_proto(doubled(proto, other))
    result = model.copy()
    report = Deduplicate()(result, Context())
    feed = graphs.samples(proto)
    before, after = run(model, feed), run(result, feed)
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    alone = Model.from_proto(proto)
    Deduplicate()(alone, Context())
    if other:
        half = len(before) // 2
        assert len(result.graph.nodes) >= len(alone.graph.nodes) + half
    else:
        assert len(result.graph.nodes) == len(alone.graph.nodes) + len(proto.graph.output)
        assert report.nodes > 0 or len(proto.graph.node) == len(proto.graph.output)


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_regression_graphs_compute_the_same(name: str) -> None:
    """Beside a copy of itself, of which nothing is left."""
    proto = cases.build(name)
    model = Model.from_proto(doubled(proto, False))
    result = model.copy()
    report = Deduplicate()(result, Context())
    assert report.nodes > 0 and (report.weights > 0 or name == "weights_as_inputs")
    assert len(result.graph.nodes) < len(model.graph.nodes)
    feed = graphs.samples(proto, 1)
    for before, after in zip(run(model, feed), run(result, feed), strict=True):
        np.testing.assert_array_equal(before, after)


# -------------------------------------------------------------------- what is shared


def test_branches_that_begin_alike_share_what_they_begin_with() -> None:
    net = Net(6)
    weight, bias = net.rng.normal(size=(6, 5)), net.rng.normal(size=5)
    ends = []
    for name in ("p", "q", "r"):
        made = net.node("MatMul", f"{name}/mul", "x", net.constant(f"{name}/w", weight))
        made = net.node(
            "Relu", f"{name}/relu", net.node("Add", f"{name}/add", made, net.constant(f"{name}/b", bias))
        )
        ends.append(net.node("MatMul", f"{name}/end", made, net.weight(f"{name}/v", 5, 2)))
    net.node("Concat", "y", *ends, axis=1)
    model = of(net, y=[6])
    result, report = shared(model)
    assert operators(result) == ["Add", "Concat", "MatMul", "MatMul", "MatMul", "MatMul", "Relu"]
    assert (report.nodes, report.weights, report.changed) == (6, 4, 10)
    assert {node.name for node in result.graph.nodes} == {
        "p/mul",
        "p/add",
        "p/relu",
        "p/end",
        "q/end",
        "r/end",
        "y",
    }  # the first of equals stays
    assert sorted(t.name for t in result.proto().graph.initializer) == ["p/b", "p/v", "p/w", "q/v", "r/v"]
    same(model, result, {"x": X})


def test_sharing_twice_changes_nothing_more() -> None:
    model = Model.from_proto(doubled(small.dense_net().proto(y=[4]), False))
    once, first = shared(model)
    twice, second = shared(once)
    assert first.nodes and first.weights and (second.nodes, second.weights, second.changed) == (0, 0, 0)
    assert twice.proto().SerializeToString(deterministic=True) == once.proto().SerializeToString(
        deterministic=True
    )


def test_same_bytes_whichever_process() -> None:
    written = set()
    for _ in range(3):
        model, report = shared(Model.from_proto(doubled(small.residual_net().proto(y=[4]), False)))
        assert report.nodes > 0 and report.weights > 0
        written.add(model.proto().SerializeToString(deterministic=True))
    assert len(written) == 1


def test_the_original_of_a_copy_is_left_alone() -> None:
    model = Model.from_proto(doubled(small.dense_net().proto(y=[4]), False))
    before = model.proto().SerializeToString(deterministic=True)
    assert shared(model)[1].changed > 0
    assert model.proto().SerializeToString(deterministic=True) == before


def test_a_node_that_reads_one_weight_twice_under_two_names() -> None:
    net = Net(6)
    values = net.rng.normal(size=6)
    net.constant("v", values), net.constant("w", values)
    net.node("Add", "y", "x", net.node("Sub", "zero", "v", net.node("Mul", "square", "v", "w")))
    model = of(net, y=[6])
    result, report = shared(model)
    assert (report.nodes, report.weights, report.changed) == (0, 1, 1)
    same(model, result, {"x": X})


# -------------------------------------------------------------------- what stays apart


def pair(
    op: str, one: dict[str, Any], two: dict[str, Any], more: Callable[[Net], list[str]] | None = None
) -> tuple[Model, DeduplicateReport]:
    """Two nodes on ``x``, and what became of them."""
    net = Net(6)
    inputs = more(net) if more else []
    net.node(op, "p", "x", *inputs, **one)
    net.node(op, "q", "x", *inputs, **two)
    net.node("Abs", "r", "p")
    net.node("Add", "y", "r", "q")
    model = of(net, y=[6])
    result, report = shared(model)
    same(model, result, {"x": X})
    return result, report


@pytest.mark.parametrize(
    ("op", "one", "two"),
    [
        ("LeakyRelu", {"alpha": 0.1}, {"alpha": 0.2}),
        ("LeakyRelu", {"alpha": 0.1}, {"alpha": 0.10000002}),
        ("Softmax", {"axis": 1}, {"axis": 0}),
        ("Elu", {"alpha": 2.0}, {}),
    ],
)
def test_attributes_that_differ(op: str, one: dict[str, Any], two: dict[str, Any]) -> None:
    assert pair(op, one, two)[1].nodes == 0
    assert pair(op, one, one)[1].nodes == 1


def test_tensors_in_attributes() -> None:
    def values(*numbers: float, dtype: Any = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(numbers, dtype), "v")

    net = Net(6)
    for name, value in (("p", values(1)), ("q", values(1)), ("r", values(2))):
        net.node("ConstantOfShape", name, net.ints(f"{name}/shape", 6), value=value)
    net.node("Sum", "y", "x", "p", "q", "r")
    model = of(net, y=[6])
    result, report = shared(model)
    assert (report.nodes, report.weights, report.changed) == (1, 2, 3)
    assert operators(result) == ["ConstantOfShape"] * 2 + ["Sum"]
    np.testing.assert_allclose(run(result, {"x": X})[0], X + 4, rtol=1e-6)


def test_weights_that_differ_in_type_or_shape_only() -> None:
    """The bytes of all of them are zeros."""
    net = Net(6)
    net.constant("f", np.zeros(6)), net.constant("g", np.zeros((1, 6)))
    net.constant("i", np.zeros(6), np.int32), net.constant("n", -np.zeros(6))
    net.node("Cast", "c", "i", to=TensorProto.FLOAT)
    net.node("Sum", "y", "x", "f", "g", "n", "c")
    model = of(net, y=[6])
    result, report = shared(model)
    assert (report.nodes, report.weights, report.changed) == (0, 0, 0)
    assert len(result.proto().graph.initializer) == 4
    same(model, result, {"x": X})


def test_optional_inputs_and_outputs_that_differ() -> None:
    net = Net(6)
    net.constant("low", -0.5), net.constant("high", 0.5)
    net.node("Clip", "p", "x", "low", "")
    net.node("Clip", "q", "x", "", "high")
    net.node("Sub", "y", "p", "q")
    model = of(net, y=[6])
    result, report = shared(model)
    assert report.nodes == 0
    same(model, result, {"x": X})


def test_order_of_inputs_counts() -> None:
    net = Net(6)
    net.weight("w", 6)
    net.node("Sub", "p", "x", "w")
    net.node("Sub", "q", "w", "x")
    net.node("Relu", "r", "p")
    net.node("Sub", "y", "r", "q")
    model = of(net, y=[6])
    assert shared(model)[1].nodes == 0


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_nodes_that_draw_stay_apart(op: str) -> None:
    net = Net(6)
    net.node("Sigmoid", "s", "x")
    net.node(op, "p", "s")
    net.node(op, "q", "s")
    net.node("Sub", "y", "p", "q")
    result, report = shared(of(net, y=[6]))
    assert report.nodes == 0
    x = np.zeros((200, 6), np.float32)
    assert np.abs(run(result, {"x": x})[0]).max() > 0


def test_dropout_in_training_mode_stays_apart() -> None:
    net = Net(6)
    net.constant("ratio", 0.5), net.constant("training", True, np.bool_)
    net.node("Dropout", "p", "x", "ratio", "training")
    net.node("Dropout", "q", "x", "ratio", "training")
    net.node("Sub", "y", "p", "q")
    model = of(net, y=[6])
    x = np.ones((200, 6), np.float32)
    assert np.abs(run(model, {"x": x})[0]).max() > 0
    result, _ = shared(model)
    assert np.abs(run(result, {"x": x})[0]).max() > 0


def test_dropout_without_training_is_shared() -> None:
    net = Net(6)
    net.node("Dropout", "p", "x")
    net.node("Dropout", "q", "x")
    net.node("Relu", "r", "p")
    net.node("Sub", "y", "r", "q")
    model = of(net, y=[6])
    result, report = shared(model)
    assert report.nodes == 1
    same(model, result, {"x": X})


def body(name: str, reads: str) -> onnx.GraphProto:
    """A branch of an If that captures ``reads``."""
    node = helper.make_node("Neg" if name.startswith("else") else "Relu", [reads], [name], name=name)
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, 1, ["N", 6])])


def conditional(positive: bool) -> Model:
    """Two Ifs; their bodies capture the outputs of two equal nodes, and two equal weights."""
    net = Net(6)
    net.constant("yes", positive, np.bool_)
    values = net.rng.normal(size=6)
    net.node("Add", "p", "x", net.constant("v", values))
    net.node("Add", "q", "x", net.constant("w", values))
    net.node("Sigmoid", "r", "q")
    for number, name in enumerate(("p", "q")):
        net.node(
            "If",
            f"if{number}",
            "yes",
            then_branch=body(f"then{number}", name),
            else_branch=body(f"else{number}", name),
        )
    net.node("Sum", "y", "if0", "if1", "r", "p")
    return of(net, y=[6])


@pytest.mark.parametrize("positive", [True, False])
def test_what_bodies_capture_stays(positive: bool) -> None:
    model = conditional(positive)
    result, report = shared(model)
    assert report.weights == 1 and report.nodes == 0
    assert operators(result).count("If") == 2
    same(model, result, {"x": X})


def test_weights_that_bodies_capture() -> None:
    """An equal weight outside and inside a body: whoever gives way, the body still finds its own."""
    for order in (("v", "w"), ("w", "v")):
        net = Net(6)
        net.constant("yes", True, np.bool_)
        values = net.rng.normal(size=(1, 6))
        for name in order:
            net.constant(name, values)
        net.node("If", "if0", "yes", then_branch=body("then", "w"), else_branch=body("else", "v"))
        net.node("Sum", "y", "x", "if0", *order)
        proto = net.proto(y=[6])
        model = Model.from_proto(proto)
        result = model.copy()
        assert Deduplicate()(result, Context()).weights > 0
        same(model, result, {"x": X})


def test_outputs_keep_their_names_and_values() -> None:
    """Equal nodes that both make an output, and two inside that equal an output."""
    net = Net(6)
    for name in ("p", "q", "r", "s"):
        net.node("Relu", name, "x")
    net.node("Neg", "y", "r")
    net.node("Neg", "z", "q")
    net.node("Abs", "w", "s")
    model = of(net, p=[6], q=[6], y=[6], z=[6], w=[6])
    result, report = shared(model)
    assert report.nodes > 0
    assert list(result.outputs()) == ["p", "q", "y", "z", "w"]
    same(model, result, {"x": X})


def test_a_weight_that_is_an_output_keeps_its_name() -> None:
    net = Net(6)
    values = net.rng.normal(size=(1, 6))
    net.node("Sum", "y", "x", net.constant("v", values), net.constant("w", values))
    for name in ("v", "w"):
        proto = net.proto(y=[6])
        proto.graph.output.append(helper.make_tensor_value_info(name, 1, [1, 6]))
        model = Model.from_proto(proto)
        result = model.copy()
        assert Deduplicate()(result, Context()).weights == 1
        assert [tensor.name for tensor in result.graph.outputs] == ["y", name]
        same(model, result, {"x": X})


def test_several_outputs_of_a_node() -> None:
    net = Net(6)
    for name in ("p", "q"):
        net.nodes.append(helper.make_node("Split", ["x", "sizes"], [f"{name}1", f"{name}2"], name, axis=1))
    net.ints("sizes", 2, 4)
    net.node("Concat", "y", "p2", "q1", axis=1)
    model = of(net, y=[6])
    result, report = shared(model)
    assert report.nodes == 1 and operators(result) == ["Concat", "Split"]
    same(model, result, {"x": X})


@pytest.mark.xfail(strict=True, reason="onnx-graphsurgeon cannot write weights of 4 bits once they are read")
def test_weights_of_four_bits() -> None:
    """onnx-graphsurgeon reads them in a type of its own."""
    random = np.random.default_rng(0)
    values = [random.integers(-7, 8, 24), random.integers(-7, 8, 24)]
    stored = [
        helper.make_tensor(n, TensorProto.INT4, [6, 4], values[v])
        for n, v in (("q1", 0), ("q2", 1), ("q3", 0))
    ]
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    nodes = [helper.make_node("DequantizeLinear", [f"q{n}", "s"], [f"w{n}"], f"d{n}") for n in (1, 2, 3)]
    nodes += [helper.make_node("MatMul", ["x", f"w{n}"], [f"y{n}"], f"m{n}") for n in (1, 2, 3)]
    nodes.append(helper.make_node("Sum", ["y1", "y2", "y3"], ["y"], "sum"))
    graph = helper.make_graph(
        nodes,
        "int4",
        [helper.make_tensor_value_info("x", 1, ["N", 6])],
        [helper.make_tensor_value_info("y", 1, ["N", 4])],
        [*stored, scale],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    model = Model.from_proto(proto)
    wanted = X @ (0.5 * (2 * values[0] + values[1])).reshape(6, 4).astype(np.float32)
    result = Model.from_proto(proto)
    Deduplicate()(result, Context())
    np.testing.assert_allclose(run(model, {"x": X})[0], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(result, {"x": X})[0], wanted, rtol=1e-4, atol=1e-4)
