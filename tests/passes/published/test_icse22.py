"""Maps of positions: where convolutions are on, what needs a position, and modules with both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.passes.base import Context
from graft.passes.compose import Compose
from graft.passes.mask import Mask
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.published import masks
from graft.passes.published.icse22_backtrack import Backtrack
from graft.passes.published.icse22_maps import Watched, apply
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from tests import small

SHAPE = [2, 6, 6]


def labelled(model: Model, count: int = 120) -> Samples:
    """Samples of four classes, by the brightness of their first channel."""
    x = small.inputs(SHAPE, count)
    bright = x[:, 0].mean(axis=(1, 2))
    return small.samples(
        x, np.searchsorted(np.quantile(bright, [0.25, 0.5, 0.75]), bright), model.require_card()
    )


@pytest.mark.parametrize("concerned", [3, 9])
def test_positions_stay_that_any_example_turns_on(concerned: int) -> None:
    """By hand: convolutions, the hidden dense layer, and the mean of the other outputs."""
    model = small.model(small.residual_net())
    of, samples = Parent(model), labelled(model)
    method = masks()["icse22:ci-ti-mc"].with_options(concerned=concerned)
    report = Mask("c", method)(of, Context(samples=samples, device=small.CPU))
    rows = [np.flatnonzero(samples.labels == 2)[:concerned]]
    rows += [np.flatnonzero(samples.labels == other)[: concerned // 3] for other in (0, 1, 3)]
    x = small.inputs(SHAPE, 120)[np.concatenate(rows)]
    expected, off = model.copy(), 0
    for name in ("conv0", "conv1", "conv2"):
        on = (small.activations_of(model, name, x) > 0).any(axis=0)
        off += int((~on).sum())
        expected = with_map(expected, name, on)
    assert report.removed == off > 0
    units = (small.activations_of(model, "hidden", x) > 0).any(axis=0)
    expected = with_map(expected, "hidden", units)
    fresh = small.inputs(SHAPE, 30, seed=7)
    logits = small.run(expected, fresh)["y"]
    pair = np.stack([logits[:, 2], np.delete(logits, 2, axis=1).mean(axis=1)], axis=1)
    assert report.model.require_card().labels == ("c", OTHER)
    np.testing.assert_allclose(small.run(report.model, fresh)["y"], pair, rtol=1e-4, atol=1e-5)


def with_map(model: Model, name: str, on: np.ndarray) -> Model:
    """The model with a tensor multiplied by zeros and ones."""
    found = model.copy()
    apply(found, {name: on})
    return found


def linear() -> Model:
    """Convolutions without activations: what reaches the output can be told from numbers."""
    net = small.Net(2, 7, 7, seed=3)
    one = net.conv("conv1", "x", 3, 2, pads=[1, 1, 1, 1])
    two = net.conv("conv2", one, 4, 3, strides=[2, 2], pads=[0, 1, 1, 0])
    pooled = net.node("AveragePool", "pooled", two, kernel_shape=[2, 2], strides=[1, 1])
    three = net.conv("conv3", pooled, 4, 4, 1)
    total = net.node("Add", "total", three, pooled)
    flat = net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", total))
    net.gemm("y", flat, 4, 4)
    return small.model(net)


@given(seed=st.integers(0, 1000), share=st.floats(0.1, 0.9))
@settings(max_examples=20, deadline=None)
def test_exactly_the_positions_that_reach_the_output_are_needed(seed: int, share: float) -> None:
    """Through two convolutions, a pooling and a residual: turning off the others changes nothing."""
    model, draw = linear(), np.random.default_rng(seed)
    names = ("conv1", "conv2", "conv3")
    shapes = {n: tuple(t.shape[1:]) for n, t in model.graph.tensors().items() if t.shape and len(t.shape) > 1}
    if "conv1" not in shapes:
        model.refresh_shapes()
        shapes = {
            n: tuple(t.shape[1:]) for n, t in model.graph.tensors().items() if t.shape and len(t.shape) > 1
        }
    maps = {name: draw.random(shapes[name]) < share for name in names}
    before = {name: mask.copy() for name, mask in maps.items()}
    kept = draw.random(4) < 0.7
    head = model.graph.tensors()["y.w"]
    head.values = head.values * kept
    Backtrack(model, shapes, maps, through=True).run("flat", kept)
    assert all((maps[name] <= before[name]).all() for name in names)
    masked = model.copy()
    apply(masked, before)
    fewer = model.copy()
    apply(fewer, maps)
    x = small.inputs([2, 7, 7], 6)
    np.testing.assert_allclose(small.run(fewer, x)["y"], small.run(masked, x)["y"], atol=1e-5)
    for place in np.argwhere(maps["conv1"])[::7]:
        without = {**maps, "conv1": maps["conv1"].copy()}
        without["conv1"][tuple(place)] = False
        less = model.copy()
        apply(less, without)
        assert np.abs(small.run(less, x)["y"] - small.run(fewer, x)["y"]).max() > 1e-7, "it is needed"


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("more", [{}, {"variant": "prose"}, {"propagation": "linear"}, {"map": "relu"}])
@pytest.mark.parametrize("method", ["icse22:ci-ti-mc", "icse22:bln", "icse22:bi"])
def test_all_approaches_make_modules_that_compose(method: str, more: dict[str, Any], hidden: bool) -> None:
    model = small.model(small.residual_net() if hidden else small.conv_net())
    of = Parent(model)
    shape = [2, 6, 6] if hidden else [2, 6, 5]
    x = small.inputs(shape, 80)
    samples = small.samples(x, np.arange(80) % 4, of.card)
    asked = masks()[method].with_options(concerned=6, **more)
    reports = [Mask(name, asked, cut=True)(of, Context(samples=samples, device=small.CPU)) for name in "abcd"]
    assert all(report.removed for report in reports)
    joined = Compose("branches", scores=asked.scores)(
        Modules([each.model for each in reports]), Context(device=small.CPU)
    ).model
    fresh = small.inputs(shape, 40, seed=5)
    shares = [small.softmax(small.run(each.model, fresh)["y"])[:, 0] for each in reports]
    np.testing.assert_array_equal(
        small.run(joined, fresh)["y"].argmax(axis=1), np.stack(shares, axis=1).argmax(axis=1)
    )


def test_a_channel_that_is_never_on_is_cut() -> None:
    net = small.conv_net()
    model = small.model(net)
    bias = model.graph.tensors()["conv1.b"]
    bias.values = bias.values.copy()
    bias.values[2] = -100
    of = Parent(model)
    samples = small.samples(small.inputs([2, 6, 5], 40), np.arange(40) % 4, of.card)
    report = Mask("a", masks()["icse22:ci-ti-mc"], cut=True)(of, Context(samples=samples, device=small.CPU))
    assert report.plan.kept["conv1"].tolist() == [True, True, False, True, True, True]
    assert (report.difference or 0) < 1e-5


def test_nodes_of_the_other_classes_are_followed_back() -> None:
    """A feature with a large weight to the class and a small one to the others is irrelevant as printed."""
    model = small.model(small.conv_net())
    head = model.graph.tensors()["y.w"]  # (classes, features)
    head.values = np.zeros((4, 5), np.float32)
    head.values[0], head.values[1:] = 0.1, 0.1
    head.values[0, 3], head.values[1:, 3] = 0.9, -0.9
    head.values[0, 1], head.values[1:, 1] = -0.9, 0.9
    of = Parent(model)
    samples = small.samples(small.inputs([2, 6, 5], 40), np.arange(40) % 4, of.card)
    kept = []
    for variant in ("paper", "prose"):
        method = masks()["icse22:bln"].with_options(variant=variant)
        report = Mask("a", method, cut=True)(of, Context(samples=samples, device=small.CPU))
        kept.append(np.flatnonzero(~report.plan.kept["conv2"]).tolist())
    assert kept == [[3], [1]]


def test_what_does_not_fit_is_said() -> None:
    context = Context(samples=small.samples(small.inputs([6])), device=small.CPU)
    with pytest.raises(GraftError, match="it is for convolutions, then dense layers"):
        Mask("b", masks()["icse22:bln"])(Parent(small.model(small.dense_net())), context)
    with pytest.raises(GraftError, match="has no variant code"):
        masks()["icse22:bln"].with_options(variant="code")
    free = small.model(small.conv_net()).copy()
    free.graph.inputs[0].shape = ["N", 2, "H", "W"]
    free.refresh_shapes()
    with pytest.raises(GraftError, match="has no fixed size"):
        Watched.of(free, ["conv1"], "m")
