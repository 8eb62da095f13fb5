"""Layers of a dense network are read from a graph, and written back."""

from __future__ import annotations

import numpy as np
import pytest

from graft.passes.published.dense_network import Dense, DenseNetwork
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from tests import small


def gemm_and_product(kind: str = "probabilities") -> Model:
    """A Gemm whose matrix is turned, and a MatMul with an Add."""
    net = small.Net(6)
    first = net.node("Gemm", "first", "x", net.weight("a", 5, 6), net.weight("b", 5), transB=1)
    on = net.node("Relu", "on", first)
    product = net.node("MatMul", "product", on, net.weight("c", 5, 4))
    net.node("Add", "y" if kind == "logits" else "scores", net.weight("d", 4), product)
    if kind == "probabilities":
        net.node("Softmax", "y", "scores", axis=1)
    return small.model(net, kind)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_layers_compute_what_the_graph_does(kind: str) -> None:
    model = gemm_and_product(kind)
    layers = DenseNetwork(model, "m").layers
    x = small.inputs([6], 7)
    hidden = np.maximum(x @ layers[0].weights + layers[0].bias, 0)
    logits = hidden @ layers[1].weights + layers[1].bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = small.run(model, x)["y"]
    np.testing.assert_allclose(found, expected if kind == "probabilities" else logits, rtol=1e-5, atol=1e-6)


def test_other_weights_are_written() -> None:
    model = gemm_and_product("logits")
    network = DenseNetwork(model, "m")
    draw = np.random.default_rng(1)
    layers = [
        Dense(
            draw.normal(size=layer.weights.shape).astype(np.float32),
            draw.normal(size=layer.bias.shape).astype(np.float32),
        )
        for layer in network.layers
    ]
    network.write(layers)
    for found, expected in zip(DenseNetwork(model, "m").layers, layers, strict=True):
        np.testing.assert_array_equal(found.weights, expected.weights)
        np.testing.assert_array_equal(found.bias, expected.bias)


@pytest.mark.parametrize("op", ["Tanh", "Sigmoid"])
def test_other_activations_are_refused(op: str) -> None:
    net = small.Net(6)
    on = net.node(op, "on", net.node("Gemm", "first", "x", net.weight("a", 6, 5)))
    net.node("Gemm", "y", on, net.weight("c", 5, 4))
    with pytest.raises(
        GraftError, match=f"the method m does not fit the model .found {op} on.: it is for dense"
    ):
        DenseNetwork(small.model(net), "m")


def test_a_linear_model_has_no_hidden_layer() -> None:
    net = small.Net(6)
    net.node("Gemm", "y", "x", net.weight("c", 6, 4))
    with pytest.raises(GraftError, match="there is no hidden layer"):
        DenseNetwork(small.model(net), "m")
