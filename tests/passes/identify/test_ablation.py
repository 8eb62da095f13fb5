"""Importance by ablation, against masking and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graft.passes.cut.verify import mask
from graft.passes.decompose import Decompose
from graft.passes.identify import ImportanceInputs, Method
from graft.passes.identify.ablation import POWER, Ablation, _Switched
from graft.passes.parent import Parent
from graft.rewriter.arrays import Scores
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.run.staged import StagedRun
from tests import small
from tests.small import Net

LABELS = ("a", "b", "c")


def test_ablation_of_a_linear_unit_is_its_variance_times_what_it_says() -> None:
    net = small.dense_net()
    model = small.model(net)
    x = small.inputs(net.shape)
    data = small.samples(x)
    chosen = np.isin(data.labels, [0, 2])
    hidden = small.activations(net, x[chosen], "relu")["relu"]
    weight = small.numpy_helper.to_array(net.constants["y.w"])[[0, 2]].astype(np.float64)
    weight -= weight.mean(axis=0)
    wanted = hidden.var(axis=0) * (weight**2).sum(axis=0)
    scores, groups = _ablated(model, data, "a", "c", ablation=Ablation(len(x)))
    np.testing.assert_allclose(scores[groups["dense"].channels], wanted**POWER, rtol=1e-3)
    assert wanted.max() > 2 * wanted.min()


@pytest.mark.parametrize("classes", [("a", "b", "c"), ("d",)])
def test_ablation_equals_masking_channel_by_channel(classes: tuple[str, ...]) -> None:
    net = small.residual_net()
    model = small.model(net)
    x = small.inputs(net.shape, 12)
    labels = np.arange(12) % 3 if len(classes) == 3 else np.repeat([3, 0], 6)
    data = small.samples(x, labels)
    scores, groups = _ablated(model, data, *classes, ablation=Ablation(12, step=1.0))
    columns = [small.LABELS.index(name) for name in classes]

    def contrast(of: Model) -> np.ndarray:
        logits = small.run(of, x)["y"].astype(np.float64)
        chosen = logits[:, columns]
        if len(classes) == 1:
            chosen = np.hstack([chosen, small.logsumexp(np.delete(logits, columns, axis=1))])
        return np.asarray(chosen - chosen.mean(axis=1, keepdims=True))

    whole, moved = contrast(model), 0
    for group in groups:
        for number in range(group.size if group.cuttable.all() else 0):
            kept = small.drop(groups, **{group.name: [number]})
            change = contrast(mask(Analysed.of(model), Plan.of(groups, kept, "p"))) - whole
            change -= change.mean(axis=0)
            wanted = (change**2).sum(axis=1).mean()
            np.testing.assert_allclose(scores[group.channels[number]], wanted**POWER, rtol=1e-3, atol=1e-7)
            moved += wanted > 1e-6
    assert moved > 10


@pytest.mark.parametrize(
    "make",
    [small.conv_net, small.residual_net, small.dense_net, small.sequence_net],
    ids=lambda f: f.__name__,
)
def test_what_comes_before_a_switch_is_computed_once_and_is_the_same(
    make: Callable[[], Net], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make()
    model, data = small.model(net), small.samples(small.inputs(net.shape, 24))
    pieces = []
    monkeypatch.setattr(_Switched, "_from", _counted(pieces, _Switched._from))
    found, _ = _ablated(model, data, "a", "c")
    assert any(pieces)  # some channels take only a part of the network
    monkeypatch.setattr(_Switched, "_starts", lambda self, atoms: np.zeros(len(atoms), np.int64))
    whole, _ = _ablated(model, data, "a", "c")
    np.testing.assert_allclose(found, whole, rtol=1e-3, atol=1e-6 * whole.max())


def _counted(pieces: list[bool], original: Any) -> Any:
    def call(self: _Switched, start: int, staged: StagedRun) -> Any:
        found = original(self, start, staged)
        pieces.append(found is not self.whole)
        return found

    return call


def test_ablation_scores_highest_what_decides_between_the_classes() -> None:
    net = Net(5)
    made = net.node("Gemm", "dense", "x", net.constant("w", np.eye(5)), net.constant("c", [0] * 5))
    head = np.ones((5, 3))
    head[0] = [1, -1, 0]  # between a and b
    head[1] = [0, 0, 2]  # for c alone
    net.node("Gemm", "y", net.node("Relu", "relu", made), net.constant("v", head))
    data = small.samples(small.inputs((5,), 60), np.arange(60) % 3, small.card(LABELS))
    model = small.model(net, labels=LABELS)
    for classes, highest in ((("a", "b"), 0), (("c",), 1)):
        scores, groups = _ablated(model, data, *classes)
        assert scores[groups["dense"].channels].argmax() == highest
    scores, groups = _ablated(model, data, "a", "b")
    np.testing.assert_allclose(scores[groups["dense"].channels][1:], 0, atol=1e-9)


def test_ablation_draws_its_samples_by_seed() -> None:
    net = small.residual_net()
    model = small.model(net)
    data = small.samples(small.inputs(net.shape))
    profile, groups = small.profile(model, data), ChannelGroups(model)
    first, again, other = (
        Ablation(6).scores(
            ImportanceInputs(Analysed(model, groups), profile, small.LABELS, ("a",), seed, data, small.CPU)
        )
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_channels_of_a_tensor_with_time_first_are_turned_down() -> None:
    net = Net(4, 3)
    turned = net.node("Transpose", "steps_first", "x", perm=[1, 0, 2])
    made = net.node("Relu", "relu", net.node("MatMul", "made", turned, net.weight("w1", 3, 6)))
    read = net.node("MatMul", "read", made, net.weight("w2", 6, 5))
    back = net.node("Transpose", "back", read, perm=[1, 0, 2])
    net.gemm("y", net.node("ReduceMean", "mean", back, axes=[1], keepdims=0), 4, 5)
    model = small.model(net)
    data = small.samples(small.inputs(net.shape))
    scores, groups = _ablated(model, data, "a", "b")
    assert len(set(scores[groups["made"].channels])) == 6
    assert len(set(scores[groups["read"].channels])) == 5


def test_ablation_asks_for_samples_and_decompose_hands_them_over() -> None:
    model = small.model(small.residual_net())
    data = small.samples(small.inputs((2, 6, 6)))
    parent = Parent(model)
    profile = small.profile(parent.model, data, parent.sha256)
    decompose = Decompose(["a", "b"], 0.6, method="ablation", together=True, round_to=1)
    with pytest.raises(GraftError) as caught:
        decompose.plan(parent, small.context(profile))
    assert caught.value.code == "method-data"
    assert caught.value.hint
    planned = decompose.plan(parent, small.context(profile, data))
    report = decompose(parent, small.context(profile, data))
    assert report.plan.ranges() == planned.ranges()
    assert 0 < planned.counts()[0] < planned.counts()[1]


def _ablated(
    model: Model, data: Samples, *classes: str, ablation: Method | None = None
) -> tuple[Scores, ChannelGroups]:
    """Scores by ablation, and the groups that they are for."""
    groups = ChannelGroups(model)
    profile = small.profile(model, data)
    labels = model.require_card().labels
    inputs = ImportanceInputs(Analysed(model, groups), profile, labels, classes, 0, data, small.CPU)
    return (ablation or Ablation()).scores(inputs), groups


def test_scores_are_measured_once_for_several_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the parent, for the same samples, classes and seed, and for nothing else."""
    model = small.model(small.residual_net())
    data = small.samples(small.inputs((2, 6, 6)))
    parent = Parent(model)
    profile = small.profile(parent.model, data, parent.sha256)
    measured = []
    original = Ablation.scores
    monkeypatch.setattr(
        Ablation, "scores", lambda self, inputs: measured.append(inputs) or original(self, inputs)
    )

    def plan(*classes: str, keep: float = 0.5, samples: Samples = data, seed: int = 0, **more: Any) -> Plan:
        decompose = Decompose(classes, keep, method=more.pop("method", "ablation"), together=True, **more)
        return decompose.plan(parent, small.context(profile, samples, seed))

    budgets = [plan("a", "b", keep=keep) for keep in (0.4, 0.6, 0.4)]
    assert len(measured) == 1
    assert budgets[0].to_json() == budgets[2].to_json() != budgets[1].to_json()
    for number, again in enumerate(
        (
            lambda: plan("a"),
            lambda: plan("a", "b", seed=1),
            lambda: plan("a", "b", method=Ablation(step=1.0)),
            lambda: plan("a", "b", samples=data.take(np.arange(len(data)))),
        )
    ):
        again()
        assert len(measured) == number + 2
    plan("a", "b")
    assert len(measured) == 5
