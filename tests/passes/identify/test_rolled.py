"""Importance of recurrent units as published, against the formulas of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graft.passes.identify import ImportanceInputs, method_of
from graft.passes.published.icse23_units import central_tendency
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from tests import small
from tests.passes.compensate.test_recurrent import GATES, KINDS, UNITS, _showing, data, model_of, net


def inputs_of(model: Model, samples: Samples) -> ImportanceInputs:
    """About class b."""
    groups, profile = ChannelGroups(model), small.profile(model, samples)
    return ImportanceInputs(Analysed(model, groups), profile, small.LABELS, ("b",), 0, samples, small.CPU)


def test_the_published_order_of_units() -> None:
    model = model_of(net("LSTM", {}))
    samples = small.samples(data(120))
    inputs = inputs_of(model, samples)
    scores = method_of("icse23:rolled").scores(inputs)
    states = small.run(Model.from_proto(_showing(model)), data(120))["all"][:, 0].swapaxes(0, 1)
    means = []
    for rows in (states[samples.labels == 1], states[samples.labels != 1]):
        size = np.abs(rows.reshape(-1, UNITS).astype(np.float64))
        away = np.abs(size - np.median(size, axis=0))
        usual = away / np.median(away, axis=0) < 2
        means.append([size[usual[:, unit], unit].mean() for unit in range(UNITS)])
    expected = np.array(means[0]) - np.array(means[1])
    np.testing.assert_allclose(scores[inputs.groups["layer"].channels], expected - expected.min(), atol=1e-6)
    others = np.setdiff1d(np.arange(inputs.groups.count), inputs.groups["layer"].channels)
    assert (scores[others] > scores[inputs.groups["layer"].channels].max()).all()


@pytest.mark.parametrize(("op", "more"), KINDS)
def test_the_published_order_by_gates(op: str, more: dict[str, Any]) -> None:
    """Gates are open as their node, run step by step, has them; a switch counts by how often it is open."""
    model = model_of(net(op, more))
    samples = small.samples(data(120))
    inputs = inputs_of(model, samples)
    scores = method_of("icse23:rolled-gates").scores(inputs)
    node = next(node for node in model.graph.nodes if node.op == op)
    x, states = data(120).swapaxes(0, 1), small.run(Model.from_proto(_showing(model)), data(120))["all"][:, 0]
    weight, recurrence, bias = (tensor.values[0] for tensor in node.inputs[1:4])
    before = np.concatenate([np.zeros_like(states[:1]), states[:-1]])
    both = np.split(bias, 2)
    mine, own = x @ weight.T + both[0], before @ recurrence.T + both[1]
    gates = np.split(mine + own, GATES[op], axis=-1)
    if op == "GRU":
        reset = 1 / (1 + np.exp(-gates[1]))
        entered = np.split(mine, 3, axis=-1)[2]
        if more:
            gates[2] = entered + reset * np.split(own, 3, axis=-1)[2]
        else:
            gates[2] = entered + (reset * before) @ recurrence[2 * UNITS :].T + both[1][2 * UNITS :]
    expected = np.zeros(UNITS)
    for number, made in enumerate(gates):
        figures = []
        for rows in (made[:, samples.labels == 1], made[:, samples.labels != 1]):
            if op != "RNN" and number < len(gates) - 1:
                figures.append((rows >= 0).mean(axis=(0, 1)))
            else:
                figures.append(central_tendency(np.tanh(rows).reshape(-1, UNITS)))
        expected += figures[0] - figures[1]
    found = scores[inputs.groups["layer"].channels]
    np.testing.assert_allclose(found, expected - expected.min(), atol=1e-4)


def test_the_published_order_is_for_recurrent_layers() -> None:
    model = small.model(small.dense_net())
    samples = small.samples(small.inputs((6,)))
    inputs = inputs_of(model, samples)
    with pytest.raises(GraftError) as caught:
        method_of("icse23:rolled").scores(inputs)
    assert caught.value.code == "method-recurrent"
