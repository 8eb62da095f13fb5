"""``.npz`` files: x_SPLIT (or x_SPLIT.INPUT), y_SPLIT and optionally class_names or labels."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.data.labels import check_samples, checked_labels, checked_names, object_array
from graft.rewriter.data.reading import file_digest, reading
from graft.rewriter.data.split import Split, Storage
from graft.rewriter.errors import GraftError


def open_npz(path: Path) -> Storage:
    """Open an ``.npz`` file; its arrays are read when they are needed.

    Raises:
        GraftError: ``data-unreadable`` or ``data-missing-key``.
    """
    if not zipfile.is_zipfile(path):
        raise GraftError(
            "data-unreadable",
            f"{path}: expected an .npz file, found something else or a part of one",
            "save it again with np.savez(FILE, x_train=..., y_train=...)",
        )
    with reading(path), np.load(path, allow_pickle=False) as archive:
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
    splits = {name: partial(_split, path, name, inputs[name], keys) for name in complete}
    return Storage(splits, lambda: file_digest(path), incomplete)


def _split(path: Path, name: str, inputs: Mapping[str, str], keys: Sequence[str]) -> Split:
    class_names = _names(path, keys)
    labels, names = checked_labels(_array(path, f"y_{name}"), class_names, f"{path}: y_{name}")
    headers = {key: _header(path, member) for key, member in inputs.items()}
    check_samples(name, headers, len(labels))
    arrays = cache(lambda: {key: _array(path, member) for key, member in inputs.items()})
    return Split(
        name, labels, names, lambda indices, _: {key: array[indices] for key, array in arrays().items()}
    )


def _array(path: Path, key: str) -> Array:
    if _header(path, key)[1].hasobject:
        raise object_array(f"{path}: {key}")
    with reading(path), np.load(path, allow_pickle=False) as archive:
        array: Array = archive[key]
        return array


def _header(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array without reading it."""
    with reading(path), zipfile.ZipFile(path) as archive:
        member = key if key in archive.namelist() else f"{key}.npy"
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def _names(path: Path, keys: Sequence[str]) -> tuple[str, ...] | None:
    if "class_names" in keys:
        return checked_names(_array(path, "class_names"), str(path))
    # `labels` is a common name for other things too, so only text counts as names.
    if "labels" in keys and _header(path, "labels")[1].kind in "SU":
        return checked_names(_array(path, "labels"), str(path))
    return None
