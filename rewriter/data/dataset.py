"""Data sets: labelled samples in splits, of files or of arrays in memory."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.data.image_folder import open_folder
from graft.rewriter.data.labels import check_samples, checked_labels, checked_names
from graft.rewriter.data.npz import open_npz
from graft.rewriter.data.parquet import open_parquet
from graft.rewriter.data.split import Split, Storage
from graft.rewriter.errors import GraftError

Arrays = Array | Mapping[str, Array]


class Dataset:
    """Labelled samples in splits.

    Args:
        name: what messages call the data: its path.
        source: the splits where they lie.
    """

    def __init__(self, name: str, source: Storage) -> None:
        self.name = name
        self._source = source
        self._opened: dict[str, Split] = {}

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Open a data set; samples are read when they are needed.

        Args:
            path: an ``.npz`` with x_SPLIT (or x_SPLIT.INPUT), y_SPLIT and optionally class_names
                or labels; a folder SPLIT/CLASS/*.jpg; a folder of SPLIT.parquet, or one Parquet
                file, which is the split ``train``.

        Raises:
            GraftError: ``data-missing``, ``data-missing-key``, ``data-empty``, ``data-format`` or
                ``data-unreadable``.
        """
        path = Path(path)
        if path.is_dir():
            files = sorted(path.glob("*.parquet"))
            by_split = {file.stem: file for file in files}
            return cls(str(path), open_parquet(by_split) if files else open_folder(path))
        if not path.is_file():
            raise GraftError("data-missing", f"expected data at {path}, found nothing", "check the path")
        if path.suffix == ".parquet":
            return cls(str(path), open_parquet({"train": path}))
        if path.suffix == ".npz" or zipfile.is_zipfile(path):
            return cls(str(path), open_npz(path))
        raise GraftError(
            "data-format",
            f"expected an .npz file, a .parquet file or a folder of images, found {path}",
            "save arrays with np.savez(FILE, x_train=..., y_train=...)",
        )

    @classmethod
    def from_arrays(
        cls,
        x_train: Arrays,
        y_train: Any,
        x_test: Arrays | None = None,
        y_test: Any = None,
        class_names: Sequence[str] | None = None,
    ) -> Dataset:
        """Make a data set of arrays in memory.

        Args:
            x_train: (N, ...), or one such array for each input by its name.
            y_train: integers or class names (N,), or (N, T) for one label a time step.
            x_test: as x_train.
            y_test: as y_train.
            class_names: names of the numbers; None: they count the card's labels.

        Raises:
            GraftError: ``data-labels``, ``data-length``, ``data-empty`` or ``data-missing-key``.
        """
        if (x_test is None) != (y_test is None):
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
        """Names of the splits that have samples and labels."""
        return tuple(self._source.splits)

    def split(self, name: str) -> Split:
        """Return one split; ``test`` is ``val`` where there is no ``test``.

        Raises:
            GraftError: ``data-split`` (unknown), ``data-missing-key``, or whatever is wrong with
                the labels of the split.
        """
        splits, incomplete = self._source.splits, self._source.incomplete
        if name == "test" and name not in {*splits, *incomplete} and "val" in splits:
            name = "val"
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

    def fingerprint(self) -> str:
        """Return SHA-256 in hex over labels and a cheap summary of the samples.

        The bytes of a file, of arrays in memory, the names and sizes of images; never the path.
        """
        return self._source.digest()


def _array_split(name: str, x: Arrays, y: Any, class_names: tuple[str, ...] | None) -> Split:
    named = x if isinstance(x, Mapping) else {"": x}
    arrays = {key: np.asarray(array) for key, array in named.items()}
    shapes = {key: (array.shape, array.dtype) for key, array in arrays.items()}
    labels, names = checked_labels(np.asarray(y), class_names, f"y_{name}")
    check_samples(name, shapes, len(labels))
    return Split(
        name, labels, names, lambda indices, _: {key: array[indices] for key, array in arrays.items()}
    )


def _arrays_digest(parts: Mapping[str, tuple[Arrays, Any]], class_names: tuple[str, ...] | None) -> str:
    digest = hashlib.sha256(json.dumps(["arrays", class_names]).encode())
    for name, (x, y) in parts.items():
        named = x if isinstance(x, Mapping) else {"": x}
        for key, value in [*sorted(named.items()), ("labels", y)]:
            array = np.ascontiguousarray(value)
            digest.update(json.dumps([name, key, array.dtype.str, array.shape]).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
