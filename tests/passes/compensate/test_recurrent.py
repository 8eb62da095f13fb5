"""Recurrent layers: profiled over time, folded and refitted through the recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from graft.passes.base import Context, Declined
from graft.passes.compensate.fold import Fold
from graft.passes.compensate.layer import CutAndParent
from graft.passes.compensate.recurrent import RecurrentLayer
from graft.passes.compensate.refit import Refit
from graft.passes.cut.verify import Pruned
from graft.passes.decompose import Decompose
from graft.passes.normalize.recurrent_layout import RecurrentLayout
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.record.profile import PRODUCTS, SQUARES, SUM
from graft.rewriter.run.equivalence import check
from graft.rewriter.run.recurrent_cell import ACTIVATIONS, ALPHA, BETA, RecurrentCell
from graft.rewriter.run.session import Device
from graft.rewriter.run.staged import Batches, StagedRun
from tests import small

STEPS, UNITS = 5, 6
KINDS = [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def net(op: str, more: dict[str, Any], units: int = UNITS, steps: bool = False, seed: int = 0) -> small.Net:
    """x (N, 5, 3) through one layer; ``y`` of the last state, or of each step."""
    found = small.Net(STEPS, 3, seed=seed)
    turned = found.node("Transpose", "turned", "x", perm=[1, 0, 2])
    rows = GATES[op] * units
    weights = (
        found.weight("W", 1, rows, 3),
        found.weight("R", 1, rows, units),
        found.weight("B", 1, 2 * rows),
    )
    attributes = {"hidden_size": units, **more}
    found.nodes.append(helper.make_node(op, [turned, *weights], ["all", "last"], name="layer", **attributes))
    if not steps:
        found.gemm("y", found.node("Squeeze", "flat", "last", found.ints("zero", 0)), 4, units)
        return found
    flat = found.node("Squeeze", "flat", "all", found.ints("one", 1))
    back = found.node("Transpose", "back", flat, perm=[1, 0, 2])
    product = found.node("MatMul", "weighted", back, found.weight("head.w", units, 4))
    found.node("Add", "y", product, found.weight("head.b", 4))
    return found


def model_of(net: small.Net, *shape: Any) -> Model:
    found = Model.from_proto(net.proto(y=[*shape, 4]), small.card(steps=bool(shape)))
    RecurrentLayout()(found, small.context())
    return found


def data(count: int = 200, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, STEPS, 3)).astype(np.float32)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(("op", "more"), KINDS)
def test_a_cell_tells_what_its_node_computes(op: str, more: dict[str, Any], direction: str) -> None:
    model = model_of(net(op, {**more, "direction": direction}))
    node = next(node for node in model.graph.nodes if node.op == op)
    x = data(7)
    probe = model.piece([node], {node.inputs[0].name: x.swapaxes(0, 1)}, ["all"])
    states = small.CPU.open(probe).run({node.inputs[0].name: x.swapaxes(0, 1)})["all"]
    parts = RecurrentCell(node).parts({node.inputs[0].name: x.swapaxes(0, 1)}, states)
    made = [part.made.reshape(STEPS, 7, len(part.gates), UNITS) for part in parts]
    sigmoid, order = (lambda v: ACTIVATIONS["sigmoid"](v, 0, 0)), range(STEPS)
    before = cell = np.zeros((7, UNITS))
    for step in order if direction == "forward" else reversed(order):
        gates = [gate for part in made for gate in part[step].swapaxes(0, 1)]
        if op == "RNN":
            before = np.tanh(gates[0])
        elif op == "GRU":
            update, reset, candidate = sigmoid(gates[0]), sigmoid(gates[1]), gates[2]
            candidate = candidate + (reset * gates[3] if len(gates) == 4 else 0)
            before = (1 - update) * np.tanh(candidate) + update * before
        else:
            entry, out, forget = (sigmoid(gates[place]) for place in (0, 1, 2))
            cell = forget * cell + entry * np.tanh(gates[3])
            before = out * np.tanh(cell)
        np.testing.assert_allclose(before, states[step, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *((name, True) for name in sorted(ACTIVATIONS)),
        # of the others ONNX gives no default, or onnxruntime another one
        *((name, False) for name in ("elu", "hardsigmoid", "leakyrelu")),
    ],
)
def test_activations_are_those_of_the_runtime(name: str, given: bool) -> None:
    names = {"scaledtanh": "ScaledTanh", "hardsigmoid": "HardSigmoid", "leakyrelu": "LeakyRelu"}
    names |= {"thresholdedrelu": "ThresholdedRelu", "softplus": "Softplus", "softsign": "Softsign"}
    more: dict[str, Any] = {"activations": [names.get(name, name.capitalize())]}
    if given:
        more |= {"activation_alpha": [0.3] if name in ALPHA else []}
        more |= {"activation_beta": [0.4] if name in BETA else []}
    model = model_of(net("RNN", {key: value for key, value in more.items() if value}))
    node = next(node for node in model.graph.nodes if node.op == "RNN")
    feed = {node.inputs[0].name: data(7).swapaxes(0, 1) / 4}
    states = small.CPU.open(model.piece([node], feed, ["all"])).run(feed)["all"]
    found = RecurrentCell(node).opened(feed, states).reshape(STEPS, 7, UNITS)
    np.testing.assert_allclose(found, states[:, 0], atol=1e-4)


@pytest.mark.parametrize(("op", "more"), KINDS)
def test_a_unit_that_doubles_another_is_not_missed(op: str, more: dict[str, Any]) -> None:
    """The map from kept to removed units goes through every gate, the recurrence and the head."""
    model = model_of(net(op, more))
    node = next(node for node in model.graph.nodes if node.op == op)
    for tensor in node.inputs[1:4]:
        values = tensor.values.copy().reshape(1, -1, UNITS, *tensor.values.shape[2:])
        values[:, :, 4] = values[:, :, 1]
        tensor.values = values.reshape(tensor.values.shape)
    samples = small.samples(data())
    plan = small.plan(model, layer=[4])
    whole, profile = model.copy(), small.profile(model, samples)
    report = Fold(plan, small.LABELS[:2])(Analysed.of(model), small.context(profile))
    assert report.changed == 2 and not report.declined
    small.prune(model, plan)
    np.testing.assert_allclose(
        small.run(model, data(50, 9))["y"], small.run(whole, data(50, 9))["y"], atol=5e-3
    )


@pytest.mark.parametrize(("op", "more"), KINDS)
def test_constant_features_cost_nothing(op: str, more: dict[str, Any]) -> None:
    found = net(op, more)
    turned, *others = found.nodes
    found.nodes = [turned]
    weight = found.rng.normal(size=(3, 7))
    weight[:, [1, 4]] = 0
    made = found.node("MatMul", "made", "turned", found.constant("w", weight))
    biased = found.node("Add", "biased", made, found.constant("b", np.linspace(0.5, 1.5, 7)))
    others[0].input[0] = found.node("Relu", "relu", biased)
    found.nodes += others
    found.weight("W", 1, GATES[op] * UNITS, 7)
    whole, cuts = model_of(found), [model_of(found) for _ in range(2)]
    plan, profile = small.plan(whole, made=[1, 4]), small.profile(whole, small.samples(data()))
    for model, step in zip(cuts, ("mean", "none"), strict=True):
        Fold(plan, small.LABELS[:2], step)(Analysed.of(model), small.context(profile))
        small.prune(model, plan)
    mean, none = (np.abs(small.run(m, data())["y"] - small.run(whole, data())["y"]).max() for m in cuts)
    assert mean < 1e-5 and none > 0.05


@pytest.mark.parametrize(("op", "more"), KINDS)
def test_refit_brings_the_units_nearer_to_the_parents(op: str, more: dict[str, Any]) -> None:
    model = model_of(net(op, more, units=16))
    samples = small.samples(data(600))
    plan = small.plan(model, layer=range(8))
    whole = model.copy()
    small.prune(model, plan)
    held, wanted = data(300, 9), small.run(whole, data(300, 9))["y"]
    cut = np.square(small.run(model, held)["y"] - wanted).mean()
    nodes = {node.name: node for node in model.graph.nodes}
    before = [tensor.values.copy() for tensor in nodes["layer"].inputs[1:]]
    report = Refit(small.LABELS, alone=True)(
        Pruned(Analysed.of(whole), plan, model), small.context(samples=samples)
    )
    after = {node.name: node for node in model.graph.nodes}["layer"].inputs[1:]
    assert report.changed == 2
    assert any(not np.array_equal(old, new.values) for old, new in zip(before, after, strict=True))
    assert np.square(small.run(model, held)["y"] - wanted).mean() < 0.8 * cut


def test_lengths_that_differ_are_not_refitted() -> None:
    found = net("GRU", {})
    lengths = found.constant("lengths", np.full(4, STEPS), np.int32)
    layer = next(node for node in found.nodes if node.op_type == "GRU")
    layer.input.append(lengths)
    model = model_of(found)
    groups = ChannelGroups(model)
    (node,) = [node for node in groups.nodes if node.op == "GRU"]
    run = StagedRun(model, Batches.of({}, 4), small.CPU)
    sides = CutAndParent(model, groups, groups.everything(), run, run, np.ones(4), small.CPU)
    declined = RecurrentLayer.find(node, sides, np.random.default_rng(0))
    assert declined == Declined("GRU layer", "not refitted: its gates cannot be computed from its states")


@pytest.mark.parametrize(("op", "more"), KINDS[:1])
def test_layers_whose_values_do_not_fit_into_memory_are_fitted_all_the_same(
    op: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for room in (1 << 30, 0):
        monkeypatch.setattr(Device, "room", lambda _, room=room: room)
        model = model_of(net(op, more))
        plan, whole = small.plan(model, layer=range(4)), model.copy()
        small.prune(model, plan)
        context = small.context(samples=small.samples(data(60)))
        report = Refit(small.LABELS, alone=True)(Pruned(Analysed.of(whole), plan, model), context)
        assert report.changed == 2 and not report.declined
        found.append(model.proto().SerializeToString(deterministic=True))
    assert found[0] == found[1]


def test_the_profile_of_steps_with_labels_of_their_own() -> None:
    model = model_of(net("RNN", {}, steps=True), STEPS)
    x = data(60)
    labels = np.random.default_rng(2).integers(0, 4, (60, STEPS))
    dataset = Dataset.from_arrays(x, labels)
    samples = Samples.match(dataset.split("train"), model.require_card())
    samples.labels[0, :3] = IGNORED
    profile = small.profile(model, samples)
    states = small.run(Model.from_proto(_showing(model)), x)["all"][:, 0].swapaxes(0, 1)
    for row in range(4):
        rows = states[samples.labels == row].astype(np.float64)
        assert profile.counts[row] == len(rows)
        np.testing.assert_allclose(profile.tables[SUM.name]["all"][row], rows.sum(axis=0), atol=1e-3)
        np.testing.assert_allclose(profile.tables[SQUARES.name]["all"][row], (rows**2).sum(axis=0), atol=1e-3)
        products = profile.tables[PRODUCTS.name]["all"][row].reshape(UNITS, UNITS)
        np.testing.assert_allclose(products, rows.T @ rows, atol=1e-3)


def _showing(model: Model) -> Any:
    """The model with the states of all steps as its output."""
    proto = model.proto()
    proto.graph.output.append(helper.make_tensor_value_info("all", 1, None))
    return proto


def test_the_profile_of_a_label_a_sequence_counts_all_steps() -> None:
    model = model_of(net("GRU", {}))
    samples = small.samples(data(80))
    profile = small.profile(model, samples)
    states = small.run(Model.from_proto(_showing(model)), data(80))["all"][:, 0].swapaxes(0, 1)
    for row in range(4):
        rows = states[samples.labels == row].mean(axis=1)
        np.testing.assert_allclose(profile.tables[SUM.name]["all"][row], rows.sum(axis=0), atol=1e-3)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_units_are_picked_out_of_states_that_are_inputs(op: str) -> None:
    """Constant for all samples of the data; the module takes what the parent takes, also other states."""
    found, units = small.Net(STEPS, 3), UNITS
    turned = found.node("Transpose", "turned", "x", perm=[1, 0, 2])
    sizes = [(1, GATES[op] * units, 3), (1, GATES[op] * units, units), (1, 2 * GATES[op] * units)]
    weights = [found.weight(name, *size) for name, size in zip("WRB", sizes, strict=True)]
    states = ["h", "c"][: 2 if op == "LSTM" else 1]
    found.nodes.append(
        helper.make_node(op, [turned, *weights, "", *states], ["", "last"], name="layer", hidden_size=units)
    )
    found.gemm("y", found.node("Squeeze", "flat", "last", found.ints("zero", 0)), 4, units)
    further = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "N", units]) for name in states]
    proto = found.proto(further, y=[4])
    inputs = [{"name": "x", "kind": "tensor"}]
    inputs += [{"name": name, "kind": "tensor", "constant": 0.5, "batch_axis": 1} for name in states]
    output = {"name": "y", "kind": "logits"}
    card = Card.model_validate({"inputs": inputs, "output": output, "labels": small.LABELS})
    labelled = small.samples(data(60), np.arange(60) % 4, card)
    parent = Parent(Model.from_proto(proto, card))
    profile = Observe()(parent, small.context(samples=labelled)).profile
    context = Context(samples=labelled, profile=profile, device=small.CPU)
    for compensate in ("none", "refit"):
        report = Decompose(["a", "b"], keep=0.5, compensate=compensate, verify=True)(parent, context)
        assert report.cost.macs <= parent.cost.macs / 2
        again = Parent(report.model)  # what was pruned once can be pruned again
        assert again.groups.cuttable().any()
        shapes = [list(each.shape) for each in report.model.graph.inputs]
        assert shapes[1:] == [[1, "N", units]] * len(states)
        check(report.model)
