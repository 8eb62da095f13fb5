"""JointHead heads: fitted in closed form to what all branches know, and written as numpy has them."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from graft.passes.base import Context
from graft.passes.compare.branch import joint_places
from graft.passes.compare.calibrate import PENALTY, _fit
from graft.passes.compare.fitting import READ, read_outputs
from graft.passes.compare.ridge_head import PENALTIES, _ridge
from graft.passes.compose import Compose, ComposeReport
from graft.passes.decompose import Decompose
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.trunk import Source
from graft.rewriter import memory
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.folds import FOLDS, assign_folds
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import score
from tests import small
from tests.small import CPU

Array = NDArray[Any]
FIRST, SECOND = ("a", "b", "c", "d"), ("e", "f", "g", "h")
CENTERS = np.random.default_rng(5).normal(size=(8, 6)) * 2


def split(count: int, seed: int, names: tuple[str, ...] = FIRST + SECOND) -> Split:
    """Eight clouds in six dimensions."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 8
    x = (CENTERS[labels] + draw.normal(size=(count, 6))).astype(np.float32)
    return replace(Dataset.from_arrays(x, labels).split("train"), class_names=names)


@functools.cache
def modules(output: str = "logits") -> tuple[list[Model], dict[str, Source]]:
    """Two networks that know four of the classes each, not too well, kept whole; and their parents."""
    found, sources = [], {}
    for seed, labels in ((0, FIRST), (1, SECOND)):
        net = small.Net(6, seed=seed)
        hidden = net.node("Relu", "relu", net.gemm("dense", "x", 12, 6))
        last = net.gemm("y" if output == "logits" else "z", hidden, 4, 12)
        learn(net, last, labels)
        if output == "probabilities":
            net.node("Softmax", "y", "z", axis=-1)
        parent = Parent(small.model(net, output, labels))
        samples = Samples.match(split(800, 1), parent.card, names=FIRST + SECOND)
        profile = small.profile(parent.model, samples, parent.sha256)
        found.append(Decompose(labels, 0.8, together=True)(parent, small.context(profile)).model)
        sources[parent.sha256] = Source(parent, profile)
    return found, sources


def learn(net: small.Net, last: str, labels: tuple[str, ...]) -> None:
    """Let the last layer know its classes by least squares, and the second network be less sure."""
    data = split(400, 4)
    (x,) = data.raw(np.arange(400)).values()
    first = (FIRST + SECOND).index(labels[0])
    own = (data.labels >= first) & (data.labels < first + 4)
    weight, bias = (numpy_helper.to_array(net.constants[f"dense.{name}"]) for name in "wb")
    hidden = np.maximum(x[own] @ weight.T + bias, 0)
    rows = np.concatenate([hidden, np.ones((len(hidden), 1))], axis=1)
    found = (2 if first else 8) * np.linalg.lstsq(rows, np.eye(4)[data.labels[own] - first], rcond=None)[0]
    net.constant(f"{last}.w", found[:-1].T)
    net.constant(f"{last}.b", found[-1])


def joined(data: Split | None, output: str = "logits", **options: Any) -> ComposeReport:
    return Compose(**options)(Modules(modules(output)[0]), Context(data=data, device=CPU))


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_a_head_over_both_networks_tells_all_classes_apart(output: str) -> None:
    report = joined(split(1600, 2), output)
    assert report.scores == "joint" and report.joint is not None and report.joint.used
    card = report.model.require_card()
    found = score(report.model, Samples.match(split(1600, 3), card), CPU)
    without = joined(None, output)
    assert without.scores == "typicality" and without.joint is None
    before = score(without.model, Samples.match(split(1600, 3), card), CPU)
    assert found.correct.mean() > before.correct.mean() + 0.02
    assert abs(found.correct.mean() - report.joint.top1) < 0.04
    assert abs(before.correct.mean() - report.joint.before) < 0.04
    assert [tensor.name for tensor in report.model.graph.outputs] == [card.output.name]
    onnx.checker.check_model(report.model.proto(), full_check=True)
    if output == "probabilities":
        np.testing.assert_allclose(found.scores.sum(axis=1), 1, atol=1e-5)


def test_too_many_samples_for_memory_are_refused_after_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 100_000)
    with pytest.raises(GraftError, match="0.. GB needed for fitting scores to 1600 samples") as caught:
        joined(split(1600, 2))
    assert caught.value.code == "memory"
    assert "--samples-per-class" in caught.value.hint
    monkeypatch.undo()
    tight, plain = replace(CPU, memory=10**8), joined(None).model
    card = plain.require_card()
    with pytest.raises(GraftError, match="fitting scores to 1600 samples takes .* allows 0.1 GB") as caught:
        read_outputs(plain, Samples.match(split(1600, 2), card), tight, [card.output.name])
    assert caught.value.code == "memory" and "--samples-per-class" in caught.value.hint


def test_scores_are_likely_logits() -> None:
    """The temperature makes the head as sure as it is right."""
    report = joined(split(1600, 2))
    found = score(report.model, Samples.match(split(1600, 3), report.model.require_card()), CPU)
    shares = np.exp(found.scores - found.scores.max(axis=1, keepdims=True))
    sure = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1).mean()
    assert abs(sure - found.correct.mean()) < 0.08


def test_random_features_take_what_the_modules_save() -> None:
    """They are there where they help, and the composite costs no more than the parents."""
    found, sources = modules()
    parents = sum(source.parent.cost.macs for source in sources.values())
    data = split(3200, 2)
    report = joined(data)
    assert report.joint is not None and report.joint.hidden == 0
    assert cost_of(report.model).macs > 0
    roomy = [model.copy() for model in found]
    for model in roomy:  # as if the parents had been larger
        model.metadata["graft.metrics"] = '{"macs_ratio": 0.02}'
    rich = Compose()(Modules(roomy), Context(data=ring(data), device=CPU)).joint
    plain = Compose()(Modules(found), Context(data=ring(data), device=CPU)).joint
    assert rich is not None and plain is not None
    assert rich.hidden > 0 and rich.top1 > plain.top1
    assert parents > 0


def ring(data: Split) -> Split:
    """Classes that no plane tells apart: by how far out they are."""
    raw = data.raw(np.arange(len(data)))
    ((name, x),) = raw.items()
    distance = np.argsort(np.argsort((x**2).sum(axis=1)))
    labels = (distance * 8 // len(x)).astype(np.int64)
    return replace(data, labels=labels, reader=lambda indices, _: {name: x[indices]})


def test_a_head_that_is_no_better_is_left_out() -> None:
    """Labels that the scores without data get right, in a network that says more than planes can."""
    data = split(240, 2)
    without = joined(None)
    samples = Samples.match(data, without.model.require_card())
    labels = score(without.model, samples, CPU).predictions.copy()
    labels[:16] = np.repeat(np.arange(8), 2)
    report = joined(replace(data, labels=labels))
    assert report.joint is not None and report.joint.before > report.joint.top1 and not report.joint.used
    x = small.inputs([6], 20)
    np.testing.assert_array_equal(small.run(report.model, x)["y"], small.run(without.model, x)["y"])
    assert len(report.model.graph.outputs) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.integers(1, 40), st.sampled_from(PENALTIES))
def test_ridge_over_rows_or_columns_is_the_same(seed: int, count: int, width: int, penalty: float) -> None:
    draw = np.random.default_rng(seed)
    rows, targets = draw.normal(size=(count, width)), draw.normal(size=(count, 3))
    weights = draw.uniform(0.1, 1, count)
    ((found, constant),) = _ridge(rows, targets, weights, [penalty])
    weights = weights / weights.sum()
    mean = weights @ rows
    root = np.sqrt(weights)[:, None]
    stacked = np.concatenate([root * (rows - mean), np.sqrt(penalty) * np.eye(width)])
    wanted = np.concatenate([root * (targets - weights @ targets), np.zeros((width, 3))])
    expected = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(weights @ (rows @ found + constant), weights @ targets, atol=1e-6)


def test_every_fold_has_every_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 10, 7])
    folds = assign_folds(labels, np.random.default_rng(0))
    for label, count in enumerate((50, 10, 7)):
        sizes = np.bincount(folds[labels == label], minlength=FOLDS)
        assert sizes.sum() == count and sizes.max() - sizes.min() <= 1


def test_what_a_head_reads_of_a_module() -> None:
    """The first activations, averaged over positions, and the last features, once where they are the same."""
    model = small.model(small.conv_net())
    assert [place.tensor for place in joint_places(model)] == ["relu1", "flat"]
    assert [place.tensor for place in joint_places(small.model(small.dense_net()))] == ["relu"]


def test_few_samples_of_each_class_are_enough_to_choose() -> None:
    one, all_of_them = (joined(split(1600, 2), samples_per_class=count) for count in (10, None))
    assert one.joint is not None and one.joint.samples == 80
    assert all_of_them.joint is not None and all_of_them.joint.samples == 1600


def test_it_takes_data_and_two_samples_of_each_class() -> None:
    with pytest.raises(GraftError) as caught:
        joined(None, scores="joint")
    assert caught.value.code == "scores-data"
    few = split(1600, 2)
    labels = np.where(few.labels == 6, 0, few.labels)
    labels[6] = 6
    with pytest.raises(GraftError, match="1 of 'g'"):
        joined(replace(few, labels=labels))


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_temperatures_and_offsets(output: str) -> None:
    """Every branch keeps the order of its own classes; together they are more often right."""
    report, without = joined(split(1600, 2), output, scores="calibrated"), joined(None, output)
    card, held = report.model.require_card(), split(1600, 3)
    found, before = (score(each.model, Samples.match(held, card), CPU) for each in (report, without))
    assert report.joint is not None and abs(found.correct.mean() - report.joint.top1) < 0.04
    assert found.correct.mean() > before.correct.mean()
    for columns in (slice(0, 4), slice(4, 8)):
        one, two = found.scores[:, columns], before.scores[:, columns]
        if output == "logits":
            np.testing.assert_array_equal(one.argmax(axis=1), two.argmax(axis=1))


def test_temperatures_are_the_likeliest() -> None:
    """No other factor or offset of a branch makes the labels more likely."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 400)
    columns = draw.normal(size=(400, 4)) + 2 * np.eye(4)[labels] * np.array([3, 3, 0.5, 0.5])
    owners = np.array([0, 0, 1, 1])
    scale, offset = _fit(columns, labels, owners)
    weights = 1 / np.bincount(labels)[labels] / 4

    def unlikely(scale: Array, offset: Array) -> float:
        logits = columns * scale + offset
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[np.arange(400), labels] - np.log(np.exp(logits).sum(axis=1))
        return float(PENALTY / 2 * (((scale - 1) ** 2)[::2].sum() + (offset**2)[::2].sum()) - weights @ own)

    least = unlikely(scale, offset)
    for change in (0.9, 1.1):
        assert unlikely(scale * np.where(owners == 0, change, 1), offset) > least
        assert unlikely(scale, offset + np.where(owners == 1, 1 - change, 0)) > least


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_votes(opset: int) -> None:
    """One vote decides; none, or several, leave it to the larger share."""
    three = modules()[0][0], *(vote_module(name) for name in "eh")
    model = Compose(scores="vote", opset=max(17, opset))(Modules(three), Context(device=CPU)).model
    x = 3 * small.inputs([6], 300)
    shares, votes = [], []
    for module in three:
        logits = small.run(module, x)["y"].astype(np.float64)
        rest = small.run(module, x).get("rest")
        logits = logits if rest is None else np.concatenate([logits, rest], axis=1)
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        own = 4 if module is three[0] else 1
        shares.append(share[:, :own])
        votes.append((share == share.max(axis=1, keepdims=True))[:, :own])
    share, vote = np.concatenate(shares, axis=1), np.concatenate(votes, axis=1)
    alone = vote.sum(axis=1) == 1
    expected = np.where(alone, vote.argmax(axis=1), share.argmax(axis=1))
    assert alone.any() and not alone.all()
    np.testing.assert_array_equal(small.run(model, x)["y"].argmax(axis=1), expected)


def vote_module(name: str) -> Model:
    """For one class of the second network."""
    parents = modules()[1]
    source = list(parents.values())[1]
    return Decompose([name], 0.8)(source.parent, small.context(source.profile)).model


def test_the_same_bytes_twice() -> None:
    found = [joined(split(400, 2)) for _ in range(2)]
    assert all(each.joint is not None for each in found)
    one, two = (each.model.proto().SerializeToString() for each in found)
    assert one == two
    assert READ.encode() in one


def test_classes_can_be_called_otherwise() -> None:
    names = ("one:a", "b", "c", "d", "e", "f", "g", "seven")
    rename = [{"a": "one:a"}, {"h": "seven"}]
    report = Compose()(Modules(modules()[0], rename=rename), Context(data=split(1600, 2, names), device=CPU))
    assert report.model.require_card().labels == names
    assert report.joint is not None and report.joint.used
    plain = joined(split(1600, 2))
    x = small.inputs([6], 20)
    np.testing.assert_array_equal(small.run(report.model, x)["y"], small.run(plain.model, x)["y"])


def test_classes_of_one_name_are_refused_until_they_are_renamed() -> None:
    with pytest.raises(GraftError, match="--rename A=B"):
        Compose()(Modules(modules()[0], rename=[{}, {"e": "a"}]), Context(device=CPU))
    twice = [modules()[0][0], modules("probabilities")[0][0]]
    with pytest.raises(GraftError, match="two modules are for class 'a'"):
        Compose(scores="softmax")(Modules(twice), Context())
    called = [{}, {name: f"p:{name}" for name in FIRST}]
    report = Compose(scores="softmax")(Modules(twice, rename=called), Context())
    assert report.model.require_card().labels == (*FIRST, *called[1].values())


def test_statistics_follow_the_names() -> None:
    report = Compose(strategy="branches")(Modules(modules()[0], rename=[{"a": "z"}, {}]), Context(device=CPU))
    assert report.scores == "typicality" and not report.declined
    assert report.model.require_card().labels == ("z", *FIRST[1:], *SECOND)


def test_trunks_are_renamed() -> None:
    found, sources = modules()
    report = Compose(strategy="trunk", scores="softmax")(
        Modules(found, sources, [{"a": "z"}, {}]), Context(device=CPU)
    )
    assert report.model.require_card().labels == ("z", *FIRST[1:], *SECOND)
    plain = Compose(strategy="trunk", scores="softmax")(Modules(found, sources), Context(device=CPU))
    x = small.inputs([6], 20)
    np.testing.assert_array_equal(small.run(report.model, x)["y"], small.run(plain.model, x)["y"])
