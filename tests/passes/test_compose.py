"""Composites: branches give log-odds, a trunk gives the parent's classes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graft.passes.base import Context
from graft.passes.compose import Compose
from graft.passes.decompose import Decompose
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.trunk import Source
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.provenance import Origin, ParentRecord, kind_of, origin_of, stamp
from tests import small
from tests.small import Array, Net

X = small.inputs([2, 6, 6], 40)


def source(kind: str = "logits", opset: int = 17) -> Source:
    net = small.residual_net(opset, head="Gemm" if kind == "logits" else "Softmax")
    parent = Parent(small.model(net, kind))
    data = small.samples(X, of=parent.model.require_card())
    return Source(parent, small.profile(parent.model, data, parent.sha256))


def cut(of: Source, classes: str, keep: float = 0.6, **options: bool) -> Model:
    return Decompose(list(classes), keep=keep, **options)(of.parent, small.context(of.profile)).model


def log_odds(module: Model) -> Array:
    """Of the module's own classes, by hand."""
    found = small.run(module, X)
    card = module.require_card()
    scores = found["y"] if card.output.kind == "logits" else np.log(found["y"])
    if "rest" in found:
        if card.output.kind == "probabilities":  # among the classes; the rest is a share of all
            scores = scores + np.log(1 - np.exp(found["rest"]))
        scores = np.concatenate([scores, found["rest"]], axis=1)
    columns = []
    for column, name in enumerate(card.labels):
        if name != OTHER:
            others = np.delete(scores, column, axis=1)
            columns.append(scores[:, [column]] - small.logsumexp(others))
    return np.concatenate(columns, axis=1)


def joined(modules: list[Model]) -> Model:
    report = Compose("branches")(Modules(modules), Context())
    onnx.checker.check_model(report.model.proto(), full_check=True)
    assert report.strategy == "branches"
    return report.model


def check_branches(modules: list[Model]) -> Model:
    wanted = np.concatenate([log_odds(module) for module in modules], axis=1)
    model = joined(modules)
    found = small.run(model, X)
    assert list(found) == ["y"]
    kind = model.require_card().output.kind
    wanted = small.softmax(wanted) if kind == "probabilities" else wanted
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-3, atol=1e-4)
    assert np.ptp(wanted, axis=0).min() > 1e-3
    return model


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_branches_give_the_log_odds_of_modules(kind: str, opset: int) -> None:
    of = source(kind, opset)
    model = check_branches([cut(of, "c"), cut(of, "a"), cut(of, "d")])
    assert model.require_card().labels == ("c", "a", "d")
    assert model.outputs()["y"][1] == ("N", 3)
    assert model.opset == opset


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_branches_of_sets(kind: str) -> None:
    of = source(kind)
    rest = cut(of, "bd", together=True)
    other = cut(of, "ac", together=True, other=True)
    assert list(rest.outputs()) == ["y", "rest"]
    assert check_branches([rest, other]).require_card().labels == ("b", "d", "a", "c")
    alone = cut(of, "bd", together=True, rest=False)
    assert check_branches([alone, cut(of, "a")]).require_card().labels == ("b", "d", "a")


def test_the_record_of_a_composite() -> None:
    of = source()
    modules = [cut(of, "c"), cut(of, "a")]
    model = joined(modules)
    assert kind_of(model) == "composite"
    assert origin_of(model).classes == ("c", "a")
    assert origin_of(model).parents == origin_of(modules[0]).parents
    assert cost_of(model).macs <= sum(cost_of(module).macs for module in modules)


@pytest.mark.parametrize("strategy", ["branches", "trunk"])
def test_same_bytes_twice(strategy: str) -> None:
    written = []
    for _ in range(2):
        of = source()
        modules = [cut(of, "c"), cut(of, "a")]
        before = [module.proto().SerializeToString(deterministic=True) for module in modules]
        report = Compose(strategy)(Modules(modules, {of.parent.sha256: of}), Context())
        written.append(report.model.proto().SerializeToString(deterministic=True))
        after = [module.proto().SerializeToString(deterministic=True) for module in modules]
        assert before == after, "the modules are left as they are"
    assert written[0] == written[1]


def by_hand(label: str, scale: float) -> Model:
    """A module whose constants are called as those of any other."""
    net = Net(2, 6, 6)
    flat = net.node("Flatten", "flat", "x")
    net.constant("w", net.rng.normal(size=(72, 2)) * scale)
    net.node("MatMul", "y", flat, "w")
    model = small.model(net, labels=(label, OTHER))
    record = ParentRecord(graph_sha256="p")
    stamp(model, "module", Origin(parents=(record,), classes=(label,)))
    return model


def test_constants_of_one_name_and_other_values_are_kept_apart() -> None:
    check_branches([by_hand("a", 0.1), by_hand("b", -0.3), by_hand("c", 0.2)])


def test_branches_that_share_one_stored_tensor_are_kept_apart() -> None:
    one = by_hand("a", 0.1)
    two = one.copy()
    two.card = small.card(("b", OTHER))
    stamp(two, "module", Origin(parents=(ParentRecord(graph_sha256="p"),), classes=("b",)))
    stored = [next(t for t in m.graph.tensors().values() if t.name == "w")._values.tensor for m in (one, two)]
    assert stored[0] is stored[1]
    model = check_branches([one, two])
    names = [tensor.name for tensor in model.proto().graph.initializer]
    assert len(names) == len(set(names))


def test_modules_from_files(tmp_path: object) -> None:
    of = source()
    modules = []
    for label in "ab":
        cut(of, label, keep=1.0).save(f"{tmp_path}/{label}.onnx")
        modules.append(Model.load(f"{tmp_path}/{label}.onnx"))
    model = check_branches(modules)
    model.save(f"{tmp_path}/both.onnx")
    again = small.run(Model.load(f"{tmp_path}/both.onnx"), X)["y"]
    np.testing.assert_array_equal(again, small.run(model, X)["y"])


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_trunk_of_all_classes_that_keeps_everything_is_the_parent(kind: str) -> None:
    of = source(kind)
    modules = [cut(of, label) for label in "abcd"]
    report = Compose("trunk", keep=1.0)(Modules(modules, {of.parent.sha256: of}), Context())
    assert report.strategy == "trunk"
    wanted = small.run(of.parent.source, X)["y"]
    np.testing.assert_allclose(small.run(report.model, X)["y"], wanted, rtol=1e-4, atol=1e-5)
    assert cost_of(report.model) == of.parent.cost


def test_a_trunk_is_planned_for_the_set_within_the_largest_budget() -> None:
    of = source()
    modules = [cut(of, "d", keep=0.5), cut(of, "b", keep=0.7)]
    report = Compose()(Modules(modules, {of.parent.sha256: of}), Context())
    assert report.strategy == "trunk"
    assert report.model.require_card().labels == ("d", "b")
    assert 0.5 < cost_of(report.model).macs / of.parent.cost.macs <= 0.7
    wanted = Decompose(["d", "b"], keep=0.7, together=True, rest=False)(of.parent, small.context(of.profile))
    np.testing.assert_array_equal(small.run(report.model, X)["y"], small.run(wanted.model, X)["y"])
    assert origin_of(report.model).options["keep"] == 0.7


def test_a_trunk_with_other() -> None:
    of = source()
    modules = [cut(of, "d"), cut(of, "b")]
    report = Compose(other=True, keep=1.0)(Modules(modules, {of.parent.sha256: of}), Context())
    whole = small.run(of.parent.source, X)["y"]
    rest = small.logsumexp(whole[:, [0, 2]])
    wanted = np.concatenate([whole[:, [3, 1]], rest], axis=1)
    np.testing.assert_allclose(small.run(report.model, X)["y"], wanted, rtol=1e-4, atol=1e-5)
    assert report.model.require_card().labels == ("d", "b", OTHER)


def test_without_the_parent_auto_makes_branches_and_says_so() -> None:
    of = source()
    modules = [cut(of, "d"), cut(of, "b")]
    report = Compose()(Modules(modules), Context())
    assert (report.strategy, report.reason) == ("branches", "the parent is not at hand")


def refused(modules: list[Model], strategy: str = "auto", other: bool = False) -> str:
    with pytest.raises(GraftError) as caught:
        Compose(strategy, other=other)(Modules(modules), Context())
    return caught.value.code


def test_what_cannot_be_joined_is_refused() -> None:
    of = source()
    one, two = cut(of, "a"), cut(of, "b")
    assert refused([]) == "nothing-to-join"
    assert refused([one, two, one]) == "class-twice"
    assert refused([one, cut(of, "ba", together=True)]) == "class-twice"
    assert refused([one, two], "trunk") == "parent-missing"
    assert refused([one, of.parent.source]) == "class-twice", "a classifier is a module of all of its classes"
    with pytest.raises(GraftError) as caught:
        Compose("magic")
    assert caught.value.code == "strategy-unknown"
