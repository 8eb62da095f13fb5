"""Importance methods: which channels score high, on networks where the answer is known; methods by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graft.passes.identify import METHODS, ImportanceInputs, Method, method_of
from graft.rewriter.arrays import Scores
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.record.profile import Profile
from tests import small
from tests.small import Net

LABELS = ("a", "b", "c")


def specialists() -> tuple[Model, Profile, Samples]:
    """Hidden unit i is on for class i only; unit 3 for all alike, unit 4 never."""
    net = Net(5)
    made = net.node("Gemm", "dense", "x", net.constant("w", np.eye(5)), net.constant("c", [0] * 5))
    relu = net.node("Relu", "relu", made)
    net.node("Gemm", "y", relu, net.constant("v", np.ones((5, 3))), net.constant("b", [0] * 3))
    labels = np.arange(60) % 3
    random = np.random.default_rng(0)
    x = np.full((60, 5), -1.0)
    x[np.arange(60), labels] = random.uniform(1, 2, 60)
    x[:, 3] = random.permutation(np.repeat([0.5, 2.0], 30))
    model = small.model(net, labels=LABELS)
    data = small.samples(x.astype(np.float32), labels, small.card(LABELS))
    return model, small.profile(model, data), data


def ask(method: Method, *classes: str, seed: int = 0) -> Scores:
    """Scores of the five hidden units."""
    model, profile, data = specialists()
    groups = ChannelGroups(model)
    scores = method.scores(
        ImportanceInputs(Analysed(model, groups), profile, LABELS, classes, seed, data, small.CPU)
    )
    assert scores.shape == (groups.count,)
    assert (scores >= 0).all()
    found: Scores = scores[groups["dense"].channels]
    return found


@pytest.mark.parametrize("name", ["activity", "contrast"])
def test_a_unit_of_the_class_scores_above_one_of_another(name: str) -> None:
    for number, label in enumerate(LABELS):
        scores = ask(method_of(name), label)
        others = [unit for unit in range(3) if unit != number]
        assert scores[number] > 1.5 * scores[others].max()
        assert scores[4] == 0


def test_activity_is_the_difference_of_shares() -> None:
    activity = method_of("activity")
    model, profile, _ = specialists()
    groups = ChannelGroups(model)
    for classes, wanted in (
        (["a"], [1, -0.5, -0.5, 0, 0]),
        (["a", "b"], [0.5, 0.5, -1, 0, 0]),
        (["a", "b", "c"], [1 / 3, 1 / 3, 1 / 3, 1, 0]),
    ):
        inputs = ImportanceInputs(Analysed(model, groups), profile, LABELS, tuple(classes))
        found = activity.activity(inputs)[groups["dense"].channels]  # type: ignore[attr-defined]
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_contrast_prefers_what_tells_the_class_from_the_rest() -> None:
    contrast = ask(method_of("contrast"), "a")
    spread = np.var([1.25, 0, 0]) - np.var([0.5, 2.0])
    assert spread < 0, "the unit that is on for all varies more"
    assert contrast[0] > contrast[3]


def test_magnitude_is_the_weight_of_a_layer_and_knows_no_classes() -> None:
    net = small.dense_net()
    model = small.model(net)
    groups = ChannelGroups(model)
    profile = small.profile(model, small.samples(small.inputs(net.shape)))
    magnitude = method_of("magnitude")
    scores = magnitude.scores(ImportanceInputs(Analysed(model, groups), profile, small.LABELS, ("a",)))
    weight = np.abs(small.numpy_helper.to_array(net.constants["dense.w"]))
    wanted = weight.mean(axis=1) / weight.mean()
    np.testing.assert_allclose(scores[groups["dense"].channels], wanted, rtol=1e-6)
    again = magnitude.scores(ImportanceInputs(Analysed(model, groups), profile, small.LABELS, ("b", "c"), 7))
    np.testing.assert_array_equal(scores, again)


def test_random_scores_are_drawn_by_seed_and_classes() -> None:
    random = method_of("random")
    first = ask(random, "a")
    np.testing.assert_array_equal(first, ask(random, "a"))
    assert len(set(first)) == 5
    assert not np.array_equal(first, ask(random, "b"))
    assert not np.array_equal(first, ask(random, "a", "b"))
    assert not np.array_equal(first, ask(random, "a", seed=1))


def test_two_channel_axes_of_one_tensor_are_scored_apart() -> None:
    net = Net(3, 5)
    made = net.node("Conv", "made", "x", net.weight("w1", 6, 3, 1))
    relu = net.node("Relu", "relu", net.node("MatMul", "mixed", made, net.weight("w2", 5, 7)))
    one = net.node("Conv", "one", relu, net.weight("w3", 4, 6, 1))
    two = net.node("MatMul", "two", relu, net.weight("w4", 7, 4))
    means = [net.node("ReduceMean", f"mean_{t}", t, axes=[2], keepdims=0) for t in (one, two)]
    net.gemm("y", net.node("Concat", "both", *means, axis=1), 4, 10)
    model = small.model(net)
    groups = ChannelGroups(model)
    data = small.samples(small.inputs(net.shape))
    profile = small.profile(model, data)
    for method in METHODS:
        inputs = ImportanceInputs(Analysed(model, groups), profile, small.LABELS, ("a",), 0, data, small.CPU)
        scores = method.scores(inputs)
        for name in ("made", "mixed"):
            assert (scores[groups[name].channels] > 0).all()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_rest_without_samples_is_no_rest(method: Method) -> None:
    model, profile, data = specialists()
    few = replace(profile, counts=profile.counts * [1, 1, 0])
    groups = ChannelGroups(model)
    inputs = ImportanceInputs(Analysed(model, groups), few, LABELS, ("a", "b"), 0, data, small.CPU)
    assert inputs.rest == ()
    assert np.isfinite(method.scores(inputs)).all()


def test_every_method_has_a_name_of_its_own() -> None:
    assert len({method.name for method in METHODS}) == len(METHODS)
    assert all(method_of(method.name) is method for method in METHODS)


def test_an_unknown_method_shows_the_known_ones() -> None:
    with pytest.raises(GraftError) as caught:
        method_of("intuition")
    assert caught.value.code == "method-unknown"
    assert "activity" in caught.value.hint
    with pytest.raises(GraftError, match="'ablatin'; did you mean 'ablation'\\?; choose from"):
        method_of("ablatin")
