"""Classes that another module decides, that are added, and that are removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graft.passes.base import Context
from graft.passes.compare.max_likelihood import PENALTY, max_likelihood
from graft.passes.compare.one_vs_rest import OneVsRest
from graft.passes.compose import Compose
from graft.passes.decompose import Decompose
from graft.passes.join.patch import Newcomer, Patch
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.remove import Remove
from graft.passes.replace import Replace
from graft.passes.trunk import Source
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import score
from graft.rewriter.record.provenance import numbering, origin_of
from tests import small
from tests.passes.compare.test_joint_head import FIRST, SECOND, learn, modules, split
from tests.small import CPU

Array = NDArray[Any]


def run(model: Model, x: Array) -> Array:
    card = model.require_card()
    found = CPU.open(model).run({card.inputs[0].name: x}, [card.output.name])
    return np.asarray(found[card.output.name], np.float64)


def shares(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def parent(seed: int, labels: tuple[str, ...] = FIRST, output: str = "logits", taught: bool = True) -> Parent:
    net = small.Net(6, seed=seed)
    hidden = net.node("Relu", "relu", net.gemm("dense", "x", 12, 6))
    last = net.gemm("y" if output == "logits" else "z", hidden, len(labels), 12)
    if taught:
        learn(net, last, labels)
    if output == "probabilities":
        net.node("Softmax", "y", "z", axis=-1)
    return Parent(small.model(net, output, labels))


def module(of: Parent, *classes: str, keep: float = 1.0) -> Model:
    samples = Samples.match(split(400, 1), of.card, names=FIRST + SECOND)
    profile = small.profile(of.model, samples, of.sha256)
    return Decompose(classes, keep)(of, small.context(profile)).model


def inputs(count: int = 50, seed: int = 0) -> Array:
    return np.asarray(np.random.default_rng(seed).normal(size=(count, 6)) * 2, np.float32)


# ------------------------------------------------------------------------------- without data


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 3),
    st.sampled_from(["logits", "probabilities"]),
    st.sampled_from(["logits", "probabilities"]),
)
def test_the_share_is_what_the_newcomer_says_and_the_others_stay(place: int, kind: str, other: str) -> None:
    name = FIRST[place]
    base, better = parent(1, output=kind, taught=False), parent(2, output=other, taught=False)
    found = module(better, name)
    report = Replace()(Patch(base.source, Newcomer(found, name, name), name), Context())
    assert report.scores == "odds" and report.model.require_card().labels == FIRST
    x = inputs()
    before, after, says = run(base.source, x), run(report.model, x), run(found, x)
    if kind == "probabilities":
        before, after = np.log(np.maximum(before, 1e-30)), np.log(np.maximum(after, 1e-30))
    says = says if other == "probabilities" else shares(says)
    np.testing.assert_allclose(shares(after)[:, place], says[:, 0], atol=1e-5)
    kept = np.delete(np.arange(4), place)
    np.testing.assert_allclose(shares(after[:, kept]), shares(before[:, kept]), atol=1e-5)
    if kind == "logits":
        assert (after[:, kept] == before[:, kept]).all()
    assert says[:, 0].std() > 1e-3 and after.std() > 1e-3
    onnx.checker.check_model(report.model.proto(), full_check=True)


def test_the_newcomer_of_another_world_is_compared_by_how_typical_samples_are() -> None:
    found = module(parent(1, SECOND), "f")
    report = Replace()(Patch(parent(0).source, Newcomer(found, "f", "f"), "b"), Context())
    assert report.scores == "typicality" and report.model.require_card().labels == ("a", "f", "c", "d")
    plain = Replace("odds")(Patch(parent(0).source, Newcomer(found, "f", "f"), "b"), Context())
    data = split(1600, 3)
    right = [
        score(each.model, Samples.match(data, each.model.require_card()), CPU).correct.mean()
        for each in (plain, report)
    ]
    assert right[1] > right[0]


def test_a_plain_classifier_can_be_the_newcomer() -> None:
    """Its class against all else that it knows."""
    better = parent(2, taught=False)
    report = Replace()(
        Patch(parent(1, taught=False).source, Newcomer(better.source, "c", "c"), "c"), Context()
    )
    x = inputs()
    np.testing.assert_allclose(
        shares(run(report.model, x))[:, 2], shares(run(better.source, x))[:, 2], atol=1e-5
    )


def test_an_added_class_comes_last_but_before_other() -> None:
    x, found = inputs(), module(parent(1, SECOND), "f")
    base = parent(0).source
    report = Replace("odds")(Patch(base, Newcomer(found, "f", "f")), Context())
    assert report.model.require_card().labels == (*FIRST, "f")
    assert (run(report.model, x)[:, :4] == run(base, x)).all()
    np.testing.assert_allclose(shares(run(report.model, x))[:, 4], shares(run(found, x))[:, 0], atol=1e-5)
    one = module(parent(0), "a")
    assert one.require_card().labels == ("a", OTHER)
    report = Replace("odds")(Patch(one, Newcomer(found, "f", "f")), Context())
    assert report.model.require_card().labels == ("a", "f", OTHER)
    assert (run(report.model, x)[:, [0, 2]] == run(one, x)).all()


def test_patches_are_remembered() -> None:
    base, found = parent(0).source, module(parent(1, SECOND), "f", "g")
    report = Replace("odds")(Patch(base, Newcomer(found, "f", "eff"), "b"), Context())
    origin = origin_of(report.model)
    assert origin.classes == ("a", "eff", "c", "d") and origin.renamed == {"eff": "f"}
    assert len(origin.parents) == 2
    assert origin.options["patches"] == [{"replaced": "b", "by": "eff", "scores": "odds"}]
    report = Replace("odds")(Patch(report.model, Newcomer(found, "g", "g"), "eff"), Context())
    origin = origin_of(report.model)
    assert len(origin.options["patches"]) == 2 and origin.renamed == {} and len(origin.parents) == 2
    removed = Remove(["g"])(report.model, Context()).model
    assert origin_of(removed).classes == ("a", "c", "d")
    assert origin_of(removed).options["patches"][-1] == {"removed": ["g"]}


def test_steps_are_replaced_each() -> None:
    def tagger(seed: int) -> Model:
        net = small.Net(5, 6, seed=seed)
        net.node("MatMul", "y", "x", net.weight("w", 6, 4))
        return Model.from_proto(net.proto(y=[5, 4]), small.card(FIRST, steps=True))

    base, other = tagger(0), tagger(1)
    report = Replace()(Patch(base, Newcomer(other, "b", "b"), "b"), Context())
    x = np.asarray(np.random.default_rng(0).normal(size=(3, 5, 6)), np.float32)
    before, after, says = run(base, x), run(report.model, x), run(other, x)
    assert after.shape == (3, 5, 4) and (after[..., [0, 2, 3]] == before[..., [0, 2, 3]]).all()
    np.testing.assert_allclose(shares(after)[..., 1], shares(says)[..., 1], atol=1e-5)


# ------------------------------------------------------------------------------- with data


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("scores", ["calibrated", "joint", None])
def test_with_data_the_newcomer_finds_its_place(scores: str | None, output: str) -> None:
    base, found = parent(0, output=output).source, module(parent(1, SECOND, output), "f")
    report = Replace(scores)(
        Patch(base, Newcomer(found, "f", "f"), "b"), Context(data=split(1600, 2), device=CPU)
    )
    assert report.fitted is not None and report.fitted.used
    assert report.scores == scores if scores else report.scores in ("calibrated", "joint")
    data = split(1600, 3)
    right = score(report.model, Samples.match(data, report.model.require_card()), CPU).correct.mean()
    plain = Replace()(Patch(base, Newcomer(found, "f", "f"), "b"), Context()).model
    before = score(plain, Samples.match(data, plain.require_card()), CPU).correct.mean()
    assert right > before and abs(right - report.fitted.top1) < 0.04
    assert abs(before - report.fitted.before) < 0.04
    x, kept = inputs(), [0, 2, 3]
    if output == "logits":
        assert (run(report.model, x)[:, kept] == run(base, x)[:, kept]).all()
    assert len(report.model.graph.outputs) == 1
    onnx.checker.check_model(report.model.proto(), full_check=True)


def test_the_share_is_likely() -> None:
    """Samples that get the class with a share of p are of the class in p of all cases."""
    base, found = parent(0).source, module(parent(1, SECOND), "f")
    report = Replace("calibrated")(
        Patch(base, Newcomer(found, "f", "f"), "b"), Context(data=split(3200, 2), device=CPU)
    )
    samples = Samples.match(split(3200, 3), report.model.require_card())
    share = shares(score(report.model, samples, CPU).scores.astype(np.float64))[:, 1]
    own = samples.labels == 1
    for low, high in ((0.05, 0.35), (0.35, 0.65), (0.65, 0.95)):
        inside = (share > low) & (share <= high)
        if inside.sum() >= 40:
            assert abs(share[inside].mean() - own[inside].mean()) < 0.2
    assert abs(share.mean() - own.mean()) < 0.02


def test_what_is_no_better_is_left_out() -> None:
    """Where the newcomer is right without data, nothing is fitted in its place."""
    base, found = parent(0).source, module(parent(0), "b")
    plain = Replace()(Patch(base, Newcomer(found, "b", "b"), "b"), Context())
    data = split(240, 2)
    samples = Samples.match(data, plain.model.require_card())
    labels = score(plain.model, samples, CPU).predictions
    (x,) = data.raw(samples.indices).values()
    told = replace(data, labels=labels, class_names=FIRST, reader=lambda indices, _: {"": x[indices]})
    report = Replace()(Patch(base, Newcomer(found, "b", "b"), "b"), Context(data=told, device=CPU))
    assert report.fitted is not None and report.fitted.before == 1
    if not report.fitted.used:
        assert report.scores == "odds"
        assert (run(report.model, inputs()) == run(plain.model, inputs())).all()
    else:
        assert report.fitted.top1 == 1


def test_weighing_is_the_likeliest() -> None:
    """The slope of the likelihood is 0 there, by differences."""
    draw = np.random.default_rng(0)
    features, start = draw.normal(size=(60, 3, 4)), np.array([1.0, 0, 0, 1])
    labels = draw.integers(0, 3, 60)
    weights = np.full(60, 1 / 60)

    def loss(p: Array) -> float:
        logits = features @ p
        own = logits[np.arange(60), labels] - np.log(np.exp(logits).sum(axis=1))
        return float(PENALTY / 2 * ((p - start) ** 2).sum() - weights @ own)

    found = max_likelihood(features, labels, weights, start)
    for step in np.eye(4) * 1e-5:
        assert abs(loss(found + step) - loss(found - step)) / 2e-5 < 1e-5
    assert loss(found) < loss(start) - 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(0, 1000))
def test_the_class_wins_where_its_column_is_highest(place: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    others, odds = draw.normal(size=(40, 3)) * 3, draw.normal(size=40) * 3
    labels = draw.integers(0, 4, 40)
    own = odds + np.log(np.exp(others).sum(axis=1))
    whole = np.insert(others, place, own, axis=1)
    expected = whole.argmax(axis=1) == labels
    assert (OneVsRest(labels, place, others).correct(odds) == expected).all()


def test_a_joint_head_makes_the_log_odds_it_was_chosen_for() -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(400) % 4
    values = draw.normal(size=(400, 5)) + np.eye(5)[labels] * 3
    task = OneVsRest(labels, 1, draw.normal(size=(400, 3)) * 0.1)
    found = task.joint_head(values, 0)
    head = found.head()
    odds = values @ head.weights[:, 0] + head.constant[0]
    assert found.hidden == 0
    assert ((odds > 0) == (labels == 1)).mean() > 0.95
    assert abs((1 / (1 + np.exp(-odds))).mean() - 0.25) < 0.03


# ------------------------------------------------------------------------------- fewer classes


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_removed_class_leaves_the_others_as_they_are(kind: str) -> None:
    base = parent(0, output=kind).source
    after = Remove(["b"])(base, Context()).model
    assert after.require_card().labels == ("a", "c", "d")
    x, kept = inputs(), [0, 2, 3]
    before, found = run(base, x)[:, kept], run(after, x)
    expected = before if kind == "logits" else before / before.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert cost_of(after).macs < cost_of(base).macs


def test_networks_that_nobody_needs_go_too() -> None:
    both = Compose("branches", scores="softmax")(Modules(modules()[0]), Context()).model
    after = Remove(SECOND)(both, Context()).model
    x = inputs()
    np.testing.assert_allclose(run(after, x), run(both, x)[:, :4], atol=1e-5)
    assert cost_of(after).macs <= 0.6 * cost_of(both).macs
    patched = Replace("odds")(
        Patch(parent(0).source, Newcomer(module(parent(1, SECOND), "f"), "f", "f")), Context()
    )
    alone = Remove(["f"])(patched.model, Context()).model
    np.testing.assert_allclose(run(alone, x), run(parent(0).source, x), atol=1e-5)
    assert cost_of(alone).macs == cost_of(parent(0).source).macs


# ------------------------------------------------------------------------------- what cannot be


def test_lines_that_cannot_be() -> None:
    base, found = parent(0).source, module(parent(1, SECOND), "f")
    new = Newcomer(found, "f", "f")
    probabilities = base.copy()
    card = base.require_card()
    probabilities.card = card.replace(output={"name": "y", "kind": "sigmoid"})
    data = split(200, 2)
    few = replace(data, labels=np.where(data.labels == 5, 0, data.labels))
    for code, call in (
        ("class-unknown", lambda: Replace()(Patch(base, new, "z"), Context())),
        ("class-unknown", lambda: Replace("odds")(Patch(base, Newcomer(found, "zz", "f"), "b"), Context())),
        ("class-twice", lambda: Replace()(Patch(base, Newcomer(found, "f", "a"), "b"), Context())),
        ("class-twice", lambda: Replace()(Patch(base, Newcomer(found, "f", "a")), Context())),
        ("class-name", lambda: Replace()(Patch(base, Newcomer(found, OTHER, OTHER), "b"), Context())),
        ("class-name", lambda: Replace()(Patch(module(parent(0), "a"), new, OTHER), Context())),
        ("scores-data", lambda: Replace("joint")(Patch(base, new, "b"), Context())),
        ("scores-unknown", lambda: Replace("vote")(Patch(base, new, "b"), Context())),
        ("output-kind", lambda: Replace()(Patch(probabilities, new, "b"), Context())),
        ("joint-samples", lambda: Replace()(Patch(base, new, "b"), Context(data=few, device=CPU))),
        ("inputs-differ", lambda: Replace()(Patch(base, Newcomer(wide(), "f", "f"), "b"), Context())),
        ("class-unknown", lambda: Remove(["z"])(base, Context()).model),
        ("one-class", lambda: Remove(["a", "b", "c"])(base, Context()).model),
    ):
        with pytest.raises(GraftError) as error:
            call()
        assert error.value.code == code, code
        assert error.value.hint


def wide() -> Model:
    """Takes eight numbers."""
    net = small.Net(8)
    net.gemm("y", "x", 2, 8)
    return small.model(net, "logits", ("f", "g"))


# ------------------------------------------------------------------------------- what broke once


@pytest.mark.parametrize("scores", ["joint", "calibrated", "typicality"])
@pytest.mark.parametrize("other", [False, True])
def test_composites_are_patched_and_their_networks_dropped(scores: str, other: bool) -> None:
    """Their own heads and the new ones have names of their own; a network nobody needs any more goes."""
    data = split(1600, 2)
    both = Compose("branches", scores=scores, other=other)(
        Modules(modules()[0]), Context(data=data, device=CPU)
    ).model
    found = module(parent(2), "b")
    patched = Replace()(Patch(both, Newcomer(found, "b", "b"), "b"), Context(data=data, device=CPU))
    x, kept = inputs(), [0, *range(2, len(both.require_card().labels))]
    assert (run(patched.model, x)[:, kept] == run(both, x)[:, kept]).all()
    again = Replace("odds")(Patch(patched.model, Newcomer(both, "c", "c"), "c"), Context())
    assert again.model.require_card().labels == both.require_card().labels
    onnx.checker.check_model(again.model.proto(), full_check=True)


def test_a_network_that_nobody_needs_goes() -> None:
    one, two = module(parent(0), "a"), module(parent(1, SECOND), "e")
    both = Compose("branches", scores="odds")(Modules([one, two]), Context()).model
    new = module(parent(2), "a")
    patched = Replace("odds")(Patch(both, Newcomer(new, "a", "a"), "a"), Context())
    assert cost_of(patched.model).macs == cost_of(two).macs + cost_of(new).macs


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_newcomers_of_another_type(dtype: type[np.generic]) -> None:
    net = small.Net(6, dtype=np.float32)
    inner = net.node("Cast", "cast", "x", to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    weight = net.constant("w", np.random.default_rng(0).normal(size=(6, 4)), dtype)
    net.node("Cast", "y", net.node("MatMul", "z", inner, weight), to=1)
    narrow = Model.from_proto(net.proto(y=[4]), small.card(FIRST))
    narrow.graph.outputs = [narrow.graph.tensors()["z"]]
    narrow.graph.outputs[0].dtype, narrow.graph.outputs[0].shape = np.dtype(dtype), ["N", 4]
    narrow.card = small.card(FIRST).replace(output={"name": "z", "kind": "logits"})
    narrow.tidy()
    base = parent(0).source
    for scores in ("odds", "calibrated", "joint"):
        report = Replace(scores)(
            Patch(base, Newcomer(narrow, "b", "b"), "b"), Context(data=split(400, 2), device=CPU)
        )
        x = inputs()
        assert (run(report.model, x)[:, [0, 2, 3]] == run(base, x)[:, [0, 2, 3]]).all()


def test_models_whose_file_says_no_shapes() -> None:
    base = Parent(small.model(small.conv_net())).source
    proto = base.proto()
    del proto.graph.value_info[:]
    bare = Model.from_proto(proto, base.require_card())
    x = small.inputs(small.conv_net().shape, 80)
    labels = np.arange(80) % 4
    data = replace(small.samples(x, labels).split, class_names=small.LABELS)
    report = Replace("joint")(Patch(bare, Newcomer(bare, "b", "b"), "b"), Context(data=data, device=CPU))
    assert report.fitted is not None


def test_a_module_of_what_was_patched() -> None:
    """Networks that are alike share constants, and are cut apart all the same."""
    of = Parent(small.model(small.conv_net(seed=1)))
    again = Replace("odds")(Patch(of.source, Newcomer(of.source, "b", "b"), "b"), Context())
    patched = Parent(again.model)
    x = small.inputs(small.conv_net().shape, 80)
    data = small.samples(x, np.arange(80) % 4, again.model.require_card())
    profile = small.profile(patched.model, data, patched.sha256)
    for keep in (0.8, 0.5):
        for name in "ab":
            cut = Decompose([name], keep, compensate="none", round_to=1)(
                patched, small.context(profile)
            ).model
            onnx.checker.check_model(cut.proto(), full_check=True)
            small.run(cut, x)


def test_names_and_numbers_of_the_parent_are_kept() -> None:
    named = Compose()(
        Modules([module(parent(2), "b"), module(parent(2), "a")], rename=[{"b": "bee"}, {}]), Context()
    ).model
    patched = Replace("odds")(Patch(parent(0).source, Newcomer(named, "bee", "bee"), "b"), Context()).model
    assert origin_of(patched).renamed == {"bee": "b"} and numbering(patched) == FIRST
    patched = Replace("odds")(Patch(parent(0).source, Newcomer(named, "bee", "b"), "b"), Context()).model
    assert origin_of(patched).renamed == {}
    fewer = Remove(["a", "a"])(patched, Context()).model
    assert numbering(fewer) == FIRST and origin_of(fewer).options["patches"][-1] == {"removed": ["a"]}


def test_a_patched_model_is_joined_as_it_is() -> None:
    """A trunk that is planned anew would know nothing of the patch."""
    of, data = parent(0), split(400, 1)
    samples = Samples.match(data, of.card, names=FIRST + SECOND)
    source = Source(of, small.profile(of.model, samples, of.sha256))
    removed = Remove(["a"])(of.source, Context()).model
    report = Compose()(Modules([removed, module(of, "a")], {of.sha256: source}), Context())
    assert report.strategy == "mixed" and "patched" in report.reason
    assert report.model.require_card().labels == ("b", "c", "d", "a")
    with pytest.raises(GraftError) as error:
        Compose("trunk")(Modules([removed, module(of, "a")], {of.sha256: source}), Context())
    assert error.value.code == "parent-missing"


def test_batches_that_are_fixed_are_no_other_input() -> None:
    base = parent(0).source.copy()
    base.graph.inputs[0].shape = [4, 6]
    base.graph.outputs[0].shape = [4, 4]
    report = Replace("odds")(Patch(base, Newcomer(module(parent(2), "b"), "b", "b"), "b"), Context())
    assert report.model.graph.inputs[0].shape == [4, 6] and not report.adapted
