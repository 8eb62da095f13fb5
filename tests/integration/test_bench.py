"""Whole commands on trained networks that nobody here made: the figures of docs/results.md hold."""

from __future__ import annotations

import statistics
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graft.passes.base import Context
from graft.passes.compose import Compose
from graft.passes.networks import Modules
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score
from graft.rewriter.run.session import Device
from tests.bench import MARKS
from tests.bench import VISION as BENCH
from tests.integration.kit import printed as graft

pytestmark = MARKS


FROM_PROFILE = ("--method", "relevance", "--compensate", "fold")
"""What needs no further passes over samples: for checks of everything but accuracy."""


def test_residual_streams_can_be_cut(capfd: pytest.CaptureFixture[str]) -> None:
    found = graft(capfd, "inspect", BENCH / "resnet20_cifar10.onnx")
    assert found["cuttable_parameters_ratio"] >= 0.95
    stream = max(found["groups"], key=lambda group: group["parameters"])
    assert (stream["size"], stream["cuttable"]) == (64, 64)


def test_ten_modules_of_resnet20(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model, data, modules = BENCH / "resnet20_cifar10.onnx", BENCH / "cifar10.npz", tmp_path / "modules"
    found = graft(capfd, "decompose", model, "--data", data, "--keep", "0.85", *FROM_PROFILE, "-o", modules)
    assert found["parent"]["top1"] == pytest.approx(0.9173, abs=0.0005)
    assert found["composed_top1"] >= 0.8996
    assert len(found["modules"]) == 10
    assert all(module["macs_ratio"] <= 0.85 for module in found["modules"])
    for module in found["modules"]:
        session = ort.InferenceSession(modules / module["file"], providers=["CPUExecutionProvider"])
        assert session.get_outputs()[0].shape == ["batch", 2]

    whole = tmp_path / "whole.onnx"
    graft(capfd, "compose", modules, "--strategy", "trunk", "--keep", "1", "-o", whole)
    raw = Dataset.load(data).split("test").raw(np.arange(16))[""]
    inputs = ((raw / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(0, 3, 1, 2)
    feed = {"input": inputs.astype(np.float32)}
    logits = [
        ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for path in (model, whole)
    ]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)

    animals = tmp_path / "animals.onnx"
    names = ["bird", "cat", "deer", "dog", "horse"]
    joined = graft(capfd, "compose", *(modules / f"{name}.onnx" for name in names), "-o", animals)
    assert joined["strategy"] == "trunk"
    assert joined["macs"] <= 0.85 * found["parent"]["macs"]
    beside = graft(capfd, "evaluate", animals, "--data", data, "--baseline", model)
    assert beside["delta"] >= -0.03

    trunk, ratios = tmp_path / "trunk.onnx", []
    graft(capfd, "compose", modules, "--strategy", "trunk", "--keep", "0.85", "-o", trunk)
    for _ in range(5):  # other work on the machine makes single ratios vary
        few = ("--samples-per-class", "40", "--baseline", model)
        beside = graft(capfd, "evaluate", trunk, "--data", data, *few)
        assert beside["macs"] <= 0.85 * beside["baseline"]["macs"]
        ratios.append(beside["latency_ms"]["median"] / beside["baseline"]["latency_ms"]["median"])
    assert min(ratios) <= 1


def test_two_classes_refitted(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Half of the MACs for a hard pair, by the defaults: docs/accuracy.md says 1.3 points."""
    data = ("--data", BENCH / "cifar10.npz", "--classes", "cat,dog")
    line = ("decompose", BENCH / "resnet20_cifar10.onnx", *data)
    found = graft(capfd, *line, "--together", "--keep", "0.5", "--round-to", "1", "-o", tmp_path / "pair")
    assert found["modules"][0]["macs_ratio"] <= 0.5
    assert found["parent"]["top1"] - found["composed_top1"] <= 0.02


@pytest.mark.parametrize(
    ("name", "data", "dead", "lost"), [("mnist", "mnist", 51, 0.01), ("fmnist", "fmnist", 36, 0.0024)]
)
def test_dense_networks(
    name: str, data: str, dead: int, lost: float, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """80 % of the parameters that are left without the units that are zero for every sample."""
    model, samples = BENCH / f"dense_{name}_4.onnx", BENCH / f"{data}.npz"
    profiled = graft(capfd, "profile", model, "--data", samples, "-o", tmp_path / "profile")
    assert sum(profiled["dead"].values()) == dead
    keep = 0.8 * {"mnist": 0.6422, "fmnist": 0.6777}[name]
    found = graft(
        capfd,
        *("decompose", model, "--data", samples, "--profile", tmp_path / "profile"),
        *("--keep-by", "parameters", "--keep", f"{keep:.4f}", "-o", tmp_path / "modules"),
    )
    assert found["parent"]["dead_channels"] == dead
    mean = np.mean([module["parameters_ratio"] for module in found["modules"]])
    assert mean == pytest.approx(keep, abs=0.01)
    assert found["parent"]["top1"] - found["composed_top1"] <= lost


def test_class_specific_modules_beat_one_plan(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Modules that differ by class are worth it: the same budget with one plan for all is worse."""
    model, data = BENCH / "dense_fmnist_4.onnx", BENCH / "fmnist.npz"
    budget = ("--keep-by", "parameters", "--keep", "0.4", "--method", "relevance")
    folded = ("--compensate", "fold")
    profile, plan = tmp_path / "profile", tmp_path / "plan.json"
    graft(capfd, "profile", model, "--data", data, "-o", profile)
    own = graft(
        capfd,
        *("decompose", model, "--data", data, "--profile", profile, *budget, *folded, "-o", tmp_path / "own"),
    )
    graft(capfd, "plan", model, "--profile", profile, *budget, "-o", plan)
    one = graft(
        capfd,
        "decompose",
        model,
        "--data",
        data,
        "--profile",
        profile,
        "--plan",
        plan,
        *folded,
        "-o",
        tmp_path / "one",
    )
    assert own["composed_top1"] > one["composed_top1"]


def test_pairs_of_classes_of_two_networks(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One MNIST class with one Fashion-MNIST class, without data: the mean over all pairs."""
    modules, splits = [], []
    for name in ("mnist", "fmnist"):
        model, data, folder = BENCH / f"dense_{name}_4.onnx", BENCH / f"{name}.npz", tmp_path / name
        found = graft(capfd, "decompose", model, "--data", data, "--keep", "1", *FROM_PROFILE, "-o", folder)
        modules.append([Model.load(folder / entry["file"]) for entry in found["modules"]])
        part = Dataset.load(data).split("test")
        labels = Model.load(model).require_card().labels
        splits.append(Split(part.name, part.labels, labels, part.reader))
    both = Split.join(splits)
    top1 = []
    for one, two in product(*modules):
        composite = Compose()(Modules([one, two]), Context()).model
        card = composite.require_card()
        samples = Samples.match(both, card, card.labels)
        top1.append(score(composite, samples, Device(("cpu",))).summary()["top1"])
    assert len(top1) == 100
    assert statistics.mean(top1) >= 0.975


def test_ten_of_a_thousand_classes(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """EfficientNet-Lite0, ten classes together, as a module and as composites of it."""
    model, data = BENCH / "efficientnet_lite0_imagenet.onnx", BENCH / "imagenette"
    names = ",".join(sorted(folder.name for folder in (data / "train").iterdir()))
    cut = ("--classes", names, "--together", "--keep", "0.85", *FROM_PROFILE, "-o", tmp_path / "ten")
    found = graft(capfd, "decompose", model, "--data", data, *cut)
    (module,) = found["modules"]
    assert module["macs_ratio"] <= 0.85
    for strategy in ("trunk", "branches"):
        composite = tmp_path / f"{strategy}.onnx"
        graft(capfd, "compose", tmp_path / "ten", "--strategy", strategy, "-o", composite)
        onnx.checker.check_model(composite, full_check=True)
        beside = graft(capfd, "evaluate", composite, "--data", data, "--baseline", model)
        assert beside["baseline"]["top1"] == pytest.approx(0.99375)
        assert beside["samples"] == 800
        assert beside["delta"] >= -0.02
        session = ort.InferenceSession(composite, providers=["CPUExecutionProvider"])
        (entry,) = session.get_inputs()
        for batch in (1, 64):
            images = np.zeros((batch, *entry.shape[1:]), np.float32)
            assert session.run(None, {entry.name: images})[0].shape == (batch, 10)
