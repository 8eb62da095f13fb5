"""Recurrent layers: cut equals masked, whatever the node, its direction and what is used of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graft.passes.cut.verify import mask
from graft.passes.normalize.recurrent_layout import RecurrentLayout
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import CostModel, cost_of
from graft.rewriter.operators import Read, consumer_of
from graft.rewriter.operators.recurrent import BIAS, DATA, FEATURES, RECURRENCE, SEQUENCE, WEIGHT
from tests import small

STEPS, SAMPLES = 4, 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
NAMES = ("Tanh", "Sigmoid", "Relu", "HardSigmoid", "Softsign")
OPEN = st.integers(0, 2**32 - 1)


@dataclass
class Layer:
    """A recurrent node of a test graph."""

    name: str
    directions: int
    units: int
    outputs: list[str]


@dataclass
class Drawn:
    """A random recurrent graph: ``x`` of (samples, steps, 3), and the output ``y``."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    def constant(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(name, self.random.normal(0, 0.8, shape).astype(np.float32))

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def flip(self, share: float = 0.5) -> bool:
        return bool(self.random.random() < share)

    def recurrent(self, number: int, x: str, features: int) -> Layer:
        """A layer that reads ``x`` (steps, samples, features)."""
        draw, name = self.random, f"layer{number}"
        op = str(draw.choice(list(GATES)))
        directions, units = int(draw.integers(1, 3)), int(draw.integers(2, 7))
        rows = GATES[op] * units
        inputs = [x, self.weight(f"{name}.W", directions, rows, features)]
        inputs += [self.weight(f"{name}.R", directions, rows, units)]
        inputs += [self.weight(f"{name}.B", directions, 2 * rows) if self.flip() else ""]
        lengths = np.array(draw.integers(1, STEPS + 1, SAMPLES), np.int32)
        inputs += [self.constant(f"{name}.lengths", lengths) if self.flip(0.3) else ""]
        zero = self.flip(0.3)
        for state in ("h", *(["c"] if op == "LSTM" else [])):
            values = draw.normal(size=(directions, SAMPLES, units)).astype(np.float32) * (not zero)
            inputs += [self.constant(f"{name}.{state}", values) if self.flip(0.3) else ""]
        if op == "LSTM":
            inputs += [self.weight(f"{name}.P", directions, 3 * units) if self.flip(0.3) else ""]
        attributes: dict[str, Any] = {"hidden_size": units}
        attributes["direction"] = (
            "bidirectional" if directions == 2 else str(draw.choice(["forward", "reverse"]))
        )
        if self.flip():
            chosen = draw.choice(NAMES, ACTIVATIONS[op]).tolist()
            attributes["activations"] = chosen * directions
        if op == "GRU":
            attributes["linear_before_reset"] = int(self.flip())
        if self.flip(0.2):
            attributes["clip"] = 1.5
        outputs = [f"{name}.Y", f"{name}.Y_h", *([f"{name}.Y_c"] if op == "LSTM" else [])]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))
        self.layers.append(Layer(name, directions, units, outputs))
        return self.layers[-1]

    def features(self, layer: Layer) -> str:
        """All steps of a layer as (steps, samples, directions * units), as frameworks write it."""
        name, wide = f"{layer.name}.features", layer.directions * layer.units
        if layer.directions == 1:
            return self.node("Squeeze", name, layer.outputs[0], self.constant(f"{name}.axes", np.array([1])))
        turned = self.node("Transpose", f"{name}.turned", layer.outputs[0], perm=[0, 2, 1, 3])
        shape = np.array([[0, 0, -1], [STEPS, -1, wide], [0, 0, wide]][int(self.random.integers(3))])
        return self.node("Reshape", name, turned, self.constant(f"{name}.shape", shape))

    def last(self, layer: Layer, place: int) -> list[str]:
        """The last state of each direction, as (samples, units)."""
        found, output = [], layer.outputs[place]
        for direction in range(layer.directions):
            name = f"{output}.{direction}"
            kind = int(self.random.integers(3))
            if kind == 0:
                found.append(
                    self.node("Gather", name, output, self.constant(f"{name}.i", np.array(direction)), axis=0)
                )
                continue
            part = output
            if layer.directions == 2:
                bounds = [
                    self.constant(f"{name}.{n}", np.array([v]))
                    for n, v in enumerate((direction, direction + 1, 0))
                ]
                part = self.node("Slice", f"{name}.part", output, *bounds)
            axes = self.constant(f"{name}.axes", np.array([0]))
            found.append(self.node("Squeeze", name, part, axes))
        return found

    def build(self) -> onnx.ModelProto:
        x = self.node("Transpose", "time", "x", perm=[1, 0, 2])
        if self.flip():
            x = self.node("MatMul", "embedding", x, self.weight("embedding.w", 3, 5))
        width = 5 if x == "embedding" else 3
        for number in range(int(self.random.integers(1, 3))):
            layer = self.recurrent(number, x, width)
            x, width = self.features(layer), layer.directions * layer.units
        ends = [
            (state, layer.units)
            for layer in self.layers
            for place in range(1, len(layer.outputs))
            if self.flip(0.4)
            for state in self.last(layer, place)
        ]
        if not ends or self.flip(0.7):
            ends.append((self.node("ReduceMean", f"{x}.mean", x, axes=[0], keepdims=0), width))
        parts = [
            self.node("MatMul", f"head{number}", end, self.weight(f"head{number}.w", size, 4))
            for number, (end, size) in enumerate(ends)
        ]
        self.node("Sum", "y", *parts)
        return self.model()

    def model(self) -> onnx.ModelProto:
        """The graph so far, which makes ``y``."""
        graph = helper.make_graph(
            self.nodes,
            "recurrent",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [SAMPLES, STEPS, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [SAMPLES, 4])],
            [numpy_helper.from_array(values, name) for name, values in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def masked(proto: onnx.ModelProto, layers: list[Layer], kept: dict[str, np.ndarray]) -> onnx.ModelProto:
    """``proto``, where removed units are zero for all that reads them: ``kept`` (directions, units)."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    weights = {tensor.name: tensor for tensor in result.graph.initializer}
    for layer in layers:
        stays = kept[layer.name].astype(np.float32)
        tensor = weights[f"{layer.name}.R"]
        values = numpy_helper.to_array(tensor) * stays[:, None, :]
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
        at = next(n for n, node in enumerate(result.graph.node) if node.name == layer.name)
        for place, output in enumerate(layer.outputs):
            shape = (1, -1, 1, layer.units) if place == 0 else (-1, 1, layer.units)
            flags = numpy_helper.from_array(stays.reshape(shape), f"{output}.stays")
            result.graph.initializer.append(flags)
            result.graph.node[at].output[place] = f"{output}.whole"
            times = helper.make_node("Mul", [f"{output}.whole", flags.name], [output], name=f"{output}.times")
            result.graph.node.insert(at + 1, times)
    return result


def units(groups: ChannelGroups, layer: Layer) -> list[np.ndarray]:
    """The channels of each direction of a layer: the same where one tensor holds both."""
    nodes = {node.name: node for node in groups.nodes}
    if layer.directions == 1:
        found = [nodes.get(layer.name)]
    else:
        found = [nodes.get(f"{layer.name}/{direction}") for direction in ("forward", "reverse")]
    return [np.arange(0) if node is None else groups.of(node.outputs[0])[3] for node in found]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(OPEN, st.floats(0.2, 0.9))
def test_cut_equals_masked(seed: int, share: float) -> None:
    drawn = Drawn(np.random.default_rng(seed))
    proto = drawn.build()
    random = np.random.default_rng(seed)
    x = random.normal(size=(SAMPLES, STEPS, 3)).astype(np.float32)
    model = Model.from_proto(proto)
    RecurrentLayout()(model, small.context())
    model.tidy()
    np.testing.assert_allclose(small.run(model, x)["y"], small.run(proto, x)["y"], atol=1e-5)
    groups = ChannelGroups(model)
    flags = groups.everything()
    for layer in drawn.layers:
        for channels in units(groups, layer):
            if not len(channels):
                continue  # nothing reads this direction
            assert groups.cuttable()[channels].all()
            some = random.random(layer.units) < share
            some[random.integers(layer.units)] = True
            flags[channels] = some
    kept = {
        layer.name: np.stack(
            [flags[c] if len(c) else np.ones(layer.units, bool) for c in units(groups, layer)]
        )
        for layer in drawn.layers
    }
    expected = [flags[c].sum() for layer in drawn.layers for c in units(groups, layer) if len(c)]
    predicted = CostModel(groups).cost(flags)
    small.prune(model, Plan.of(groups, flags, ""))
    sizes = [node.attrs["hidden_size"] for node in model.graph.nodes if node.op in GATES]
    assert sorted(sizes) == sorted(expected)
    assert cost_of(model) == predicted
    onnx.checker.check_model(model.proto(), full_check=True)
    found = small.run(model, x)["y"]
    np.testing.assert_allclose(found, small.run(masked(proto, drawn.layers, kept), x)["y"], atol=2e-4)


def test_both_directions_are_cut_apart() -> None:
    for seed in range(200):
        drawn = Drawn(np.random.default_rng(seed))
        model = Model.from_proto(onnx.shape_inference.infer_shapes(drawn.build()))
        RecurrentLayout()(model, small.context())
        model.tidy()
        groups = ChannelGroups(model)
        for layer in drawn.layers:
            found = [channels for channels in units(groups, layer) if len(channels)]
            if len(found) == 2 and layer.directions == 2:
                assert not set(found[0]) & set(found[1])
        assert not any(node.attrs.get("direction") == "bidirectional" for node in model.graph.nodes)


def test_a_state_that_another_layer_starts_from_has_the_same_units() -> None:
    """As an encoder hands its last state to a decoder."""
    drawn = Drawn(np.random.default_rng(0))
    x = drawn.node("Transpose", "time", "x", perm=[1, 0, 2])
    weights = [drawn.weight(f"{n}.{w}", 1, 15, size) for n in "ab" for w, size in (("W", 3), ("R", 5))]
    gru = {"hidden_size": 5, "direction": "forward"}
    drawn.nodes.append(helper.make_node("GRU", [x, *weights[:2]], ["", "state"], name="a", **gru))
    drawn.nodes.append(
        helper.make_node("GRU", [x, *weights[2:], "", "", "state"], ["", "end"], name="b", **gru)
    )
    flat = drawn.node("Squeeze", "flat", "end", drawn.constant("axes", np.array([0])))
    drawn.node("MatMul", "y", flat, drawn.weight("head", 5, 4))
    model = Model.from_proto(drawn.model())
    RecurrentLayout()(model, small.context())
    (group,) = [group for group in ChannelGroups(model) if group.cuttable.any()]
    assert (group.name, group.size) == ("a", 5)
    whole, kept = model.copy(), ChannelGroups(model).everything()
    kept[group.channels[[1, 4]]] = False
    plan = Plan.of(ChannelGroups(model), kept, "")
    small.prune(model, plan)
    x = np.random.default_rng(1).normal(size=(SAMPLES, STEPS, 3)).astype(np.float32)
    np.testing.assert_allclose(
        small.run(model, x)["y"], small.run(mask(Analysed.of(whole), plan), x)["y"], atol=1e-5
    )
    assert [node.attrs["hidden_size"] for node in model.graph.nodes if node.op == "GRU"] == [3, 3]


def test_states_along_the_samples_come_first() -> None:
    """``layout=1``, which onnxruntime does not run on the CPU: compared with onnx's own evaluator."""
    drawn = Drawn(np.random.default_rng(0))
    inputs = [
        "x",
        drawn.weight("W", 1, 20, 3),
        drawn.weight("R", 1, 20, 5),
        "",
        "",
        drawn.weight("h", SAMPLES, 1, 5),
    ]
    drawn.nodes.append(helper.make_node("LSTM", inputs, ["all", "last"], name="a", hidden_size=5, layout=1))
    flat = drawn.node("Squeeze", "flat", "all", drawn.constant("axes", np.array([2])))
    drawn.node("ReduceMean", "mean", flat, axes=[1], keepdims=0)
    drawn.node("MatMul", "y", "mean", drawn.weight("head", 5, 4))
    proto = drawn.model()
    model = Model.from_proto(proto)
    RecurrentLayout()(model, small.context())
    model.tidy()
    x = np.random.default_rng(1).normal(size=(SAMPLES, STEPS, 3)).astype(np.float32)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(small.run(model, x)["y"], expected, atol=1e-5)
    assert ChannelGroups(model)["a"].cuttable.all()


def test_dense_layers_on_rows_are_seen_by_step() -> None:
    """As Keras' ``TimeDistributed`` is written; where the steps do not come back as they were it stays."""
    for target, changed in (
        ([-1, STEPS, 4], 1),
        ([SAMPLES, STEPS, 4], 1),
        ([STEPS, SAMPLES, 4], 0),
        ([0, 1, 4], 0),
    ):
        drawn = Drawn(np.random.default_rng(0))
        rows = drawn.node("Reshape", "rows", "x", drawn.constant("flat", np.array([-1, 3])))
        made = drawn.node("MatMul", "dense", rows, drawn.weight("w", 3, 4))
        made = drawn.node("Softmax", "softmax", made, axis=1)
        back = drawn.node("Reshape", "back", made, drawn.constant("target", np.array(target)))
        drawn.node("ReduceMean", "y", back, axes=[1], keepdims=0)
        proto = drawn.model()
        if not changed:
            proto.graph.output[0].type.tensor_type.shape.dim[0].Clear()
        model = Model.from_proto(onnx.shape_inference.infer_shapes(proto))
        assert RecurrentLayout()(model, small.context()).rules.get("by_step", 0) == changed
        x = np.random.default_rng(1).normal(size=(SAMPLES, STEPS, 3)).astype(np.float32)
        np.testing.assert_allclose(small.run(model, x)["y"], small.run(proto, x)["y"], atol=1e-6)


def layer(op: str, **attributes: Any) -> Model:
    """A layer of five units, all of whose states are read."""
    drawn, rows = Drawn(np.random.default_rng(0)), GATES[op] * 5
    x = drawn.node("Transpose", "time", "x", perm=[1, 0, 2])
    weights = [drawn.weight("W", 1, rows, 3), drawn.weight("R", 1, rows, 5), drawn.weight("B", 1, 2 * rows)]
    drawn.nodes.append(
        helper.make_node(op, [x, *weights], ["all"], name="layer", hidden_size=5, **attributes)
    )
    mean = drawn.node("ReduceMean", "mean", "all", axes=[0, 1], keepdims=0)
    drawn.node("MatMul", "y", mean, drawn.weight("head", 5, 4))
    return Model.from_proto(drawn.model())


@pytest.mark.parametrize("op", GATES)
def test_the_matrix_holds_the_row_of_every_gate_of_each_unit(op: str) -> None:
    model = layer(op)
    node = next(node for node in model.graph.nodes if node.op == op)
    consumer, units = consumer_of(node), np.arange(5)
    assert consumer is not None
    own = Read(SEQUENCE, FEATURES + 1, units, recurrent_weight=RECURRENCE)
    for index, read in ((WEIGHT, Read(DATA, FEATURES, np.arange(3))), (RECURRENCE, own)):
        found, rows = consumer.matrix(node, read), node.inputs[index].values[0]
        assert found.shape == (5, GATES[op], rows.shape[1])
        for unit in units:
            np.testing.assert_array_equal(found[unit], rows[unit::5])


@pytest.mark.parametrize(("op", "more"), [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1})])
def test_constant_units_of_the_step_before_become_a_bias_of_their_own(op: str, more: dict[str, Any]) -> None:
    """Of the recurrence, not of the data; a ``GRU`` that resets units first counts half for its candidate."""
    model = layer(op, **more)
    groups = ChannelGroups(model)
    node = next(node for node in model.graph.nodes if node.op == op)
    consumer = consumer_of(node)
    assert consumer is not None
    read = next(read for read in consumer.reads(node, groups) if read.recurrent_weight is not None)
    constant, old, weight = np.array([0, 2, 0, 0, -1.0]), node.inputs[BIAS].values[0], node.inputs[RECURRENCE]
    added = weight.values[0].astype(np.float64) @ constant
    if op == "GRU" and not more:
        added[10:] /= 2
    consumer.add_bias(node, consumer.fold(node, read, np.eye(5), constant, groups), model.graph)
    expected = old + np.concatenate([np.zeros_like(added), added])
    np.testing.assert_allclose(node.inputs[BIAS].values[0], expected, rtol=1e-6, atol=1e-6)
