"""Cells spelled out in a Loop or Scan: raised where they are exactly an operator, else left whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.passes.normalize.recurrent_layout import RecurrentLayout
from graft.passes.normalize.recurrent_loops import RaiseLoops
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from tests import small

STEPS, FEATURES, UNITS = 5, 3, 4


class Body:
    """The nodes of one step, from ``step`` (samples, features) and states ``h`` and ``c``."""

    def __init__(self, seed: int = 0, name: str = "body") -> None:
        self.name = name
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"{self.name}_k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.name}_{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def weighted(self, value: str, size: int) -> str:
        return self.node("MatMul", value, self.constant(self.random.normal(0, 0.7, (size, UNITS))))

    def gate(self, before: str = "h") -> str:
        total = self.node(
            "Add", self.weighted("step", FEATURES), self.constant(self.random.normal(size=UNITS))
        )
        return self.node("Add", total, self.weighted(before, UNITS))

    def hard(self, value: str) -> str:
        value = self.node("Mul", value, self.constant(0.25))
        value = self.node("Min", self.node("Add", value, self.constant(0.4)), self.constant(1.0))
        return self.node("Max", value, self.constant(0.0))


def lstm(body: Body) -> tuple[str, ...]:
    entry, forget, out = (body.node("Sigmoid", body.gate()) for _ in range(3))
    added = body.node("Mul", entry, body.node("Tanh", body.gate()))
    cell = body.node("Add", body.node("Mul", forget, "c"), added)
    return body.node("Mul", out, body.node("Tanh", cell)), cell


def hard_lstm(body: Body) -> tuple[str, ...]:
    entry, forget, out = (body.hard(body.gate()) for _ in range(3))
    added = body.node("Mul", body.node("Softsign", body.gate()), entry)
    cell = body.node("Add", added, body.node("Mul", "c", forget))
    return body.node("Mul", body.node("Tanh", cell), out), cell


def gru(body: Body) -> tuple[str, ...]:
    update, reset = (body.hard(body.gate()) for _ in range(2))
    made = body.node("Tanh", body.gate(body.node("Mul", reset, "h")))
    rest = body.node("Sub", body.constant(1.0), update)
    return (body.node("Add", body.node("Mul", update, "h"), body.node("Mul", rest, made)),)


def gru_reset_after(body: Body) -> tuple[str, ...]:
    update, reset = (body.node("Sigmoid", body.gate()) for _ in range(2))
    own = body.node("Add", body.weighted("h", UNITS), body.constant(body.random.normal(size=UNITS)))
    data = body.node("Add", body.weighted("step", FEATURES), body.constant(body.random.normal(size=UNITS)))
    made = body.node("Tanh", body.node("Add", data, body.node("Mul", reset, own)))
    rest = body.node("Sub", body.constant([1.0]), update)
    return (body.node("Add", body.node("Mul", rest, made), body.node("Mul", update, "h")),)


def rnn(body: Body) -> tuple[str, ...]:
    return (body.node("Relu", body.gate()),)


def minimal_gate(body: Body) -> tuple[str, ...]:
    """A unit that has no operator: its gate reads the data only."""
    update = body.node("Sigmoid", body.weighted("step", FEATURES))
    rest = body.node("Sub", body.constant(1.0), update)
    made = body.node("Tanh", body.gate())
    return (body.node("Add", body.node("Mul", update, "h"), body.node("Mul", rest, made)),)


def mixed_gates(body: Body) -> tuple[str, ...]:
    """An LSTM whose gates are not alike."""
    entry, forget, out = body.hard(body.gate()), *(body.node("Sigmoid", body.gate()) for _ in range(2))
    cell = body.node(
        "Add", body.node("Mul", forget, "c"), body.node("Mul", entry, body.node("Tanh", body.gate()))
    )
    return body.node("Mul", out, body.node("Tanh", cell)), cell


def leaking(body: Body) -> tuple[str, ...]:
    """A GRU that forgets a little more than all."""
    update, reset = (body.node("Sigmoid", body.gate()) for _ in range(2))
    made = body.node("Tanh", body.gate(body.node("Mul", reset, "h")))
    rest = body.node("Sub", body.constant(0.9), update)
    return (body.node("Add", body.node("Mul", update, "h"), body.node("Mul", rest, made)),)


def twice(body: Body) -> tuple[str, ...]:
    """A plain cell, but what it shows of each step is doubled."""
    return (body.node("Relu", body.gate()), "doubled")


LoopCell = Callable[[Body], tuple[str, ...]]


def looped(cell: LoopCell, op: str, steps: int = STEPS, all_steps: bool = True) -> onnx.ModelProto:
    body = Body()
    made = cell(body)
    shown = made[0]
    if made[-1] == "doubled":
        made, shown = made[:1], body.node("Add", made[0], made[0])
    shown = body.node("Identity", shown)
    states = ["h", "c"][: len(made)]
    value = helper.make_tensor_value_info
    inner = [value(name, TensorProto.FLOAT, ["N", UNITS]) for name in states]
    ends = [value(name, TensorProto.FLOAT, ["N", UNITS]) for name in (*made, shown)]
    graph = Body(1, "outer")
    batch = graph.node("Slice", graph.node("Shape", "x"), *(graph.constant([n], np.int64) for n in (0, 1)))
    size = graph.node("Concat", batch, graph.constant([UNITS], np.int64), axis=0)
    zeros = graph.node("Expand", graph.constant(0.0), size)
    time = graph.node("Transpose", "x", perm=[1, 0, 2])
    if op == "Loop":
        body.nodes.insert(0, helper.make_node("Gather", [time, "count"], ["step"], name="step", axis=0))
        more = body.node(
            "Less", body.node("Add", "count", body.constant(1, np.int64)), body.constant(steps, np.int64)
        )
        inner = [value("number", TensorProto.INT64, []), value("going", TensorProto.BOOL, []),
                 value("count", TensorProto.INT64, []), *inner]  # fmt: skip
        count = next(node.output[0] for node in body.nodes if node.op_type == "Add" and "count" in node.input)
        ends = [value(more, TensorProto.BOOL, []), value(count, TensorProto.INT64, []), *ends]
        inputs = ["", graph.constant(True, bool), graph.constant(0, np.int64), *[zeros] * len(states)]
        outputs = ["counted", *(f"last_{name}" for name in states), "all"]
        more_attributes = {}
    else:
        inner.append(value("step", TensorProto.FLOAT, ["N", FEATURES]))
        inputs, outputs = [*[zeros] * len(states), time], [*(f"last_{name}" for name in states), "all"]
        more_attributes = {"num_scan_inputs": 1}
    step = helper.make_graph(body.nodes, "body", inner, ends, body.constants)
    graph.nodes.append(helper.make_node(op, inputs, outputs, name="cell", body=step, **more_attributes))
    end = graph.node("ReduceMean", "all", axes=[0], keepdims=0) if all_steps else "last_h"
    end = graph.node("Add", end, f"last_{states[-1]}")
    graph.nodes.append(
        helper.make_node("MatMul", [end, graph.constant(graph.random.normal(size=(UNITS, 4)))], ["y"])
    )
    graph.nodes[-1].name = "head"
    outer = helper.make_graph(
        graph.nodes,
        "looped",
        [value("x", TensorProto.FLOAT, ["N", STEPS, FEATURES])],
        [value("y", TensorProto.FLOAT, ["N", 4])],
        graph.constants,
    )
    proto = helper.make_model(outer, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)


@pytest.mark.parametrize("all_steps", [True, False])
@pytest.mark.parametrize("op", ["Loop", "Scan"])
@pytest.mark.parametrize(
    ("cell", "expected"),
    [(lstm, "LSTM"), (hard_lstm, "LSTM"), (gru, "GRU"), (gru_reset_after, "GRU"), (rnn, "RNN")],
)
def test_a_cell_is_raised(cell: LoopCell, expected: str, op: str, all_steps: bool) -> None:
    proto = looped(cell, op, all_steps=all_steps)
    x = np.random.default_rng(0).normal(size=(6, STEPS, FEATURES)).astype(np.float32)
    before = small.run(proto, x)["y"]
    model = Model.from_proto(proto)
    report = RecurrentLayout()(model, small.context())
    assert report.rules["loops"] == 1 and not report.declined
    kinds = [node.op for node in model.graph.nodes]
    assert expected in kinds and op not in kinds
    np.testing.assert_allclose(small.run(model, x)["y"], before, atol=1e-5)
    assert ChannelGroups(model)["cell/cell"].cuttable.all()


@pytest.mark.parametrize("op", ["Loop", "Scan"])
@pytest.mark.parametrize("cell", [minimal_gate, mixed_gates, leaking, twice])
def test_what_is_no_operator_stays_whole(cell: LoopCell, op: str) -> None:
    proto = looped(cell, op)
    x = np.random.default_rng(0).normal(size=(6, STEPS, FEATURES)).astype(np.float32)
    model = Model.from_proto(proto)
    report = RecurrentLayout()(model, small.context())
    assert [each.where for each in report.declined] == [f"{op} cell"]
    assert op in [node.op for node in model.graph.nodes]
    np.testing.assert_allclose(small.run(model, x)["y"], small.run(proto, x)["y"], atol=1e-6)


def test_a_loop_over_some_of_the_steps_stays_whole() -> None:
    model = Model.from_proto(looped(lstm, "Loop", steps=STEPS - 1))
    (declined,) = RaiseLoops()(model, small.context()).declined
    assert declined.reason == "stays whole: it does not run over all steps of its data"
    assert "Loop" in [node.op for node in model.graph.nodes]
