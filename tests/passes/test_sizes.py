"""Costs of models that leave sizes open are counted at the size of the samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.baseline import Candidate
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.profile import Profile
from graft.tools.cli import run
from tests import small

SIDES = (12, 8)
OPEN = {"x": (None, 2, *SIDES)}


def net() -> onnx.ModelProto:
    """Two convolutions at the full size, one at a quarter of it."""
    found = small.Net(2, *SIDES)
    one = found.node("Relu", "relu1", found.conv("conv1", "x", 8, 2, pads=[1, 1, 1, 1]))
    two = found.node("Relu", "relu2", found.conv("conv2", one, 8, 8, pads=[1, 1, 1, 1]))
    pool = found.node("MaxPool", "pool", two, kernel_shape=[4, 4], strides=[4, 4])
    three = found.node("Relu", "relu3", found.conv("conv3", pool, 24, 8, pads=[1, 1, 1, 1]))
    found.gemm("y", found.node("Flatten", "flat", found.node("GlobalAveragePool", "mean", three)), 4, 24)
    return found.proto(y=[4])


def model(free: bool, height: str | int = "h", width: str | int = "w", batch: str | int = "N") -> Model:
    """The network with sides of 12 and 8, or free ones as exporters write them."""
    proto = net()
    sizes = {0: batch, 2: height, 3: width} if free else {}
    for axis, size in sizes.items():
        dimension = proto.graph.input[0].type.tensor_type.shape.dim[axis]
        if isinstance(size, str):
            dimension.dim_param = size
        else:
            dimension.dim_value = size
    proto.graph.output[0].type.tensor_type.shape.dim[0].CopyFrom(
        proto.graph.input[0].type.tensor_type.shape.dim[0]
    )
    return Model.from_proto(proto, small.card())


def samples(count: int = 40) -> Any:
    return small.samples(small.inputs((2, *SIDES), count))


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_a_budget_is_kept_at_the_size_of_the_samples(keep: float) -> None:
    """The plan, the MACs and their ratio are those of the same model with its sizes fixed."""
    found = []
    for free in (False, True):
        parent = Parent(model(free))
        profile = Observe()(parent, small.context(samples=samples())).profile
        report = Decompose(["a", "b"], keep=keep, method="activity", compensate="none", together=True)(
            parent, small.context(profile)
        )
        found.append(
            (report.plan.kept, report.cost, parent.cost, json.loads(report.model.metadata["graft.metrics"]))
        )
    (plan, *fixed), (other, *free) = found
    assert fixed == free
    assert all(np.array_equal(plan[name], other[name]) for name in plan)
    assert fixed[0].macs <= keep * fixed[1].macs


@pytest.mark.parametrize(
    "written", [("?", "?", "?"), (-1, -1, -1), ("s", "s", "N"), (0, 0, 0), ("unk__1", "unk__2", "?")]
)
def test_free_sides_that_exporters_do_not_name_are_free_one_by_one(written: Any, tmp_path: Path) -> None:
    """Two sides of one name, or of none, need not be equal: the costs are those of the fixed model."""
    model(True, *written).save(tmp_path / "m.onnx")
    loaded = Model.load(tmp_path / "m.onnx")
    loaded.card = small.card()
    parent = Parent(loaded)
    profile = Observe()(parent, small.context(samples=samples())).profile
    assert profile.sizes == OPEN
    assert parent.cost == cost_of(model(False))
    report = Decompose(["a", "b"], keep=0.5, verify=True)(parent, small.context(profile))
    found = small.run(report.model, small.inputs((2, *SIDES), 3))["y"]
    wanted = Decompose(["a", "b"], keep=0.5)(Parent(model(False)), small.context(profile_of_fixed())).model
    np.testing.assert_allclose(
        found, small.run(wanted, small.inputs((2, *SIDES), 3))["y"], rtol=1e-4, atol=1e-5
    )


def profile_of_fixed() -> Profile:
    parent = Parent(model(False))
    return Observe()(parent, small.context(samples=samples())).profile


def test_a_module_and_a_profile_remember_the_sizes(tmp_path: Path) -> None:
    parent = Parent(model(True))
    profile = Observe()(parent, small.context(samples=samples())).profile
    assert profile.sizes == OPEN
    profile.save(tmp_path / "p.profile")
    again = Profile.load(tmp_path / "p.profile")
    assert again.sizes == OPEN
    assert again.sha256 == profile.sha256
    fresh = Parent(model(True))
    report = Decompose(["a", "b"], keep=0.5)(fresh, small.context(again))
    report.model.save(tmp_path / "m.onnx")
    loaded = Model.load(tmp_path / "m.onnx")
    assert loaded.sizes == OPEN
    assert cost_of(loaded) == report.cost


def test_a_model_without_free_axes_says_nothing_of_sizes() -> None:
    parent = Parent(model(False))
    profile = Observe()(parent, small.context(samples=samples())).profile
    assert profile.sizes == {}
    assert b"sizes" not in profile.to_bytes()[:2000]
    assert "graft.sizes" not in {entry.key for entry in parent.model.proto().metadata_props}


def test_evaluate_counts_at_the_size_of_its_samples() -> None:
    data = samples()
    fixed, _ = Candidate(model(False)).measure(data, small.LABELS, small.CPU)
    free, _ = Candidate(model(True)).measure(data, small.LABELS, small.CPU)
    assert free["macs"] == fixed["macs"] == cost_of(model(False)).macs
    at_one = cost_of(model(True)).macs
    assert at_one < fixed["macs"] / 10


def test_samples_of_another_size_than_asked_for_are_refused() -> None:
    whole = model(True)
    parent = Parent(whole, whole.sizes_at({"x": [1, 2, 16, 16]}))
    with pytest.raises(GraftError, match="--input-shape says") as caught:
        Observe()(parent, small.context(samples=samples()))
    assert caught.value.code == "shape-unfit"


def test_inspect_says_which_axes_count_as_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model(True).save(tmp_path / "m.onnx")
    assert run(["inspect", str(tmp_path / "m.onnx")]) == 0
    assert "at 1 for x axis 2, x axis 3" in " ".join(capsys.readouterr().out.split())
    assert run(["inspect", str(tmp_path / "m.onnx"), "--input-shape", "x:1,2,12,8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["macs"] == cost_of(model(False)).macs
    assert found["macs_at_1_for"] == []


def test_sizes_that_samples_do_not_have_are_an_error_of_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = model(True)
    whole.save(tmp_path / "m.onnx")
    x = small.inputs((2, *SIDES), 40)
    y = np.arange(40) % 4
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y, class_names=list(small.LABELS))
    common = [str(tmp_path / "m.onnx"), "--data", str(tmp_path / "d.npz"), "--json"]
    for command, more in (
        ("evaluate", []),
        ("profile", ["-o", str(tmp_path / "p")]),
        ("decompose", ["-o", str(tmp_path / "q"), "--keep", "0.5"]),
        ("curve", ["-o", str(tmp_path / "c.json")]),
    ):
        assert run([command, *common, *more, "--input-shape", "x:1,2,4,4"]) == 2
        assert json.loads(capsys.readouterr().out)["code"] == "shape-unfit"
    assert run(["evaluate", *common, "--input-shape", "x:1,2,12,8"]) == 0
    capsys.readouterr()


def test_sequences_of_free_length() -> None:
    """Recurrent and dense work is multiplied by the steps of the samples."""
    net = small.Net(5, 3)
    made = net.node("Relu", "relu", net.node("MatMul", "one", "x", net.weight("w", 3, 16)))
    net.node("MatMul", "y", net.node("ReduceMax", "max", made, axes=[1], keepdims=0), net.weight("v", 16, 4))
    fixed, free = net.proto(y=[4]), net.proto(y=[4])
    free.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "t"
    wanted = cost_of(Model.from_proto(fixed, small.card()))
    parent = Parent(Model.from_proto(free, small.card()))
    data = small.samples(small.inputs((5, 3), 40))
    profile = Observe()(parent, small.context(samples=data)).profile
    assert parent.cost == wanted
    report = Decompose(["a", "b"], keep=0.6, together=True)(parent, small.context(profile))
    assert report.cost.macs <= 0.6 * wanted.macs


@pytest.mark.parametrize("free", [False, True])
def test_labels_of_steps_in_sequences_of_free_length(free: bool) -> None:
    """Each step is a sample of its own: means by class are those that numpy gives."""
    net = small.Net(7, 3)
    hidden = net.node("Relu", "relu", net.node("MatMul", "one", "x", net.weight("w", 3, 5)))
    net.node("MatMul", "y", hidden, net.weight("v", 5, 4))
    proto = net.proto(y=[7, 4])
    if free:
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[1].dim_param = "t"
    card = small.card(steps=True)
    x = small.inputs((7, 3), 40)
    y = np.random.default_rng(3).integers(0, 4, (40, 7))
    samples = small.samples(x, y, card)
    parent = Parent(Model.from_proto(proto, card))
    profile = Observe()(parent, small.context(samples=samples)).profile
    weights = onnx.numpy_helper.to_array(net.constants["w"])
    relu = np.maximum(x @ weights, 0)
    wanted = np.stack([relu[y == label].sum(axis=0) for label in range(4)])
    np.testing.assert_allclose(profile.tables["sum"]["relu"], wanted, rtol=1e-4)
    np.testing.assert_array_equal(profile.counts, np.bincount(y.ravel()))
    report = Decompose(["a", "b"], keep=0.7, together=True, compensate="refit", verify=True)(
        parent, small.context(profile, samples)
    )
    assert report.cost.macs <= 0.7 * parent.cost.macs
