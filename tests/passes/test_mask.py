"""Modules that a published method makes: masks of the parent, cut where zeros allow it, and composed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from graft.passes.base import Context
from graft.passes.compose import Compose
from graft.passes.identify import method_of
from graft.passes.mask import Mask
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.published import MaskInputs, MaskMethod, MaskReport, masks
from graft.passes.published.dense_network import DenseNetwork
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.measure.mask_metrics import kernels, zero_share
from graft.rewriter.record.provenance import MASKED, metrics_of, origin_of
from tests import small

SHAPE = [6]


def parent(seed: int = 9) -> Parent:
    """A dense network of two hidden layers."""
    net = small.Net(6, seed=seed)
    first = net.node("Relu", "relu1", net.gemm("dense1", "x", 8, 6))
    net.gemm("y", net.node("Relu", "relu2", net.gemm("dense2", first, 7, 8)), 4, 7)
    return Parent(small.model(net))


def labelled(of: Parent, count: int = 400) -> Samples:
    """Samples far from the origin, labelled as the parent decides: it is sure of many."""
    x = 20 * small.inputs(SHAPE, count)
    return small.samples(x, small.run(of.model, x)["y"].argmax(axis=1), of.card)


@dataclass(frozen=True)
class HalfGone(MaskMethod):
    """Removes the first units of the first hidden layer."""

    units: int = 3
    name: ClassVar[str] = "test:half"
    scores: ClassVar[str] = "fse20:vote"

    def mask(self, model: object, inputs: MaskInputs) -> MaskReport:
        network = DenseNetwork(model, self.name)  # type: ignore[arg-type]
        layers = network.layers
        layers[0].weights[:, : self.units] = 0
        layers[0].bias[: self.units] = 0
        network.write(layers)
        return MaskReport(changed=6 * self.units, positives=1, negatives=0)


@pytest.mark.parametrize("cut", [False, True])
def test_a_mask_has_the_shape_of_its_parent_unless_it_is_cut(cut: bool) -> None:
    of = parent()
    context = Context(samples=labelled(of), device=small.CPU)
    report = Mask("b", HalfGone(), cut)(of, context)
    assert report.changed == (3 if cut else 0)
    assert report.zero_weights == pytest.approx(18 / (48 + 56 + 28)) and report.zero_weights_parent == 0
    assert (report.cost.parameters < of.cost.parameters) is cut
    x = small.inputs(SHAPE)
    tensors = {node.name: node for node in of.model.graph.nodes}
    w, b = (tensor.values for tensor in tensors["dense1"].inputs[1:])
    hidden = np.maximum(x @ w.T + b, 0)
    hidden[:, :3] = 0
    for name in ("dense2", "y"):
        w, b = (tensor.values for tensor in tensors[name].inputs[1:])
        hidden = hidden @ w.T + b if name == "y" else np.maximum(hidden @ w.T + b, 0)
    np.testing.assert_allclose(small.run(report.model, x)["y"], hidden, rtol=1e-5, atol=1e-5)
    origin = origin_of(report.model)
    assert origin.classes == ("b",) and origin.options[MASKED] and origin.options["units"] == 3
    assert metrics_of(report.model)["zero_weights_ratio"] == report.zero_weights
    assert zero_share(kernels(of.model)) == 0, "the parent stays as it is"


@pytest.mark.parametrize("method", sorted(name for name in masks() if name.startswith("fse20")))
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_every_published_method_makes_modules_that_compose(method: str, variant: str) -> None:
    of = parent()
    context = Context(samples=labelled(of), device=small.CPU)
    asked = masks()[method].with_options(variant=variant)
    reports = [Mask(name, asked, cut=True)(of, context) for name in small.LABELS]
    for name, report in zip(small.LABELS, reports, strict=True):
        assert report.model.require_card().labels == small.LABELS
        assert origin_of(report.model).classes == (name,)
        assert (report.difference or 0) < 1e-5
    composite = Compose("branches", scores=asked.scores)(
        Modules([report.model for report in reports]), Context(device=small.CPU)
    ).model
    x = 20 * small.inputs(SHAPE, 200, seed=5)
    every = np.stack([small.softmax(small.run(report.model, x)["y"]) for report in reports], axis=1)
    own = every[:, np.arange(4), np.arange(4)]
    votes = own == every.max(axis=2)
    expected = np.where(votes | ~votes.any(axis=1, keepdims=True), own, -1)
    found = small.run(composite, x)["y"]
    clear = np.sort(expected, axis=1)[:, -1] - np.sort(expected, axis=1)[:, -2] > 1e-5
    assert clear.sum() > 50
    np.testing.assert_array_equal(found.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])


def test_masks_of_one_parent_are_no_trunk() -> None:
    """A trunk plans the parent anew: masks stay what their method made them."""
    of = parent()
    context = Context(samples=labelled(of), device=small.CPU)
    modules = Modules([Mask(name, HalfGone())(of, context).model for name in "ab"])
    report = Compose()(modules, Context(device=small.CPU))
    assert report.strategy == "branches" and "masks of the parent, made by test:half" in report.reason
    with pytest.raises(GraftError, match="the modules cannot share a trunk: masks of the parent"):
        Compose("trunk")(modules, Context(device=small.CPU))


def test_what_is_missing_is_said() -> None:
    of = parent()
    with pytest.raises(GraftError, match="takes labelled samples, and there are none"):
        Mask("b", HalfGone())(of, Context())
    with pytest.raises(GraftError, match="has no option --variant"):
        HalfGone().with_options(variant="paper")
    with pytest.raises(GraftError, match="makes masks of the parent: it ranks no channels"):
        method_of("fse20:ti-i")
    unsure = small.samples(1e-3 * small.inputs(SHAPE), of=of.card)
    with pytest.raises(
        GraftError, match="to which the parent gives a probability above 0.9, and there are none"
    ):
        Mask("b", masks()["fse20:ti-i"])(of, Context(samples=unsure, device=small.CPU))
