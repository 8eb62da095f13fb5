"""Modularize: what is declined while modules are searched, cut, converted and joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft.passes.base import Declined
from graft.passes.budget_search import BudgetSearch
from graft.passes.compose import Compose
from graft.passes.decompose import Decompose
from graft.passes.join.convert import Convert
from graft.passes.modularize import Modularize, _scored
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import Scored, score
from graft.rewriter.measure.one_class import AgainstRest, with_few_of_the_rest
from graft.rewriter.run.session import Device
from tests import small
from tests.passes.test_budget_search import classifier


@pytest.mark.parametrize("kind", [BudgetSearch, Decompose, Convert, Compose])
def test_what_is_declined_on_the_way_to_modules_is_reported_once(
    kind: type, declining: Callable[[type], Declined]
) -> None:
    parent, data = classifier()
    profile = small.profile(parent.model, data, parent.sha256)
    declined = declining(kind)
    modularize = Modularize((("a",), ("b",)), Decompose(["a"], method="contrast"), max_drop=20.0)
    context = small.context(profile, data, held_out=data)
    report = modularize(parent, context)
    assert report.declined.count(declined) == 1
    assert str(declined) in report.describe()["declined"]
    if kind is Compose:
        apart = modularize(parent, replace(context, held_out=None))
        assert apart.measured is None and declined not in apart.declined


def test_a_module_of_one_class_is_measured_as_that_class_against_the_rest() -> None:
    """Also where the samples of the class alone are held out: the figures of numpy, of module and parent."""
    parent, data = classifier()
    profile = small.profile(parent.model, data, parent.sha256)
    held_out = Samples.match(data.split, parent.card, ["b"])
    context = small.context(profile, data, held_out=held_out)
    report = Modularize((("b",),), Decompose(["b"], 0.3, "macs", "random", "none", round_to=1))(
        parent, context
    )
    x = np.concatenate([batch["x"] for batch, _ in data.batches(64)])
    truth = data.labels == 1
    logits = small.run(parent.model, x)["y"]
    rest = small.logsumexp(np.delete(logits, 1, axis=1))
    module = small.run(report.modules[0].model, x)["y"]
    entry = report.describe()["modules"][0]
    for figures, said in (
        (entry, module[:, 0] > module[:, 1]),
        (entry["parent"], logits[:, 1] > np.ravel(rest)),
    ):
        assert figures["recall"] == pytest.approx(said[truth].mean())
        assert figures["precision"] == pytest.approx(truth[said].mean())
        assert figures["balanced_accuracy"] == pytest.approx(
            (said[truth].mean() + (~said)[~truth].mean()) / 2
        )
        assert (figures["top1"], figures["said"]) == (pytest.approx((said == truth).mean()), said.sum())
    assert report.describe()["composed_top1"] == entry["top1"] < 1
    assert report.describe()["parent"]["top1"] == entry["parent"]["top1"]


def test_a_module_that_never_says_its_class_has_a_balanced_accuracy_of_one_half() -> None:
    scores = np.tile([0.0, 1.0], (10, 1))
    labels = np.array([0] + [1] * 9)
    found = AgainstRest.of(Scored(scores, labels, ("d", OTHER), ("cpu",), 10))
    assert found is not None
    assert (found.balanced_accuracy, found.recall, found.precision, found.said) == (0.5, 0, 0, 0)
    assert found.top1 == 0.9
    assert AgainstRest.of(Scored(scores, labels * 0, ("d", OTHER), ("cpu",), 10)) is None


def test_of_many_samples_of_the_rest_some_are_measured() -> None:
    _, data = classifier()
    few = with_few_of_the_rest(data, "a", 0, most=100)
    counts = np.bincount(few.labels)
    assert counts[0] == (data.labels == 0).sum() == 80
    assert counts[1:].sum() == 80 and np.all(np.diff(few.indices) > 0)
    assert with_few_of_the_rest(data, "a", 0) is data


def test_the_parent_runs_a_sample_of_several_sets_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, data = classifier()
    sets = [with_few_of_the_rest(data, name, 0, most=100) for name in ("a", "b")]
    ran: list[int] = []

    def counting(model: Model, samples: Samples, device: Device) -> Scored:
        ran.append(len(samples))
        return score(model, samples, device)

    monkeypatch.setattr("graft.passes.modularize.score", counting)
    found = _scored(parent, data, sets, small.CPU)
    assert ran == [len(np.union1d(sets[0].indices, sets[1].indices))]
    for each, samples in zip(found, sets, strict=True):
        alone = score(parent.model, samples, small.CPU)
        np.testing.assert_array_equal(each.labels, alone.labels)
        np.testing.assert_allclose(each.scores, alone.scores, atol=1e-6)
        assert each.samples == len(samples)
