"""Scores of very sure models, of masked classes, and probabilities whose softmax is not the last node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from graft.passes.compose import Compose, Modules
from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.passes.remove import Remove
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.errors import GraftError
from graft.rewriter.measure.evaluation import check_finite, score
from tests import small
from tests.small import CPU, LABELS, Array, Net

X = small.inputs((6,), 120)
MASK = np.array([True, True, False, True])
Form = Callable[[Net], object]


def body(dtype: type[np.generic] = np.float32, sure: float = 1.0) -> Net:
    """Two layers and logits ``z`` of four classes, times ``sure``."""
    net = Net(6, seed=3, dtype=dtype)
    net.node("Relu", "a", net.gemm("g", "x", 16, 6))
    net.node("Relu", "b", net.gemm("h", "a", 12, 16))
    net.node("Mul", "z", net.gemm("head", "b", 4, 12), net.constant("sure", sure))
    return net


def softmax(net: Net) -> str:
    return net.node("Softmax", "s", "z", axis=-1)


def quotient(net: Net) -> None:
    net.node("Exp", "e", net.node("Sub", "d", "z", net.node("ReduceMax", "m", "z", axes=[-1])))
    net.node("Div", "y", "e", net.node("ReduceSum", "t", "e", net.ints("axes", -1)))


def turned(net: Net) -> None:
    net.node("Transpose", "t", net.node("Softmax", "s", net.node("Transpose", "u", "z", perm=[1, 0]), axis=0))
    net.node("Identity", "y", "t")


def squeezed(net: Net) -> None:
    tall = net.node("Unsqueeze", "u", "z", net.ints("two", 2))
    net.node("Squeeze", "y", net.node("Softmax", "s", tall, axis=1), net.ints("axis", 2))


def tall(net: Net) -> None:
    """As PyTorch writes it: the shapes inside are not in the file, and the columns have a name."""
    upright = net.node("Unsqueeze", "u", "z", net.ints("axes", 2, 3))
    net.node("Reshape", "y", net.node("Softmax", "s", upright, axis=1), net.ints("shape", -1, 4))


def clipped(net: Net) -> None:
    net.node("Clip", "y", softmax(net), net.constant("low", 0.0), net.constant("high", 1.0))


FORMS: dict[str, Form] = {
    "softmax": lambda net: net.node("Softmax", "y", "z", axis=-1),
    "identity": lambda net: net.node("Identity", "y", softmax(net)),
    "reshape": lambda net: net.node("Reshape", "y", softmax(net), net.ints("shape", -1, 4)),
    "cast": lambda net: net.node("Cast", "y", net.node("Cast", "c", softmax(net), to=11), to=1),
    "exp": lambda net: net.node("Exp", "y", net.node("LogSoftmax", "l", "z", axis=-1)),
    "quotient": quotient,
    "turned": turned,
    "squeezed": squeezed,
    "tall": tall,
    "clipped": clipped,
}


def shares(logits: Array, columns: list[int]) -> Array:
    """Return the probabilities that some classes share, in double precision."""
    return small.softmax(logits.astype(np.float64)[:, columns])


@pytest.mark.parametrize("form", FORMS)
def test_the_others_share_what_a_sure_class_leaves(form: str) -> None:
    net = body(sure=60.0)
    FORMS[form](net)
    model = small.model(net, "probabilities")
    if form == "tall":
        for tensor in model.graph.tensors().values():
            if isinstance(tensor, gs.Variable) and tensor.inputs:
                tensor.shape = ["N", "columns"] if tensor.name == "y" else None
    logits, whole = small.run(net.proto(y=[4], z=[4]), X)["z"], small.run(model, X)["y"]
    assert (whole.max(axis=1) == 1).any(), "float32 rounds some to 1"
    found = small.run(Remove(["a"])(model, small.context()).model, X)["y"]
    np.testing.assert_allclose(found, shares(logits, [1, 2, 3]), atol=1e-4)


def test_limits_that_change_probabilities_are_kept() -> None:
    net = body()
    net.node("Clip", "y", softmax(net), net.constant("low", 0.2), net.constant("high", 1.0))
    model = small.model(net, "probabilities")
    whole = small.run(model, X)["y"][:, 1:]
    found = small.run(Remove(["a"])(model, small.context()).model, X)["y"]
    np.testing.assert_allclose(found, whole / whole.sum(axis=1, keepdims=True), atol=1e-5)


def test_half_precision_keeps_what_it_rounds_to_nothing() -> None:
    net = body(np.float16, sure=8.0)
    net.node("Identity", "y", softmax(net))
    model = small.model(net, "probabilities")
    x = X.astype(np.float16)
    logits = small.run(net.proto(y=[4], z=[4]), x)["z"]
    found = small.run(Remove(["a"])(model, small.context()).model, x)["y"]
    np.testing.assert_allclose(found, shares(logits, [1, 2, 3]), atol=2e-2)


def test_a_sigmoid_and_its_complement_are_two_classes() -> None:
    net = body()
    one = net.node("Sigmoid", "p", net.gemm("one", "b", 1, 12))
    net.node("Concat", "y", net.node("Sub", "q", net.constant("1", [[1.0]]), one), "p", axis=1)
    model = small.model(net, "probabilities", LABELS[:2])
    expected = small.run(model, X)["y"]
    parent = Parent(model)
    data = small.samples(X, expected.argmax(axis=1), model.card)
    profile = small.profile(parent.model, data, parent.sha256)
    module = Decompose(["b"], 1.0, compensate="none")(parent, small.context(profile, data)).model
    assert not {"Log", "Max"} & {node.op for node in module.graph.nodes}
    np.testing.assert_allclose(small.run(module, X)["y"], expected[:, ::-1], atol=1e-6)


def test_tiny_probabilities_keep_their_order() -> None:
    """No softmax is in sight behind this product: the probabilities are all there is."""
    net = body(sure=20.0)
    net.node("Mul", "y", softmax(net), net.constant("ones", np.ones(4)))
    model = small.model(net, "probabilities")
    whole = small.run(model, X)["y"].astype(np.float64)
    found = small.run(Remove(["b"])(model, small.context()).model, X)["y"]
    rest = whole[:, [0, 2, 3]]
    counts = rest.max(axis=1) > 1e-34
    assert (rest[counts].max(axis=1) < 1e-7).sum() > 1, "some of them are tiny"
    expected = rest[counts] / rest[counts].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[counts], expected, atol=1e-4)


# ------------------------------------------------------------------------------- masked classes


def masked_by_bias(net: Net) -> None:
    weight, bias = net.weight("w", 4, 12), net.constant("c", np.where(MASK, 0.1, -np.inf))
    net.node("Gemm", "y", "b", weight, bias, transB=1)


MASKED: dict[str, Form] = {
    "where": lambda net: net.node(
        "Where", "y", net.constant("m", MASK, bool), "z", net.constant("low", -np.inf)
    ),
    "add": lambda net: net.node("Add", "y", "z", net.constant("m", np.where(MASK, 0, -np.inf))),
    "bias": masked_by_bias,
    "log": lambda net: net.node(
        "Log", "y", net.node("Mul", "q", softmax(net), net.constant("m", MASK.astype(float)))
    ),
}


@pytest.mark.parametrize("form", MASKED)
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_class_at_minus_infinity_has_probability_0(form: str, kind: str) -> None:
    net = body()
    MASKED[form](net)
    if kind == "probabilities":
        net.nodes[-1].output[0] = "masked"
        net.node("Softmax", "y", "masked", axis=-1)
    model = small.model(net, kind)
    scores = small.run(model, X)["y"].astype(np.float64)
    whole = scores if kind == "probabilities" else small.softmax(scores)
    labels = np.where(np.arange(len(X)) % 3 == 0, np.arange(len(X)) // 3 % 4, scores.argmax(axis=1))
    data = small.samples(X, labels, model.card)
    assert score(model, data, CPU).summary()["top1"] == np.mean(scores.argmax(axis=1) == labels)
    parent = Parent(model)
    profile = small.profile(parent.model, data, parent.sha256)
    context = small.context(
        profile, data, data=Dataset.from_arrays(X, labels, class_names=LABELS).split("train")
    )

    def share(module: Array) -> Array:
        return module if kind == "probabilities" else small.softmax(module.astype(np.float64))

    modules = []
    for name in ("b", "c"):
        exact = Decompose([name], 1.0, compensate="none", verify=True)(parent, context).model
        own = whole[:, LABELS.index(name)]
        np.testing.assert_allclose(share(small.run(exact, X)["y"])[:, 0], own, atol=1e-6)
        pruned = Decompose([name], 0.6, method="ablation", compensate="refit", verify=True)(parent, context)
        found = share(small.run(pruned.model, X)["y"])
        assert np.isfinite(found).all() and (name == "b" or (found[:, 0] == 0).all())
        modules.append(pruned.model)
    for comparison in ("joint", "calibrated", "typicality"):
        composite = Compose(scores=comparison)(Modules(modules), context).model
        assert np.isfinite(small.run(composite, X)["y"]).all()
    rest = small.run(Remove(["b"])(model, context).model, X)["y"]
    np.testing.assert_allclose(
        share(rest), whole[:, [0, 2, 3]] / whole[:, [0, 2, 3]].sum(axis=1, keepdims=True), atol=1e-6
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_other_infinities_are_refused(bad: float) -> None:
    scores = np.array([[0.0, -np.inf], [1.0, 2.0]], np.float32)
    assert check_finite(scores, "y") is scores
    with pytest.raises(GraftError, match="NaN, infinity"):
        check_finite(np.where(scores == 2, np.float32(bad), scores), "y")
    with pytest.raises(GraftError, match="NaN, infinity"):
        check_finite(np.full((1, 2), -np.inf, np.float32), "y")
    column = scores[:, :, None, None]
    assert check_finite(column, "y") is column
