"""Modules of recurrent networks: which units, in which copies, with one output for all other classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graft.passes.base import Context
from graft.passes.compose import Compose
from graft.passes.mask import Mask
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.published import masks
from graft.passes.published.icse23_cell import Cell
from graft.passes.published.icse23_network import RecurrentNetwork
from graft.passes.published.icse23_units import central_tendency, removed_units
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from tests import small

STEPS, INPUTS, UNITS = 5, 3, 10
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op: str, layers: int = 1, many: bool = False, opset: int = 17, **more: Any) -> Model:
    """[N, T, C] through recurrent layers and a dense one: of the last state, or of every step."""
    net = small.Net(STEPS, INPUTS, opset=opset)
    data, width = net.node("Transpose", "steps", "x", perm=[1, 0, 2]), INPUTS
    axes = net.ints("one", 1)
    for number in range(layers):
        gates = GATES[op] * UNITS
        weights = [
            net.constant(f"W{number}", net.rng.normal(0, 0.8, (1, gates, width))),
            net.constant(f"R{number}", net.rng.normal(0, 0.5, (1, gates, UNITS))),
            net.constant(f"B{number}", net.rng.normal(0, 0.5, (1, 2 * gates))),
        ]
        net.node(op, f"layer{number}", data, *weights, hidden_size=UNITS, **more)
        net.nodes[-1].output.append(f"last{number}")
        data, width = net.node("Squeeze", f"states{number}", f"layer{number}", axes), UNITS
    if many:
        state = net.node("Transpose", "back", data, perm=[1, 0, 2])
    else:
        state = net.node("Squeeze", "state", f"last{layers - 1}", net.ints("zero", 0))
    net.node("Add", "y", net.node("MatMul", "dense", state, net.weight("D", UNITS, 4)), net.weight("b", 4))
    shape = [STEPS, 4] if many else [4]
    return Model.from_proto(net.proto(y=shape), small.card(steps=True) if many else small.card())


def labelled(model: Model, count: int = 200) -> Samples:
    """Samples of all classes, as their sums say; at the first of labelled steps there is one class only."""
    x, card = small.inputs([STEPS, INPUTS], count), model.require_card()
    labels = np.digitize(x.sum(axis=2), [-1.0, 0.0, 1.0])
    if not card.output.steps:
        return small.samples(x, labels[:, -1], card)
    labels[:, 0] = 2
    return small.samples(x, labels, card)


CASES = [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})]


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(("op", "more"), CASES)
def test_copies_with_the_weights_of_the_parent_compute_the_same(
    op: str, more: dict[str, Any], many: bool, opset: int
) -> None:
    model = recurrent(op, 2, many, opset, **more)
    unrolled = model.copy()
    network = RecurrentNetwork.of(unrolled, "m")
    steps = network.steps("m")
    for node in network.nodes:
        network.unroll(node, [Cell.of(node) for _ in range(steps)])
    assert sum(node.op == op for node in unrolled.graph.nodes) == 2 * STEPS
    x = small.inputs([STEPS, INPUTS], 9)
    np.testing.assert_allclose(small.run(unrolled, x)["y"], small.run(model, x)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("op", "more"), CASES)
def test_rolled_modules_lack_units_that_are_on_for_others(op: str, more: dict[str, Any]) -> None:
    """By hand: units that go, weights without them, and the mean of the other outputs."""
    model = recurrent(op, **more)
    of, samples = Parent(model), labelled(model)
    report = Mask("b", masks()["icse23:rolled"].with_options(concerned=40), cut=True)(
        of, Context(samples=samples, device=small.CPU)
    )
    x = small.inputs([STEPS, INPUTS], 200)
    states = small.run(showing(model, "last0"), x)["last0"][0]
    own = np.flatnonzero(samples.labels == 1)[:40]
    others = np.flatnonzero(samples.labels != 1)[:14]  # 40 / 3, rounded up
    difference = central_tendency(states[own]) - central_tendency(states[others])
    gone = removed_units(difference, 0.05, nearly=True)
    assert len(gone) and report.removed == len(gone)
    expected = model.copy()
    tensors = expected.graph.tensors()
    keeps = np.ones(UNITS)
    keeps[gone] = 0
    rows = np.tile(keeps, GATES[op])[:, None]
    for name, factor in (
        ("W0", rows),
        ("R0", rows * keeps),
        ("B0", np.tile(rows[:, 0], 2)),
        ("D", keeps[:, None]),
    ):
        tensors[name].values = (tensors[name].values * factor).astype(np.float32)
    logits = small.run(expected, x)["y"]
    pair = np.stack([logits[:, 1], np.delete(logits, 1, axis=1).mean(axis=1)], axis=1)
    assert report.model.require_card().labels == ("b", OTHER)
    np.testing.assert_allclose(small.run(report.model, x)["y"], pair, rtol=1e-4, atol=1e-5)


def showing(model: Model, name: str) -> Model:
    """The model with another output."""
    found = model.copy()
    tensor = found.graph.tensors()[name]
    tensor.dtype = np.dtype(np.float32)
    found.graph.outputs = [tensor]
    found.card = None
    return found


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("method", [name for name in masks() if name.startswith("icse23")])
def test_all_modes_make_modules_that_compose(method: str, variant: str, many: bool) -> None:
    """The composite decides for the class whose module is surest: by the softmax of its two outputs."""
    model = recurrent("LSTM", 2, many)
    of, samples = Parent(model), labelled(model)
    asked = masks()[method].with_options(variant=variant, concerned=60)
    context = Context(samples=samples, device=small.CPU)
    reports = [Mask(name, asked, cut="rolled" in method)(of, context) for name in "abcd"]
    assert any(report.removed for report in reports) and any(report.zero_weights for report in reports)
    copies = [sum(node.op == "LSTM" for node in each.model.graph.nodes) for each in reports]
    assert copies == [2 if "unrolled" not in method else 2 * STEPS] * 4
    joined = Compose("branches", scores=asked.scores)(
        Modules([each.model for each in reports]), Context(device=small.CPU)
    ).model
    x = small.inputs([STEPS, INPUTS], 50, seed=4)
    shares = [small.softmax(small.run(each.model, x)["y"])[..., 0] for each in reports]
    sure = np.stack(shares, axis=-1)
    np.testing.assert_array_equal(small.run(joined, x)["y"].argmax(axis=-1), sure.argmax(axis=-1))


def test_the_modes_differ() -> None:
    model = recurrent("GRU")
    of, context = Parent(model), Context(samples=labelled(model), device=small.CPU)
    x = small.inputs([STEPS, INPUTS], 20)
    found = [
        small.run(Mask("c", masks()[name].with_options(variant=variant))(of, context).model, x)["y"]
        for name in masks()
        if name.startswith("icse23")
        for variant in ("code", "paper")
    ]
    assert all(not np.allclose(one, two) for k, one in enumerate(found) for two in found[:k])


def test_what_does_not_fit_is_said() -> None:
    dense = Parent(small.model(small.dense_net()))
    context = Context(samples=small.samples(small.inputs([6])), device=small.CPU)
    with pytest.raises(GraftError, match="there is no recurrent layer"):
        Mask("b", masks()["icse23:rolled"])(dense, context)
    both = recurrent("LSTM")
    bidirectional = both.graph.nodes[1]
    bidirectional.attrs["direction"] = "bidirectional"
    one = Samples.match(labelled(recurrent("LSTM")).split, small.card(), ["b"])
    with pytest.raises(GraftError, match="takes samples of 'b' and of other classes"):
        Mask("b", masks()["icse23:rolled"])(Parent(recurrent("LSTM")), Context(samples=one, device=small.CPU))
