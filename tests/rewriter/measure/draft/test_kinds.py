"""The kind of an output comes from its numbers where samples run, from operators where there are none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.rewriter.measure.draft.kit import CLASSES, Task, classifier, draft, node

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
ROWS = (FLOAT, ["N", CLASSES])
MAP = (FLOAT, ["N", CLASSES, 1, 1])
HEADS = {
    "softmax": ([node("Softmax", "z", "y", axis=1)], ROWS, "probabilities"),
    "identity": ([node("Softmax", "z", "p", axis=1), node("Identity", "p", "y")], ROWS, "probabilities"),
    "half": (
        [node("Softmax", "z", "p", axis=1), node("Cast", "p", "y", to=HALF)],
        (HALF, ["N", CLASSES]),
        "probabilities",
    ),
    "exp of log": ([node("LogSoftmax", "z", "l", axis=1), node("Exp", "l", "y")], ROWS, "probabilities"),
    "by hand": (
        [node("Exp", "z", "e"), node("ReduceSum", "e", "s", keepdims=1), node("Div", "e s", "y")],
        ROWS,
        "probabilities",
    ),
    "clipped": (
        [node("Softmax", "z", "p", axis=1), node("Clip", "p lo hi", "y")],
        ROWS,
        "probabilities",
    ),
    "sigmoid": ([node("Sigmoid", "z", "y")], ROWS, "sigmoid"),
    "log-softmax": ([node("LogSoftmax", "z", "y", axis=1)], ROWS, "logits"),
    "logits": ([node("Identity", "z", "y")], ROWS, "logits"),
    "temperature": ([node("Mul", "z hi", "y")], ROWS, "logits"),
    "not below 0": ([node("Relu", "z", "y")], ROWS, "logits"),
    "straight sigmoid": (
        [node("Mul", "z fifth", "m"), node("Add", "m half", "a"), node("Clip", "a zero one", "y")],
        ROWS,
        "sigmoid",
    ),
}


def net(task: Task, name: str) -> tuple[onnx.ModelProto, str]:
    after, output, kind = HEADS[name]
    if name == "by hand":
        after = [
            node("ReduceSum", "e axes", "s", keepdims=1) if each.op_type == "ReduceSum" else each
            for each in after
        ]
    numbers = {"lo": 1e-7, "hi": 1 - 1e-7, "fifth": 0.2, "half": 0.5, "zero": 0.0, "one": 1.0}
    extra = [
        *(onnx.helper.make_node("Constant", [], [key], value_float=value) for key, value in numbers.items()),
        onnx.helper.make_node("Constant", [], ["axes"], value_ints=[1]),
    ]
    return classifier(task, ["N", 8, 8], after=[*extra, *after], output=output), kind


@pytest.mark.parametrize("with_data", [True, False], ids=["data", "no data"])
@pytest.mark.parametrize("name", HEADS)
def test_kind(name: str, with_data: bool) -> None:
    task = Task()
    proto, kind = net(task, name)
    found = draft(proto, task.split() if with_data else None)
    assert found.card.output.kind == kind
    assert found.card.labels == ("0", "1", "2", "3")
    if with_data:
        reached = (task.posterior.argmax(axis=1) == task.labels).mean()
        if name not in ("not below 0", "straight sigmoid"):  # these make ties of different scores
            assert found.top1 == pytest.approx(reached, abs=0.02)
        assert not found.problem


@pytest.mark.parametrize("shape", [["N", 1], ["N"]])
@pytest.mark.parametrize("with_data", [True, False], ids=["data", "no data"])
def test_one_sigmoid_is_binary(shape: list[object], with_data: bool) -> None:
    task = Task(classes=2)
    difference = [node("Split", "z", "z0 z1", axis=1), node("Sub", "z1 z0", "d"), node("Sigmoid", "d", "p")]
    last = [node("Identity", "p", "y") if len(shape) == 2 else node("Squeeze", "p axes", "y")]
    axes = [onnx.helper.make_node("Constant", [], ["axes"], value_ints=[1])]
    proto = classifier(task, ["N", 8, 8], after=[*axes, *difference, *last], output=(FLOAT, shape))
    found = draft(proto, task.split(names=["cat", "dog"]) if with_data else None)
    assert found.card.output.kind == "binary"
    assert found.card.labels == (("cat", "dog") if with_data else ("0", "1"))
    if with_data:
        assert found.top1 > 0.8
        assert found.card.inputs[0].scale == pytest.approx(1 / 255)


def test_two_columns_that_sum_to_one_are_probabilities() -> None:
    task = Task(classes=2)
    after = [
        node("Split", "z", "z0 z1", axis=1),
        node("Sub", "z1 z0", "d"),
        node("Sigmoid", "d", "p"),
        onnx.helper.make_node("Constant", [], ["one"], value_float=1.0),
        node("Sub", "one p", "q"),
        node("Concat", "q p", "y", axis=1),
    ]
    proto = classifier(task, ["N", 8, 8], after=after, output=(FLOAT, ["N", 2]))
    assert draft(proto).card.output.kind == "probabilities"
    assert draft(proto, task.split()).card.output.kind == "probabilities"


def test_a_single_column_of_other_numbers_is_refused() -> None:
    task = Task(classes=2)
    after = [node("Split", "z", "z0 z1", axis=1), node("Sub", "z1 z0", "y")]
    proto = classifier(task, ["N", 8, 8], after=after, output=(FLOAT, ["N", 1]))
    for part in (None, task.split()):
        with pytest.raises(Exception, match="no probabilities.*Sigmoid"):
            draft(proto, part)


@pytest.mark.parametrize("operators", ["Relu", "Mul Relu", "LeakyRelu Add"])
def test_logits_that_happen_to_be_from_0_to_1_are_logits_without_samples(operators: str) -> None:
    task = Task()
    name, nodes = "z", [onnx.helper.make_node("Constant", [], ["c"], value_float=1e-3)]
    for place, op in enumerate(operators.split()):
        nodes.append(node(op, f"{name} c" if op in ("Mul", "Add") else name, f"h{place}"))
        name = f"h{place}"
    nodes.append(node("Identity", name, "y"))
    weights, bias = task.head()
    proto = classifier(task, ["N", 8, 8], after=nodes)
    for tensor, values in zip(proto.graph.initializer, (weights, bias), strict=True):
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.abs(values) * np.float32(1e-6), tensor.name))
    assert draft(proto).card.output.kind == "logits"
