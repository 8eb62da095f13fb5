"""Profiles: sums per class inside the graph equal sums over the activations."""

from __future__ import annotations

import numpy as np
import pytest

from graft.rewriter.card.card import OTHER
from graft.rewriter.graph.model import Model
from graft.rewriter.record.profile import Profile
from tests import small
from tests.small import LABELS, Array, Net


def expected(values: Array, axis: int, labels: Array) -> dict[str, Array]:
    """Tables of one tensor, computed from its values."""
    rows = np.moveaxis(values, axis, 1).reshape(len(values), values.shape[axis], -1)
    figures = {
        "sum": rows.mean(axis=2),
        "squares": (rows**2).mean(axis=2),
        "active": (rows > 0).mean(axis=2),
        "products": np.einsum("nip,njp->nij", rows, rows).reshape(len(rows), -1) / rows.shape[2],
    }
    members = np.eye(len(LABELS))[labels]
    return {name: members.T @ figure for name, figure in figures.items()}


def check(net: Net, taps: dict[str, tuple[int, str]], rtol: float = 1e-4) -> Profile:
    """Compare all tables. ``taps``: tensor to channel axis and statistics (initials)."""
    model, x = small.model(net), small.inputs(net.shape, 70, dtype=net.dtype)
    samples = small.samples(x)
    found = small.profile(model, samples)
    names = {"a": "active", "s": "sum", "q": "squares", "p": "products"}
    wanted = {names[i]: {t for t, (_, key) in taps.items() if i in key} for i in "asqp"}
    assert {name: set(tables) for name, tables in found.tables.items()} == wanted
    for tensor, values in small.activations(net, x, *taps).items():
        tables = expected(values, taps[tensor][0], samples.labels)
        for name in wanted:
            if tensor in wanted[name]:
                scale = np.abs(tables[name]).max()
                np.testing.assert_allclose(found.tables[name][tensor], tables[name], rtol, rtol * scale)
    np.testing.assert_array_equal(found.counts, np.bincount(samples.labels, minlength=4))
    right = small.run(model, x)["y"].argmax(axis=1) == samples.labels
    np.testing.assert_array_equal(found.correct, np.bincount(samples.labels[right], minlength=4))
    assert found.top1 == right.mean()
    return found


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_convolutions(opset: int) -> None:
    check(small.conv_net(opset), {"relu1": (1, "asqp"), "relu2": (1, "asq"), "flat": (1, "sqp")})


@pytest.mark.parametrize("opset", [13, 18])
def test_dense_layers(opset: int) -> None:
    check(small.dense_net(opset), {"relu": (1, "asqp")})


@pytest.mark.parametrize("opset", [13, 18])
def test_channels_last(opset: int) -> None:
    taps = {"relu1": (2, "asqp"), "relu2": (2, "asq"), "mean": (1, "sqp")}
    check(small.sequence_net(opset), taps)


def test_half_precision() -> None:
    net = small.conv_net(dtype=np.float16)
    check(net, {"relu1": (1, "asqp"), "relu2": (1, "asq"), "flat": (1, "sqp")}, rtol=0.02)


@pytest.mark.parametrize("width", [4, 6])
def test_a_tensor_with_channels_on_two_axes_has_a_table_for_each(width: int) -> None:
    """As in a mixer; where both axes are equally long, too."""
    net = Net(3, 5)
    made = net.node("Conv", "made", "x", net.weight("w1", 6, 3, 1))
    relu = net.node("Relu", "relu", net.node("MatMul", "mixed", made, net.weight("w2", 5, width)))
    one = net.node("Conv", "one", relu, net.weight("w3", 4, 6, 1))
    two = net.node("MatMul", "two", relu, net.weight("w4", width, 4))
    means = [net.node("ReduceMean", f"mean_{t}", t, axes=[2], keepdims=0) for t in (one, two)]
    net.gemm("y", net.node("Concat", "both", *means, axis=1), 4, 10)
    model, x = small.model(net), small.inputs(net.shape)
    samples = small.samples(x)
    found = small.profile(model, samples)
    relu_values = small.activations(net, x, "relu")["relu"]
    for key, axis in (("relu", 1), ("relu@2", 2)):
        for name, table in expected(relu_values, axis, samples.labels).items():
            np.testing.assert_allclose(found.tables[name][key], table, 1e-4, 1e-4)


def test_classes_not_asked_for_share_a_row() -> None:
    net = small.conv_net()
    model, samples = small.model(net), small.samples(small.inputs(net.shape))
    whole = small.profile(model, samples)
    pooled = small.profile(model, samples, classes=("c", "a"))
    assert pooled.classes == ("a", "c", OTHER)
    np.testing.assert_array_equal(pooled.counts, whole.counts[[0, 2, 1]] + [0, 0, whole.counts[3]])
    for name, tables in whole.tables.items():
        for tensor, table in tables.items():
            merged = np.stack([table[0], table[2], table[1] + table[3]])
            np.testing.assert_allclose(pooled.tables[name][tensor], merged, 1e-4, 1e-4)


def test_all_classes_asked_for_leave_no_other_row() -> None:
    net = small.dense_net()
    samples = small.samples(small.inputs(net.shape))
    found = small.profile(small.model(net), samples, classes=LABELS)
    assert found.classes == LABELS


def test_batches_do_not_matter_and_progress_is_told() -> None:
    net = small.conv_net()
    model, samples = small.model(net), small.samples(small.inputs(net.shape))
    steps: list[int] = []
    found = small.profile(model, samples, batch=7, progress=steps.append)
    assert steps == [7, 7, 7, 7, 7, 5]
    whole = small.profile(model, samples)
    for name, tables in whole.tables.items():
        for tensor, table in tables.items():
            np.testing.assert_allclose(found.tables[name][tensor], table, 1e-4, 1e-5)


def test_the_model_is_left_as_it_is() -> None:
    net = small.conv_net()
    model = small.model(net)
    before = model.proto().SerializeToString(deterministic=True)
    small.profile(model, small.samples(small.inputs(net.shape)))
    assert model.proto().SerializeToString(deterministic=True) == before


def test_other_outputs_need_not_be_classes() -> None:
    net = small.conv_net()
    net.node("Sigmoid", "extra", "relu1")
    proto = net.proto(y=[4], extra=[6, 4, 3])
    samples = small.samples(small.inputs(net.shape))
    found = small.profile(Model.from_proto(proto, small.card()), samples)
    assert "relu2" in found.tables["sum"]
    assert found.counts.sum() == 40
