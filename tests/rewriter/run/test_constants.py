"""Nodes that read constants only."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import helper

from graft.rewriter.errors import GraftError
from graft.rewriter.run.constants import evaluate


def node(op: str, outputs: int = 1, domain: str | None = None, **attributes: object) -> gs.Node:
    ends = [gs.Variable(f"y{number}") for number in range(outputs)]
    return gs.Node(op, "node", attributes, [], ends, domain=domain)


def test_the_opset_of_the_model_says_what_a_node_means() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (found,) = evaluate(node("ReduceSum", axes=[1], keepdims=0), [x], 11)
    np.testing.assert_array_equal(found, x.sum(axis=1))
    (found,) = evaluate(node("ReduceSum", keepdims=0), [x, np.array([0])], 13)
    np.testing.assert_array_equal(found, x.sum(axis=0))


def test_inputs_may_be_left_out_and_outputs_several() -> None:
    x = np.array([-2.0, 0.5, 3], np.float32)
    (found,) = evaluate(node("Clip"), [x, None, np.array(1, np.float32)], 17)
    np.testing.assert_array_equal(found, [-2, 0.5, 1])
    one, two = evaluate(node("Split", 2, axis=0), [np.arange(4), np.array([1, 3])], 17)
    assert one.tolist() == [0] and two.tolist() == [1, 2, 3]


def test_operators_of_other_domains_are_run() -> None:
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    gelu = node("Gelu", domain="com.microsoft")
    (found,) = evaluate(gelu, [np.array([0.0, 10], np.float32)], 17, domains)
    np.testing.assert_allclose(found, [0, 10], atol=1e-5)
    with pytest.raises(GraftError):
        evaluate(node("Unheard"), [np.zeros(1, np.float32)], 17)


@pytest.mark.parametrize("opset", [11, 13, 15])
def test_a_constant_is_normalized_by_the_moments_of_the_file(opset: int) -> None:
    x = np.array([[[1.0, 3.0]]], np.float32)
    scale, bias, mean, variance = (np.array([value], np.float32) for value in (2, 1, 0.5, 4))
    (found,) = evaluate(node("BatchNormalization", epsilon=0.0), [x, scale, bias, mean, variance], opset)
    np.testing.assert_allclose(found, (x - 0.5) / 2 * 2 + 1, rtol=1e-6)
