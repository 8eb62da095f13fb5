"""Refit: targets of layers, the equations, and the results."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.passes.compensate import layer, layer_pair, refit, systems, working_memory
from graft.passes.compensate.fold import Fold
from graft.passes.compensate.least_squares import correction
from graft.passes.compensate.refit import Refit, RefitReport
from graft.passes.cut.verify import Pruned
from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.rewriter import numerics
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.operators import AffineMap, affine_map_of
from graft.rewriter.run import values
from graft.rewriter.run.linear_map import LinearMap
from graft.rewriter.run.session import Device
from graft.rewriter.run.staged import Batches, StagedRun
from tests import small
from tests.small import CPU, LABELS, Net

# ------------------------------------------------------------ layers as affine maps


def affine(net: Net, shape: list[Any], name: str = "y") -> tuple[gs.Node, np.ndarray, np.ndarray]:
    """The node, its input and its output."""
    model = Model.from_proto(net.proto(**{name: shape}))
    x = small.inputs(net.shape, 5)
    node = next(node for node in model.graph.nodes if node.name == name)
    return node, x, small.run(model, x)[name]


def convolution(into: int, out: int, sizes: tuple[int, ...], biased: bool = True, **attributes: Any) -> Net:
    net = Net(into, *sizes)
    group = attributes.get("group", 1)
    weight = net.weight("w", out, into // group, *[3, 2, 2][: len(sizes)])
    more = [net.weight("b", out)] if biased else []
    net.node("Conv", "y", "x", weight, *more, **attributes)
    return net


CONVOLUTIONS = {
    "plain": convolution(3, 4, (6, 5)),
    "no bias": convolution(3, 4, (6, 5), biased=False),
    "padded": convolution(3, 4, (6, 5), pads=[1, 0, 2, 1]),
    "strides": convolution(3, 4, (7, 6), pads=[1, 1, 1, 1], strides=[2, 3]),
    "dilations": convolution(3, 4, (9, 8), pads=[2, 1, 2, 1], dilations=[2, 3]),
    "upper": convolution(3, 4, (7, 6), auto_pad="SAME_UPPER", strides=[2, 2]),
    "lower": convolution(3, 4, (7, 6), auto_pad="SAME_LOWER", strides=[2, 2]),
    "valid": convolution(3, 4, (7, 6), auto_pad="VALID", strides=[2, 1]),
    "grouped": convolution(4, 6, (6, 5), group=2, pads=[1, 1, 1, 1]),
    "depthwise": convolution(4, 8, (6, 5), group=4, pads=[1, 1, 1, 1]),
    "line": convolution(3, 4, (9,), pads=[1, 2], strides=[2]),
    "room": convolution(2, 4, (5, 4, 6), strides=[1, 2, 2]),
}


def map_of(node: gs.Node) -> AffineMap:
    operator = affine_map_of(node)
    assert operator is not None
    return operator


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_rows_times_coefficients_is_what_a_convolution_makes(name: str) -> None:
    net = CONVOLUTIONS[name]
    node, x, made = affine(net, [4, *[None] * (len(net.shape) - 1)])
    operator = map_of(node)
    flat = made.reshape(len(x), made.shape[1], -1)
    places = np.arange(0, flat.shape[2], 2)
    found = operator.rows(node, x, places) @ operator.coefficients(node).swapaxes(1, 2)
    found = found.reshape(found.shape[0], len(x), len(places), -1).transpose(1, 0, 3, 2)
    found = found.reshape(len(x), made.shape[1], -1) + operator.offset(node)[:, None]
    np.testing.assert_allclose(found, flat[:, :, places], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("turned", [0, 1])
def test_rows_times_coefficients_is_what_a_gemm_makes(turned: int) -> None:
    net = Net(6)
    matrix = net.weight("v", *((4, 6) if turned else (6, 4)))
    net.node("Gemm", "y", "x", matrix, net.weight("c", 4), transB=turned, alpha=0.5, beta=3.0)
    node, x, made = affine(net, [4])
    operator = map_of(node)
    rows = operator.rows(node, x, np.arange(1))
    found = (rows @ operator.coefficients(node).swapaxes(1, 2))[0] + operator.offset(node)
    np.testing.assert_allclose(found, made, rtol=1e-4, atol=1e-5)
    before = operator.coefficients(node)
    operator.set_coefficients(node, before)
    np.testing.assert_allclose(operator.coefficients(node), before, rtol=1e-6)


def carried_back(model: Model, node: gs.Node, errors: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """``errors`` of what ``node`` makes, at what it reads."""
    return LinearMap(node, model, CPU).back(errors, map_of(node).coefficients(node), sizes)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_errors_of_a_convolution_are_carried_back_to_where_they_come_from(name: str) -> None:
    net = CONVOLUTIONS[name]
    model = Model.from_proto(net.proto(y=[4, *[None] * (len(net.shape) - 1)]))
    x = small.inputs(net.shape, 5)
    made = small.run(model, x)["y"] - small.run(model, 0 * x)["y"]
    errors = np.random.default_rng(1).normal(size=made.shape).astype(np.float32)
    back = carried_back(model, model.graph.nodes[-1], errors, net.shape)
    assert back.shape == x.shape
    np.testing.assert_allclose((back * x).sum(), (errors * made).sum(), rtol=1e-3)


@pytest.mark.parametrize("op", ["Gemm", "turned", "MatMul"])
def test_errors_of_a_product_are_carried_back_to_where_they_come_from(op: str) -> None:
    net = Net(*((5, 6) if op == "MatMul" else (6,)))
    if op == "MatMul":
        net.node("MatMul", "y", "x", net.weight("v", 6, 4))
    else:
        turned = int(op == "turned")
        matrix = net.weight("v", *((4, 6) if turned else (6, 4)))
        net.node("Gemm", "y", "x", matrix, net.weight("c", 4), transB=turned, alpha=0.5)
    model = Model.from_proto(net.proto(y=[*net.shape[:-1], 4]))
    x = small.inputs(net.shape, 5)
    made = small.run(model, x)["y"] - small.run(model, 0 * x)["y"]
    errors = np.random.default_rng(1).normal(size=made.shape).astype(np.float32)
    back = carried_back(model, model.graph.nodes[-1], errors, net.shape)
    np.testing.assert_allclose((back * x).sum(), (errors * made).sum(), rtol=1e-3)


def test_what_cannot_be_refitted_says_so() -> None:
    net = Net(6)
    net.node("Gemm", "y", "x", net.weight("v", 6, 4), net.weight("c", 3, 4))
    node = Model.from_proto(net.proto(y=[4])).graph.nodes[0]
    assert affine_map_of(node) is None, "a bias for each sample"
    net = Net(6, 4)
    net.node("MatMul", "y", net.weight("v", 3, 6), "x")
    node = Model.from_proto(net.proto(y=[3, 4])).graph.nodes[0]
    assert affine_map_of(node) is None, "the matrix stands left"


# ------------------------------------------------------------ least squares


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_an_affine_map_is_found(seed: int, groups: int, columns: int, outputs: int) -> None:
    draw = np.random.default_rng(seed)
    read = draw.normal(size=(groups, 200, columns)).astype(np.float32)
    old, new = draw.normal(size=(2, groups, outputs, columns)).astype(np.float32)
    constant = draw.normal(size=(groups, outputs)).astype(np.float32)
    beside = draw.normal(size=(groups, 200, outputs)).astype(np.float32)
    made = read @ new.swapaxes(1, 2) + constant[:, None] + beside
    share = draw.random(200).astype(np.float32)
    found = correction(read, made, beside, share / share.sum(), old)
    np.testing.assert_allclose(old + found.step, new, atol=2e-3)
    np.testing.assert_allclose(found.constant, constant, atol=2e-3)


def test_values_that_an_activation_swallows_do_not_count() -> None:
    draw = np.random.default_rng(0)
    read = draw.normal(size=(1, 400, 2)).astype(np.float32)
    made = read[:, :, :1] * 2
    made[made < 0] -= 5 * draw.random((made < 0).sum()).astype(np.float32)
    share = np.full(400, 1 / 400, np.float32)
    nothing = np.zeros((1, 1, 1), np.float32)
    error = {}
    for limits in ((-np.inf, np.inf), (0.0, np.inf)):
        found = correction(read, made, nothing, share, np.zeros((1, 1, 2), np.float32), limits)
        predicted = read @ found.step.swapaxes(1, 2) + found.constant[:, None]
        error[limits[0]] = float(((np.maximum(predicted, 0) - np.maximum(made, 0)) ** 2).mean())
    assert error[0.0] < 0.6 * error[-np.inf]


def test_the_penalty_saves_a_layer_with_more_columns_than_samples() -> None:
    draw = np.random.default_rng(0)
    old = draw.normal(size=(1, 2, 50)).astype(np.float32)
    read, fresh = draw.normal(size=(2, 1, 40, 50)).astype(np.float32)
    noise = draw.normal(size=(1, 40, 2)).astype(np.float32)
    share = np.full(40, 1 / 40, np.float32)
    made = read @ old.swapaxes(1, 2) + noise
    step = correction(read, made, np.zeros((1, 1, 2), np.float32), share, old).step
    assert float(((fresh @ step.swapaxes(1, 2)) ** 2).mean()) < 0.3


@pytest.mark.parametrize("limits", [(0.0, np.inf), (0.0, 1.0), (-np.inf, 0.5)])
def test_targets_that_are_made_in_pieces_give_the_same(
    limits: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    read, old = draw.normal(size=(2, 300, 6)), draw.normal(size=(2, 5, 6))
    made = read @ old.swapaxes(1, 2) + draw.normal(size=(2, 300, 5))
    single = [each.astype(np.float32) for each in (read, made, draw.normal(size=(2, 300, 5)))]
    share = draw.uniform(size=300).astype(np.float32)
    whole = correction(*single, share / share.sum(), old.astype(np.float32), limits)
    monkeypatch.setattr(systems, "MANY", 0)
    monkeypatch.setattr(systems, "CACHED", 700)  # 70 rows at a time
    pieces = correction(*single, share / share.sum(), old.astype(np.float32), limits)
    np.testing.assert_allclose(pieces.step, whole.step, atol=2e-6)
    np.testing.assert_allclose(pieces.constant, whole.constant, atol=2e-6)


@pytest.mark.parametrize("limits", [(-np.inf, np.inf), (0.0, np.inf)])
@pytest.mark.parametrize("rows", [60, 400])
@pytest.mark.parametrize("rough", [False, True])
def test_large_systems_find_the_same_in_less_memory(
    rows: int, limits: tuple[float, float], rough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(3)
    read = draw.normal(size=(2, rows, 90)) + 2
    old = draw.normal(size=(2, 5, 90)) * 0.1
    made = np.clip(read @ old.swapaxes(1, 2) * 1.3 + 3 * draw.normal(size=(2, rows, 5)), *limits)
    single = [each.astype(np.float32) for each in (made, draw.normal(size=(2, rows, 5)))]
    share = draw.uniform(size=rows).astype(np.float32)
    rest = (*single, share / share.sum(), old.astype(np.float32), limits, rough)
    usual = correction(read.astype(np.float32), *rest)
    monkeypatch.setattr(systems, "HUGE", 40)
    monkeypatch.setattr(numerics, "HUGE", 30)
    monkeypatch.setattr(numerics, "LARGE", 20)
    monkeypatch.setattr(numerics, "BLOCK", 16)
    large = correction(read.astype(np.float32), *rest)
    kind = systems.RowSystem if rows < 90 else systems.ColumnSystem
    assert type(usual.system) is systems.ColumnSystem and type(large.system) is kind
    np.testing.assert_allclose(large.step, usual.step, atol=2e-4)
    np.testing.assert_allclose(large.constant, usual.constant, atol=2e-3)
    first = draw.normal(size=(2, 50, 5)).astype(np.float32)
    steps = []
    for system in (usual.system, large.system):
        right, mean = system.cross_of_first(first.copy())
        steps.append(system.factored(np.full(2, 1e-2)).solve(right))
        np.testing.assert_allclose(mean, usual.system.cross_of_first(first.copy())[1], atol=1e-6)
    np.testing.assert_allclose(steps[1], steps[0], atol=2e-4)


def test_a_costly_layer_is_fitted_at_fewer_places() -> None:
    assert layer.rows_of(1, 64, 576) == layer.ROWS and not layer.costly(1, 64, 576)
    assert layer.costly(1, 512, 2048)
    assert layer.rows_of(1, 512, 2048) == layer.PER_COLUMN * 2048  # products would be 1024 rows
    assert layer.rows_of(1, 2048, 64) == layer.PRODUCTS // (2048 * 64)


# ------------------------------------------------------------ the walk


def test_a_walk_meets_what_the_whole_model_computes() -> None:
    net = small.residual_net()
    model = small.model(net)
    x = small.inputs(net.shape, 20)
    batches = Batches.read(small.samples(x, of=model.require_card()), CPU, model, 8)
    assert batches.count == 20
    walk = StagedRun(model, batches, CPU)
    whole = small.activations(net, x, "stem", "inner", "hidden", "y")
    for name, *wanted in (("conv1", "stem"), ("conv2", "inner", "stem"), ("y", "hidden", "y")):
        found = list(walk.at(walk.nodes[name], wanted))
        for each in wanted:
            met = np.concatenate([batch[each] for batch in found])
            np.testing.assert_allclose(met, whole[each], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------ the pass


def related(net: Net, count: int, seed: int = 1) -> np.ndarray:
    """Inputs of four degrees of freedom: what is removed can be told from what is left, as in real data."""
    mix = np.random.default_rng(9).normal(size=(4, *net.shape))
    return np.tensordot(small.inputs((4,), count, seed), mix, 1).astype(np.float32)


class Refitted:
    """A net cut by ``removed``, compensated by folding and refitted."""

    def __init__(self, net: Net, count: int = 200, memory: int | None = None, **removed: list[int]) -> None:
        self.parent = small.model(net)
        self.x = related(net, count)
        data = small.samples(self.x, of=self.parent.require_card())
        plan = small.plan(self.parent, **removed)
        self.folded = self.parent.copy()
        profile = small.profile(self.parent, data)
        Fold(plan, LABELS, alone=True)(Analysed.of(self.folded), small.context(profile))
        small.prune(self.folded, plan)
        self.model = self.folded.copy()
        pruned = Pruned(Analysed.of(self.parent), plan, self.model)
        context = replace(small.context(samples=data), device=replace(CPU, memory=memory))
        self.report = Refit(LABELS, alone=True)(pruned, context)
        fresh = related(net, 300, seed=5)
        whole, folded, found = (
            small.run(each, fresh)["y"] for each in (self.parent, self.folded, self.model)
        )
        scale = float(((whole - whole.mean(axis=0)) ** 2).mean())
        self.before, self.error = (float(((y - whole) ** 2).mean()) / scale for y in (folded, found))


# Net, what is removed, layers, and how much of the error may be left; where the layer before the cut reads
# the input, folding is least squares already.
NETS = {
    "convolutions": (small.conv_net, {"conv1": [0, 3], "conv2": [1]}, 3, 0.75),
    "residual": (small.residual_net, {"conv0": [1, 4], "conv1": [0, 2, 5], "dense": [0, 6]}, 5, 0.8),
    "dense": (small.dense_net, {"dense": [1, 2, 5]}, 2, 1.01),
    "sequence": (small.sequence_net, {"one": [0, 3], "two": [2, 5]}, 3, 0.95),
}


@pytest.mark.parametrize("name", NETS)
def test_a_refitted_model_is_nearer_to_the_parent(name: str) -> None:
    make, removed, layers, share = NETS[name]
    cut = Refitted(make(), **removed)
    assert cut.report.changed == layers
    assert cut.error < share * cut.before, (cut.before, cut.error)


@pytest.mark.parametrize(("name", "share"), [("convolutions", 1.0), ("dense", 0.9)])
def test_a_layer_serves_the_one_behind_it(name: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    make, removed = NETS[name][:2]
    found = Refitted(make(), **removed).error
    monkeypatch.setattr(layer_pair.LayerPair, "find", classmethod(lambda *_: None))
    assert found < share * Refitted(make(), **removed).error


@pytest.mark.parametrize("name", NETS)
def test_what_does_not_fit_into_memory_makes_the_same_bytes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, removed = NETS[name][:2]
    roomy = Refitted(make(), **removed)
    stored, given = [], values._Stored.write
    monkeypatch.setattr(values._Stored, "write", lambda *both: stored.append(both[1].nbytes) or given(*both))
    monkeypatch.setattr(Device, "room", lambda _: 0)
    tight = Refitted(make(), **removed)
    one, two = (each.model.proto().SerializeToString(deterministic=True) for each in (roomy, tight))
    assert one == two and sum(stored) > roomy.x.nbytes
    assert roomy.report == tight.report and not tight.report.declined


@pytest.mark.parametrize("name", ["convolutions", "sequence"])
def test_a_pair_of_many_samples_is_fitted_on_the_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, removed, _, share = NETS[name]
    whole = Refitted(make(), **removed).error
    monkeypatch.setattr(layer_pair, "ENOUGH", 1)  # one batch of 64
    cut = Refitted(make(), **removed)
    assert cut.error != whole and not cut.report.declined
    assert cut.error < share * cut.before


@pytest.mark.parametrize("name", ["convolutions", "sequence"])
def test_a_costly_reader_is_fitted_roughly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, removed, _, share = NETS[name]
    whole = Refitted(make(), **removed).error
    monkeypatch.setattr(layer, "PRODUCTS", 1 << 14)
    monkeypatch.setattr(layer, "PER_COLUMN", 64)
    monkeypatch.setattr(layer, "ROUGHLY", 200)
    cut = Refitted(make(), **removed)
    assert cut.error != whole and not cut.report.declined
    assert cut.error < share * cut.before, (cut.before, whole, cut.error)


def test_too_little_memory_is_said_before_the_work() -> None:
    with pytest.raises(GraftError, match=r"the refit takes [\d.]+ GB of memory, and --memory allows 0.1 GB"):
        Refitted(small.conv_net(), memory=10**8, conv1=[0])


def test_where_equations_do_not_fit_there_are_fewer_of_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make, removed, layers, share = NETS["convolutions"]
    monkeypatch.setattr(working_memory, "FEWEST", 100)
    given = working_memory.Work.places_within
    asked = []

    def within(work: working_memory.Work, allowed: int) -> dict[str, int]:
        assert not given(work, allowed)
        asked.append(work.bytes() - work.tensors)
        found = given(work, work.tensors + asked[0] // 2)
        assert found and work.bytes(found) <= work.tensors + asked[0] // 2
        assert all(100 <= found[name] < work.layers[name].places for name in found)
        return found

    monkeypatch.setattr(working_memory.Work, "places_within", within)
    cut = Refitted(make(), **removed)
    assert cut.report.changed == layers and cut.error < share * cut.before
    assert f"of {layers} layers are refitted at fewer places of the samples" in caplog.text
    assert not given(working_memory.Work({}, 0), 0)


def wide_net() -> Net:
    """Two convolutions over 24 x 24 pixels: 18 kB a sample and tensor."""
    net = Net(3, 24, 24)
    made = "x"
    for number, into in enumerate((3, 8)):
        weight, bias = net.weight(f"w{number}", 8, into, 3, 3), net.weight(f"b{number}", 8)
        made = net.node("Conv", f"conv{number}", made, weight, bias, pads=[1, 1, 1, 1])
        made = net.node("Relu", f"relu{number}", made)
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "mean", made)), 4, 8)
    return net


def test_memory_does_not_grow_with_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "room", lambda _: 0)
    monkeypatch.setattr(layer, "ROWS", 1000)
    monkeypatch.setattr(layer_pair, "ENOUGH", 1)
    given, most = Refit.__call__, []

    def measured(pass_: Refit, *both: Any) -> RefitReport:
        tracemalloc.start()
        report = given(pass_, *both)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return report

    monkeypatch.setattr(Refit, "__call__", measured)
    for count in (128, 128, 768):  # the first run loads what is loaded once
        Refitted(wide_net(), count, conv0=[0, 3], conv1=[1])
    assert most[2] < 1.2 * most[1], most


def test_a_model_that_lost_nothing_stays_as_it_is() -> None:
    cut = Refitted(small.residual_net())
    assert cut.error < 1e-8


def test_a_copy_of_a_channel_takes_over() -> None:
    net = small.conv_net()
    weight = small.numpy_helper.to_array(net.constants["conv1.w"]).copy()
    bias = small.numpy_helper.to_array(net.constants["conv1.b"]).copy()
    weight[4], bias[4] = weight[1], bias[1]
    net.constant("conv1.w", weight)
    net.constant("conv1.b", bias)
    found = Refitted(net, conv1=[4])
    assert found.report.changed == 3
    assert found.error < 1e-4


def test_the_same_bytes_twice() -> None:
    found = [Refitted(small.residual_net(), conv1=[0, 2]) for _ in range(2)]
    assert found[0].report.changed > 0
    one, two, folded = (each.proto() for each in (found[0].model, found[1].model, found[0].folded))
    assert one.SerializeToString(deterministic=True) != folded.SerializeToString(deterministic=True)
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)


def refit_cut(model: Model, data: Samples, **removed: list[int]) -> tuple[Model, RefitReport]:
    """``model`` without ``removed``, refitted."""
    plan, cut = small.plan(model, **removed), model.copy()
    small.prune(cut, plan)
    pruned = Pruned(Analysed.of(model), plan, cut)
    return cut, Refit(LABELS, alone=True)(pruned, small.context(samples=data))


def seven_at_once() -> tuple[Net, Model]:
    """A model for batches of seven."""
    net = small.conv_net()
    proto = net.proto(y=[4])
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 7
    return net, Model.from_proto(proto, small.card())


def test_a_fixed_batch_is_kept() -> None:
    net, model = seven_at_once()
    data = small.samples(small.inputs(net.shape, 30))
    assert refit_cut(model, data, conv1=[0])[1].samples == 28


def test_samples_weigh_by_class() -> None:
    labels = np.repeat([0, 1, 2, 3], [10, 20, 30, 40])
    data = small.samples(small.inputs((3,), 100), labels)
    chosen, weights = refit._chosen(data, ["a", "b"], False, 0, 200)
    total = np.bincount(chosen.labels, weights, 4)
    np.testing.assert_allclose(total[:2], [1, 1])
    np.testing.assert_allclose(total[2:].sum(), 2)
    chosen, weights = refit._chosen(data, ["a", "b"], True, 0, 200)
    assert chosen.counts() == {"a": 10, "b": 20}
    assert len(weights) == 30


def test_decompose_refits_with_data_only() -> None:
    model = small.model(small.conv_net())
    parent = Parent(model)
    data = small.samples(small.inputs((2, 6, 5), 80), of=model.require_card())
    profile = small.profile(parent.model, data, parent.sha256)
    decompose = Decompose(["a", "b"], 0.6, compensate="refit", together=True)
    with pytest.raises(GraftError, match="labelled samples"):
        decompose(parent, small.context(profile))
    found = decompose(parent, small.context(profile, data))
    folded = Decompose(["a", "b"], 0.6, compensate="fold", together=True)(parent, small.context(profile))
    assert found.plan.to_json() == folded.plan.to_json()
    assert small.run(found.model, small.inputs((2, 6, 5)))["y"].shape == (40, 2)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, where the sums overflow
def test_values_that_are_not_finite_are_refused() -> None:
    net = small.conv_net()
    weight = small.numpy_helper.to_array(net.constants["conv1.w"])
    net.constant("conv1.w", weight * 1e25)  # fits float32, its squares do not
    model = small.model(net)
    x = small.inputs(net.shape, 40)
    with pytest.raises(GraftError, match="not finite"):
        refit_cut(model, small.samples(x), conv1=[0])


def test_half_precision_is_fitted_in_single() -> None:
    net = small.conv_net(dtype=np.float16)
    model = small.model(net)
    data = small.samples(small.inputs(net.shape, 60, dtype=np.float16))
    cut, report = refit_cut(model, data, conv1=[0, 3])
    assert report.changed == 3
    assert {t.values.dtype for t in cut.graph.tensors().values() if isinstance(t, gs.Constant)} == {
        np.dtype(np.float16)
    }


@pytest.mark.parametrize(
    ("made", "total", "other", "grows"),
    [
        ((2, 9, 5), (2, 9, 5), (2, 9, 5), False),
        ((2, None, 5), (2, 9, 5), (5,), False),  # the size of a free axis is known behind the sum only
        ((2, None, 5), (2, 9, 5), (1, 1, 1), False),
        ((2, None, 5), (2, 9, 5), (9, 5), True),
        ((2, 9, 1), (2, 9, 5), (5,), True),
        ((2, 5), (2, 9, 5), (9, 5), True),
    ],
)
def test_a_bias_is_met_with_what_it_is_added_to(
    made: tuple[int | None, ...], total: tuple[int, ...], other: tuple[int, ...], grows: bool
) -> None:
    """Else the means that 'fold' has moved into the bias would be counted twice."""
    constant = gs.Constant("c", np.zeros(other, np.float32))
    assert layer._grows(made, total, constant) is grows
    assert layer._grows(made, total, gs.Variable("v", np.float32, other)) is (made != total)
