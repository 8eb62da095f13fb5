"""Folders of images, several models: evaluate and predict as people call them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.integration import kit
from tests.integration.contract.kit import found, refused
from tests.integration.kit import Graft, Place

DRAWN = "80 samples (80 % of each class) are for training, 20 for testing, drawn by --seed 0"


@pytest.fixture
def album(tmp_path: Path) -> Place:
    """A model of gray images, and images in folders of the classes that it says, without splits."""
    here = Place(tmp_path, tmp_path / "pictures.onnx", tmp_path / "images")
    onnx.save(kit.pictures(), here.model)
    here.card.write_text(
        "input: {name: x, kind: image, layout: NCHW, color: GRAY, size: [4, 4], scale: 1.0, mean: [127]}\n"
        f"output: {{name: scores, kind: logits}}\nlabels: [{', '.join(kit.LABELS)}]\n"
    )
    raw = np.random.default_rng(0).integers(0, 256, (4000, 4, 4), np.uint8)
    labels = said(here, raw)
    for label, name in enumerate(kit.LABELS):
        (here.data / name).mkdir(parents=True)
        for number in np.flatnonzero(labels == label)[:25]:
            Image.fromarray(raw[number]).save(here.data / f"{name}/{number:04}.png")
    return here


def said(here: Place, raw: kit.Array) -> kit.Array:
    """The classes of raw images, by onnxruntime alone."""
    scores = kit.run_model(here.model, raw[:, None].astype(np.float32) - 127)["scores"]
    labels: kit.Array = scores.argmax(axis=1)
    return labels


def test_classes_without_splits_are_divided_and_that_is_said(graft: Graft, album: Place) -> None:
    line = ("decompose", album.model, "--data", album.data, "--keep", "0.8", "-o", album / "out")
    told = graft(*line)
    assert DRAWN in told.out
    result = found(graft(*line, "--force", "--json"), "decompose")
    assert result["split"] == {"train": 80, "test": 20, "seed": 0}
    assert (result["test_samples"], result["parent"]["top1"]) == (20, 1)
    assert (result["label_source"], result["test_label_source"]) == ("data", "data")
    line = ("evaluate", album / "out", "--data", album.data)
    evaluated = found(graft(*line, "--json"), "evaluate")
    assert (evaluated["samples"], evaluated["split"]) == (20, result["split"])
    assert evaluated["top1"] == result["composed_top1"]
    assert DRAWN in graft(*line).out
    assert found(graft(*line, "--seed", "1", "--json"), "evaluate")["split"]["seed"] == 1


def test_predict_takes_folders_and_arrays(graft: Graft, album: Place) -> None:
    line = ("predict", album.model, "--json")
    predictions = found(graft(*line, album.data), "predict")["predictions"]
    assert len(predictions) == 100
    assert [Path(each["sample"]).parent.name for each in predictions] == [
        each["label"] for each in predictions
    ]
    (one,) = found(graft(*line, predictions[30]["sample"]), "predict")["predictions"]
    assert one == predictions[30]
    raw = np.random.default_rng(1).integers(0, 256, (7, 4, 4), np.uint8)
    np.savez(album / "raw.npz", x=raw)
    predictions = found(graft(*line, album / "raw.npz"), "predict")["predictions"]
    assert [each["label"] for each in predictions] == [kit.LABELS[label] for label in said(album, raw)]
    assert [each["index"] for each in predictions] == list(range(7))
    assert f"{album / 'raw.npz'}[6]: " in graft("predict", album.model, album / "raw.npz").out
    (album / "nothing/deeper").mkdir(parents=True)
    assert "found none" in refused(graft(*line, album / "nothing"), "data-empty")
    np.savez(album / "two.npz", **{"x.a": raw, "x.b": raw})
    assert "found a, b" in refused(graft(*line, album / "two.npz"), "data-inputs")


def test_evaluate_several_models(graft: Graft, small: Place) -> None:
    assert graft("decompose", small.model, "--data", small.data, "--keep", "0.6", "-o", small / "m").code == 0
    models = (small.model, small / "m", small / "m/ant.onnx")
    data = ("--data", small.data)
    single = [found(graft("evaluate", model, *data, "--json"), "evaluate") for model in models]
    result = found(graft("evaluate", *models, *data, "--json"), "evaluate")
    assert [each["model"] for each in result["models"]] == list(map(str, models))
    for alone, beside in zip(single, result["models"], strict=True):
        kept = {key: value for key, value in alone.items() if key not in ("latency_ms", "schema")}
        assert kit.untimed({key: beside[key] for key in kept}) == kit.untimed(kept)
    told = graft("evaluate", *models, *data)
    assert ["dense.onnx", "m", "ant.onnx"] == told.out.splitlines()[1].split()
    assert "ant.onnx: ant against the rest: balanced accuracy" in told.out
    failed = graft("evaluate", *models, *data, "--min-top1", "0.9999")
    assert failed.code == 1
    assert failed.err.count("is below --min-top1") == 2
    refused(graft("evaluate", *models, *data, "--card", small.card, "--json"), "bad-request")
