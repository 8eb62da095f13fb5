"""``alpha`` and ``beta`` of ``Gemm``: weights mean the same to compensation, importance and refitting."""

from __future__ import annotations

import numpy as np
import pytest

from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import AffineMap, Consumer, Read, affine_map_of, consumer_of
from tests import small
from tests.small import Net

READ = Read(0, 1, np.arange(6))
close = np.testing.assert_allclose


def gemm(turned: int, biased: bool = True, alpha: float = 0.5, beta: float = 3.0) -> Model:
    net = Net(6)
    more = [net.weight("c", 4)] if biased else []
    matrix = net.weight("v", *((4, 6) if turned else (6, 4)))
    net.node("Gemm", "y", "x", matrix, *more, transB=turned, alpha=alpha, beta=beta)
    return Model.from_proto(net.proto(y=[4]))


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("turned", [0, 1])
def test_matrix_and_coefficients_with_the_offset_are_what_the_node_makes(turned: int, biased: bool) -> None:
    model, x = gemm(turned, biased), small.inputs([6], 5)
    (node,) = model.graph.nodes
    consumer, affine = consumer_of(node), affine_map_of(node)
    assert isinstance(consumer, Consumer)
    assert isinstance(affine, AffineMap)
    made = small.run(model, x)["y"]
    by_matrix = x @ consumer.matrix(node, READ)[:, 0].T + affine.offset(node)
    close(by_matrix, made, rtol=1e-4, atol=1e-5)
    rows = affine.rows(node, x, np.arange(1))[0]
    close(rows @ affine.coefficients(node)[0].T + affine.offset(node), made, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("turned", [0, 1])
def test_a_folded_map_is_read_instead_of_the_input(turned: int, biased: bool) -> None:
    model, x, rng = gemm(turned, biased), small.inputs([6], 5), np.random.default_rng(1)
    (node,) = model.graph.nodes
    into, constant = rng.normal(size=(6, 6)), rng.normal(size=6)
    expected = small.run(model, (x @ into.T + constant).astype(np.float32))["y"]
    consumer = consumer_of(node)
    assert consumer is not None
    consumer.add_bias(node, consumer.fold(node, READ, into, constant, ChannelGroups(model)), model.graph)
    close(small.run(model, x)["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turned", [0, 1])
def test_weights_and_offset_that_are_set_are_what_the_node_makes(turned: int) -> None:
    model, x, rng = gemm(turned), small.inputs([6], 5), np.random.default_rng(2)
    (node,) = model.graph.nodes
    affine = affine_map_of(node)
    assert affine is not None
    coefficients, offset = rng.normal(size=(1, 4, 6)), rng.normal(size=4)
    affine.set_coefficients(node, coefficients)
    affine.add_bias(node, offset - affine.offset(node), model.graph)
    close(affine.coefficients(node), coefficients, rtol=1e-5, atol=1e-6)
    close(small.run(model, x)["y"], x @ coefficients[0].T + offset, rtol=1e-4, atol=1e-5)


def test_a_matrix_times_zero_cannot_be_refitted() -> None:
    (node,) = gemm(0, alpha=0.0).graph.nodes
    assert affine_map_of(node) is None
