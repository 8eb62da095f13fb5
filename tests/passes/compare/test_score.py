"""Scores of classes equal what numpy makes of the parents' own outputs and features."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graft.passes.base import Declined
from graft.passes.compare import COMPARISONS, comparison_called
from graft.passes.compare.branch import ATYPICAL, Branch
from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.outputs import last_features
from graft.rewriter.record.mahalanobis import DIRECTIONS, Mahalanobis
from graft.rewriter.record.profile import Profile
from tests import small
from tests.small import Net

Array = NDArray[Any]
WITHOUT_DATA = tuple(each.name for each in COMPARISONS if not each.needs_data)
KINDS = ("logits", "probabilities")
OPSETS = (11, 13, 17, 18)
LABELS = ("a", "b", "c", "d", "e")
X = small.inputs([6], 60)
WIDE = DIRECTIONS + 16


@functools.cache
def parent(
    kind: str, opset: int = 17, width: int = 9, last: str = "Softmax", dtype: Any = np.float32
) -> tuple[Net, Parent, Profile]:
    """Gemm Relu Gemm (Softmax) for five classes, with the activations as last features."""
    net = Net(6, opset=opset, dtype=dtype)
    net.gemm("relu_in", "x", width, 6)
    net.node("Relu", "relu", "relu_in")
    logits = "y" if kind == "logits" else "z"
    net.node("MatMul", "raw", "relu", net.weight("w", width, 5))
    net.node("Add", logits, "raw", net.weight("b", 5))
    if kind == "probabilities" and last == "Softmax":
        net.node("Softmax", "y", logits, axis=-1)
    elif kind == "probabilities":
        net.node("Identity", "y", net.node("Softmax", "soft", logits, axis=-1))
    of = Parent(small.model(net, kind, LABELS))
    data = small.samples(X.astype(dtype), of=of.model.require_card())
    return net, of, small.profile(of.model, data, of.sha256)


def module(classes: str, kind: str, opset: int = 17, width: int = 9, **options: Any) -> Model:
    """Everything kept: what it puts out is what the parent does."""
    options = {"together": len(classes) > 1, **options}
    last = options.pop("last", "Softmax")
    _, of, profile = parent(kind, opset, width, last, options.pop("dtype", np.float32))
    return Decompose(list(classes), keep=1.0, **options)(of, small.context(profile)).model


def scored(cut: Model, kind: str, classes: Sequence[str], x: Array = X) -> tuple[Array, Declined | None]:
    """The columns that a comparison makes for a module that stands alone."""
    model = cut.copy()
    known = Mahalanobis.of(cut)
    tensors = model.graph.tensors()
    features = tensors.get(known.tensor) if known else None
    outputs = {tensor.name: tensor for tensor in model.graph.outputs}
    build = Builder(model.graph, model.opset, "test")
    made = comparison_called(kind).columns(
        Branch(cut.require_card(), build, outputs, known, features), classes
    )
    columns, declined = made.scores, made.declined
    columns.dtype, columns.shape = next(iter(outputs.values())).dtype, ["N", len(classes)]
    model.graph.outputs = [columns]
    model.card = None
    model.tidy()
    onnx.checker.check_model(model.proto(), full_check=True)
    result = small.run(model, x)[columns.name]
    assert result.shape == (len(x), len(classes))
    return result, declined


def reference(
    kind: str, of: tuple[Net, Parent, Profile], cut: Model, classes: Sequence[str], x: Array = X
) -> Array:
    """From the logits of the parent: all its classes, whatever the module is for."""
    net, whole, _ = of
    logits = net_logits(net, x)
    columns = [whole.record.labels.index(name) for name in classes]
    if kind == "logits":
        return logits[:, columns]
    if kind == "odds":
        others = [small.logsumexp(np.delete(logits, column, axis=1)) for column in columns]
        return logits[:, columns] - np.concatenate(others, axis=1)
    shares = (logits - small.logsumexp(logits))[:, columns]
    if kind in ("softmax", "vote", "fse20:vote"):
        return shares
    known = Mahalanobis.of(cut)
    assert known is not None
    distances = known.distances(small.activations(net, x, "relu")["relu"])
    return shares - 0.25 * distances[:, [known.classes.index(name) for name in classes]]


def net_logits(net: Net, x: Array) -> Array:
    name = "z" if any(node.output[0] == "z" for node in net.nodes) else "y"
    return small.activations(net, x, name)[name]


def test_the_weight_of_distances_is_a_quarter() -> None:
    assert ATYPICAL == 0.25 and WITHOUT_DATA == (
        *("typicality", "softmax", "odds", "logits", "vote", "fse20:vote"),
    )


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("output", KINDS)
@pytest.mark.parametrize("kind", WITHOUT_DATA)
@pytest.mark.parametrize("classes", ["b", "dba", "ceabd"])
def test_scores_of_modules_that_keep_everything(kind: str, output: str, opset: int, classes: str) -> None:
    cut = module(classes, output, opset)
    found, declined = scored(cut, kind, classes)
    assert declined is None
    wanted = reference(kind, parent(output, opset), cut, classes)
    if kind == "logits" and output == "probabilities":
        # logarithms of shares: logits up to what all of them have in common
        wanted = wanted - small.logsumexp(net_logits(parent(output, opset)[0], X))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-3)
    assert np.ptp(wanted, axis=0).min() > 0.1


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("output", KINDS)
@pytest.mark.parametrize("classes", ["b", "da"])
def test_wide_features_have_a_part_across(output: str, opset: int, classes: str) -> None:
    cut = module(classes, output, opset, WIDE)
    known = Mahalanobis.of(cut)
    assert known is not None and known.across[0] > 0 and known.directions.shape == (WIDE, DIRECTIONS)
    found, declined = scored(cut, "typicality", classes)
    assert declined is None
    wanted = reference("typicality", parent(output, opset, WIDE), cut, classes)
    shares = small.softmax(net_logits(parent(output, opset, WIDE)[0], X))
    clear = shares[:, [LABELS.index(name) for name in classes]].sum(axis=1) > 1e-4
    assert clear.mean() > 0.5
    np.testing.assert_allclose(found[clear], wanted[clear], rtol=2e-3, atol=5e-3)
    # what lies across counts: without it the scores are others
    along = wanted - reference("softmax", parent(output, opset, WIDE), cut, classes)
    assert np.abs(along).max() > 0.1


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_classes_of_a_module_in_any_order(data: st.DataObject) -> None:
    """A score is that of the class, whichever others are asked for beside it."""
    output, kind = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(WITHOUT_DATA))
    cut = module("dbae", output)
    asked = data.draw(st.lists(st.sampled_from("dbae"), unique=True, min_size=1))
    found, _ = scored(cut, kind, asked)
    whole, _ = scored(cut, kind, list("dbae"))
    np.testing.assert_allclose(found, whole[:, ["dbae".index(name) for name in asked]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", WITHOUT_DATA)
@pytest.mark.parametrize("output", KINDS)
def test_sets_with_other(output: str, kind: str) -> None:
    cut = module("db", output, other=True)
    found, _ = scored(cut, kind, "bd")
    wanted = reference(kind, parent(output), cut, "bd")
    if kind == "logits" and output == "probabilities":
        wanted = wanted - small.logsumexp(net_logits(parent(output)[0], X))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("output", KINDS)
def test_a_set_without_rest_knows_nothing_of_the_others(output: str) -> None:
    cut = module("db", output, rest=False)
    found, _ = scored(cut, "softmax", "bd")
    logits = net_logits(parent(output)[0], X)[:, [1, 3]]
    np.testing.assert_allclose(found, logits - small.logsumexp(logits), rtol=1e-3, atol=1e-3)


def test_the_only_class_of_a_module_has_its_logit_for_odds() -> None:
    cut = module("d", "logits", together=True, rest=False)
    found, _ = scored(cut, "odds", "d")
    np.testing.assert_allclose(found, net_logits(parent("logits")[0], X)[:, [3]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["softmax", "odds"])
@pytest.mark.parametrize("opset", OPSETS)
def test_probabilities_that_no_softmax_makes(kind: str, opset: int) -> None:
    cut = module("db", "probabilities", opset, last="Identity")
    found, _ = scored(cut, kind, "db")
    wanted = reference(kind, parent("probabilities", opset, 9, "Identity"), cut, "db")
    np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("output", KINDS)
def test_sets_that_the_parent_is_sure_not_to_see(output: str) -> None:
    """The score of a set's classes is that of the same classes alone, however small their share is.

    Of probabilities, a share below 1e-7 is lost in the rounding of the share that is left out.
    """
    x = X * 25
    found, _ = scored(module("db", output), "softmax", "db", x)
    alone = [scored(module(name, output), "softmax", name, x)[0] for name in "db"]
    wanted = reference("softmax", parent(output), module("db", output), "db", x)
    assert wanted.max(axis=1).min() < -20
    np.testing.assert_allclose(np.concatenate(alone, axis=1), wanted, rtol=1e-3, atol=1e-2)
    told = wanted.max(axis=1) > (-9 if output == "probabilities" else -np.inf)
    assert 5 < told.sum()
    np.testing.assert_allclose(found[told], wanted[told], rtol=1e-3, atol=1e-2)
    assert (found[~told].max(axis=1) < -8).all()


def test_scores_far_from_the_data_are_finite() -> None:
    far = X * 1e4
    for output in KINDS:
        for classes in ("b", "dba"):
            for kind in WITHOUT_DATA:
                assert np.isfinite(scored(module(classes, output), kind, classes, far)[0]).all()


def test_an_unusual_input_speaks_against_the_class() -> None:
    """Between two inputs that the parent is equally sure of, the nearer one has the higher score."""
    cut = module("b", "logits")
    known = Mahalanobis.of(cut)
    assert known is not None
    distances = known.distances(small.activations(parent("logits")[0], X, "relu")["relu"])[:, 0]
    softmax, typical = (scored(cut, kind, "b")[0][:, 0] for kind in ("softmax", "typicality"))
    np.testing.assert_allclose(softmax - typical, 0.25 * distances, rtol=1e-2, atol=1e-3)
    assert (typical[distances < 0] > softmax[distances < 0]).all() and (distances < 0).any()
    assert (typical[distances > 0.01] < softmax[distances > 0.01]).all() and (distances > 0.01).any()


@pytest.mark.parametrize("output", KINDS)
def test_half_precision(output: str) -> None:
    cut = module("db", output, dtype=np.float16)
    x = X.astype(np.float16)
    found, declined = scored(cut, "typicality", "db", x)
    assert declined is None and found.dtype == np.float16
    wanted = reference("typicality", parent(output, dtype=np.float16), cut, "db", x)
    np.testing.assert_allclose(found, wanted, rtol=3e-2, atol=5e-2)


# -------------------------------------------------------------------- what is declined


def test_no_statistics_no_distances() -> None:
    cut = module("db", "logits")
    plain = scored(cut, "softmax", "db")[0]
    cut.metadata.clear()
    found, declined = scored(cut, "typicality", "db")
    np.testing.assert_array_equal(found, plain)
    assert str(declined) == "d, b: the module carries no statistics of its last features"


def test_features_that_are_not_in_the_graph() -> None:
    cut = module("db", "logits")
    known = Mahalanobis.of(cut)
    outputs = {tensor.name: tensor for tensor in cut.graph.outputs}
    branch = Branch(cut.require_card(), Builder(cut.graph, cut.opset, "test"), outputs, known, None)
    declined = branch.without_distances("d")
    assert declined and "no statistics of its last features" in declined.reason


def test_a_class_without_statistics() -> None:
    of, _, profile = parent("logits")[1], None, parent("logits")[2]
    cut = Decompose(["d", "b"], keep=1.0, together=True)(of, small.context(profile)).model
    known = Mahalanobis.fit(profile, "relu", np.ones(9, bool), ["d"])
    assert known is not None
    known.attach(cut)
    plain = scored(cut, "softmax", "db")[0]
    found, declined = scored(cut, "typicality", "db")
    np.testing.assert_array_equal(found, plain)
    assert str(declined) == "d, b: no statistics of class b"
    assert scored(cut, "typicality", "d")[1] is None


def test_unknown_scores() -> None:
    with pytest.raises(GraftError) as caught:
        comparison_called("magic")
    assert caught.value.code == "scores-unknown"


# -------------------------------------------------------------------- last features, builder


def place(net: Net, kind: str = "logits") -> tuple[str, int, int] | None:
    model = small.model(net, kind)
    found = last_features(model, ChannelGroups(model), "y")
    return None if found is None else (found.tensor, found.axis, len(found.channels))


def test_last_features_are_what_the_classes_are_weighed_from() -> None:
    assert place(small.dense_net()) == ("relu", 1, 8)
    assert place(small.conv_net()) == ("flat", 1, 5)
    assert place(small.residual_net()) == ("hidden", 1, 7)
    assert place(small.residual_net(head="Softmax"), "probabilities") == ("hidden", 1, 7)
    assert place(small.sequence_net()) == ("mean", 1, 7)


def test_maps_steps_and_plain_inputs_are_no_last_features() -> None:
    maps = Net(2, 6, 5)
    made = maps.conv("k", maps.node("Relu", "r", maps.conv("c", "x", 6, 2)), 4, 6, 1)
    maps.node("Flatten", "y", maps.node("GlobalAveragePool", "pool", made))
    assert place(maps) is None
    linear = Net(6)
    linear.gemm("y", "x", 4, 6)
    assert place(linear) is None
    steps = Net(5, 3)
    relu = steps.node("Relu", "relu", steps.node("MatMul", "one", "x", steps.weight("w1", 3, 6)))
    steps.node("MatMul", "y", relu, steps.weight("w2", 6, 4))
    model = Model.from_proto(steps.proto(y=[5, 4]), small.card(steps=True))
    assert last_features(model, ChannelGroups(model), "y") is None


@pytest.mark.parametrize("opset", [11, 12, 13, 18, 21])
@pytest.mark.parametrize("axis", [1, -1, 2])
def test_builder_totals_and_new_axes(opset: int, axis: int) -> None:
    net = Net(4, 3, opset=opset)
    net.node("Relu", "r", "x")
    model = Model.from_proto(net.proto(r=[4, 3]))
    build = Builder(model.graph, opset, "test")
    (relu,) = model.graph.outputs
    total, expanded = build.total(relu, axis, "total"), build.expand(relu, axis, "row")
    model.graph.outputs = [total, expanded]
    at = axis % 3
    for tensor, shape in ((total, ["N", 4, 3][:at] + ["N", 4, 3][at + 1 :]), (expanded, [None] * 4)):
        tensor.dtype, tensor.shape = np.dtype(np.float32), shape
    model.graph.toposort()
    onnx.checker.check_model(model.proto(), full_check=True)
    x = small.inputs([4, 3], 5)
    found = small.run(model, x)
    np.testing.assert_allclose(found["test/total"], np.maximum(x, 0).sum(axis=axis), rtol=1e-5)
    np.testing.assert_array_equal(found["test/row"], np.expand_dims(np.maximum(x, 0), axis))
