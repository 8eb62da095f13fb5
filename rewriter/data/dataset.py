"""Labelled samples: arrays, ``.npz`` files, folders of images by class, Parquet files."""

from __future__ import annotations

import hashlib
import importlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.rewriter.arrays import Array
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import fit_images, read_image, stack_images
from graft.rewriter.errors import GraftError

Indices = Sequence[int] | npt.NDArray[np.integer[Any]]
Arrays = Array | Mapping[str, Array]
Reader = Callable[[npt.NDArray[np.int64], InputCard | None], dict[str, Array]]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
LARGEST_CLASS_NUMBER = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: labels in memory, samples read when they are asked for.

    Attributes:
        name: what the data calls it, e.g. ``train``.
        labels: int64 (N,), or (N, T) for one label a time step.
        class_names: what the numbers mean; None: they count the card's labels.
        reader: reads the samples at some positions.
        ignore: a class whose labels do not count, as that of padding.
    """

    name: str
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...] | None
    reader: Reader
    ignore: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def raw(self, indices: Indices, input_card: InputCard | None = None) -> dict[str, Array]:
        """Reads samples as they are, before any card prepares them.

        Args:
            indices: positions in the split, integers (n,).
            input_card: the size, colour and resizing that files of images are brought to.

        Returns:
            One array (n, ...) for each input of the model, with the key "" where there is one
            without a name. Image files: uint8 (n, H, W, 3) in RGB order, or (n, H, W) where the
            colour of the card is GRAY. Arrays of images come the same way where the card says
            ``resize``, and as they are where it does not.

        Raises:
            GraftError: ``data-unreadable``, ``data-image`` or ``data-shape``.
        """
        raw = self.reader(np.asarray(indices, np.int64), input_card)
        if input_card is None or input_card.kind != "image" or input_card.resize is None:
            return raw
        return {name: fit_images(array, input_card) for name, array in raw.items()}

    @staticmethod
    def join(parts: Sequence[Split]) -> Split:
        """The samples of several data sets, one after the other; classes of one name are one class.

        Raises:
            GraftError: ``data-names`` where the numbers of one of them have no names.
        """
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            if part.class_names is None:
                raise GraftError(
                    "data-names",
                    "several data sets are matched by the names of their classes, and one has numbers only",
                    "add class_names to the .npz file",
                )
        names = tuple(dict.fromkeys(name for part in parts for name in part.class_names or ()))
        labels = [part.labels[:, 0] if part.labels.shape[1:] == (1,) else part.labels for part in parts]
        if len({each.shape[1:] for each in labels}) > 1:
            raise GraftError(
                "data-labels",
                "several data sets are joined, and they differ in the labels that a sample has",
                "name data sets with as many labels a sample",
            )
        renumbered = [
            np.array([names.index(name) for name in part.class_names or ()], np.int64)[own]
            for part, own in zip(parts, labels, strict=True)
        ]
        starts = np.cumsum([0, *map(len, parts)])

        def read(indices: npt.NDArray[np.int64], card: InputCard | None) -> dict[str, Array]:
            owners = np.searchsorted(starts, indices, side="right") - 1
            runs = np.split(np.arange(len(indices)), np.flatnonzero(np.diff(owners)) + 1)
            found = [
                parts[owners[run[0]]].raw(indices[run] - starts[owners[run[0]]], card)
                for run in runs
                if len(run)
            ]
            return _concatenated(found)

        return Split(parts[0].name, np.concatenate(renumbered), names, read)


class Dataset:
    """Labelled samples in splits."""

    def __init__(
        self,
        source: str,
        splits: Mapping[str, Callable[[], Split]],
        digest: Callable[[], str],
        incomplete: Mapping[str, GraftError] | None = None,
    ) -> None:
        self.source = source
        self._makers = dict(splits)
        self._digest = digest
        self._incomplete = dict(incomplete or {})
        self._made: dict[str, Split] = {}

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Opens a data set; samples are read only when a split is asked for them.

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
            return _parquet({file.stem: file for file in files}, path) if files else _folder(path)
        if not path.is_file():
            raise GraftError("data-missing", f"expected data at {path}, found nothing", "check the path")
        if path.suffix == ".parquet":
            return _parquet({"train": path}, path)
        if path.suffix == ".npz" or zipfile.is_zipfile(path):
            return _npz(path)
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
        """Makes a data set of arrays in memory.

        Args:
            x_train: (N, ...), or one such array for each input by its name.
            y_train: integers or class names (N,), or (N, T) for one label a time step.
            x_test: as x_train.
            y_test: as y_train.
            class_names: what the numbers mean; None: they count the card's labels.

        Raises:
            GraftError: ``data-labels``, ``data-length``, ``data-empty`` or ``data-missing-key``.
        """
        if (x_test is None) != (y_test is None):
            raise GraftError("data-missing-key", "expected x_test and y_test, found one of them", "give both")
        names = None if class_names is None else _class_names(np.asarray(class_names), "the data")
        parts = {"train": (x_train, y_train)}
        if x_test is not None:
            parts["test"] = (x_test, y_test)
        makers = {name: partial(_array_split, name, x, y, names) for name, (x, y) in parts.items()}
        dataset = cls("the data", makers, lambda: _arrays_digest(parts, names))
        for name in parts:
            dataset.split(name)  # wrong arrays are told here, not where they are used
        return dataset

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits that have samples and labels."""
        return tuple(self._makers)

    def split(self, name: str) -> Split:
        """One split; ``test`` is ``val`` where there is no ``test``.

        Raises:
            GraftError: ``data-split`` (unknown), ``data-missing-key``, or whatever is wrong with
                the labels of the split.
        """
        if name == "test" and name not in {*self._makers, *self._incomplete} and "val" in self._makers:
            name = "val"
        if name in self._incomplete:
            raise self._incomplete[name]
        if name not in self._makers:
            raise GraftError(
                "data-split",
                f"{self.source} has no split '{name}', it has {', '.join(self._makers)}",
                "name one of them with --split or --test-split",
            )
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def fingerprint(self) -> str:
        """SHA-256 in hex over labels and a cheap summary of the samples.

        The bytes of a file, of arrays in memory, the names and sizes of images; never the path.
        """
        return self._digest()


# ---- labels and arrays


def _array_split(name: str, x: Arrays, y: Any, class_names: tuple[str, ...] | None) -> Split:
    named = x if isinstance(x, Mapping) else {"": x}
    arrays = {key: np.asarray(array) for key, array in named.items()}
    shapes = {key: (array.shape, array.dtype) for key, array in arrays.items()}
    labels, names = _labels(np.asarray(y), class_names, f"y_{name}")
    _check_samples(name, shapes, len(labels))
    return Split(name, labels, names, lambda indices, _: _take(arrays, indices))


def _concatenated(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    first = parts[0]
    for part in parts[1:]:
        if {name: array.shape[1:] for name, array in part.items()} != {
            name: array.shape[1:] for name, array in first.items()
        }:
            raise GraftError(
                "data-shape",
                "the data sets hold samples of different shapes, and the card does not say how to bring "
                "them together",
                "say resize: squash and a size in the card, or evaluate one data set at a time",
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in first}


def _take(arrays: Mapping[str, Array], indices: npt.NDArray[np.int64]) -> dict[str, Array]:
    return {key: array[indices] for key, array in arrays.items()}


def _check_samples(
    split: str, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], count: int
) -> None:
    for key, (shape, dtype) in shapes.items():
        name = f"x_{split}.{key}" if key else f"x_{split}"
        if dtype.hasobject:
            raise _object_array(name)
        found = shape[0] if shape else 0
        if found != count:
            raise GraftError(
                "data-length",
                f"expected a label for each sample, found {found} samples in {name}"
                f" and {count} labels in y_{split}",
                "repair the data",
            )


def _labels(
    y: Array, class_names: tuple[str, ...] | None, where: str
) -> tuple[npt.NDArray[np.int64], tuple[str, ...] | None]:
    """Checks labels: class numbers int64 of the same shape, and what they mean."""
    if y.dtype.hasobject:
        raise _object_array(where)
    if y.ndim not in (1, 2):
        raise _bad_labels(where, f"shape (N,) or (N, T), found {y.shape}")
    if y.size == 0:
        raise GraftError("data-empty", f"{where}: expected labels, found none", "add samples")
    if y.dtype.kind in "SU":
        return _named_labels(_text(y, where), class_names, where)
    if y.dtype.kind not in "buif":
        raise _bad_labels(where, f"class numbers or class names, found {y.dtype}")
    if y.dtype.kind == "f" and not (np.isfinite(y) & (y == np.floor(y))).all():
        raise _bad_labels(where, "class numbers that are whole")
    lowest, highest = y.min(), y.max()
    limit = LARGEST_CLASS_NUMBER if class_names is None else len(class_names) - 1
    if lowest < 0 or highest > limit:
        found = lowest if lowest < 0 else highest
        raise _bad_labels(where, f"class numbers from 0 to {limit}, found {int(found)}")
    return y.astype(np.int64), class_names


def _named_labels(
    y: Array, class_names: tuple[str, ...] | None, where: str
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    present, numbers = np.unique(y, return_inverse=True)
    names = [str(name) for name in present]
    if class_names is None:
        class_names = tuple(names)
    place = {name: index for index, name in enumerate(class_names)}
    unknown = [name for name in names if name not in place]
    if unknown:
        raise _bad_labels(where, f"names among class_names, found '{unknown[0]}'")
    numbers = np.array([place[name] for name in names], np.int64)[numbers]
    return numbers.reshape(y.shape), class_names


def _class_names(names: Array, where: str) -> tuple[str, ...]:
    if names.dtype.hasobject:
        raise _object_array(f"class_names of {where}")
    if names.ndim != 1 or names.dtype.kind not in "SU" or not names.size:
        raise _bad_labels(f"class_names of {where}", f"a list of names, found {names.dtype} {names.shape}")
    listed = tuple(str(name) for name in _text(names, f"class_names of {where}"))
    if len(set(listed)) < len(listed):
        twice = next(name for name in listed if listed.count(name) > 1)
        raise _bad_labels(f"class_names of {where}", f"each name once, found '{twice}' twice")
    return listed


def _text(names: Array, where: str) -> Array:
    if names.dtype.kind == "U":
        return names
    try:
        return np.char.decode(names, "utf-8")
    except UnicodeDecodeError:
        raise _bad_labels(where, "names in UTF-8") from None


def _bad_labels(where: str, expected: str) -> GraftError:
    return GraftError("data-labels", f"{where}: expected {expected}", "correct the labels")


def _object_array(where: str) -> GraftError:
    return GraftError(
        "data-format",
        f"{where}: expected an array of numbers or text, found Python objects",
        "save it with a plain dtype, e.g. array.astype(str); objects are never unpickled",
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


def _file_digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with _told(path), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tells whatever goes wrong in reading a data file in one line."""
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        MemoryError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        found = str(error) or type(error).__name__
        raise GraftError(
            "data-unreadable",
            f"{path}: expected a complete, readable data file, found: {found}",
            "save or download it again",
        ) from error


# ---- .npz files


def _npz(path: Path) -> Dataset:
    if not zipfile.is_zipfile(path):
        raise GraftError(
            "data-unreadable",
            f"{path}: expected an .npz file, found something else or a part of one",
            "save it again with np.savez(FILE, x_train=..., y_train=...)",
        )
    with _told(path), np.load(path, allow_pickle=False) as archive:
        keys = list(archive.files)
    found = ", ".join(keys) or "nothing"
    stems = dict.fromkeys(key[2:].partition(".")[0] for key in keys if key[:2] in ("x_", "y_"))
    inputs = {
        name: {key.partition(".")[2]: key for key in keys if key.partition(".")[0] == f"x_{name}"}
        for name in stems
    }
    complete = [name for name in stems if inputs[name] and f"y_{name}" in keys]
    hint = "save samples as x_SPLIT and their labels as y_SPLIT"
    incomplete = {
        name: GraftError("data-missing-key", f"{path}: expected x_{name} and y_{name}, found {found}", hint)
        for name in ["train", *stems]
        if name not in complete
    }
    if not complete:
        raise incomplete["train"]
    splits = {name: partial(_npz_split, path, name, inputs[name], keys) for name in complete}
    return Dataset(str(path), splits, lambda: _file_digest(path), incomplete)


def _npz_split(path: Path, name: str, inputs: Mapping[str, str], keys: Sequence[str]) -> Split:
    class_names = _npz_class_names(path, keys)
    labels, names = _labels(_npz_array(path, f"y_{name}"), class_names, f"{path}: y_{name}")
    headers = {key: _npz_header(path, member) for key, member in inputs.items()}
    _check_samples(name, headers, len(labels))
    arrays = cache(lambda: {key: _npz_array(path, member) for key, member in inputs.items()})
    return Split(name, labels, names, lambda indices, _: _take(arrays(), indices))


def _npz_array(path: Path, key: str) -> Array:
    if _npz_header(path, key)[1].hasobject:
        raise _object_array(f"{path}: {key}")
    with _told(path), np.load(path, allow_pickle=False) as archive:
        array: Array = archive[key]
        return array


def _npz_header(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array without reading it."""
    with _told(path), zipfile.ZipFile(path) as archive:
        member = key if key in archive.namelist() else f"{key}.npy"
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def _npz_class_names(path: Path, keys: Sequence[str]) -> tuple[str, ...] | None:
    if "class_names" in keys:
        return _class_names(_npz_array(path, "class_names"), str(path))
    # `labels` is a common name for other things too, so only text counts as names.
    if "labels" in keys and _npz_header(path, "labels")[1].kind in "SU":
        return _class_names(_npz_array(path, "labels"), str(path))
    return None


# ---- folders of images


def _folder(path: Path) -> Dataset:
    splits = {folder.name: folder for folder in _subfolders(path) if _subfolders(folder)}
    if not splits:
        raise GraftError(
            "data-empty",
            f"{path}: expected images as SPLIT/CLASS/NAME.jpg, found no such folders",
            "name the folder that holds train and test",
        )
    return Dataset(
        str(path),
        {name: partial(_folder_split, folder) for name, folder in splits.items()},
        lambda: _folder_digest(path, splits.values()),
    )


def _subfolders(path: Path) -> list[Path]:
    with _told(path):
        return sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")


def _images(folder: Path) -> list[Path]:
    with _told(folder):
        return sorted(
            each for each in folder.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES and each.name[0] != "."
        )


def _folder_split(folder: Path) -> Split:
    classes = _subfolders(folder)
    images = [_images(each) for each in classes]
    files = [file for group in images for file in group]
    if not files:
        raise GraftError(
            "data-empty",
            f"{folder}: expected images in the folders of its classes, found none",
            f"Graft reads {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(group) for group in images])

    def read(indices: npt.NDArray[np.int64], card: InputCard | None) -> dict[str, Array]:
        named = [(str(files[index]), files[index]) for index in indices]
        return {"": stack_images((read_image(file, card), name) for name, file in named)}

    return Split(folder.name, labels, tuple(each.name for each in classes), read)


def _folder_digest(path: Path, splits: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for split in sorted(splits):
        for folder in _subfolders(split):
            digest.update(json.dumps(folder.relative_to(path).as_posix()).encode())
            for file in _images(folder):
                digest.update(json.dumps([file.name, file.stat().st_size]).encode())
    return digest.hexdigest()


# ---- Parquet files


def _parquet(files: Mapping[str, Path], path: Path) -> Dataset:
    reader = _parquet_module()
    return Dataset(
        str(path),
        {name: partial(_parquet_split, reader, name, file) for name, file in files.items()},
        lambda: _file_digest(*files.values()),
    )


def _parquet_module() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise GraftError(
            "extra-missing",
            "Parquet files need pyarrow, which is not installed",
            "pip install 'onnx-graft[parquet]'",
        ) from None


def _parquet_split(reader: Any, name: str, path: Path) -> Split:
    with _told(path):
        file = reader.ParquetFile(path)
        columns = file.schema_arrow.names
    column = next((each for each in ("image", "x") if each in columns), None)
    if column is None or "label" not in columns:
        raise GraftError(
            "data-missing-key",
            f"{path}: expected the columns image or x, and label, found {', '.join(columns)}",
            "rename the columns",
        )
    with _told(path):
        label_cells = file.read(columns=["label"]).column(0).to_pylist()
    if None in label_cells:
        raise _bad_labels(f"{path}: label", "a label in every row, found an empty one")
    with _told(path):
        y = np.asarray(label_cells)
    labels, names = _labels(y, _parquet_class_names(file), f"{path}: label")
    cells = _parquet_cells(file, column, path)

    def read(indices: npt.NDArray[np.int64], card: InputCard | None) -> dict[str, Array]:
        found = cells(indices)
        if column == "x":
            with _told(path):
                return {"": np.asarray(found)}
        named = [(f"{path} row {index}", cell) for index, cell in zip(indices, found, strict=True)]
        return {"": stack_images((read_image(_content(cell, row), card, row), row) for row, cell in named)}

    return Split(name, labels, names, read)


def _parquet_cells(file: Any, column: str, path: Path) -> Callable[[npt.NDArray[np.int64]], list[Any]]:
    """Reads cells of a column, keeping no more than two row groups in memory."""
    rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    ends = np.cumsum(rows)

    @lru_cache(maxsize=2)
    def group_cells(group: int) -> Any:
        with _told(path):
            return file.read_row_group(group, columns=[column]).column(0)

    def cells(indices: npt.NDArray[np.int64]) -> list[Any]:
        groups = np.searchsorted(ends, indices, side="right")
        starts = ends[groups] - np.asarray(rows)[groups]
        return [
            group_cells(int(group))[int(index - start)].as_py()
            for group, index, start in zip(groups, indices, starts, strict=True)
        ]

    return cells


def _content(cell: Any, name: str) -> bytes:
    content = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not isinstance(content, bytes):
        raise GraftError(
            "data-image",
            f"{name}: expected the bytes of an image, found {type(content).__name__}",
            "store the content of the file in the column image",
        )
    return content


def _parquet_class_names(file: Any) -> tuple[str, ...] | None:
    """The names that the Hugging Face data sets library leaves in the file's metadata."""
    text = (file.schema_arrow.metadata or {}).get(b"huggingface", b"")
    try:
        names = json.loads(text)["info"]["features"]["label"]["names"]
    except (TypeError, ValueError, KeyError):
        return None
    return _class_names(np.asarray(names, str), "label")
