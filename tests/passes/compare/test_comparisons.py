"""Every comparison says what it needs, and what it says holds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from graft.passes.base import Context
from graft.passes.compare import (
    COMPARISONS,
    Columns,
    Comparison,
    Situation,
    comparison_called,
    comparisons,
    default_comparison,
    names,
)
from graft.passes.compare.branch import Branch
from graft.passes.compare.score import Softmax
from graft.passes.compose import Compose
from graft.passes.join.patch import Newcomer, Patch
from graft.passes.networks import Modules
from graft.passes.replace import Replace
from graft.rewriter.errors import GraftError
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.mahalanobis import Mahalanobis
from graft.rewriter.record.provenance import origin_of
from tests.passes.compare.test_joint_head import FIRST, modules, split
from tests.passes.test_replace import module, parent
from tests.small import CPU


def test_the_registry() -> None:
    assert names() == ("joint", "calibrated", "typicality", "softmax", "odds", "logits", "vote", "fse20:vote")
    assert names(patches=True) == ("joint", "calibrated", "typicality", "odds")
    assert [name for name, each in comparisons().items() if each.needs_data] == ["joint", "calibrated"]
    for each in COMPARISONS:
        assert comparison_called(each.name) is each and comparison_called(each) is each
        assert each.needs_data == (each.reads is not None) == (not each.per_step)


def test_unknown_scores_get_the_nearest_name() -> None:
    with pytest.raises(GraftError, match="'jont'; did you mean 'joint'\\?; choose from") as caught:
        Compose(scores="jont")
    assert caught.value.code == "scores-unknown"
    with pytest.raises(GraftError, match="no scores 'softmax'; choose from joint"):
        comparison_called("softmax", patches=True)


@pytest.mark.parametrize(
    ("situation", "name"),
    [
        (Situation(1, data=False, steps=False), "odds"),
        (Situation(1, data=True, steps=False), "odds"),
        (Situation(2, data=True, steps=False), "joint"),
        (Situation(2, data=False, steps=False), "typicality"),
        (Situation(3, data=True, steps=True), "typicality"),
    ],
)
def test_defaults(situation: Situation, name: str) -> None:
    assert default_comparison(situation).name == name


@pytest.mark.parametrize("name", [each.name for each in COMPARISONS])
def test_each_does_what_it_says(name: str) -> None:
    """A composite needs data where the comparison says so, and costs distances where it says so."""
    comparison = comparison_called(name)
    found = modules()[0]
    data = split(800, 2)
    if comparison.needs_data:
        with pytest.raises(GraftError, match="fitted to samples"):
            Compose(scores=name)(Modules(found), Context(device=CPU))
    report = Compose(scores=name)(Modules(found), Context(data=data, device=CPU))
    assert report.scores == name and (report.joint is not None) == comparison.needs_data
    assert [tensor.name for tensor in report.model.graph.outputs] == ["y"]
    if not comparison.needs_data:
        statistics = [Mahalanobis.of(each) for each in found]
        added = sum(comparison.added_macs(len(each.directions)) for each in statistics if each)
        assert cost_of(report.model).macs == sum(cost_of(each).macs for each in found) + added


@pytest.mark.parametrize("name", [each.name for each in COMPARISONS])
def test_those_that_patch_patch(name: str) -> None:
    base, newcomer = parent(0).source, Newcomer(module(parent(1), "b"), "b", "b")
    context = Context(data=split(400, 2), device=CPU)
    if not comparison_called(name).patches:
        with pytest.raises(GraftError) as caught:
            Replace(name)
        assert caught.value.code == "scores-unknown"
        return
    report = Replace(name)(Patch(base, newcomer, "b"), context)
    assert report.model.require_card().labels == FIRST
    assert (report.fitted is not None) == comparison_called(name).needs_data
    assert report.scores == name or (report.fitted is not None and not report.fitted.used)


class Doubled(Softmax):
    """Not registered: twice the logarithm of the share."""

    name = "doubled"

    def columns(self, branch: Branch, classes: Sequence[str]) -> Columns:
        scores = super().columns(branch, classes).scores
        return Columns(branch.build.node("Add", "doubled", [scores, scores]))


def test_an_object_is_taken_as_it_is() -> None:
    report = Compose(scores=Doubled())(Modules(modules()[0]), Context(device=CPU))
    assert report.scores == "doubled" and "doubled" not in names()
    assert origin_of(report.model).options["scores"] == "doubled"
    with pytest.raises(GraftError):
        Replace(Doubled())


def test_a_comparison_without_methods_says_so() -> None:
    class Empty(Comparison):
        name = "empty"

    with pytest.raises(NotImplementedError):
        Compose(scores=Empty())(Modules(modules()[0]), Context(device=CPU))
