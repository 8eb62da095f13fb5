"""`graft card` as people use it, and warnings of cards that seem wrong later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

from graft.rewriter.card.card import Card
from tests.integration import kit
from tests.integration.kit import Graft, Place
from tests.rewriter.measure.draft.kit import SIDE, Task, classifier, node


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`m.onnx` for gray images without a card, and `d.npz`."""
    monkeypatch.chdir(tmp_path)
    task = Task()
    onnx.save(classifier(task, ["N", 1, SIDE, SIDE]), "m.onnx")
    images = task.images[..., 0]
    np.savez("d.npz", x_train=images, y_train=task.labels, x_test=images, y_test=task.labels)
    return tmp_path


WRONG = {
    "broken YAML": "input: [",
    "labels": kit.card(labels="[a, b, c]").replace("scores", "y"),
    "output": kit.card().replace("scores", "nothing"),
    "input": kit.card(name="other").replace("scores", "y"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_new_card_over_a_wrong_one(name: str, graft: Graft, here: Path) -> None:
    Path("m.yaml").write_text(WRONG[name])
    assert graft("card", "m.onnx", "--data", "d.npz", "-o", "m.yaml").code == 2
    told = graft("card", "m.onnx", "--data", "d.npz", "-o", "m.yaml", "--force", "--json")
    assert told.code == 0
    assert Card.load("m.yaml").inputs[0].scale == pytest.approx(1 / 255)
    measured = graft("evaluate", "m.onnx", "--data", "d.npz", "--json").json
    assert measured["top1"] == pytest.approx(told.json["top1"])


def test_candidates_are_shown_with_their_figures(graft: Graft, here: Path) -> None:
    told = graft("card", "m.onnx", "--data", "d.npz", "--json").json
    best, *others = told["candidates"]
    assert (best["top1"], best["log_likelihood"]) == (told["top1"], told["log_likelihood"])
    assert best["input"]["scale"] == pytest.approx(1 / 255)
    assert best["output"] == {"name": "y", "kind": "logits"}
    assert others and all(each["log_likelihood"] <= best["log_likelihood"] for each in others)
    shown = graft("card", "m.onnx", "--data", "d.npz").err
    assert f"log-likelihood {best['log_likelihood']:.3f}" in shown
    assert "scale 1 mean" in shown


def test_chance_and_failure_exit_with_1(graft: Graft, here: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, SIDE, SIDE), np.uint8)
    np.savez("noise.npz", x_train=images, y_train=rng.integers(0, 4, 200))
    told = graft("card", "m.onnx", "--data", "noise.npz", "-o", "m.yaml")
    assert told.code == 1
    assert "no better than chance" in told.err
    Path("m.yaml").unlink()
    np.savez("wrong.npz", x_train=np.ones((20, 7, 3), np.float32), y_train=np.arange(20) % 4)
    told = graft("card", "m.onnx", "--data", "wrong.npz")
    assert told.code == 1
    assert "did not run" in told.err
    assert "0.00 %" not in told.err


def test_folders_of_images_of_any_size(graft: Graft, here: Path) -> None:
    task = Task()
    rng = np.random.default_rng(0)
    for number, (image, label) in enumerate(zip(task.images[:120, ..., 0], task.labels, strict=False)):
        folder = here / "photos" / "train" / "abcd"[label]
        folder.mkdir(parents=True, exist_ok=True)
        size = SIDE * int(rng.integers(1, 4)), SIDE * int(rng.integers(1, 4))
        Image.fromarray(image).resize(size, Image.Resampling.NEAREST).save(folder / f"{number}.png")
    told = graft("card", "m.onnx", "--data", "photos", "-o", "m.yaml", "--json")
    assert told.code == 0
    card = Card.load("m.yaml")
    assert (card.labels, card.inputs[0].resize) == (tuple("abcd"), "squash")
    (one,) = graft("predict", "m.onnx", folder / f"{number}.png", "--json").json["predictions"]
    assert one["label"] in "abcd"


def test_image_files_of_another_size_are_squashed(graft: Graft, here: Path) -> None:
    text = graft("card", "m.onnx").out.replace(", resize: squash, interpolation: bilinear", "")
    Path("m.yaml").write_text(text)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    photo.save("photo.png")
    photo.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR).save("small.png")
    told = graft("predict", "m.onnx", "photo.png", "--json")
    assert "resize" in told.err
    small = graft("predict", "m.onnx", "small.png", "--json")
    assert "resize" not in small.err
    assert told.json["predictions"][0]["top"] == small.json["predictions"][0]["top"]


def test_probabilities_called_logits_are_warned_of(graft: Graft, here: Path, small: Place) -> None:
    place = kit.place(here / "soft", kind="probabilities")
    place.card.write_text(kit.card("logits"))
    lines = (
        ("evaluate", place.model, "--data", place.data),
        ("profile", place.model, "--data", place.data, "-o", "soft.profile"),
        ("decompose", place.model, "--data", place.data, "--keep", "0.9", "-o", "out"),
    )
    for line in lines:
        warned = [text for text in graft(*line).err.splitlines() if "kind: probabilities" in text]
        assert len(warned) == 1
        assert "'scores'" in warned[0]
    assert "probabilities" not in graft("evaluate", small.model, "--data", small.data).err
    place.card.write_text(kit.card("probabilities"))
    assert "warning" not in graft("evaluate", place.model, "--data", place.data).err
    small.card.write_text(kit.card("probabilities"))
    assert "outside of 0..1" in graft("evaluate", small.model, "--data", small.data).err


@pytest.mark.parametrize("command", ["evaluate", "decompose"])
def test_pixels_of_another_range_are_warned_of_once(command: str, graft: Graft, here: Path) -> None:
    assert graft("card", "m.onnx", "-o", "m.yaml").code == 0
    line = (command, "m.onnx", *(("-o", "out", "--keep", "0.9", "--force") if command == "decompose" else ()))
    assert "255" not in graft(*line, "--data", "d.npz").err
    with np.load("d.npz") as data:
        shares = {key: values / 255 if key[0] == "x" else values for key, values in data.items()}
    np.savez("f.npz", **shares)
    warned = [text for text in graft(*line, "--data", "f.npz").err.splitlines() if "0..255" in text]
    assert len(warned) == 1
    scaled = "scale: 1.0, mean: [0.5], std: [0.5]"
    text = Path("m.yaml").read_text().replace("scale: 0.00392156862745098, mean: [0.0], std: [1.0]", scaled)
    Path("m.yaml").write_text(text)
    assert "0.00392" in graft(*line, "--data", "d.npz").err
    assert "0.00392" not in graft(*line, "--data", "f.npz").err


def test_class_numbers_go_the_whole_way(graft: Graft, here: Path) -> None:
    task = Task()
    numbers = [node("ArgMax", "z", "y", axis=1, keepdims=0)]
    proto = classifier(task, ["N", 1, SIDE, SIDE], after=numbers, output=(TensorProto.INT64, ["N"]))
    onnx.save(proto, "n.onnx")
    drafted = graft("card", "n.onnx", "--data", "d.npz", "-o", "n.yaml")
    assert drafted.code == 0
    assert "ArgMax" in drafted.err
    reached = (task.posterior.argmax(1) == task.labels).mean()
    assert graft("evaluate", "n.onnx", "--data", "d.npz", "--json").json["top1"] == pytest.approx(reached)
    cut = graft(
        "decompose", "n.onnx", "--data", "d.npz", "--classes", "1", "--keep", "1", "-o", "out", "--json"
    )
    assert cut.code == 0
    pair = kit.run_model(Path("out/1.onnx"), task.images.transpose(0, 3, 1, 2).astype(np.float32) / 255)["z"]
    rest = np.delete(task.posterior, 1, axis=1)
    expected = np.stack([task.posterior[:, 1], np.log(np.exp(rest).sum(1))], 1)
    np.testing.assert_allclose(pair, expected, rtol=1e-3, atol=1e-3)
    Path("n.yaml").write_text(Path("n.yaml").read_text().replace("name: z", "name: y"))
    refused = graft("evaluate", "n.onnx", "--data", "d.npz")
    assert refused.code == 2
    assert "ArgMax" in refused.err and "scores" in refused.err


def test_sets_of_classes_are_refused_by_name(graft: Graft, small: Place) -> None:
    small.card.write_text(kit.card("sigmoid"))
    with np.load(small.data) as data:
        several = {key: np.eye(4)[values] if key[0] == "y" else values for key, values in data.items()}
    np.savez(small.data, **several)
    assert "argmax" in graft("evaluate", small.model, "--data", small.data).err
    several["y_test"][:, 0] = 1
    np.savez(small.data, **several)
    told = graft("evaluate", small.model, "--data", small.data)
    assert told.code == 2
    assert "multi-label models are not supported" in told.err
