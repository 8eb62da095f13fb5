"""``.npz`` files: x_SPLIT (or x_SPLIT.INPUT), y_SPLIT, or x and y, and optionally class_names."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.draw import draw_splits
from graft.rewriter.data.labels import check_samples, checked_labels, checked_names, object_array
from graft.rewriter.data.npy import Header, read_header
from graft.rewriter.data.reading import file_digest, reading, refuse_bomb, require_file, unreadable
from graft.rewriter.data.split import TEST, TRAIN, VALIDATION, Reader, Split, Storage, split_name, split_names
from graft.rewriter.errors import GraftError

UNPACKED = "save it with np.savez, unpacked"


def open_npz(path: Path, seed: int = 0) -> Storage:
    """Open an ``.npz`` file; its arrays are read when they are needed.

    Args:
        path: the file.
        seed: draws training and test samples where there are no splits, but ``x`` and ``y``.

    Raises:
        GraftError: ``data-unreadable``, ``data-missing-key``, or what is wrong with labels without splits.
    """
    keys = _keys(path)
    arrays = _split_arrays(keys)
    hint = "save samples as x_SPLIT and their labels as y_SPLIT"
    found = ", ".join(keys) or "nothing"
    with_samples = {name: each for name, each in arrays.items() if each.inputs}
    incomplete = {
        name: GraftError("data-missing-key", f"{path}: expected x_{name} and y_{name}, found {found}", hint)
        for name in [TRAIN, *arrays]
        if name not in with_samples and name != WHOLE
    }
    named = {name: each for name, each in with_samples.items() if name != WHOLE}
    if not named and WHOLE in with_samples:
        whole = partial(_split, path, TRAIN, with_samples[WHOLE], keys)
        return Storage(draw_splits(whole, seed), lambda: f"{file_digest(path)}/80 % / 20 % by seed {seed}")
    if not named:
        raise incomplete[TRAIN]
    for own in [name for name in incomplete if split_name(name) in {*map(split_name, named)}]:
        del incomplete[own]
    splits = {name: partial(_split, path, name, named[own], keys) for name, own in split_names(named).items()}
    return Storage(splits, lambda: file_digest(path), incomplete)


def open_samples(path: Path) -> Split:
    """Return the samples of an ``.npz`` file to be classified, whatever labels it has.

    They are those of ``x``, else of the split ``test`` or ``val``, else of the first split, else the only
    array.

    Raises:
        GraftError: ``data-unreadable`` or ``data-missing-key``.
    """
    keys = _keys(path)
    found = {name: each.inputs for name, each in _split_arrays(keys).items() if each.inputs}
    called = split_names(found)
    name = next((name for name in (WHOLE, TEST, VALIDATION, *called) if name in called), None)
    if name is None and len(keys) != 1:
        text = ", ".join(keys) or "nothing"
        raise GraftError("data-missing-key", f"{path}: expected x, found {text}", "save samples as x")
    inputs = {"": keys[0]} if name is None else found[called[name]]
    shape = _header(path, next(iter(inputs.values())))[0]
    return Split.without_labels(name or TEST, shape[0] if shape else 0, _reader(path, inputs))


def _keys(path: Path) -> list[str]:
    """Return the names of the arrays in a file that may be read whole."""
    require_file(path, "an .npz file")
    if not zipfile.is_zipfile(path):
        raise GraftError(
            "data-unreadable",
            f"{path}: expected an .npz file, found something else or a part of one",
            "save it again with np.savez(FILE, x_train=..., y_train=...)",
        )
    with reading(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    # Other methods unpack gigabytes at one go, whatever is asked of them.
    if any(each.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for each in members):
        raise unreadable(path, "members that numpy has not packed", UNPACKED)
    refuse_bomb(path, sum(each.file_size for each in members), UNPACKED)
    return [each.filename.removesuffix(".npy") for each in members]


def _reader(path: Path, inputs: Mapping[str, str]) -> Reader:
    samples = cache(lambda: {key: _array(path, member) for key, member in inputs.items()})

    def read(indices: Integers, _: InputCard | None) -> dict[str, Array]:
        return {key: array[indices] for key, array in samples().items()}

    return read


@dataclass
class _Arrays:
    """The keys of one split.

    Attributes:
        inputs: name of an input, ``""`` where there is one, to key.
        labels: key of the labels.
    """

    inputs: dict[str, str] = field(default_factory=dict)
    labels: str | None = None


WHOLE = ""
"""The name under which the arrays ``x`` and ``y``, without a split, are kept."""
LABEL_WORDS = {"label", "labels", "target", "targets", "class", "classes", "category", "categories"}
"""Arrays of these names beside unlabelled samples are probably their labels, called otherwise."""


def _split_arrays(keys: Sequence[str]) -> dict[str, _Arrays]:
    """Return the arrays of each split; x and y may be capital letters, as people write matrices."""
    found: dict[str, _Arrays] = {}
    for key in sorted(keys, key=lambda key: key[:1].isupper()):
        stem, _, name = key.partition(".")
        letter, split = stem[:1].lower(), stem[2:]
        if letter not in ("x", "y") or (len(stem) > 1 and (stem[1] != "_" or not split)):
            continue
        arrays = found.setdefault(split, _Arrays())
        if letter == "x":
            arrays.inputs.setdefault(name, key)
        elif not name:
            arrays.labels = arrays.labels or key
    return {name: found[name] for name in dict.fromkeys(_stems(keys)) if name in found}


def _stems(keys: Sequence[str]) -> list[str]:
    """Return the names of splits, in the order of the file."""
    return [key.partition(".")[0][2:] for key in keys]


def _split(path: Path, name: str, arrays: _Arrays, keys: Sequence[str]) -> Split:
    headers = {key: _header(path, member) for key, member in arrays.inputs.items()}
    read = _reader(path, arrays.inputs)
    if arrays.labels is None:
        return _unlabelled(path, name, headers, keys, read)
    class_names = _names(path, keys)
    labels, names = checked_labels(_array(path, arrays.labels), class_names, f"{path}: {arrays.labels}")
    check_samples(name, headers, len(labels))
    return Split(name, labels, names, read)


def _unlabelled(
    path: Path, name: str, headers: Mapping[str, Header], keys: Sequence[str], read: Reader
) -> Split:
    """Return samples without labels, unless another array looks like their labels."""
    shape = next(iter(headers.values()))[0]
    count = shape[0] if shape else 0
    check_samples(name, headers, count)
    if not count:
        raise GraftError("data-empty", f"{path}: expected samples, found none", "add samples")
    for key in keys:
        if key == "class_names" or not LABEL_WORDS & {*key.lower().split("_")}:
            continue
        (shape, dtype) = _header(path, key)
        if shape[:1] == (count,) and not (key == "labels" and dtype.kind in "SU"):
            raise GraftError(
                "data-missing-key",
                f"{path}: the samples have no array y, but one that is called {key}",
                "rename it to y_SPLIT if it holds the labels, else to something that does not look like them",
            )
    return Split.without_labels(name, count, read)


def _array(path: Path, key: str) -> Array:
    if _header(path, key)[1].hasobject:
        raise object_array(f"{path}: {key}")
    with reading(path), np.load(path, allow_pickle=False) as archive:
        array: Array = archive[key]
        return array


def _header(path: Path, key: str) -> Header:
    """Shape and dtype of an array without reading it."""
    with reading(path), zipfile.ZipFile(path) as archive:
        member = key if key in archive.namelist() else f"{key}.npy"
        with archive.open(member) as file:
            return read_header(file, archive.getinfo(member).file_size)


def _names(path: Path, keys: Sequence[str]) -> tuple[str, ...] | None:
    if "class_names" in keys:
        return checked_names(_array(path, "class_names"), str(path))
    # `labels` is a common name for other things too, so only text counts as names.
    if "labels" in keys and _header(path, "labels")[1].kind in "SU":
        return checked_names(_array(path, "labels"), str(path))
    return None
