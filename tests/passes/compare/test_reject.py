"""What no class owns: the column (other) of composites."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graft.passes.base import Context
from graft.passes.compare.class_gaussians import (
    FEWEST_DIRECTIONS,
    LEAST_VARIANCE,
    PRIOR,
    ClassGaussians,
    directions_for,
)
from graft.passes.compare.reject import READ, coarse
from graft.passes.compose import Compose
from graft.passes.decompose import Decompose
from graft.passes.networks import Modules
from graft.rewriter.card.card import OTHER
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.evaluation import score
from graft.rewriter.record.mahalanobis import KEY
from tests import small
from tests.passes.compare.test_joint_head import FIRST, SECOND, modules, split
from tests.passes.test_replace import parent, run
from tests.small import CPU

Array = NDArray[Any]


def clouds(
    kept: int, size: int = 5, classes: int = 3, count: int = 4000
) -> tuple[ClassGaussians, Array, Array]:
    draw = np.random.default_rng(0)
    labels = np.arange(count) % classes
    spread = draw.normal(size=(classes, size, size))
    values = np.einsum("nij,nj->ni", spread[labels], draw.normal(size=(count, size))) + 4 * labels[:, None]
    return ClassGaussians.fit(values, labels, kept), values, labels


def test_distances_are_densities() -> None:
    """With all directions kept: minus twice the logarithm of normal densities, up to a constant."""
    found, values, labels = clouds(5)
    rows = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-3 * values.std())
    centers = np.stack([rows[labels == label].mean(axis=0) for label in range(3)])
    apart = rows - centers[labels]
    within = apart.T @ apart / len(apart) + LEAST_VARIANCE * np.eye(5)
    expected = []
    for label in range(3):
        own, away = apart[labels == label], rows - centers[label]
        covariance = (own.T @ own + PRIOR * within) / (len(own) + PRIOR)
        inverse = np.linalg.inv(covariance)
        expected.append(np.einsum("ni,ij,nj->n", away, inverse, away) + np.linalg.slogdet(covariance)[1])
    difference = found.distance(values) - np.min(expected, axis=0)
    # the prior is exact where values vary by 1 in the whitened space, and nearly so elsewhere
    np.testing.assert_allclose(difference, difference.mean(), atol=0.1)
    assert found.distance(values).std() > 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 5), st.sampled_from([11, 17, 18]))
def test_the_graph_measures_what_numpy_does(kept: int, opset: int) -> None:
    found, values, _ = clouds(kept, count=300)
    net = small.Net(5, opset=opset)
    net.node("Identity", "y", "x")
    model = Model.from_proto(net.proto(y=[5]))
    build = Builder(model.graph, opset, "t")
    distance = found.write(build, model.graph.outputs[0])
    distance.dtype, distance.shape = np.dtype(np.float32), ["N", 1]
    model.graph.outputs = [distance]
    model.tidy()
    x = np.concatenate([values, values * 10]).astype(np.float32)
    (made,) = small.run(model, x).values()
    np.testing.assert_allclose(made[:, 0], found.distance(x.astype(np.float64)), rtol=1e-3, atol=1e-2)


def test_more_room_more_directions() -> None:
    assert directions_for(0, 100, 10) == FEWEST_DIRECTIONS
    assert directions_for(10**9, 100, 10) == 100
    assert FEWEST_DIRECTIONS < directions_for(50_000, 100, 10) < 100
    assert directions_for(0, 4, 10) == 4
    assert directions_for(10**9, 4000, 1000) <= 1


@pytest.mark.parametrize(
    ("layout", "channels"),
    [("NCHW", 1), ("NCHW", 3), ("NHWC", 1), ("NHWC", 3), ("flat", 1), ("flat", 3), ("NHW", 1)],
)
def test_an_image_is_seen_coarsely(layout: str, channels: int) -> None:
    card = InputCard.model_validate(
        {"name": "x", "kind": "image", "layout": layout, "color": "RGB" if channels == 3 else "GRAY",
         "size": [16, 24]}
    )  # fmt: skip
    images = np.random.default_rng(0).normal(size=(3, 16, 24, channels)).astype(np.float32)
    x = {"NCHW": images.transpose(0, 3, 1, 2), "NHWC": images, "flat": images.reshape(3, -1),
         "NHW": images[..., 0]}[layout]  # fmt: skip
    net = small.Net(*x.shape[1:])
    net.node("Identity", "y", "x")
    model = Model.from_proto(net.proto(y=list(x.shape[1:])))
    means = coarse(model.graph.outputs[0], card, Builder(model.graph, 17, "t"))
    means.dtype, means.shape = np.dtype(np.float32), ["N", 64 * channels]
    model.graph.outputs = [means]
    model.tidy()
    (made,) = small.run(model, np.ascontiguousarray(x)).values()
    expected = images.reshape(3, 8, 2, 8, 3, channels).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(made, expected.reshape(3, -1), atol=1e-5)


def far(count: int, seed: int = 0) -> Array:
    """Samples of no class: away from all clouds."""
    draw = np.random.default_rng(seed)
    found = draw.normal(size=(count, 6))
    return np.asarray(7 * found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("with_data", [True, False])
def test_what_is_far_from_all_classes_is_rejected(with_data: bool, output: str) -> None:
    data = split(1600, 2) if with_data else None
    plain = Compose(scores="typicality")(Modules(modules(output)[0]), Context(data=data, device=CPU)).model
    compose = Compose(other=True, false_positive_rate=0.1, scores="typicality")
    report = compose(Modules(modules(output)[0]), Context(data=data, device=CPU))
    assert report.reject is not None and report.reject.samples == (1600 if with_data else 0)
    labels = report.model.require_card().labels
    assert labels == (*FIRST, *SECOND, OTHER) and len(report.model.graph.outputs) == 1
    (known,) = split(1600, 3).raw(np.arange(1600)).values()
    before, inside, outside = run(plain, known), run(report.model, known), run(report.model, far(400))
    if output == "logits":
        np.testing.assert_allclose(inside[:, :-1], before, atol=1e-4)
    else:
        np.testing.assert_allclose(inside.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(
            inside[:, :-1] / inside[:, :-1].sum(axis=1, keepdims=True), before, atol=1e-4
        )
    alarms = (inside.argmax(axis=1) == 8).mean()
    assert abs(alarms - 0.1) < (0.03 if with_data else 0.1)
    difference = [np.log(x[:, :-1].max(axis=1) + 1e-30) - np.log(x[:, -1] + 1e-30) if output != "logits"
                  else x[:, :-1].max(axis=1) - x[:, -1] for x in (inside, outside)]  # fmt: skip
    known_first = np.repeat([True, False], [1600, 400])
    assert metrics.auroc(np.concatenate(difference), known_first) > (0.97 if with_data else 0.75)
    onnx.checker.check_model(report.model.proto(), full_check=True)


@pytest.mark.parametrize("scores", ["joint", "calibrated", "softmax", "vote"])
def test_whatever_the_scores(scores: str) -> None:
    report = Compose(other=True, scores=scores)(
        Modules(modules()[0]), Context(data=split(1600, 2), device=CPU)
    )
    samples = Samples.match(split(800, 3), report.model.require_card())
    found = score(report.model, samples, CPU)
    assert 0.01 < (found.predictions == 8).mean() < 0.12
    assert (run(report.model, far(200)).argmax(axis=1) == 8).mean() > 0.7


def test_one_network_with_all_classes_of_its_parent() -> None:
    of = parent(0)
    samples = Samples.match(split(400, 1), of.card, names=FIRST + SECOND)
    module = Decompose(FIRST, together=True)(
        of, small.context(small.profile(of.model, samples, of.sha256))
    ).model
    assert KEY in module.metadata
    data = split(1600, 2)
    report = Compose(other=True)(Modules([module]), Context(data=data, device=CPU))
    assert report.model.require_card().labels == (*FIRST, OTHER) and report.scores == ""
    (known,) = split(400, 3).raw(np.arange(400)).values()
    np.testing.assert_allclose(run(report.model, known)[:, :4], run(module, known), atol=1e-5)
    found = score(report.model, Samples.match(split(1600, 3), report.model.require_card()), CPU).summary()
    assert found["auroc"] > 0.85 and found["fpr_at_95_recall"] < 0.6
    assert report.model.require_card().labels[-1] == OTHER


def test_lines_that_cannot_be() -> None:
    found = [model.copy() for model in modules()[0]]
    del found[0].metadata[KEY]
    with pytest.raises(GraftError, match="no class owns") as error:
        Compose(other=True, scores="softmax")(Modules(found), Context())
    assert error.value.code == "other-unknown" and "data" in error.value.hint


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_alarms_are_a_share_between(share: float) -> None:
    with pytest.raises(GraftError) as error:
        Compose(other=True, false_positive_rate=share)
    assert error.value.code == "false-alarms"


def test_no_further_output_is_left() -> None:
    report = Compose(other=True)(Modules(modules()[0]), Context(data=split(1600, 2), device=CPU))
    assert READ not in {tensor.name for tensor in report.model.graph.outputs}


def test_samples_of_no_class_count_in_the_evaluation() -> None:
    x = np.concatenate([small.inputs((6,), 40), far(20)])
    names = ("a", "b", "c", "d", "zebra")
    labels = np.repeat([0, 4], [40, 20])
    part = Dataset.from_arrays(x, labels).split("train")
    report = Compose(other=True)(Modules(modules()[0]), Context(data=split(1600, 2), device=CPU))
    found = score(
        report.model, Samples.match(replace(part, class_names=names), report.model.require_card()), CPU
    ).summary()
    assert found["samples"] == 60 and 0.5 < found["auroc"] <= 1
    assert found["per_class"][OTHER]["support"] == 20
