"""Folders of images: SPLIT/CLASS/NAME.jpg."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import read_image, stack_images
from graft.rewriter.data.reading import reading
from graft.rewriter.data.split import Split, Storage
from graft.rewriter.errors import GraftError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def open_folder(path: Path) -> Storage:
    """Open a folder of images by split and class.

    Raises:
        GraftError: ``data-empty`` or ``data-unreadable``.
    """
    splits = {folder.name: folder for folder in _subfolders(path) if _subfolders(folder)}
    if not splits:
        raise GraftError(
            "data-empty",
            f"{path}: expected images as SPLIT/CLASS/NAME.jpg, found no such folders",
            "name the folder that holds train and test",
        )
    return Storage(
        {name: partial(_split, folder) for name, folder in splits.items()},
        lambda: _digest(path, splits.values()),
    )


def _subfolders(path: Path) -> list[Path]:
    with reading(path):
        return sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")


def _images(folder: Path) -> list[Path]:
    with reading(folder):
        return sorted(
            each for each in folder.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES and each.name[0] != "."
        )


def _split(folder: Path) -> Split:
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

    def read(indices: Integers, card: InputCard | None) -> dict[str, Array]:
        named = [(str(files[index]), files[index]) for index in indices]
        return {"": stack_images((read_image(file, card), name) for name, file in named)}

    return Split(folder.name, labels, tuple(each.name for each in classes), read)


def _digest(path: Path, splits: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for split in sorted(splits):
        for folder in _subfolders(split):
            digest.update(json.dumps(folder.relative_to(path).as_posix()).encode())
            for file in _images(folder):
                digest.update(json.dumps([file.name, file.stat().st_size]).encode())
    return digest.hexdigest()
