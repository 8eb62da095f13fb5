"""Decompose: how often it analyses, what it declines, and which plans it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft.passes.base import Context, Declined
from graft.passes.cut.head import Head
from graft.passes.decompose import Decompose
from graft.passes.identify import ImportanceInputs, Method
from graft.passes.normalize.simplify import Normalize
from graft.passes.parent import Parent
from graft.passes.select.budget import Budget
from graft.rewriter.arrays import Scores
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.record.provenance import origin_of
from tests import small
from tests.small import Net

NETS: dict[str, tuple[Callable[[], Net], str]] = {
    "convolutions": (small.conv_net, "logits"),
    "residual": (small.residual_net, "logits"),
    "probabilities": (lambda: small.residual_net(head="Softmax"), "probabilities"),
    "dense": (small.dense_net, "logits"),
    "sequence": (small.sequence_net, "logits"),
}
METHODS = ("relevance", "ablation", "contrast")


class Counter:
    """Counts channel analyses."""

    def __init__(self) -> None:
        self.count = 0

    def since(self, call: Callable[[], object]) -> int:
        before = self.count
        call()
        return self.count - before


@pytest.fixture
def analyses(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter, plain = Counter(), ChannelGroups.__init__

    def counting(self: ChannelGroups, *given: object, **named: object) -> None:
        counter.count += 1
        plain(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ChannelGroups, "__init__", counting)
    return counter


def case(name: str) -> tuple[Parent, Context]:
    """A parent, and what its modules are made from."""
    make, kind = NETS[name]
    net = make()
    parent = Parent(small.model(net, kind))
    samples = small.samples(small.inputs(net.shape, 80), of=parent.card)
    return parent, small.context(small.profile(parent.model, samples, parent.sha256), samples)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_a_module_takes_two_analyses(name: str, method: str, analyses: Counter) -> None:
    """One of the parent with the module's output, one of the result; planning, refit and checks need none."""
    parent, context = case(name)
    decompose = Decompose(["a", "c"], 0.5, method=method, compensate="refit", together=True, verify=True)
    assert analyses.since(lambda: decompose(parent, context)) == 2
    assert analyses.since(lambda: replace(decompose, classes=["b"], together=False)(parent, context)) == 2
    assert analyses.since(lambda: decompose.plan(parent, context)) == 1


def test_all_modules_share_the_analysis_of_their_parent(analyses: Counter) -> None:
    found: list[tuple[Parent, Context]] = []
    assert analyses.since(lambda: found.append(case("residual"))) == 2, "the parent's, and the profile's"
    parent, context = found[0]

    def modules() -> None:
        for label in small.LABELS:
            Decompose([label], 0.5, compensate="refit", verify=True)(parent, context)

    assert analyses.since(modules) == 2 * len(small.LABELS)


def test_what_every_pass_declined_is_reported() -> None:
    parent, context = case("dense")
    assert context.profile is not None
    tables = {name: {} for name in context.profile.tables}
    empty = replace(context, profile=replace(context.profile, tables=tables))
    plan = small.plan(parent.model, dense=[1, 2])
    plan = Plan(parent.sha256, plan.kept)
    report = Decompose(["a", "b"], together=True, fixed_plan=plan)(parent, empty)
    assert [str(declined) for declined in report.declined] == ["Gemm y: the profile lacks relu"]
    assert report.changed == 2
    assert not Decompose(["a", "b"], together=True, fixed_plan=plan)(parent, context).declined


def test_a_parent_that_cannot_be_normalized_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graft.passes.normalize.simplify.differs", lambda *_: "it computes something else")
    parent, context = case("dense")
    report = Decompose(["a", "b"], 0.8, together=True)(parent, context)
    assert [declined.reason for declined in report.declined] == ["it computes something else"]


@pytest.mark.parametrize("kind", [Normalize, Head, Budget])
def test_what_is_declined_on_the_way_to_a_plan_is_reported(
    kind: type, declining: Callable[[type], Declined]
) -> None:
    declined = declining(kind)
    parent, context = case("dense")
    decompose = Decompose(["a", "b"], 0.8, together=True)
    report = decompose.planned(parent, context)
    assert report.declined == (declined,)
    assert report.plan.ranges() == decompose.plan(parent, context).ranges()
    kept, channels = report.plan.counts()
    assert report.changed == channels - kept > 0


def test_a_plan_of_another_parent_is_refused() -> None:
    parent, context = case("dense")
    plan = small.plan(parent.model, dense=[1])
    with pytest.raises(GraftError) as caught:
        Decompose(["a"], fixed_plan=plan)(parent, context)
    assert caught.value.code == "plan-of-another"


def test_a_module_without_a_profile_is_refused() -> None:
    parent, context = case("dense")
    with pytest.raises(GraftError) as caught:
        Decompose(["a"], 0.5)(parent, replace(context, profile=None))
    assert caught.value.code == "profile-missing"


@pytest.mark.parametrize("step", ["none", "mean", "fold", "refit"])
def test_the_cut_is_verified_on_random_inputs_without_samples(step: str) -> None:
    parent, context = case("sequence")
    if step != "refit":
        context = replace(context, samples=None)
    report = Decompose(["a", "d"], 0.6, compensate=step, together=True, verify=True)(parent, context)
    assert report.difference is not None and 0 <= report.difference < 1e-4
    x = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    assert small.run(report.model, x)["y"].shape == (3, 2)


class Given(Method):
    """A method of another distribution, with scores of any kind."""

    name, samples = "given", False

    def __init__(self, scores: Callable[[int], object]) -> None:
        self.given = scores

    def scores(self, inputs: ImportanceInputs) -> Scores:
        return self.given(inputs.groups.count)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        (lambda count: np.ones(count + 1), "found shape"),
        (lambda count: np.ones((count, 1)), "found shape"),
        (lambda count: None, "found shape"),
        (lambda count: np.full(count, np.nan), "not finite"),
        (lambda count: np.full(count, np.inf), "not finite"),
        (lambda count: np.full(count, "much"), "type <U4"),
    ],
)
def test_scores_of_a_method_that_cannot_be_used(scores: Callable[[int], object], says: str) -> None:
    parent, context = case("dense")
    for each in (context, replace(context, samples=None)):
        with pytest.raises(GraftError, match=says) as caught:
            Decompose(["a"], 0.5, method=Given(scores))(parent, each)
        assert caught.value.code == "method-scores" and "given" in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("name", "samples", "method", "compensate"),
    [
        ("dense", True, "ablation", "refit"),
        ("dense", False, "relevance", "fold"),
        ("residual", True, "ablation", "refit"),
    ],
)
def test_defaults_are_as_good_as_the_samples_allow(
    name: str, samples: bool, method: str, compensate: str
) -> None:
    """As on the command line: the module is that of the best method and compensation, named."""
    parent, context = case(name)
    context = context if samples else replace(context, samples=None)
    plain = Decompose(["a"], keep=0.6)
    named = replace(plain, method=method, compensate=compensate)
    found, expected = (each(parent, context) for each in (plain, named))
    assert found.model.proto().SerializeToString() == expected.model.proto().SerializeToString()
    options = origin_of(found.model).options
    assert (options["method"], options["compensate"]) == (method, compensate)
