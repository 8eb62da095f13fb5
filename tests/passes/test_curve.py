"""Every point of a curve is the module that it says, measured again by hand; the baseline is a fair one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from graft.passes.base import Context, Declined
from graft.passes.compensate.fold import Fold
from graft.passes.curve import ONE_PLAN, Curve, CurveReport, Point
from graft.passes.cut.head import Head
from graft.passes.cut.slice import Slice
from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT
from graft.passes.parent import Parent
from graft.passes.select.budget import Budget
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.profile import Profile
from tests import small
from tests.small import LABELS, Array, Net

BUDGETS = (0.01, 0.3, 0.6)
WAYS = ("relevance", "magnitude", ONE_PLAN)


@cache
def bench() -> tuple[Parent, Profile, Samples, Samples]:
    """A network with random weights; samples have the labels that it gives, but for some noise."""
    random = np.random.default_rng(3)
    x = random.normal(size=(600, 5))
    net = Net(5)
    net.node("Relu", "relu", net.gemm("dense", "x", 24, 5))
    weights = random.normal(size=(24, 4))
    logits = small.activations(net, x.astype(np.float32), "relu")["relu"] @ weights
    bias = -logits.mean(axis=0)
    net.node("Gemm", "y", "relu", net.constant("v", weights), net.constant("c", bias))
    labels = (logits + bias + random.normal(size=logits.shape)).argmax(axis=1)
    parent = Parent(small.model(net))
    data = Dataset.from_arrays(
        x[:300].astype(np.float32), labels[:300], x[300:].astype(np.float32), labels[300:]
    )
    train, test = (Samples.match(data.split(name), parent.card) for name in ("train", "test"))
    return parent, small.profile(parent.model, train, parent.sha256), train, test


def curve(
    classes: list[str],
    budgets: tuple[float, ...] = BUDGETS,
    methods: tuple[str, ...] = WAYS,
    compensate: tuple[str, ...] = ("fold",),
    **options: bool,
) -> CurveReport:
    decompose = Decompose(classes, method=DEFAULT, together=len(classes) > 1, round_to=1, **options)
    return Curve(decompose, budgets, methods, compensate)(bench()[0], context())


def context(**changed: Any) -> Context:
    """What curves are made from."""
    _, profile, train, test = bench()
    return replace(small.context(profile, train, held_out=test), **changed)


def whole(samples: Samples) -> tuple[Array, Array]:
    """The test samples as the network takes them, and the parent's logits."""
    x = np.concatenate([batch["x"] for batch, _ in samples.batches(64)])
    return x, small.run(bench()[0].model, x)["y"]


@pytest.mark.parametrize("compensate", ["none", "fold"])
@pytest.mark.parametrize("classes", [["b", "d"], ["d", "a", "b"], ["c"]])
def test_points_are_what_decompose_makes(classes: list[str], compensate: str) -> None:
    parent, profile, _, test = bench()
    found = curve(classes, methods=("relevance", "magnitude"), compensate=(compensate,))
    numbers = [LABELS.index(name) for name in classes]
    own = test if len(classes) == 1 else test.take(np.isin(test.labels, numbers))
    x, logits = whole(own)
    place = np.full(4, len(classes))
    place[numbers] = np.arange(len(classes))
    truth, columns = place[own.labels], logits[:, numbers]
    if len(classes) == 1:
        columns = np.concatenate([columns, small.logsumexp(np.delete(logits, numbers, 1))], axis=1)
    right = columns.argmax(axis=1) == truth
    assert (found.test_samples, found.top1) == (len(own), pytest.approx(right.mean()))
    reached = [point for point in found.points if not point.unreachable]
    assert len(reached) == 4
    for point in reached:
        decompose = Decompose(classes, point.keep, method=point.method, compensate=compensate, round_to=1)
        report = replace(decompose, together=len(classes) > 1)(parent, small.context(profile))
        hit = small.run(report.model, x)["y"].argmax(axis=1) == truth
        differences = 100 * (hit - right.astype(float))
        assert point.macs == cost_of(report.model).macs
        assert point.macs_ratio == pytest.approx(point.macs / parent.cost.macs)
        assert point.macs_ratio <= point.keep
        assert point.parameters == report.cost.parameters
        assert point.top1 == pytest.approx(hit.mean())
        assert point.difference == pytest.approx(differences.mean())
        assert point.standard_error == pytest.approx(differences.std(ddof=1) / np.sqrt(len(differences)))
        recalls = [(hit[truth == label]).mean() for label in range(2)]
        balanced = pytest.approx(np.mean(recalls)) if len(classes) == 1 else None
        assert point.balanced_accuracy == balanced
    assert any(point.difference < 0 for point in reached if point.difference is not None)


def test_points_come_in_order_and_progress_is_told() -> None:
    done: list[int] = []
    decompose = Decompose(["a", "b"], together=True, round_to=1)
    walk = Curve(decompose, (0.3, 0.6), ("activity", ONE_PLAN), ("none", "fold"), done.append)
    points = walk(bench()[0], context()).points
    assert [(p.method, p.keep, p.compensate) for p in points] == [
        (method, keep, step)
        for method in ("activity", ONE_PLAN)
        for keep in (0.3, 0.6)
        for step in ("none", "fold")
    ]
    assert done == [1] * 8
    for plain, folded in zip(points[::2], points[1::2], strict=True):
        assert plain.macs == folded.macs
    assert any(a.top1 != b.top1 for a, b in zip(points[::2], points[1::2], strict=True))


def test_only_the_given_test_samples_count() -> None:
    parent, _, train, test = bench()
    few = test.take(np.arange(100))
    decompose = Decompose(["a", "b"], together=True)
    found = Curve(decompose, (0.6,), ("activity",))(parent, context(held_out=few))
    assert found.test_samples == np.isin(few.labels, [0, 1]).sum()
    assert found.train_samples == len(train)


def test_a_budget_out_of_reach_is_a_point_without_figures() -> None:
    found = curve(["a", "b"])
    for method in WAYS:
        out, *reached = [point for point in found.points if point.method == method]
        assert out == Point(method, "fold", 0.01, unreachable=True)
        assert all(point.top1 is not None and not point.unreachable for point in reached)


# ---- one plan for all classes


def of_all(keep: float) -> Plan:
    parent, profile, _, _ = bench()
    return Decompose(LABELS, keep, together=True, round_to=1).plan(parent, small.context(profile))


def test_one_plan_is_that_of_all_classes() -> None:
    parent, profile, _, test = bench()
    (point,) = curve(["b", "d"], (0.3,), (ONE_PLAN,)).points
    decompose = Decompose(["b", "d"], 0.3, together=True, round_to=1)
    own, other = (
        replace(decompose, fixed_plan=plan)(parent, small.context(profile)) for plan in (None, of_all(0.3))
    )
    assert own.plan.ranges() != other.plan.ranges()
    assert point.macs == other.cost.macs
    two = test.take(np.isin(test.labels, [1, 3]))
    truth = two.labels == 3
    top1 = [
        (small.run(each.model, whole(two)[0])["y"].argmax(axis=1) == truth).mean() for each in (own, other)
    ]
    assert point.top1 == pytest.approx(top1[1])
    assert top1[0] != top1[1]


@pytest.mark.parametrize("keep", [0.2, 0.35, 0.5, 0.7])
def test_one_plan_fills_the_budget_where_the_head_is_smaller(keep: float) -> None:
    """A set without 'rest' has half of the parent's head: the plan of all classes may keep more."""
    parent, profile, _, _ = bench()
    (point,) = curve(["b", "d"], (keep,), (ONE_PLAN,), rest=False).points
    cut = Decompose(["b", "d"], together=True, rest=False, round_to=1)

    def macs(budget: float) -> int:
        return replace(cut, fixed_plan=of_all(budget))(parent, small.context(profile)).cost.macs

    sizes = [macs(budget) for budget in np.arange(0.15, 1.0, 0.005)]
    assert point.macs == max(size for size in sizes if size <= keep * parent.cost.macs)
    assert point.macs is not None and point.macs > macs(keep)


def test_one_plan_needs_all_classes_apart() -> None:
    parent, _, train, _ = bench()
    apart = small.profile(parent.model, train, parent.sha256, classes=("a", "b"))
    decompose, job = Decompose(["a", "b"], together=True, round_to=1), context(profile=apart)
    with pytest.raises(GraftError) as caught:
        Curve(decompose, (0.5,), ("activity", ONE_PLAN))(parent, job)
    assert caught.value.code == "one-plan-profile"
    assert len(Curve(decompose, (0.5,), ("activity",))(parent, job).points) == 1


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(GraftError) as caught:
        curve(["a", "b"], methods=("magic",))
    assert caught.value.code == "method-unknown"


# ---- no report is dropped


@pytest.mark.parametrize("methods", [("activity", "magnitude"), (ONE_PLAN,)])
@pytest.mark.parametrize("kind", [Head, Budget, Fold, Slice])
def test_what_is_declined_on_the_way_to_the_points_is_reported_once(
    kind: type, methods: tuple[str, ...], declining: Callable[[type], Declined]
) -> None:
    declined = declining(kind)
    assert curve(["a", "b"], (0.3, 0.6), methods).declined == (declined,)


def test_what_is_declined_before_a_budget_that_is_out_of_reach_is_reported(
    declining: Callable[[type], Declined],
) -> None:
    declined = declining(Head)
    found = curve(["a", "b"], (0.01,), ("activity",))
    assert found.points[0].unreachable and found.declined == (declined,)
