"""Latency: tables of measured nodes, and what they predict for a mask."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.measure.latency import (
    STEP,
    Entry,
    LatencyModel,
    LatencyTable,
    _alone,
    _lists,
    _not_negative,
)
from graft.rewriter.operators import operator_of
from tests import small
from tests.small import Net

COUNTS = np.array([[16, 16], [16, 64], [64, 16], [64, 64]], float)


def wide(width: int = 64) -> Net:
    """A stem, a depthwise, a dense and a transposed convolution; pooled, a head."""
    net = Net(4, 16, 16)
    stem = net.node("Relu", "stem", net.conv("conv0", "x", width, 4, pads=[1, 1, 1, 1]))
    weight = net.weight("each.w", width, 1, 3, 3)
    each = net.node("Conv", "each", stem, weight, group=width, pads=[1, 1, 1, 1])
    dense = net.node("Relu", "relu", net.conv("conv1", each, width, width, pads=[1, 1, 1, 1]))
    weight = net.weight("up.w", width, width, 2, 2)
    large = net.node("ConvTranspose", "up", dense, weight, strides=[2, 2])
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", large)), 4, width)
    return net


class Case:
    def __init__(self) -> None:
        self.model = small.model(wide())
        self.table = LatencyTable(self.model, small.CPU)
        self.groups = self.table.analyse(self.model)
        self.cost = CostModel(self.groups, table=self.table)


case = cache(Case)


def recurrent() -> Model:
    net = Net(5, 6)
    turned = net.node("Transpose", "turned", "x", perm=[1, 0, 2])
    sizes = (net.weight("W", 1, 128, 6), net.weight("R", 1, 128, 32))
    net.nodes.append(helper.make_node("LSTM", [turned, *sizes], ["", "last"], name="LSTM", hidden_size=32))
    net.gemm("y", net.node("Squeeze", "flat", "last", net.ints("zero", 0)), 4, 32)
    return small.model(net)


def test_a_table_interpolates_between_full_blocks() -> None:
    times = 1 + COUNTS @ [0.01, 0.02] + 0.003 * COUNTS.prod(axis=1)
    entry = Entry.of("Conv", COUNTS, times)
    for a, b in [(32, 48), (48, 16), (64, 64)]:
        assert entry.predict(np.array([a, b], float)) == pytest.approx(
            1 + 0.01 * a + 0.02 * b + 0.003 * a * b
        )
    assert entry.predict(np.array([33.0, 64])) == entry.predict(np.array([48.0, 64]))
    assert entry.predict(np.array([0.0, 64])) == 0
    slopes = entry.slopes(np.array([64.0, 64.0]))
    fewer = [entry.predict(np.array(each, float)) for each in ([48, 64], [64, 48])]
    np.testing.assert_allclose(times[-1] - np.array(slopes) * STEP, fewer)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20))
def test_no_list_of_channels_saves_time_by_being_there(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, values = random.random((5, 4)), random.normal(size=5)
    found = _not_negative(rows, values)
    assert (found >= 0).all()
    error = ((rows @ found - values) ** 2).sum()
    for other in np.maximum(0, found + random.normal(0, 0.1, (50, 4))):
        assert error <= ((rows @ other - values) ** 2).sum() + 1e-9


def test_the_table_knows_every_node_that_works() -> None:
    assert sorted(row["operator"] for row in case().table.rows()) == [*["Conv"] * 3, "ConvTranspose", "Gemm"]
    for row in case().table.rows():
        assert len(row["channels"]) == len(row["milliseconds"]) and min(row["milliseconds"]) > 0
    assert [row["operator"] for row in LatencyTable(recurrent(), small.CPU).rows()] == ["LSTM", "Gemm"]


def test_equal_nodes_are_measured_once() -> None:
    net = Net(32)
    made = net.node("Relu", "r1", net.gemm("one", "x", 32, 32))
    for name in ("two", "three"):
        made = net.node("Relu", f"r_{name}", net.gemm(name, made, 32, 32))
    net.gemm("y", made, 4, 32)
    rows = LatencyTable(small.model(net), small.CPU).rows()
    assert [row["channels"][-1] for row in rows] == [[32], [32, 32], [32, 4]]


@small.timed
def test_what_is_predicted_is_what_a_cut_takes() -> None:
    of = Case()
    assert of.cost.latency() == pytest.approx(of.table.milliseconds)
    kept = of.groups.everything()
    for name in ("conv0", "conv1"):
        kept[of.groups[name].channels[32:]] = False
    cut = of.model.copy()
    small.prune(cut, Plan.of(of.groups, kept, ""))
    timed = of.table.compare(cut)
    assert timed.ratio == pytest.approx(of.cost.latency(kept) / of.cost.latency(), rel=0.3)
    assert timed.ratio < 0.7
    assert of.table.compare(of.model).ratio == pytest.approx(1, rel=0.25)


def test_a_clock_that_stands_still_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.thread_time", lambda: 1.0)
    table = LatencyTable(small.model(wide(16)), small.CPU)
    assert table.milliseconds > 0
    assert all(min(row["milliseconds"]) > 0 for row in table.rows())


def test_what_one_channel_saves() -> None:
    of = case()
    saved = of.cost.by_channel("latency")
    for name in ("conv0", "conv1", "up"):
        kept = of.groups.everything()
        kept[of.groups[name].channels[48:]] = False
        fewer = of.cost.latency() - of.cost.latency(kept)
        assert fewer > 0
        assert saved[~kept].sum() == pytest.approx(fewer)


@pytest.mark.parametrize("left", [16, 64])
def test_a_node_alone_is_cut_as_in_the_graph(left: int) -> None:
    of = case()
    for node in of.groups.nodes:
        if not operator_of(node).work(node, of.groups):
            continue
        lists = _lists(node, of.groups)
        kept = of.groups.everything()
        for channels in lists:
            kept[channels[left:]] = False
        proto = _alone(node, of.groups, kept, of.model).proto()
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto))
        weight = next(w for w in proto.graph.initializer if len(w.dims) > 1)
        full = next(t for t in node.inputs[1:] if len(t.shape) > 1).shape
        assert list(weight.dims) == [min(size, left) if size == 64 else size for size in full]


def test_a_free_size_is_refused() -> None:
    proto = small.conv_net().proto(y=[4])
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(GraftError) as caught:
        LatencyTable(Model.from_proto(proto, small.card()), small.CPU)
    assert caught.value.code == "latency-shape"


def test_a_fixed_batch_is_kept() -> None:
    proto = small.dense_net().proto(y=[4])
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    assert LatencyTable(Model.from_proto(proto, small.card()), small.CPU).batch == 3


def test_without_a_table_there_is_no_latency() -> None:
    with pytest.raises(GraftError) as caught:
        CostModel(ChannelGroups(small.model(small.dense_net()))).latency()
    assert caught.value.code == "latency-unmeasured"


def test_a_headed_model_is_measured_by_the_table_of_its_parent() -> None:
    of = case()
    before = len(of.table.rows())
    assert LatencyModel(of.groups, of.table).milliseconds() == of.cost.latency()
    assert len(of.table.rows()) == before
