"""The simplifier looks things up in a time that grows with the graph, and makes the same of it."""

from __future__ import annotations

import importlib
import logging

import numpy as np
import onnx
import onnxslim
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxslim.third_party.onnx_graphsurgeon.ir import graph as slim_graph
from onnxslim.third_party.onnx_graphsurgeon.ir import node as slim_node
from onnxslim.third_party.onnx_graphsurgeon.ir import tensor as slim_tensor

from graft.passes.base import Context
from graft.passes.normalize.simplify import Normalize
from graft.passes.normalize.slim_speed import searches_bounded
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4)).astype("f")


def model(nodes: list[onnx.NodeProto], outputs: list[str], **constants: object) -> onnx.ModelProto:
    """A graph on ``x``, (n, 4)."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in names]
        for names in (["x"], outputs)
    ]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), output.split(), f"node_{output.split()[0]}", **attributes)


def equal_nodes() -> onnx.ModelProto:
    """Equal nodes with equal attributes, constants and inputs, and nodes that differ in one of them."""
    nodes = [
        *(node("Relu", "x", f"r{at}") for at in range(3)),
        *(node("LeakyRelu", "x", f"l{at}", alpha=0.1 * (at % 2)) for at in range(4)),
        *(node("Add", f"r{at} {name}", f"a{at}{name}") for at in range(3) for name in ("one", "same", "two")),
        *(node("Add", f"one r{at}", f"b{at}") for at in range(2)),
        node("Concat", "r0 r1 r1 l0 l1 l2 l3 r0", "cat", axis=1),
        node("Concat", "r0 r1 r1 l0 l1 l2 l3 r0", "dog", axis=1),
        node("Concat", "r0 r1 r1 l0 l1 l2 l3 r0", "cow", axis=0),
        node("MatMul", "cat w", "m"),
        node("MatMul", "dog w", "n"),
        node("ReduceMean", "cow", "mean", axes=[0], keepdims=1),
        node("Sum", "m n a0one a1same a2two a1two b0 b1 l2 mean", "s"),
        node("Relu", "x", "out"),
        node("Relu", "x", "other"),
    ]
    one, two = np.full(4, 0.5, "f"), np.array([0.5, 0.5, 0.5, 1], "f")
    w = RNG.normal(size=(32, 4)).astype("f")
    return model(nodes, ["s", "out", "other", "a0two"], one=one, same=one.copy(), two=two, w=w)


def shared_tensors() -> onnx.ModelProto:
    """Nodes that go, before and behind tensors with several readers, one in a branch."""
    out = [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)]
    branches = [
        helper.make_graph([node(op, "i1", "t")], name, [], out)
        for op, name in (("Neg", "then"), ("Abs", "other"))
    ]
    nodes = [
        node("Relu", "x", "r"),
        *(node("Identity", "r", f"i{at}") for at in range(4)),
        node("Add", "i0 zero", "z"),
        node("Mul", "z one", "o"),
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m zero", "c"),
        node("If", "c", "f", then_branch=branches[0], else_branch=branches[1]),
        node("Sum", "i0 i1 i2 i3 o f", "s"),
    ]
    return model(nodes, ["s", "i3"], zero=np.float32(0), one=np.float32(1))


def branch(op: str, name: str) -> onnx.GraphProto:
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
    return helper.make_graph([helper.make_node(op, ["x"], [name], f"branch_{name}")], f"in_{name}", [], out)


def branches() -> onnx.ModelProto:
    """Branches that compute the same, one of them under the same names, and fused convolutions."""
    ways = [
        node("If", "c", f"f{at}", then_branch=branch(op, name), else_branch=branch("Abs", f"e{name}"))
        for at, (op, name) in enumerate((("Neg", "t"), ("Neg", "t"), ("Exp", "t"), ("Neg", "u")))
    ]
    convolved = [
        node("Reshape", "x shape", "image"),
        node("Conv", "image w", "conv"),
        node("BatchNormalization", "conv scale bias mean var", "norm"),
        node("Reshape", "norm back", "flat"),
    ]
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m zero", "c"), *ways, *convolved]
    scale, bias, mean, var = (RNG.uniform(0.5, 2, 4).astype("f") for _ in range(4))
    return model(
        [*nodes, node("Sum", "f0 f1 f2 f3 flat", "y")],
        ["y"],
        zero=np.float32(0),
        shape=np.array([-1, 4, 1, 1]),
        back=np.array([-1, 4]),
        w=RNG.normal(size=(4, 4, 1, 1)).astype("f"),
        scale=scale,
        bias=bias,
        mean=mean,
        var=var,
    )


def sorted_badly() -> onnx.ModelProto:
    """Long and short ways to a node, in another order than by their lengths."""
    nodes = [
        *(node("Sin", "x" if at == 0 else f"s{at - 1}", f"s{at}") for at in range(4)),
        node("Cos", "x", "c"),
        node("Add", "c s3", "y"),
    ]
    return model(nodes, ["y"])


@pytest.mark.parametrize("make", [equal_nodes, shared_tensors, branches, sorted_badly])
def test_the_simplifier_makes_the_same(make: object) -> None:
    given = make()  # type: ignore[operator]
    plain = onnxslim.slim(onnx.ModelProto.FromString(given.SerializeToString()))
    with searches_bounded(len(given.graph.node)):
        found = onnxslim.slim(onnx.ModelProto.FromString(given.SerializeToString()))
    assert found == plain
    assert len(found.graph.node) < len(given.graph.node) or make is sorted_badly
    device = Device(("cpu",))
    expected, values = (device.open(each).run({"x": X}) for each in (given, found))
    assert all(values[name] == pytest.approx(expected[name], abs=1e-5) for name in expected)


def test_nodes_with_more_outputs_than_others_stay() -> None:
    nodes = [
        node("Unsqueeze", "x axes", "u"),
        node("MaxPool", "u", "v", kernel_shape=[1]),
        node("MaxPool", "u", "w i", kernel_shape=[1]),
        node("Cast", "i", "f", to=TensorProto.FLOAT),
        node("Sum", "v w f", "s"),
        node("Squeeze", "s axes", "y"),
    ]
    subject = Model.from_proto(model(nodes, ["y"], axes=np.array([1])))
    Normalize()(subject, Context())
    found = Device(("cpu",)).open(subject).run({"x": X})["y"]
    assert found == pytest.approx(2 * X + np.arange(12).reshape(3, 4), abs=1e-5)


NUMBER = 1200
READERS = {
    "nodes that go": [*(node("Identity", "x", f"r{at}") for at in range(NUMBER))],
    "equal readers": [*(node("Relu", "x", f"r{at}") for at in range(NUMBER))],
    "distinct readers": [*(node("LeakyRelu", "x", f"r{at}", alpha=at / NUMBER) for at in range(NUMBER))],
    "constants": [*(node("Add", f"x c{at}", f"r{at}") for at in range(NUMBER))],
}


def summed(nodes: list[onnx.NodeProto], published: bool) -> onnx.ModelProto:
    names = [made.output[0] for made in nodes]
    constants = {name: np.float32(at + 1) for at, name in enumerate(_names(nodes, "c"))}
    whole = [*nodes, helper.make_node("Sum", names, ["y"], "sum")]
    return model(whole, ["y", *names] if published else ["y"], **constants)


def _names(nodes: list[onnx.NodeProto], start: str) -> list[str]:
    return [name for each in nodes for name in each.input if name.startswith(start)]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count what nodes and tensors are compared with one another."""
    count = [0]
    subexpressions = importlib.import_module("onnxslim.core.optimization.subexpression_elimination")
    for owner, name in (
        *((slim_tensor.Variable, "__eq__"), (slim_tensor.Constant, "__eq__"), (slim_node.Node, "__eq__")),
        (subexpressions, "can_be_replaced"),
    ):
        whole = getattr(owner, name)

        def call(*given: object, whole: object = whole) -> object:
            count[0] += 1
            return whole(*given)  # type: ignore[operator]

        monkeypatch.setattr(owner, name, call)
    return count


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("kind", READERS)
def test_thousands_of_readers_are_not_compared_in_pairs(
    kind: str, published: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    count = counted(monkeypatch)
    subject = Model.from_proto(summed(READERS[kind], published))
    with caplog.at_level(logging.WARNING):
        Normalize()(subject, Context())
    assert count[0] < 100 * NUMBER and not caplog.messages
    found = Device(("cpu",)).open(subject).run({"x": X})
    wanted = {
        "nodes that go": NUMBER * X,
        "equal readers": NUMBER * np.maximum(X, 0),
        "distinct readers": np.where(X > 0, NUMBER, (NUMBER - 1) / 2) * X,
        "constants": NUMBER * X + NUMBER * (NUMBER + 1) / 2,
    }
    assert found["y"] == pytest.approx(wanted[kind], rel=1e-4)
    assert len(found) == (NUMBER + 1 if published else 1)
    left = {"equal readers": 2, "nodes that go": 1}.get(kind, NUMBER + 1)
    assert len(subject.graph.nodes) == (NUMBER + 1 if published else left)


def test_thousands_of_branches_are_not_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    count, number = counted(monkeypatch), 150
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m zero", "c")]
    for at in range(number):
        ways = {f"{name}_branch": branch("Neg", f"{name}{at}") for name in ("then", "else")}
        nodes.append(node("If", "c", f"f{at}", **ways))
    names = " ".join(f"f{at}" for at in range(number))
    subject = Model.from_proto(model([*nodes, node("Sum", names, "y")], ["y"], zero=np.float32(0)))
    Normalize()(subject, Context())
    assert count[0] < 50 * number
    assert Device(("cpu",)).open(subject).run({"x": X})["y"] == pytest.approx(-number * X, rel=1e-5)


def test_a_fusion_does_not_look_through_the_whole_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    count, number, whole = [0], 60, slim_graph.Graph.tensors

    def call(*given: object, **options: object) -> object:
        count[0] += 1
        return whole(*given, **options)

    monkeypatch.setattr(slim_graph.Graph, "tensors", call)
    nodes, constants = [node("Reshape", "x shape", "n0")], {"shape": np.array([-1, 4, 1, 1])}
    weight, image = np.eye(4, dtype="f")[:, :, None, None], X
    for at in range(number):
        nodes.append(node("Conv", f"n{at} w", f"c{at}"))
        nodes.append(node("BatchNormalization", f"c{at} one b{at} zero one", f"n{at + 1}", epsilon=0.0))
        constants[f"b{at}"] = RNG.normal(size=4).astype("f")
        image = image + constants[f"b{at}"]
    nodes.append(node("Reshape", f"n{number} back", "y"))
    constants |= {"w": weight, "one": np.ones(4, "f"), "zero": np.zeros(4, "f"), "back": np.array([-1, 4])}
    subject = Model.from_proto(model(nodes, ["y"], **constants))
    Normalize()(subject, Context())
    assert len(subject.graph.nodes) == number + 2 and count[0] < number
    assert Device(("cpu",)).open(subject).run({"x": X})["y"] == pytest.approx(image, abs=1e-4)


def test_readers_that_would_move_time_and_again_stay(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [node("Relu", "x", "r"), *(node("Identity", "r", f"r{at}") for at in range(NUMBER))]
    names = " ".join(f"r{at}" for at in range(NUMBER))
    subject = Model.from_proto(model([*nodes, node("Sum", names, "y")], ["y"]))
    with caplog.at_level(logging.WARNING):
        Normalize()(subject, Context())
    assert "too many readers" in caplog.text
    found = Device(("cpu",)).open(subject).run({"x": X})["y"]
    assert found == pytest.approx(NUMBER * np.maximum(X, 0), rel=1e-4)
