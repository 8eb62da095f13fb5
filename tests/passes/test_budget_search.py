"""The budget search holds what it promises, measured again by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from graft.passes.base import Declined
from graft.passes.budget_search import FOLDS, STEPS, BudgetSearch
from graft.passes.compensate.fold import Fold
from graft.passes.cut.head import Head
from graft.passes.cut.slice import Slice
from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.passes.select.budget import Budget
from graft.passes.select.observe import Observe
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from tests import small
from tests.small import Array, Net


@cache
def classifier() -> tuple[Parent, Samples]:
    """Four noisy clusters; random features with a head solved by least squares."""
    random = np.random.default_rng(3)
    labels = np.concatenate([np.arange(160) % 4, np.zeros(40, int)])
    x = random.normal(size=(4, 5))[labels] * 1.5 + random.normal(size=(200, 5))
    net = Net(5)
    net.node("Relu", "relu", net.gemm("dense", "x", 24, 5))
    hidden = small.activations(net, x.astype(np.float32), "relu")["relu"]
    solved = np.linalg.lstsq(hidden, 4 * np.eye(4)[labels], rcond=None)[0]
    net.node("Gemm", "y", "relu", net.constant("v", solved), net.constant("c", [0] * 4))
    return Parent(small.model(net)), small.samples(x.astype(np.float32), labels)


def differences(decompose: Decompose, classes: list[str]) -> Array:
    """Points gained on the samples of each held-out fold, weighted where there is (other)."""
    parent, data = classifier()
    gained = []
    for fit, held in data.folds(FOLDS):
        profile = small.profile(parent.model, fit, parent.sha256)
        module = decompose(parent, small.context(profile)).model
        whole = decompose.headed(parent, small.context()).model
        numbers = [small.LABELS.index(name) for name in classes]
        rows = held.labels if len(classes) == 1 else held.labels[np.isin(held.labels, numbers)]
        own = held.take(np.isin(held.labels, rows))
        x = np.concatenate([batch["x"] for batch, _ in own.batches(64)])
        place = np.full(4, len(classes))
        place[numbers] = np.arange(len(classes))
        truth = place[own.labels]
        counts = np.bincount(truth)
        weight = (len(truth) / counts / len(counts))[truth]
        hits = [small.run(m, x)["y"].argmax(axis=1) == truth for m in (whole, module)]
        gained.append(100 * weight * (hits[1].astype(float) - hits[0]))
    return np.concatenate(gained)


@pytest.mark.parametrize("classes", [["b"], ["a", "d"]])
@pytest.mark.parametrize("points", [1.0, 10.0])
def test_the_drop_of_what_is_found_is_small_enough(points: float, classes: list[str]) -> None:
    parent, data = classifier()
    decompose = Decompose(classes, together=len(classes) > 1, method="contrast", compensate="fold")
    found = BudgetSearch(points, decompose)(parent, small.context(samples=data))
    assert found.difference >= -points
    assert found.keep in (*STEPS, 1.0)
    gained = differences(replace(decompose, keep=found.keep), classes)
    assert found.difference == pytest.approx(gained.mean(), abs=1e-6)
    error = gained.std(ddof=1) / np.sqrt(len(gained))
    assert found.standard_error == pytest.approx(error, rel=0.05)


def test_a_tighter_bound_does_not_find_less() -> None:
    parent, data = classifier()
    search = [BudgetSearch(points, Decompose(["c"])) for points in (0.0, 5.0, 20.0, 100.0)]
    keeps = [each(parent, small.context(samples=data)).keep for each in search]
    assert keeps == sorted(keeps, reverse=True)
    assert keeps[-1] < keeps[0] <= 1.0


def test_any_loss_allowed_finds_the_smallest_step_that_can_be_reached() -> None:
    parent, data = classifier()
    found = BudgetSearch(100.0, Decompose(["a"]))(parent, small.context(samples=data))
    profile = small.profile(parent.model, data, parent.sha256)
    reachable = []
    for step in STEPS:
        with contextlib.suppress(GraftError):
            Decompose(["a"], keep=float(step)).plan(parent, small.context(profile))
            reachable.append(step)
    assert found.keep == reachable[0] < 1.0


def test_a_loss_that_cannot_be_met_keeps_everything() -> None:
    parent, data = classifier()
    found = BudgetSearch(-1000.0, Decompose(["a"]))(parent, small.context(samples=data))
    assert (found.keep, found.difference) == (1.0, 0.0)


def test_no_number_is_no_loss() -> None:
    with pytest.raises(GraftError, match="nan, no number") as caught:
        BudgetSearch(float("nan"), Decompose(["a"]))
    assert caught.value.code == "max-drop-range"


def test_other_errors_are_not_swallowed() -> None:
    parent, data = classifier()
    with pytest.raises(GraftError) as caught:
        BudgetSearch(1.0, Decompose(["a"], method="magic"))(parent, small.context(samples=data))
    assert caught.value.code == "method-unknown"


def test_samples_of_equal_number_are_searched_anew() -> None:
    """What was profiled once belongs to the samples, not to their number."""
    parent, data = classifier()
    shuffled = np.random.default_rng(5).permutation(data.labels)
    other = replace(data, labels=shuffled)
    assert len(other) == len(data)
    search = BudgetSearch(2.0, Decompose(["b"], method="contrast"))
    one, two, again = (search(parent, small.context(samples=each)) for each in (data, other, data))
    assert one == again
    fresh = Parent(parent.source)
    assert two == search(fresh, small.context(samples=other))
    assert two != one


def test_folds_are_profiled_once_for_all_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, data = classifier()
    data, calls = replace(data), []
    plain = Observe.profile
    monkeypatch.setattr(Observe, "profile", lambda *given: (calls.append(1), plain(*given))[1])
    for label in ("a", "b"):
        BudgetSearch(5.0, Decompose([label], method="contrast"))(parent, small.context(samples=data))
    assert len(calls) == FOLDS


@pytest.mark.parametrize("points", [-1000.0, 5.0])
@pytest.mark.parametrize("kind", [Head, Budget, Fold, Slice])
def test_what_modules_of_any_budget_declined_is_reported_once(
    kind: type, points: float, declining: Callable[[type], Declined]
) -> None:
    """Also of budgets that are not chosen."""
    parent, data = classifier()
    declined = declining(kind)
    search = BudgetSearch(points, Decompose(["b"], method="contrast"))
    assert search(parent, small.context(samples=data)).declined == (declined,)


def test_what_profiling_the_folds_declined_is_reported(declining: Callable[[type], Declined]) -> None:
    parent, data = classifier()
    declined, search = declining(Observe), BudgetSearch(5.0, Decompose(["b"], method="contrast"))
    assert search(parent, small.context(samples=replace(data))).declined == (declined,)
