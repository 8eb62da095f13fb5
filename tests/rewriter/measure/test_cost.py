"""Costs: by hand, and under a mask as of the cut model."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import Cost, CostModel, cost_of
from tests import small
from tests.small import Net


def cost(net: Net, *shape: int) -> Cost:
    return cost_of(Model.from_proto(net.proto(y=shape)))


def test_gemm() -> None:
    net = Net(6)
    net.gemm("y", "x", 4, 6)
    assert cost(net, 4) == Cost(24, 28)


def test_matmul_counts_every_row() -> None:
    net = Net(5, 3)
    net.node("MatMul", "y", "x", net.weight("w", 3, 7))
    assert cost(net, 5, 7) == Cost(5 * 3 * 7, 21)


@pytest.mark.parametrize(
    ("attributes", "positions"),
    [
        ({}, 4 * 3),
        ({"pads": [1, 1, 1, 1]}, 6 * 5),
        ({"strides": [2, 2]}, 2 * 2),
        ({"dilations": [2, 2]}, 2 * 1),
    ],
)
def test_convolution(attributes: dict[str, list[int]], positions: int) -> None:
    net = Net(2, 6, 5)
    net.conv("y", "x", 7, 2, **attributes)
    assert cost(net, 7, None, None) == Cost(positions * 9 * 2 * 7, 9 * 2 * 7 + 7)


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_and_depthwise_convolution(groups: int) -> None:
    net = Net(4, 6, 6)
    weight = net.weight("w", 8, 4 // groups, 3, 3)
    net.node("Conv", "y", "x", weight, group=groups)
    each = 9 * (4 // groups) * 8
    assert cost(net, 8, 4, 4) == Cost(16 * each, each)


def test_a_whole_net() -> None:
    found = cost_of(small.model(small.conv_net()))
    convs = 4 * 3 * 9 * 2 * 6 + 4 * 3 * 9 * 6 * 5
    assert found == Cost(convs + 5 * 4, (108 + 6) + (270 + 5) + (20 + 4))


def test_a_fixed_batch_counts_as_one_sample() -> None:
    proto = small.conv_net().proto(y=[4])
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    assert cost_of(Model.from_proto(proto)) == cost_of(small.model(small.conv_net()))


def test_integers_are_no_parameters() -> None:
    net = Net(2, 3)
    flat = net.node("Reshape", "flat", "x", net.ints("target", 0, -1))
    net.gemm("y", flat, 4, 6)
    assert cost(net, 4).parameters == 28


def test_a_shared_constant_counts_once() -> None:
    net = Net(4)
    shared = net.weight("w", 4, 4)
    one = net.node("Softmax", "one", net.node("MatMul", "first", "x", shared), axis=1)
    net.node("MatMul", "y", one, shared)
    assert cost(net, 4) == Cost(32, 16)


def shared() -> Model:
    """One matrix read by two layers that can be cut apart, and one by two that cannot."""
    net = Net(4)
    one, two = (net.node("Relu", f"r{n}", net.gemm(f"made{n}", "x", 6, 4)) for n in "12")
    matrix = net.weight("w", 6, 4)
    parts = [net.node("MatMul", f"m{i}", t, matrix) for i, t in enumerate((one, one, two))]
    net.node("Sum", "y", *parts)
    return small.model(net)


def test_a_constant_that_is_cut_apart_counts_for_each_piece() -> None:
    model = shared()
    groups = ChannelGroups(model)
    kept = small.drop(groups, made1=[0, 1], made2=[5])
    cut = model.copy()
    small.prune(cut, Plan.of(groups, kept, "p"))
    layers = (4 * 4 + 4) + (4 * 5 + 5)
    assert CostModel(groups).parameters(kept) == layers + 4 * 4 + 5 * 4
    assert cost_of(cut).parameters == layers + 4 * 4 + 5 * 4


def test_pieces_along_different_axes_are_different_pieces() -> None:
    net = Net(6)
    relu = net.node("Relu", "relu", net.gemm("made", "x", 6, 6))
    square = net.weight("w", 6, 6)
    reads = net.node("Softmax", "soft", net.node("MatMul", "reads", relu, square), axis=1)
    makes = net.node("Relu", "two", net.node("MatMul", "makes", reads, square))
    net.gemm("y", makes, 4, 6)
    model = small.model(net)
    groups = ChannelGroups(model)
    kept = small.drop(groups, made=[1, 2], makes=[1, 2])
    cut = model.copy()
    small.prune(cut, Plan.of(groups, kept, "p"))
    assert CostModel(groups).parameters(kept) == cost_of(cut).parameters == 28 + 24 + 24 + 20


def test_nodes_of_the_head_do_not_count_as_parameters() -> None:
    groups = ChannelGroups(small.model(small.conv_net()))
    assert CostModel(groups, frozenset({"y"})).cost() == Cost(
        CostModel(groups).macs(), CostModel(groups).parameters() - 24
    )


NETS = {
    "residual": small.residual_net,
    "convolutions": small.conv_net,
    "dense": small.dense_net,
    "sequence": small.sequence_net,
}


@cache
def parent(name: str) -> tuple[Model, ChannelGroups]:
    model = small.model(NETS[name]())
    return model, ChannelGroups(model)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(NETS)), st.integers(0, 2**20), st.floats(0.1, 1.0))
def test_the_cost_under_a_mask_is_that_of_the_cut_model(name: str, seed: int, keep: float) -> None:
    model, groups = parent(name)
    kept = (np.random.default_rng(seed).random(groups.count) < keep) | ~groups.cuttable()
    for channels in groups.needed():
        kept[channels[0]] |= not kept[channels].any()
    cut = model.copy()
    small.prune(cut, Plan.of(groups, kept, "p"))
    found, whole = CostModel(groups).cost(kept), CostModel(groups).cost()
    assert found == cost_of(cut)
    assert kept[groups.cuttable()].all() or found.macs < whole.macs


@pytest.mark.parametrize("unit", ["macs", "parameters"])
@pytest.mark.parametrize("name", NETS)
def test_what_one_channel_saves(name: str, unit: str) -> None:
    _, groups = parent(name)
    model = CostModel(groups)
    measure = model.macs if unit == "macs" else model.parameters
    saved = model.by_channel(unit)
    for group in groups:
        for channel in group.channels:
            kept = groups.everything()
            kept[channel] = False
            assert saved[channel] == pytest.approx(measure() - measure(kept), abs=1)


def test_what_can_be_cut() -> None:
    model = CostModel(parent("convolutions")[1])
    assert model.cuttable_parameters() == model.parameters() - 4
    assert model.cuttable_macs() == model.macs()
    assert model.parameters_by_group() == {
        "conv1": 108 + 6 + 270,
        "conv2": 270 + 5 + 20,
        "y": 20 + 4,
    }
