"""Data sets: samples in splits, of files or of arrays in memory, with labels or without."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.image_folder import list_files, open_folder
from graft.rewriter.data.labels import check_samples, checked_labels, checked_names
from graft.rewriter.data.npz import open_npz
from graft.rewriter.data.parquet import open_parquet
from graft.rewriter.data.reading import require_file
from graft.rewriter.data.split import TEST, VALIDATION, Split, Storage, split_name
from graft.rewriter.errors import GraftError

Arrays = Array | Mapping[str, Array]


class Dataset:
    """Samples in splits, with labels or without.

    Args:
        name: what messages call the data: its path.
        source: the splits where they lie.
    """

    def __init__(self, name: str, source: Storage) -> None:
        self.name = name
        self._source = source
        self._opened: dict[str, Split] = {}

    @classmethod
    def load(cls, path: str | Path, seed: int = 0) -> Dataset:
        """Open a data set; samples are read when they are needed.

        Samples without labels (no y_SPLIT, no folders of classes, no column ``label``) make an
        unlabelled split, see :func:`graft.rewriter.measure.pseudo_labels.with_predictions`.

        Args:
            path: an ``.npz`` with x_SPLIT (or x_SPLIT.INPUT), y_SPLIT and optionally class_names
                or labels, or with x and y; a folder SPLIT/CLASS/*.jpg, SPLIT/*.jpg, CLASS/*.jpg or
                *.jpg; a folder of SPLIT.parquet, or one Parquet file, which is the split ``train``.
            seed: of data without splits, 80 % of each class are drawn for training by it.

        Raises:
            GraftError: ``data-missing``, ``data-missing-key``, ``data-empty``, ``data-format``,
                ``data-unreadable`` or ``bad-request``.
        """
        path = Path(path)
        if os.path.isdir(path):
            files = list_files(path, {".parquet"})
            by_split = {file.stem: file for file in files}
            return cls(str(path), open_parquet(by_split) if files else open_folder(path, seed))
        require_file(path, "data")
        if path.suffix == ".parquet":
            return cls(str(path), open_parquet({"train": path}))
        if path.suffix == ".npz" or zipfile.is_zipfile(path):
            return cls(str(path), open_npz(path, seed))
        raise GraftError(
            "data-format",
            f"expected an .npz file, a .parquet file or a folder of images, found {path}",
            "save arrays with np.savez(FILE, x_train=..., y_train=...)",
        )

    @classmethod
    def from_arrays(
        cls,
        x_train: Arrays,
        y_train: Any = None,
        x_test: Arrays | None = None,
        y_test: Any = None,
        class_names: Sequence[str] | None = None,
    ) -> Dataset:
        """Make a data set of arrays in memory.

        Args:
            x_train: (N, ...), or one such array for each input by its name.
            y_train: integers or class names (N,), or (N, T) for one label a time step; None: the
                samples have no labels.
            x_test: as x_train.
            y_test: as y_train.
            class_names: names of the numbers; None: they count the card's labels.

        Raises:
            GraftError: ``data-labels``, ``data-length``, ``data-empty`` or ``data-missing-key``.
        """
        if x_test is None and y_test is not None:
            raise GraftError("data-missing-key", "expected x_test and y_test, found one of them", "give both")
        names = None if class_names is None else checked_names(np.asarray(class_names), "the data")
        parts = {"train": (x_train, y_train)}
        if x_test is not None:
            parts["test"] = (x_test, y_test)
        makers = {name: partial(_array_split, name, x, y, names) for name, (x, y) in parts.items()}
        dataset = cls("the data", Storage(makers, lambda: _arrays_digest(parts, names)))
        for name in parts:
            dataset.split(name)  # wrong arrays are refused here, not where they are used
        return dataset

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have samples; train, val and test are called so."""
        return tuple(self._source.splits)

    def has(self, name: str) -> bool:
        """Return true where there is a split of this name, see :meth:`split`."""
        return self._called(name) in self._source.splits

    def _called(self, name: str) -> str:
        known = {*self._source.splits, *self._source.incomplete}
        if name not in known:
            name = split_name(name)
        return VALIDATION if name == TEST and name not in known and VALIDATION in known else name

    def split(self, name: str) -> Split:
        """Return one split; ``test`` is ``val`` where there is no ``test``.

        Raises:
            GraftError: ``data-split`` (unknown), ``data-missing-key``, or whatever is wrong with
                the labels of the split.
        """
        splits, incomplete = self._source.splits, self._source.incomplete
        name = self._called(name)
        if name in incomplete:
            raise incomplete[name]
        if name not in splits:
            raise GraftError(
                "data-split",
                f"{self.name} has no split '{name}', it has {', '.join(splits)}",
                "name one of them with --split or --test-split",
            )
        if name not in self._opened:
            self._opened[name] = splits[name]()
        return self._opened[name]

    def labelled_by(self, give: Callable[[Split], Split]) -> Dataset:
        """Return the data set with labels for its unlabelled splits.

        Args:
            give: returns an unlabelled split with labels.
        """

        def opened(name: str) -> Split:
            split = self.split(name)
            return split if split.labelled else give(split)

        splits = {name: partial(opened, name) for name in self.splits}
        return Dataset(self.name, Storage(splits, self.fingerprint, self._source.incomplete))

    def fingerprint(self) -> str:
        """Return SHA-256 in hex over labels and a cheap summary of the samples.

        The bytes of a file, of arrays in memory, the names and sizes of images; never the path.
        """
        return self._source.digest()


def _array_split(name: str, x: Arrays, y: Any, class_names: tuple[str, ...] | None) -> Split:
    named = x if isinstance(x, Mapping) else {"": x}
    arrays = {key: np.asarray(array) for key, array in named.items()}
    shapes = {key: (array.shape, array.dtype) for key, array in arrays.items()}

    def read(indices: Integers, _: InputCard | None) -> dict[str, Array]:
        return {key: array[indices] for key, array in arrays.items()}

    if y is None:
        first = next(iter(arrays.values()))
        check_samples(name, shapes, len(first))
        return Split.without_labels(name, len(first), read)
    labels, names = checked_labels(np.asarray(y), class_names, f"y_{name}")
    check_samples(name, shapes, len(labels))
    return Split(name, labels, names, read)


def _arrays_digest(parts: Mapping[str, tuple[Arrays, Any]], class_names: tuple[str, ...] | None) -> str:
    digest = hashlib.sha256(json.dumps(["arrays", class_names]).encode())
    for name, (x, y) in parts.items():
        named = x if isinstance(x, Mapping) else {"": x}
        for key, value in [*sorted(named.items()), *([] if y is None else [("labels", y)])]:
            array = np.ascontiguousarray(value)
            digest.update(json.dumps([name, key, array.dtype.str, array.shape]).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
