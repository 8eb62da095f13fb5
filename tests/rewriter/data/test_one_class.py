"""Samples without labels as those of one class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.one_class import of_one_class


def test_all_samples_of_an_array_are_training_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(20, dtype=np.float32).reshape(10, 2))
    data = of_one_class(Dataset.load(tmp_path / "x.npz"), "crane")
    assert data.splits == ("train",)
    split = data.split("train")
    assert split.labelled and split.class_names == ("crane",) and split.labels.tolist() == [0] * 10
    assert (
        sorted(split.raw(np.arange(10))[""][:, 0].tolist()) == list(range(0, 20, 2)) and split.drawn is None
    )


def test_splits_of_the_data_and_labels_stay(tmp_path: Path) -> None:
    x = np.zeros((4, 2), np.float32)
    np.savez(tmp_path / "two.npz", x_train=x, x_test=x[:2])
    data = of_one_class(Dataset.load(tmp_path / "two.npz"), "crane")
    assert [len(data.split(name)) for name in ("train", "test")] == [4, 2]
    labelled = of_one_class(Dataset.from_arrays(x, ["a", "b", "a", "b"]), "crane")
    assert labelled.split("train").class_names == ("a", "b")
