"""``graft decompose`` on one model of each exporter, with random data and labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.zoo import LABELS
from benchmarks.zoo.entries import ENTRIES
from graft.rewriter.card.card import Card
from tests.integration.kit import Graft

ZOO = Path(__file__).parents[1] / "zoo"
SAMPLES = 100
CLASSES = LABELS[::4]


@pytest.mark.parametrize(
    "name",
    [
        *("resnet_torchscript", "vit_dynamo", "bert_torchscript"),
        *("mobilenetv3_keras", "mixer_flax", "mlp_sklearn"),
    ],
)
def test_every_module_loads_and_runs(name: str, graft: Graft, tmp_path: Path) -> None:
    entry = ENTRIES[name]
    for suffix in (".onnx", ".yaml"):
        shutil.copy(ZOO / f"{name}{suffix}", tmp_path)
    data = tmp_path / "data.npz"
    np.savez(data, **entry.data(SAMPLES))  # type: ignore[arg-type]
    output = tmp_path / "modules"
    found = graft(
        *("decompose", tmp_path / f"{name}.onnx", "--data", data, "--keep", "0.8"),
        *(word for label in CLASSES for word in ("--classes", label)),
        *("--samples-per-class", 10, "-o", output, "--json"),
    )
    assert found.code == 0, found.err
    modules = found.json["modules"]
    assert [module["classes"] for module in modules] == [[label] for label in CLASSES]
    assert all(0 < module["macs_ratio"] <= 0.8 for module in modules)
    card = Card.load(tmp_path / f"{name}.yaml")
    tests = {key: values for key, values in entry.data(4).items() if key.startswith("x_test")}
    raw = {key.removeprefix("x_test").removeprefix("."): values for key, values in tests.items()}
    for module in modules:
        session = ort.InferenceSession(output / module["file"], providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, card.prepare(raw))
        assert scores.shape == (4, 2)
        assert np.isfinite(scores).all()
