"""Compensation: exact where a removed channel is constant, or a linear map of kept ones."""

from __future__ import annotations

import numpy as np
import pytest

from graft.passes.base import Declined
from graft.passes.compensate import fold as compensate
from graft.passes.compensate.fold import Fold
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.plan import Plan
from graft.rewriter.record.profile import Profile
from tests import small
from tests.small import Net


class Cut:
    """A net with channels of group ``made`` removed, beside its parent."""

    def __init__(self, net: Net, removed: list[int], step: str, **outputs: list[int | None]) -> None:
        outputs = outputs or {"y": [4]}
        self.x = small.inputs(net.shape)
        self.parent = Model.from_proto(net.proto(**outputs))
        self.parent.card = small.card()
        probe = self.parent if len(outputs["y"]) == 1 else small.pooled(self.parent)
        self.profile = small.profile(probe, small.samples(self.x, of=probe.require_card()))
        plan = small.plan(self.parent, made=removed)
        self.model = self.parent.copy()
        self.report = Fold(plan, small.LABELS, step)(Analysed.of(self.model), small.context(self.profile))
        small.prune(self.model, plan)
        self.whole, self.found = (small.run(m, self.x)["y"] for m in (self.parent, self.model))

    @property
    def error(self) -> float:
        return float(np.abs(self.whole - self.found).max() / np.abs(self.whole).max())


def constant_rows(net: Net, name: str, rows: list[int], axis: int = 0) -> None:
    """Zero weights make a channel whose value is its bias."""
    weight = small.numpy_helper.to_array(net.constants[name]).copy()
    np.moveaxis(weight, axis, 0)[rows] = 0
    net.constant(name, weight, weight.dtype)


def bias(net: Net, size: int, name: str) -> str:
    return net.constant(name, np.linspace(0.5, 1.5, size))


def convolution(**attributes: object) -> Net:
    """Two constant channels, read by a convolution of four classes."""
    net = Net(2, 7, 6)
    made = net.node("Conv", "made", "x", net.weight("w", 5, 2, 1, 1), bias(net, 5, "b"))
    constant_rows(net, "w", [1, 3])
    net.conv("y", net.node("Relu", "relu", made), 4, 5, **attributes)
    return net


def gemm(alpha: float = 1.0, beta: float = 1.0, turned: int = 1, biased: bool = True) -> Net:
    net = Net(6)
    made = net.node("Gemm", "made", "x", net.weight("w", 6, 7), bias(net, 7, "b"))
    constant_rows(net, "w", [0, 4, 5], axis=1)
    matrix = net.weight("v", *((4, 7) if turned else (7, 4)))
    more = [net.weight("c", 4)] if biased else []
    relu = net.node("Relu", "relu", made)
    net.node("Gemm", "y", relu, matrix, *more, transB=turned, alpha=alpha, beta=beta)
    return net


def matmul(added: str) -> Net:
    """``added``: where the bias of the reading MatMul stands."""
    net = Net(5, 3)
    made = net.node("MatMul", "made", "x", net.weight("w", 3, 6))
    constant_rows(net, "w", [2, 3], axis=1)
    relu = net.node("Relu", "relu", net.node("Add", "plus", made, bias(net, 6, "b")))
    product = net.node("MatMul", "product", relu, net.weight("v", 6, 4))
    sums = {
        "none": lambda: product,
        "right": lambda: net.node("Add", "sum", product, net.weight("c", 4)),
        "left": lambda: net.node("Add", "sum", net.weight("c", 4), product),
        "wide": lambda: net.node("Add", "sum", product, net.weight("c", 5, 4)),
        "twice": lambda: net.node("Mul", "square", product, product),
    }
    net.node("ReduceMean", "y", sums[added](), axes=[1], keepdims=0)
    return net


EXACT = {
    "gemm": (gemm(), [0, 4, 5]),
    "gemm alpha beta": (gemm(0.5, 3.0), [0, 4]),
    "gemm beta 0": (gemm(2.0, 0.0), [0, 4]),
    "gemm as it is": (gemm(turned=0), [5]),
    "gemm no bias": (gemm(0.7, 2.0, biased=False), [0, 5]),
    **{f"matmul {kind}": (matmul(kind), [2, 3]) for kind in ("none", "right", "left", "wide")},
    "matmul read twice": (matmul("twice"), [2, 3]),
}


@pytest.mark.parametrize("step", ["mean", "fold"])
@pytest.mark.parametrize("name", EXACT)
def test_constant_channels_of_dense_layers_cost_nothing(name: str, step: str) -> None:
    net, removed = EXACT[name]
    cut = Cut(net, removed, step)
    assert cut.report.changed == 1
    assert cut.error < (1e-5 if step == "mean" else 0.02)
    assert Cut(net, removed, "none").error > 0.05


@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 1]}, {"dilations": [2, 2]}])
def test_constant_channels_of_an_unpadded_convolution_cost_nothing(
    attributes: dict[str, list[int]],
) -> None:
    cut = Cut(convolution(**attributes), [1, 3], "mean", y=[4, None, None])
    assert cut.error < 1e-5
    assert Cut(convolution(**attributes), [1, 3], "none", y=[4, None, None]).error > 0.05


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 1, 1, 1]},
        {"pads": [2, 0, 1, 2]},
        {"pads": [1, 1, 1, 1], "strides": [2, 3]},
        {"pads": [2, 2, 2, 2], "dilations": [2, 3]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
    ],
)
def test_a_padded_convolution_keeps_the_mean_over_all_positions(
    attributes: dict[str, object],
) -> None:
    cut = Cut(convolution(**attributes), [1, 3], "mean", y=[4, None, None])
    scale = np.abs(cut.whole).max()
    means = [values.mean(axis=(2, 3)) for values in (cut.whole, cut.found)]
    np.testing.assert_allclose(means[1], means[0], atol=1e-5 * scale)
    assert cut.error > 1e-3, "single positions at the border differ"


def linear_convolution(groups: int = 1) -> Net:
    """Channel 4 is an affine function of channels 0 and 1, no nonlinearity behind it."""
    net = Net(2, 5, 5)
    weight = net.rng.normal(size=(6, 2, 1, 1))
    weight[:2] = np.array([[1.0, 0.3], [-0.4, 1.2]])[:, :, None, None]
    weight[4] = 2 * weight[0] - 0.5 * weight[1]
    made = net.node("Conv", "made", "x", net.constant("w", weight), bias(net, 6, "b"))
    weight = net.weight("y.w", 4, 6 // groups, 1, 1)
    net.node("Conv", "y", made, weight, net.weight("y.b", 4), group=groups)
    return net


def linear_gemm(alpha: float, turned: int) -> Net:
    net = Net(3)
    weight = net.rng.normal(size=(3, 6))
    weight[:, 4] = weight[:, 0] - 2 * weight[:, 2]
    made = net.node("Gemm", "made", "x", net.constant("w", weight), bias(net, 6, "b"))
    matrix = net.weight("v", *((4, 6) if turned else (6, 4)))
    net.node("Gemm", "y", made, matrix, net.weight("c", 4), alpha=alpha, beta=0.5, transB=turned)
    return net


@pytest.mark.parametrize(
    ("net", "shape"),
    [(linear_convolution(), [4, 5, 5]), (linear_gemm(0.5, 1), [4]), (linear_gemm(2.0, 0), [4])],
)
def test_fold_replaces_a_linear_function_of_kept_channels(
    net: Net, shape: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Cut(net, [4], "mean", y=shape).error > 0.1
    assert Cut(net, [4], "fold", y=shape).error < 0.005, "but for the ridge"
    monkeypatch.setattr(compensate, "RIDGE", 1e-9)
    assert Cut(net, [4], "fold", y=shape).error < 1e-4


def test_fold_of_a_grouped_convolution_is_the_mean() -> None:
    net = linear_convolution(groups=2)
    removed = [1]  # of three tied pairs
    mean, fold = (Cut(net, removed, step, y=[4, 5, 5]) for step in ("mean", "fold"))
    assert mean.error > 0.01
    np.testing.assert_allclose(fold.found, mean.found, rtol=1e-5, atol=1e-5)
    means = [cut.mean(axis=(0, 2, 3)) for cut in (fold.whole, fold.found)]
    np.testing.assert_allclose(means[1], means[0], atol=0.2 * np.abs(means[0]).max())


def test_other_users_of_a_weight_keep_it() -> None:
    net = Net(4)
    made = net.node("Relu", "relu", net.gemm("made", "x", 6, 4))
    same = net.node("Sigmoid", "other", net.gemm("dense", "x", 6, 4))
    pinned = net.node("Softmax", "pinned", same, axis=1)
    shared = net.weight("v", 6, 4)
    one, two = net.node("MatMul", "one", made, shared), net.node("MatMul", "two", pinned, shared)
    net.node("Add", "y", one, two)
    parent = small.model(net)
    found = small.profile(parent, small.samples(small.inputs(net.shape)))
    plan = small.plan(parent, made=[0, 3])
    model = parent.copy()
    assert Fold(plan, small.LABELS)(Analysed.of(model), small.context(found)).changed == 1
    nodes = {node.name: node for node in model.graph.nodes}
    original = small.numpy_helper.to_array(net.constants["v"])
    np.testing.assert_array_equal(nodes["two"].inputs[1].values, original)
    assert not np.array_equal(nodes["one"].inputs[1].values, original)
    np.testing.assert_array_equal(
        small.run(parent, small.inputs([4]))["y"], small.run(net.proto(y=[4]), small.inputs([4]))["y"]
    )


@pytest.mark.parametrize("alone", [True, False])
def test_the_classes_count_alone_or_as_much_as_all_others(alone: bool) -> None:
    net = gemm()
    parent, x = small.model(net), small.inputs(net.shape)
    data = small.samples(x, np.arange(40) % 5 % 4)
    model = parent.copy()
    step = Fold(small.plan(parent, made=[1]), ("b",), "mean", alone)
    step(Analysed.of(model), small.context(small.profile(parent, data)))
    unit = small.activations(net, x, "relu")["relu"][:, 1]
    means = [unit[data.labels == row].mean() for row in range(4)]
    wanted = means[1] if alone else means[1] / 2 + (means[0] + means[2] + means[3]) / 6
    weight, old = (small.numpy_helper.to_array(net.constants[n]) for n in "vc")
    node = next(node for node in model.graph.nodes if node.name == "y")
    np.testing.assert_allclose(node.inputs[2].values, old + weight[:, 1] * wanted, rtol=1e-5)


def test_what_the_profile_lacks_is_declined_with_the_reason() -> None:
    model = small.model(gemm())
    counts = np.ones(4, np.int64)
    profile = Profile("p", "d", small.LABELS, counts, counts)
    fold = Fold(small.plan(model, made=[1]), ("a",), "mean")
    report = fold(Analysed.of(model), small.context(profile))
    assert report.changed == 0
    assert report.declined == (Declined("Gemm y", "the profile lacks relu"),)


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(GraftError) as caught:
        Fold(Plan("p", {}), ("a",), "magic")
    assert caught.value.code == "compensate-unknown"
