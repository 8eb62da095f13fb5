"""Data sets: what is read, when it is read, and how broken data are told."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data import npz as module
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.images import read_image
from graft.rewriter.errors import GraftError
from tests import bench

X = np.arange(24, dtype=np.uint8).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])
NOISE = np.random.default_rng(0).integers(0, 256, (90, 130, 3)).astype(np.uint8)


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez_compressed(path, **arrays)
    return path


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def image_card(**changes: Any) -> InputCard:
    return InputCard.model_validate({"name": "x", "kind": "image", "size": (24, 24), **changes})


def test_npz_gives_splits_names_and_samples(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2], class_names=["a", "b", "c"], z=1)
    data = Dataset.load(path)
    assert data.splits == ("train", "test")
    train = data.split("train")
    assert (len(train), train.class_names, train.labels.dtype) == (6, ("a", "b", "c"), np.int64)
    np.testing.assert_array_equal(train.raw([4, 0])[""], X[[4, 0]])
    assert len(data.split("test")) == 2


def test_npz_with_several_inputs_and_labels_for_each_step(tmp_path: Path) -> None:
    steps = np.tile(Y[:, None], 3)
    path = save(tmp_path, **{"x_train.a": X, "x_train.b": X[:, :1], "y_train": steps, "labels": list("abc")})
    train = Dataset.load(path).split("train")
    raw = train.raw([1, 2])
    assert {key: array.shape for key, array in raw.items()} == {"a": (2, 4), "b": (2, 1)}
    assert train.labels.shape == (6, 3)
    assert train.class_names == ("a", "b", "c")


def test_npz_samples_are_not_read_before_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = module._array
    monkeypatch.setattr(module, "_array", lambda path, key: read.append(key) or original(path, key))
    train = Dataset.load(save(tmp_path, x_train=X, y_train=Y)).split("train")
    assert read == ["y_train"]
    train.raw([0])
    train.raw([1])
    assert read == ["y_train", "x_train"]


@pytest.mark.parametrize("labels", [Y.astype(float), Y.astype(np.uint8), np.array(list("abcabc"))])
def test_labels_may_be_whole_floats_or_names(tmp_path: Path, labels: np.ndarray) -> None:
    train = Dataset.load(save(tmp_path, x_train=X, y_train=labels)).split("train")
    np.testing.assert_array_equal(train.labels, Y)


def test_names_in_y_are_looked_up_in_class_names() -> None:
    data = Dataset.from_arrays(X[:2], [b"cat", b"dog"], class_names=["dog", "bird", "cat"])
    assert data.split("train").labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("arrays", "code", "part"),
    [
        ({"y_train": Y}, "data-missing-key", "expected x_train and y_train, found y_train"),
        ({"x_train": X, "labels": Y}, "data-missing-key", "no array y, but one that is called labels"),
        ({"x_train": X, "train_target": Y}, "data-missing-key", "called train_target"),
        ({"x_train": X[:0]}, "data-empty", "found none"),
        ({"x_test": X, "y_test": Y}, "data-missing-key", "found x_test, y_test"),
        ({"x_train": X, "y_train": Y[:5]}, "data-length", "6 samples in x_train and 5 labels"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "data-empty", "found none"),
        ({"x_train": X, "y_train": Y - 1}, "data-labels", "found -1"),
        ({"x_train": X, "y_train": Y + 0.5}, "data-labels", "whole"),
        ({"x_train": X, "y_train": Y * np.nan}, "data-labels", "whole"),
        ({"x_train": X, "y_train": Y * 1e300}, "data-labels", "class numbers from 0"),
        ({"x_train": X, "y_train": Y * 1j}, "data-labels", "complex"),
        ({"x_train": X, "y_train": 3}, "data-labels", "found ()"),
        ({"x_train": X, "y_train": Y, "class_names": ["a", "b"]}, "data-labels", "0 to 1, found 2"),
        ({"x_train": X, "y_train": Y, "class_names": ["a", "b", "a"]}, "data-labels", "'a' twice"),
        ({"x_train": X, "y_train": Y, "class_names": [1, 2, 3]}, "data-labels", "list of names"),
        (
            {"x_train": X, "y_train": list("abcabz"), "class_names": list("abc")},
            "data-labels",
            "'z'",
        ),
        ({"x_train": X, "y_train": Y.astype(object)}, "data-format", "y_train: expected an array"),
        ({"x_train": X.astype(object), "y_train": Y}, "data-format", "x_train: expected an array"),
        (
            {"x_train": X, "y_train": Y, "class_names": np.array(["a"], object)},
            "data-format",
            "str",
        ),
    ],
)
def test_npz_refuses(tmp_path: Path, arrays: dict[str, Any], code: str, part: str) -> None:
    path = save(tmp_path, **arrays)
    with pytest.raises(GraftError) as caught:
        Dataset.load(path).split("train")
    assert caught.value.code == code
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_and_incomplete_splits(tmp_path: Path) -> None:
    data = Dataset.load(save(tmp_path, x_train=X, y_train=Y, y_test=Y))
    with pytest.raises(GraftError, match="no split 'other', it has train") as caught:
        data.split("other")
    assert caught.value.code == "data-split"
    with pytest.raises(GraftError, match="expected x_test and y_test") as caught:
        data.split("test")
    assert caught.value.code == "data-missing-key"


def test_files_that_are_no_npz_or_only_a_part(tmp_path: Path) -> None:
    with pytest.raises(GraftError) as caught:
        Dataset.load(tmp_path / "nothing.npz")
    assert caught.value.code == "data-missing"
    whole = save(tmp_path, x_train=np.random.default_rng(0).random((50, 50)), y_train=Y[:1]).read_bytes()
    broken = bytearray(whole)
    broken[2000:2100] = bytes(100)
    for name, content in [
        ("cut.npz", whole[: len(whole) // 2]),
        ("text.npz", b"hello"),
        ("empty.npz", b""),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GraftError) as caught:
            Dataset.load(tmp_path / name)
        assert caught.value.code == "data-unreadable"
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(GraftError, match="np.savez") as caught:
        Dataset.load(tmp_path / "data.csv")
    assert caught.value.code == "data-format"


def test_a_damaged_array_is_told_when_it_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((6, 500))
    path = save(tmp_path, x_train=noise, y_train=Y)
    content = bytearray(path.read_bytes())
    content[5000:5100] = bytes(100)
    path.write_bytes(content)
    train = Dataset.load(path).split("train")
    with pytest.raises(GraftError) as caught:
        train.raw([0])
    assert caught.value.code == "data-unreadable"


def test_from_arrays_refuses_at_once() -> None:
    with pytest.raises(GraftError, match="6 samples"):
        Dataset.from_arrays(X, Y[:3])
    with pytest.raises(GraftError, match="both"):
        Dataset.from_arrays(X, Y, None, Y)
    data = Dataset.from_arrays({"a": X, "b": X}, Y, {"a": X[:1], "b": X[:1]}, Y[:1])
    assert data.splits == ("train", "test")
    assert sorted(data.split("test").raw([0])) == ["a", "b"]


def test_fingerprint_follows_content_not_path(tmp_path: Path) -> None:
    first = Dataset.load(save(tmp_path, x_train=X, y_train=Y)).fingerprint()
    (tmp_path / "data.npz").rename(tmp_path / "moved.npz")
    assert Dataset.load(tmp_path / "moved.npz").fingerprint() == first
    assert Dataset.load(save(tmp_path, x_train=X, y_train=Y[::-1])).fingerprint() != first
    arrays = Dataset.from_arrays(X, Y).fingerprint()
    assert arrays == Dataset.from_arrays(X.copy(), Y).fingerprint()
    assert arrays != Dataset.from_arrays(X + 1, Y).fingerprint()
    assert arrays != Dataset.from_arrays(X, Y, class_names=["a", "b", "c"]).fingerprint()
    assert len(arrays) == 64


def image_folder(folder: Path) -> Path:
    for split, name, shade in [("train", "dog", 9), ("train", "cat", 3), ("val", "cat", 5)]:
        for number in range(2):
            pixels = np.full((24, 24, 3), shade + number, np.uint8)
            save_image(folder / split / name / f"{number}.PNG", pixels)
    (folder / "train/cat/notes.txt").write_text("no image")
    (folder / "train/cat/._0.png").write_bytes(b"no image")
    return folder


def test_folder_of_images(tmp_path: Path) -> None:
    data = Dataset.load(image_folder(tmp_path))
    train = data.split("train")
    assert (train.class_names, train.labels.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    raw = train.raw([3, 0], image_card())[""]
    assert (raw.dtype, raw.shape) == (np.uint8, (2, 24, 24, 3))
    assert raw[:, 0, 0, 0].tolist() == [10, 3]
    assert train.raw([0], image_card(color="GRAY"))[""].shape == (1, 24, 24)
    assert data.split("test").name == "val"
    with pytest.raises(GraftError, match="it has train, val"):
        data.split("other")
    before = data.fingerprint()
    (tmp_path / "train/cat/0.PNG").rename(tmp_path / "train/cat/7.PNG")
    renamed = data.fingerprint()
    assert renamed != before
    save_image(tmp_path / "train/cat/7.PNG", NOISE)
    assert data.fingerprint() != renamed


def test_folder_refuses(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="SPLIT/CLASS"):
        Dataset.load(tmp_path)
    (tmp_path / "train/cat").mkdir(parents=True)
    with pytest.raises(GraftError, match="found none") as caught:
        Dataset.load(tmp_path).split("train")
    assert caught.value.code == "data-empty"
    save_image(tmp_path / "train/cat/0.png", NOISE)
    (tmp_path / "train/cat/1.jpg").write_bytes(b"\xff\xd8 no jpeg")
    save_image(tmp_path / "train/cat/2.png", NOISE[:50])
    train = Dataset.load(tmp_path).split("train")
    for indices, card, code, part in [
        ([0], image_card(), "data-shape", "24x24, found 90x130"),
        ([1], image_card(), "data-image", "1.jpg"),
        ([0], InputCard(name="x", kind="tokens"), "data-type", "0.png"),
        ([0, 2], None, "data-shape", "2.png"),
    ]:
        with pytest.raises(GraftError) as caught:
            train.raw(indices, card)
        assert caught.value.code == code
        assert part in str(caught.value)


def test_truncated_and_huge_images_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "a.png", NOISE)
    content = (tmp_path / "a.png").read_bytes()
    with pytest.raises(GraftError, match="row 3") as caught:
        read_image(content[: len(content) // 2], None, "row 3")
    assert caught.value.code == "data-image"
    for pixels in (NOISE.size // 3 - 1, NOISE.size // 8):  # Pillow warns, Pillow refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
        with pytest.raises(GraftError, match="pixels, found more"):
            read_image(tmp_path / "a.png")


def test_images_with_more_than_8_bits_are_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(GraftError, match="8 bits"):
        read_image(tmp_path / "deep.png")


@pytest.mark.parametrize("size", [(90, 130), (130, 90), (20, 31), (24, 300)])
def test_crop_equals_resizing_then_cutting(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    short = round(24 / 0.75)
    height, width = (max(short, side * short // min(size)) for side in size)
    left, top = round((width - 24) / 2), round((height - 24) / 2)
    expected = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 24, top + 24))
    content = io.BytesIO()
    image.save(content, "png")
    card = image_card(resize="crop", crop_fraction=0.75, interpolation="bicubic")
    found = read_image(content.getvalue(), card)
    assert found.shape == (24, 24, 3)
    # Pillow rounds the place of the cut to single precision.
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1


def test_squash_resizes_to_the_size(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", NOISE)
    found = read_image(tmp_path / "a.png", image_card(resize="squash", size=(10, 20)))
    expected = Image.fromarray(NOISE).resize((20, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, expected)


def test_bits_are_interpolated_like_any_gray() -> None:
    gray = Image.fromarray((NOISE[..., 0] > 127).astype(np.uint8) * 255)
    content = io.BytesIO()
    gray.convert("1").save(content, "png")
    card = image_card(resize="squash", color="GRAY")
    expected = gray.resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(read_image(content.getvalue(), card), expected)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(GraftError, match=r"onnx-graft\[parquet\]"):
        Dataset.load(tmp_path / "data.parquet")


def test_parquet_of_images_and_of_arrays(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    contents = []
    for shade in range(5):
        content = io.BytesIO()
        Image.fromarray(np.full((24, 24, 3), shade, np.uint8)).save(content, "png")
        contents.append(content.getvalue())
    cells: list[Any] = [{"bytes": content, "path": "a"} for content in contents]
    table = arrow.table({"image": cells, "label": [0, 1, 0, 1, 1]})
    meta = {"huggingface": '{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'}
    parquet.write_table(table.replace_schema_metadata(meta), tmp_path / "train.parquet", row_group_size=2)
    parquet.write_table(
        arrow.table({"x": [[1.0, 2.0], [3.0, 4.0]], "label": ["dog", "cat"]}),
        tmp_path / "test.parquet",
    )
    data = Dataset.load(tmp_path)
    train, test = data.split("train"), data.split("test")
    assert (train.class_names, train.labels.tolist()) == (("cat", "dog"), [0, 1, 0, 1, 1])
    assert train.raw([4, 0, 3], image_card())[""][:, 0, 0, 0].tolist() == [4, 0, 3]
    assert (test.class_names, test.labels.tolist()) == (("cat", "dog"), [1, 0])
    np.testing.assert_array_equal(test.raw([1])[""], [[3.0, 4.0]])
    assert Dataset.load(tmp_path / "test.parquet").splits == ("train",)
    parquet.write_table(table.select(["image"]), tmp_path / "validation.parquet")
    bare = Dataset.load(tmp_path).split("val")
    assert (bare.labelled, len(bare)) == (False, 5)
    assert bare.raw([4, 0], image_card())[""][:, 0, 0, 0].tolist() == [4, 0]
    parquet.write_table(arrow.table({"x": [[1.0]], "target": [1]}), tmp_path / "validation.parquet")
    with pytest.raises(GraftError, match="found x, target"):
        Dataset.load(tmp_path).split("val")
    parquet.write_table(arrow.table({"y": [1]}), tmp_path / "train.parquet")
    with pytest.raises(GraftError, match="found y"):
        Dataset.load(tmp_path).split("train")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(GraftError) as caught:
        Dataset.load(tmp_path).split("train")
    assert caught.value.code == "data-unreadable"


@bench.needed
def test_bench_data() -> None:
    cifar = Dataset.load(bench.FOLDER / "vision/cifar10.npz").split("train")
    assert np.bincount(cifar.labels).tolist() == [500] * 10
    assert cifar.class_names is not None and cifar.class_names[8] == "ship"
    brown = Dataset.load(bench.FOLDER / "rnn/brown.npz")
    assert set(brown.splits) == {"train", "test", "test_paper", "train_full"}
    assert brown.split("train").labels.shape == (4842, 15)
    images = Dataset.load(bench.FOLDER / "vision/imagenette").split("test")
    assert len(images) == 800
    assert images.raw([0, 799], image_card(size=(224, 224)))[""].shape == (2, 224, 224, 3)
