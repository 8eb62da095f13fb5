"""Channels are not followed along axes that are too long for it: they stay, at once, with the reason."""

from __future__ import annotations

import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.channels import flow
from graft.rewriter.channels.coupling import distinct
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups

node = helper.make_node
WEIGHT = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")


def repeated(times: int, repeats: int = 1) -> Model:
    """Return a layer of 3 channels that are repeated so often, and so often again."""
    ends = ["h", *(f"t{i}" for i in range(repeats))]
    nodes = [
        node("Gemm", ["x", "w"], ["g"], "layer"),
        node("Relu", ["g"], ["h"]),
        *(node("Tile", [ends[0], "r"], [end], f"repeat_{end}") for end in ends[1:]),
        *(node("ReduceMean", [end], [f"y{end}"], axes=[1]) for end in ends[1:]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(f"y{end}", TensorProto.FLOAT, ["n", 1]) for end in ends[1:]],
        [WEIGHT, numpy_helper.from_array(np.array([1, times], np.int64), "r")],
    )
    return Model.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )


def test_one_long_axis() -> None:
    start = time.perf_counter()
    group = ChannelGroups(repeated(2**24))["layer"]
    assert time.perf_counter() - start < 30
    assert group.size == 3
    assert not group.cuttable.any()
    assert group.reason == "Tile repeat_t0: its output is too long to follow channels along it"


def test_many_axes_that_are_long_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "COUNTED", 8)
    monkeypatch.setattr(flow, "MOST_PLACES", 40)
    assert ChannelGroups(repeated(4, 3))["layer"].cuttable.all()
    assert ChannelGroups(repeated(4, 4))["layer"].reason.startswith("Tile repeat_t3: its output is too long")


def test_long_axes_without_channels_do_not_count() -> None:
    """A convolution along a second of sound, as often as networks have them."""
    nodes = [
        node("Conv", ["x" if i == 0 else f"h{i - 1}", "k0" if i == 0 else "k"], [f"h{i}"], f"conv{i}")
        for i in range(40)
    ]
    kernels = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (("k0", (2, 1, 1)), ("k", (2, 2, 1)))
    ]
    graph = helper.make_graph(
        [*nodes, node("ReduceMean", ["h39"], ["y"], axes=[2], keepdims=0)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 2**21])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        kernels,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert ChannelGroups(Model.from_proto(proto))["conv0"].cuttable.all()


def test_distinct_numbers_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 50):
        values = rng.integers(-5, 20, (size,))
        np.testing.assert_array_equal(distinct(values), np.unique(values))
        assert distinct(values).dtype == np.int64
