"""The output of a module equals what the parent's output says about its classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.passes.cut.head import REST, Head
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.card.output_card import OutputCard
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.run.session import Device
from tests import small
from tests.small import Array, Net

OPSETS = [11, 12, 13, 17, 18, 21]
KINDS = ["logits", "probabilities"]


def parent(opset: int, kind: str, head: str = "last") -> tuple[Model, Callable[[Array], Array]]:
    """A net of five classes, and a function that gives its logits."""
    labels = (*small.LABELS, "e")
    net = Net(2, 6, 5, opset=opset)
    relu = net.node("Relu", "relu", net.conv("conv", "x", 6, 2))
    flat = net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", relu))
    logits = net.gemm("y" if kind == "logits" else "logits", flat, 5, 6)
    if kind == "probabilities" and head == "last":
        net.node("Softmax", "y", logits, axis=1)
    elif kind == "probabilities":  # not made by a Softmax that can be seen
        net.node("Mul", "y", net.node("Softmax", "soft", logits, axis=1), net.constant("one", np.ones(5)))
    return small.model(net, kind, labels), lambda x: small.activations(net, x, logits)[logits]


def headed(model: Model, head: Head) -> Model:
    result = model.copy()
    report = head(result, small.context())
    onnx.checker.check_model(result.proto(), full_check=True)
    card = result.require_card()
    assert report.labels == card.labels
    card.check_against(result.inputs(), result.outputs())
    assert len(result.graph.outputs) == 1 + (REST in result.outputs())
    assert result.outputs()["y"][1] == ("N", len(card.labels))
    return result


def said(kind: str, scores: Array) -> Array:
    return small.softmax(scores) if kind == "probabilities" else scores


X = small.inputs([2, 6, 5], 9)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("kind", KINDS)
def test_pair(opset: int, kind: str) -> None:
    model, logits = parent(opset, kind)
    for number, label in enumerate(model.require_card().labels):
        module = headed(model, Head((label,), rest=True))
        assert module.require_card().labels == (label, OTHER)
        assert list(module.outputs()) == ["y"]
        own, others = logits(X)[:, [number]], np.delete(logits(X), number, axis=1)
        wanted = said(kind, np.concatenate([own, small.logsumexp(others)], axis=1))
        np.testing.assert_allclose(small.run(module, X)["y"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", ["b", "bd", "db", "eacb", "edcba"])
def test_together_in_the_order_asked_for(opset: int, kind: str, classes: str) -> None:
    model, logits = parent(opset, kind)
    module = headed(model, Head(tuple(classes), together=True))
    assert module.require_card().labels == tuple(classes)
    assert list(module.outputs()) == ["y"]
    wanted = said(kind, logits(X)[:, ["abcde".index(label) for label in classes]])
    np.testing.assert_allclose(small.run(module, X)["y"], wanted, rtol=1e-4, atol=1e-5)
    rows = 5 - len(classes)
    assert cost_of(module).parameters == cost_of(model).parameters - 7 * rows


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("made", ["last", "hidden"])
def test_other_is_one_more_column(opset: int, kind: str, made: str) -> None:
    model, logits = parent(opset, kind, made)
    module = headed(
        model,
        Head(
            (
                "d",
                "a",
            ),
            other=True,
            rest=True,
        ),
    )
    assert module.require_card().labels == ("d", "a", OTHER)
    assert list(module.outputs()) == ["y"]
    rest = small.logsumexp(logits(X)[:, [1, 2, 4]])
    wanted = said(kind, np.concatenate([logits(X)[:, [3, 0]], rest], axis=1))
    if made == "hidden":
        assert kind == "logits" or "Log" in {node.op for node in module.graph.nodes}
    np.testing.assert_allclose(small.run(module, X)["y"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("made", ["last", "hidden"])
def test_rest_is_an_output_of_its_own(opset: int, kind: str, made: str) -> None:
    model, logits = parent(opset, kind, made)
    module = headed(
        model,
        Head(
            (
                "d",
                "a",
            ),
            rest=True,
        ),
    )
    assert module.outputs()[REST][1] == ("N", 1)
    found = small.run(module, X)
    rest = small.logsumexp(logits(X)[:, [1, 2, 4]])
    if kind == "probabilities":
        rest = rest - small.logsumexp(logits(X))
    np.testing.assert_allclose(found[REST], rest, rtol=1e-4, atol=1e-5)
    wanted = said(kind, logits(X)[:, [3, 0]])
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_all_classes_leave_the_output_as_it_is(kind: str) -> None:
    model, _ = parent(17, kind)
    module = headed(model, Head(tuple("abcde"), rest=True))
    assert list(module.outputs()) == ["y"]
    np.testing.assert_array_equal(small.run(module, X)["y"], small.run(model, X)["y"])


def test_all_classes_and_other_leave_nothing_for_other() -> None:
    model, _ = parent(17, "logits")
    with pytest.raises(GraftError):
        headed(model, Head(tuple("abcde"), other=True))


def test_other_outputs_of_the_parent_are_dropped_with_what_makes_them() -> None:
    net = small.conv_net()
    net.node("Sigmoid", "aux", net.conv("aux_conv", "relu1", 3, 6))
    model = Model.from_proto(net.proto(y=[4], aux=[3, 2, 1]), small.card())
    module = headed(
        model,
        Head(
            (
                "a",
                "b",
            )
        ),
    )
    assert list(module.outputs()) == ["y"]
    assert "aux_conv" not in {node.name for node in module.graph.nodes}
    whole = headed(model, Head(tuple("abcd"), together=True))
    assert list(whole.outputs()) == ["y"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_one_label_a_time_step(kind: str, opset: int) -> None:
    net = Net(5, 3, opset=opset)
    relu = net.node("Relu", "relu", net.node("MatMul", "one", "x", net.weight("w1", 3, 6)))
    name = "y" if kind == "logits" else "logits"
    logits = net.node("MatMul", name, relu, net.weight("w2", 6, 4))
    if kind == "probabilities":
        net.node("Softmax", "y", logits, axis=2)
    card = small.card(kind=kind, steps=True)
    model = Model.from_proto(net.proto(y=[5, 4]), card)
    x = small.inputs([5, 3], 6)
    scores = small.activations(net, x, logits)[logits]
    for head, columns in (
        (Head(("c",)), [2]),
        (
            Head(
                (
                    "d",
                    "a",
                ),
                other=True,
            ),
            [3, 0],
        ),
    ):
        module = model.copy()
        head(module, small.context())
        others = [column for column in range(4) if column not in columns]
        rest = small.logsumexp(scores[..., others])
        wanted = said(kind, np.concatenate([scores[..., columns], rest], axis=-1))
        np.testing.assert_allclose(small.run(module, x)["y"], wanted, rtol=1e-4, atol=1e-5)


def test_an_unknown_class_is_refused() -> None:
    model, _ = parent(17, "logits")
    with pytest.raises(GraftError) as caught:
        Head(("z",))(model, small.context())
    assert caught.value.code == "class-unknown"


def test_an_output_of_another_kind_is_refused() -> None:
    model, _ = parent(17, "logits")
    model.card = small.card(tuple("abcde"), "sigmoid")
    with pytest.raises(GraftError) as caught:
        Head(("a",))(model, small.context())
    assert caught.value.code == "output-kind"


def test_the_report_names_the_nodes_that_make_the_classes() -> None:
    model, _ = parent(17, "probabilities")
    report = Head(("a",))(model, small.context())
    assert "logits" in report.nodes
    assert "conv" not in report.nodes
    assert {node.name for node in model.graph.nodes} - {"conv", "relu", "pool", "flat"} <= report.nodes


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("classes", [("b",), ("d", "a")])
def test_scores_with_trailing_axes_of_size_one(kind: str, classes: tuple[str, ...]) -> None:
    """A 1x1 convolution and a global pooling as head: the output is (N, K, 1, 1)."""
    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.normal(size=(4, 3, 1, 1)).astype(np.float32), "w")
    end = "y" if kind == "logits" else "z"
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], [end]),
        *([] if kind == "logits" else [helper.make_node("Softmax", ["z"], ["y"], axis=1)]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 5, 5]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 1, 1]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = Card(
        inputs=(InputCard(name="x", kind="tensor"),),
        output=OutputCard(name="y", kind=kind),
        labels=tuple("abcd"),
    )
    inputs = {"x": random.normal(size=(6, 3, 5, 5)).astype(np.float32)}
    parent = Device(("cpu",)).open(proto).run(inputs)["y"][:, :, 0, 0]
    model = Model.from_proto(proto, card)
    Head(classes)(model, small.context())
    found = Device(("cpu",)).open(model).run(inputs)["y"]
    logits = np.log(parent) if kind == "probabilities" else parent
    wanted = ["abcd".index(name) for name in classes]
    columns = logits[:, wanted]
    if len(classes) == 1:
        rest = np.exp(np.delete(logits, wanted, axis=1)).sum(axis=1, keepdims=True)
        columns = np.concatenate([columns, np.log(rest)], axis=1)
    if kind == "probabilities":
        columns = np.exp(columns) / np.exp(columns).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, columns, rtol=1e-4, atol=1e-5)


def test_several_scores_for_each_sample_and_class_are_refused() -> None:
    """Boxes of a detector: (samples, places, classes) is no output that has columns of a class."""
    net = Net(6)
    flat = net.node("MatMul", "flat", "x", net.weight("w", 6, 50))
    net.node("Reshape", "y", flat, net.ints("shape", -1, 10, 5))
    proto = net.proto(y=[10, 5])
    found = Model.from_proto(proto, small.card([*small.LABELS, "e"]))
    with pytest.raises(GraftError, match="several scores for each sample and class"):
        Head(("a", "b"), together=True)(found, small.context())


def test_a_softmax_along_an_axis_beyond_the_rank_is_refused_in_one_line() -> None:
    """onnxruntime runs it, along some other axis."""
    net = Net(6)
    net.node("Softmax", "y", net.gemm("logits", "x", 4, 6), axis=1)
    proto = net.proto(y=[4])
    proto.graph.node[-1].attribute[0].i = 2**36
    found = Model.from_proto(proto, small.card(kind="probabilities"))
    with pytest.raises(GraftError, match="do not fit together"):
        Head(("c", "a"), together=True)(found, small.context())
