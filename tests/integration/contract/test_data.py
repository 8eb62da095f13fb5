"""What the design promises of data, sentence by sentence."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from tests import small
from tests.integration import kit
from tests.integration.contract.kit import (
    CARD_OF_Y,
    KEEP,
    arrays,
    found,
    refused,
    resaved,
    words,
)
from tests.integration.kit import Graft, Place


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of gray images that it labels itself: arrays, folders with ``test`` or ``val``, Parquet."""
    folder = tmp_path_factory.mktemp("album")
    net = small.Net(4, 4, 1)
    hidden = net.node("Relu", "relu", net.gemm("one", net.node("Flatten", "flat", "x"), 12, 16))
    net.gemm("y", hidden, 4, 12)
    prepared = "layout: NHWC, color: GRAY, size: [4, 4], scale: 0.5, mean: [3], std: [2]"
    labels = CARD_OF_Y.split("\n", 1)[1]
    (folder / "album.yaml").write_text(f"input: {{name: x, kind: image, {prepared}}}\n{labels}")
    raw = np.random.default_rng(3).integers(0, 256, (400, 4, 4), np.uint8)
    x = ((raw[..., None].astype(np.float32) * np.float32(0.5) - 3) / 2).astype(np.float32)
    center = kit.run_model(net.proto(y=[4]), x)["y"].mean(axis=0)
    net.constant("y.b", numpy_helper.to_array(net.constants["y.b"]) - center)  # else one class wins always
    proto = net.proto(y=[4])
    onnx.save(proto, folder / "album.onnx")
    y = kit.run_model(proto, x)["y"].argmax(axis=1)
    y[::5] = (y[::5] + 1) % 4
    np.savez(folder / "arrays.npz", x_train=raw[::2], y_train=y[::2], x_test=raw[1::2], y_test=y[1::2])
    cells: dict[str, list[tuple[bytes, str]]] = {"train": [], "test": []}
    for number, (image, label) in enumerate(zip(raw, y, strict=True)):
        split, name = ("train", "test")[number % 2], kit.LABELS[label]
        content = io.BytesIO()
        Image.fromarray(image).save(content, "png")
        cells[split].append((content.getvalue(), name))
        for place in (f"folders/{split}", f"with_val/{split.replace('test', 'val')}"):
            target = folder / place / name / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.getvalue())
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for column in ("image", "x"):
        (folder / f"parquet_{column}").mkdir()
        for start, (split, rows) in enumerate(cells.items()):
            images = [content for content, _ in rows] if column == "image" else raw[start::2].tolist()
            table = arrow.table({column: images, "label": [name for _, name in rows]})
            parquet.write_table(table, folder / f"parquet_{column}" / f"{split}.parquet")
    return folder


PLAIN = ("--method", "relevance", "--compensate", "fold")
"""What does not draw samples by their order, which differs from form to form."""


@pytest.mark.parametrize("data", ["folders", "with_val", "parquet_image", "parquet_x"])
def test_all_forms_of_data_say_the_same(data: str, graft: Graft, album: Path, tmp_path: Path) -> None:
    """``.npz``; a folder ``train/CLASS/*.jpg, test/CLASS/*.jpg`` (or ``val``); Parquet (image or x)."""
    told = []
    for form in ("arrays.npz", data):
        line = (album / "album.onnx", "--data", album / form, "--json")
        result = found(graft("evaluate", *line), "evaluate")
        cut = found(graft("decompose", *line, *KEEP, *PLAIN, "-o", tmp_path / form), "decompose")
        told.append([result["samples"], result["top1"], cut["parent"]["top1"], cut["composed_top1"]])
    assert told[0] == pytest.approx(told[1])
    assert told[0][0] == 200
    assert 0.3 < told[0][1] < 1


def test_images_are_prepared_as_the_card_says(graft: Graft, album: Path) -> None:
    """value = (raw * scale - mean) / std, where raw is 0..255 for images."""
    with np.load(album / "arrays.npz") as data:
        raw, y = data["x_test"], data["y_test"]
    x = ((raw[..., None] * 0.5 - 3) / 2).astype(np.float32)
    right = kit.run_model(album / "album.onnx", x)["y"].argmax(axis=1) == y
    line = ("evaluate", album / "album.onnx", "--data", album / "arrays.npz", "--json")
    assert found(graft(*line), "evaluate")["top1"] == pytest.approx(right.mean())
    unscaled = kit.run_model(album / "album.onnx", raw[..., None].astype(np.float32))["y"].argmax(axis=1)
    assert (unscaled == y).mean() != right.mean()


@pytest.mark.parametrize("resize", ["squash", "crop, crop_fraction: 0.5", "squash, interpolation: nearest"])
def test_images_of_other_sizes(resize: str, graft: Graft, album: Path, tmp_path: Path) -> None:
    """``resize: squash | crop`` with ``crop_fraction`` and ``interpolation`` for images of other sizes."""
    card = (album / "album.yaml").read_text()
    (tmp_path / "card.yaml").write_text(card.replace("std: [2]", f"std: [2], resize: {resize}"))
    raw = np.random.default_rng(5).integers(0, 256, (12, 8), np.uint8)
    image = Image.fromarray(raw)
    image.save(tmp_path / "large.png")
    line = ("predict", album / "album.onnx", tmp_path / "large.png", "--json")
    squashed = graft(*line)
    assert found(squashed, "predict")["predictions"]
    assert "4x4" in squashed.err and "squash" in squashed.err
    (entry,) = found(graft(*line, "--card", tmp_path / "card.yaml"), "predict")["predictions"]
    if resize.startswith("crop"):  # the short side becomes 4 / 0.5 = 8, then the centre is cut out
        image = image.crop((2, 4, 6, 8))
    else:
        how = Image.Resampling.NEAREST if "nearest" in resize else Image.Resampling.BILINEAR
        image = image.resize((4, 4), how)
    x = ((np.asarray(image, np.float32)[None, ..., None] * 0.5 - 3) / 2).astype(np.float32)
    shares = small.softmax(kit.run_model(album / "album.onnx", x)["y"])[0]
    assert {each["label"]: each["probability"] for each in entry["top"]} == pytest.approx(
        dict(zip(kit.LABELS, shares.tolist(), strict=True)), abs=1e-4
    )


@pytest.mark.parametrize("key", ["class_names", "labels"])
def test_classes_are_matched_by_name(key: str, graft: Graft, here: Place) -> None:
    """``class_names`` or ``labels``: what the numbers mean; classes are matched by name."""
    plain = found(graft(*words("evaluate"), "--json"), "evaluate")
    content = arrays(here)
    order = [2, 0, 3, 1]
    names = [kit.LABELS[place] for place in order]
    numbers = {each: np.argsort(order)[content[each]] for each in ("y_train", "y_test")}
    resaved(here, **numbers, **{key: np.array(names)})
    named = found(graft(*words("evaluate"), "--json"), "evaluate")
    assert named["top1"] == plain["top1"] == 1
    assert named["per_class"] == plain["per_class"]
    resaved(here, **{key: np.array(names[::-1])})
    assert found(graft(*words("evaluate"), "--json"), "evaluate")["top1"] < 0.5
    resaved(here, **{key: None})  # numbers without names count the card's labels
    assert found(graft(*words("evaluate"), "--json"), "evaluate")["top1"] < 0.5


def test_samples_of_other_classes_are_left_out_and_counted(graft: Graft, here: Place) -> None:
    """Samples of classes the model lacks are left out and counted."""
    content = arrays(here)
    more = {each: np.concatenate([content[each], [4] * 7]) for each in ("y_train", "y_test")}
    x = {each: np.concatenate([content[each], content[each][:7]]) for each in ("x_train", "x_test")}
    resaved(here, **more, **x, class_names=np.array([*kit.LABELS, "elk"]))
    result = found(graft(*words("evaluate"), "--json"), "evaluate")
    assert (result["samples"], result["left_out"], result["top1"]) == (240, 7, 1)
    for command in ("profile", "decompose"):
        told = graft(*words(command, command), "-v", "--json")
        assert found(told, command)
        assert "7 samples of other classes left out" in told.err
    assert json.loads((here / "decompose/graft.json").read_text())["modules"][-1]["classes"] == ["dog"]


@pytest.mark.parametrize("command", ["card", "profile", "decompose", "evaluate"])
def test_other_splits_can_be_named(command: str, graft: Graft, here: Place) -> None:
    """``--split`` names another."""
    content = arrays(here)
    renamed = {f"{key[0]}_dev": content[key] for key in ("x_train", "y_train")}
    resaved(here, **renamed, **dict.fromkeys(content))
    assert "dev" in refused(graft(*words(command), "--json", "--split", "fit"), "data-split")
    assert found(graft(*words(command), "--json", "--split", "dev"), command)


@pytest.mark.parametrize("command", ["decompose", "compose"])
def test_another_test_split_can_be_named(command: str, graft: Graft, here: Place) -> None:
    """``--test-split`` names another."""
    content = arrays(here)
    resaved(here, x_final=content["x_test"][:80], y_final=content["y_test"][:80], x_test=None, y_test=None)
    line = [*words(command), *(["--data", "dense.npz"] if command == "compose" else []), "--json"]
    result = found(graft(*line, "--test-split", "final"), command)
    assert result["samples" if command == "compose" else "test_samples"] == 80


@pytest.mark.parametrize("budget", [KEEP, ("--max-drop", "2")], ids=["keep", "max-drop"])
def test_test_samples_never_choose_anything(budget: tuple[str, str], graft: Graft, here: Place) -> None:
    """Other test samples, the same plans and weights."""
    line = ("decompose", "dense.onnx", "--data", "dense.npz", *budget, "--json", "-o")
    first = found(graft(*line, "first"), "decompose")
    content = arrays(here)
    resaved(here, x_test=-content["x_test"], y_test=content["y_test"][::-1])
    second = found(graft(*line, "second"), "decompose")
    assert first["composed_top1"] != second["composed_top1"]
    measured = {"precision", "recall", "f1", "top1", "balanced_accuracy", "auroc", "said", "parent"}
    for one, other in zip(first["modules"], second["modules"], strict=True):
        assert one.keys() >= measured and one["balanced_accuracy"] != other["balanced_accuracy"]
        assert [one[key] for key in one.keys() - measured] == [other[key] for key in one.keys() - measured]
    for name in kit.LABELS:
        graphs = [onnx.load(f"{folder}/{name}.onnx").graph for folder in ("first", "second")]
        assert graphs[0].SerializeToString() == graphs[1].SerializeToString()


def test_the_drop_is_printed_with_its_standard_error(graft: Graft, here: Place) -> None:
    """The drop of ``--max-drop`` is printed with its standard error; say how much it can resolve."""
    line = ("decompose", "dense.onnx", "--data", "dense.npz", "--max-drop", "5", "--classes", "cow")
    told = graft(*line, "-o", "out")
    (module,) = json.loads((here / "out/graft.json").read_text())["modules"]
    assert module["difference_standard_error"] > 0
    drop, error = (
        f"{module['difference']:+.2f} percentage points",
        f"{module['difference_standard_error']:.2f}",
    )
    assert re.search(rf"cow.*{re.escape(drop)}.*standard error {error}.*noise", told.out)
