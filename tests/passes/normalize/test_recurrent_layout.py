"""Recurrent layers of two directions become two layers that compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from graft.passes.normalize.recurrent_layout import RecurrentLayout
from graft.rewriter.graph.model import Model
from tests import small

UNITS = 5
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "LSTM": (4, {"activations": ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Softsign", "Relu"]}),
    "GRU": (3, {"activations": ["Sigmoid", "Tanh", "Sigmoid", "Softsign"]}),
    "RNN": (1, {"activations": ["LeakyRelu", "Elu"], "activation_alpha": [0.3, 0.7]}),
}


@pytest.mark.parametrize("op", KINDS)
def test_each_direction_has_its_own_activations_weights_and_states(op: str) -> None:
    gates, more = KINDS[op]
    net = small.Net(4, 3)
    turned = net.node("Transpose", "turned", "x", perm=[1, 0, 2])
    mean = net.node("ReduceMean", "mean", "x", axes=[1], keepdims=0)
    start = net.node("MatMul", "start", mean, net.weight("S", 2, 3, UNITS))
    weights = (
        net.weight("W", 2, gates * UNITS, 3),
        net.weight("R", 2, gates * UNITS, UNITS),
        net.weight("B", 2, 2 * gates * UNITS),
    )
    more = {"hidden_size": UNITS, "direction": "bidirectional", **more}
    net.nodes.append(helper.make_node(op, [turned, *weights, "", start], ["", "last"], name="layer", **more))
    back = net.node("Transpose", "back", "last", perm=[1, 0, 2])
    net.gemm("y", net.node("Flatten", "flat", back), 4, 2 * UNITS)
    proto, x = net.proto(y=[4]), small.inputs(net.shape)
    model = Model.from_proto(proto, small.card())
    report = RecurrentLayout()(model, small.context())
    assert report.rules["one_direction"] == 1
    layers = [node.attrs["direction"] for node in model.graph.nodes if node.op == op]
    assert sorted(layers) == ["forward", "reverse"]
    np.testing.assert_allclose(small.run(model, x)["y"], small.run(proto, x)["y"], atol=1e-5)
