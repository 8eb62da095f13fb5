"""Folders and arrays as people have them: no splits, no classes, other names, stray files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.npz import open_samples
from graft.rewriter.data.split import DrawnSplit
from graft.rewriter.errors import GraftError

X = np.arange(40, dtype=np.float32).reshape(20, 2)
Y = np.repeat([0, 1], 10)


def images(folder: Path, count: int, start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / f"{number:02}.png")


def shades(data: Dataset, split: str) -> list[int]:
    """The gray of every image of a split, which is its number in :func:`images`."""
    part = data.split(split)
    found: list[int] = part.raw(np.arange(len(part)))[""][:, 0, 0, 0].tolist()
    return found


def test_classes_without_splits_are_drawn_80_to_20(tmp_path: Path) -> None:
    images(tmp_path / "cat", 10)
    images(tmp_path / "dog", 5, 10)
    images(tmp_path / "emu", 1, 20)
    data = Dataset.load(tmp_path)
    train, test = data.split("train"), data.split("test")
    assert train.drawn == test.drawn == DrawnSplit(13, 3, 0)
    assert train.class_names == test.class_names == ("cat", "dog", "emu")
    assert np.bincount(train.labels).tolist() == [8, 4, 1]
    assert np.bincount(test.labels, minlength=3).tolist() == [2, 1, 0]
    assert sorted(shades(data, "train") + shades(data, "test")) == [*range(15), 20]
    assert train.describe() == {"label_source": "data", "split": {"train": 13, "test": 3, "seed": 0}}
    again, other = Dataset.load(tmp_path), Dataset.load(tmp_path, seed=1)
    assert shades(again, "test") == shades(data, "test") != shades(other, "test")
    assert again.fingerprint() == data.fingerprint() != other.fingerprint()


def test_the_draw_depends_on_names_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path / "a/cat", 10)
    images(tmp_path / "b/cat", 10)
    images(tmp_path / "b/ape", 10, 20)  # another class changes nothing
    listed = Path.iterdir
    first = [shade for shade in shades(Dataset.load(tmp_path / "a"), "test") if shade < 10]
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path), reverse=True)))
    second = [shade for shade in shades(Dataset.load(tmp_path / "b"), "test") if shade < 10]
    assert first == second


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["Train", "Test"], ("train", "test")),
        (["training", "validation"], ("train", "val")),
        (["TRAIN", "valid", "testing"], ("train", "val", "test")),
        (["train", "val", "valid"], ("train", "val", "valid")),
        (["train", "extra"], ("train", "extra")),
    ],
)
def test_splits_by_other_names(folders: list[str], splits: tuple[str, ...], tmp_path: Path) -> None:
    for number, name in enumerate(folders):
        images(tmp_path / name / "cat", 1, number)
    data = Dataset.load(tmp_path)
    assert {*data.splits} == {*splits}
    for number, name in enumerate(folders):
        assert shades(data, splits[number]) == [number]
        assert shades(data, name) == [number]
    assert data.has("test") == bool({"test", "val"} & {*splits})
    if "val" in splits and "test" not in splits:
        assert shades(data, "test") == [1]


def test_splits_of_images_without_classes(tmp_path: Path) -> None:
    images(tmp_path / "train", 3)
    images(tmp_path / "val", 2, 5)
    data = Dataset.load(tmp_path)
    assert not data.split("train").labelled
    assert (shades(data, "train"), shades(data, "test")) == ([0, 1, 2], [5, 6])
    images(tmp_path / "bus", 2)  # now these are vehicles
    assert Dataset.load(tmp_path).split("train").class_names == ("bus", "train", "val")


def test_a_labelled_split_beside_one_without_classes(tmp_path: Path) -> None:
    images(tmp_path / "train/cat", 3)
    images(tmp_path / "test", 2, 5)
    data = Dataset.load(tmp_path)
    assert [data.split(name).labelled for name in ("train", "test")] == [True, False]
    assert shades(data, "test") == [5, 6]


def test_a_folder_of_images_alone(tmp_path: Path) -> None:
    images(tmp_path, 10)
    data = Dataset.load(tmp_path)
    assert [len(data.split(name)) for name in ("train", "test")] == [8, 2]
    assert not data.split("test").labelled


def test_stray_files_are_left_out_with_care(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path / "cat", 5)
    images(tmp_path / "dog", 5, 10)
    for name in ("Thumbs.db", ".DS_Store", "README", "cat/Thumbs.db", "cat/labels.csv"):
        (tmp_path / name).write_text("")
    images(tmp_path / "__MACOSX/cat", 2)
    images(tmp_path / ".cache/cat", 2)
    (tmp_path / "empty").mkdir()
    data = Dataset.load(tmp_path)
    assert data.split("train").class_names == ("cat", "dog")
    assert not caplog.records
    images(tmp_path / "cat/old", 2, 40)
    (tmp_path / "dog/scan.tiff").write_text("")
    data = Dataset.load(tmp_path)
    assert max(shades(data, "train") + shades(data, "test")) == 14
    text = caplog.text
    assert "2 images lie beside the folders of classes" in text
    assert os.path.join("cat", "old", "40.png") in text
    assert "1 images of formats that are not read" in text


def test_arrays_without_splits(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y, class_names=["cat", "dog"])
    data = Dataset.load(tmp_path / "a.npz")
    train, test = data.split("train"), data.split("test")
    assert (np.bincount(train.labels).tolist(), np.bincount(test.labels).tolist()) == ([8, 8], [2, 2])
    assert train.class_names == ("cat", "dog")
    for part in (train, test):  # samples keep their labels
        np.testing.assert_array_equal(part.raw(np.arange(len(part)))[""][:, 0] // 20, part.labels)
    np.savez(tmp_path / "b.npz", x=X)
    data = Dataset.load(tmp_path / "b.npz")
    assert [(len(data.split(name)), data.split(name).labelled) for name in data.splits] == [
        (16, False),
        (4, False),
    ]
    with pytest.raises(GraftError, match="seed of 0 or more"):
        Dataset.load(tmp_path / "b.npz", seed=-1)


def test_capital_letters_and_other_names_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X_train=X, y_train=Y, X_valid=X[:4], y_valid=Y[:4])
    data = Dataset.load(tmp_path / "a.npz")
    assert data.splits == ("train", "val")
    assert data.split("train").labels.tolist() == Y.tolist()
    assert len(data.split("test")) == len(data.split("valid")) == 4


def test_samples_to_classify(tmp_path: Path) -> None:
    for arrays, first in [
        ({"x": X, "y": Y}, 0),
        ({"x_train": X, "y_train": Y, "x_test": X[3:]}, 6),
        ({"x_train": X[5:], "labels": Y[5:]}, 10),
        ({"arr_0": X[1:]}, 2),
    ]:
        np.savez(tmp_path / "a.npz", **arrays)
        split = open_samples(tmp_path / "a.npz")
        assert split.raw([0])[""][0, 0] == first
        assert len(split) == 20 - first // 2
    np.savez(tmp_path / "a.npz", a=X, b=X)
    with pytest.raises(GraftError, match="expected x, found a, b"):
        open_samples(tmp_path / "a.npz")
