"""Folders of images: SPLIT/CLASS/NAME.jpg, CLASS/NAME.jpg without splits, or images without classes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.draw import draw_splits
from graft.rewriter.data.images import read_image, stack_images
from graft.rewriter.data.reading import reading, require_file
from graft.rewriter.data.split import TEST, TRAIN, VALIDATION, Reader, Split, Storage, split_name, split_names
from graft.rewriter.errors import GraftError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
OTHER_IMAGES = {".gif", ".tif", ".tiff", ".heic", ".avif", ".jfif", ".ppm", ".pgm"}
"""Images that are not read: a folder that holds some beside others is told of."""
NO_CLASSES = {"__MACOSX", "@eaDir"}
"""Folders that archivers and file servers leave behind."""
log = logging.getLogger("graft")


def open_folder(path: Path, seed: int = 0) -> Storage:
    """Open a folder of images.

    Its images lie in SPLIT/CLASS; or in CLASS, of which 80 % are drawn for training and 20 % for testing;
    or, without labels, in SPLIT (train, val, test), or in the folder itself, drawn in the same way.

    Args:
        path: the folder.
        seed: draws the splits where there are none.

    Raises:
        GraftError: ``data-empty``, ``data-unreadable`` or ``bad-request``.
    """
    folders = subfolders(path)
    deep = [folder for folder in folders if subfolders(folder)]
    flat = [folder for folder in folders if folder not in deep and list_images(folder)]
    splits = _split_folders(deep, flat)
    if splits:
        _warn_of_left_out(path, [path, *(each for each in splits if each in deep)])
        names = split_names(each.name for each in splits)
        return Storage(
            {
                name: partial(_split if path / own in deep else _unlabelled, path / own, name)
                for name, own in names.items()
            },
            lambda: _digest(path, splits),
        )
    classes = [folder for folder in folders if list_images(folder)]
    if not classes and not list_images(path):
        raise GraftError(
            "data-empty",
            f"{path}: expected images as SPLIT/CLASS/NAME.jpg, CLASS/NAME.jpg or NAME.jpg, found none",
            f"name the folder that holds them; Graft reads {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    if classes:
        _warn_of_left_out(path, [path, *(inner for each in classes for inner in subfolders(each))])
    whole = partial(_labelled, classes, TRAIN) if classes else partial(_unlabelled, path, TRAIN)
    return Storage(
        draw_splits(whole, seed), lambda: _digest(path.parent, [path], f"80 % / 20 % by seed {seed}")
    )


def list_images(folder: Path) -> list[Path]:
    """Return the images that lie in a folder itself, in the order of their names.

    Raises:
        GraftError: ``data-unreadable``.
    """
    return list_files(folder, IMAGE_SUFFIXES)


def _split_folders(deep: Sequence[Path], flat: Sequence[Path]) -> list[Path]:
    """Return the folders that are splits: those of class folders, and unlabelled ones with a split's name.

    Where other folders hold images of their own, all folders are classes: "train" is one of vehicles.
    """
    known = {TRAIN, VALIDATION, TEST}
    named = [folder for folder in flat if split_name(folder.name) in known]
    mine = [folder for folder in deep if split_name(folder.name) in known]
    if len(named) < len(flat) and not mine:
        # images of classes, some with folders inside them
        return [] if not deep or any(list_images(each) for each in deep) else list(deep)
    return sorted([*deep, *named])


def subfolders(path: Path) -> list[Path]:
    """Return the folders in a folder, in the order of their names, without those that archivers leave.

    Raises:
        GraftError: ``data-unreadable``.
    """
    with reading(path):
        found = (each for each in path.iterdir() if each.name[0] != "." and each.name not in NO_CLASSES)
        return sorted(each for each in found if each.is_dir())


def list_files(folder: Path, suffixes: set[str]) -> list[Path]:
    """Return the files of some endings that lie in a folder itself, in the order of their names.

    Args:
        folder: the folder.
        suffixes: the endings, in lower case.

    Raises:
        GraftError: ``data-unreadable``, also where a pipe, a link to nothing and the like has such a name.
    """
    files = _called(folder, suffixes)
    for each in files:
        require_file(each, "an image" if each.suffix.lower() in IMAGE_SUFFIXES else "a file")
    return files


def _called(folder: Path, suffixes: set[str]) -> list[Path]:
    """Return whatever has a name with one of some endings, other than hidden names and folders."""
    with reading(folder):
        named = (each for each in folder.iterdir() if each.suffix.lower() in suffixes)
        return sorted(each for each in named if each.name[0] != "." and not each.is_dir())


def _warn_of_left_out(path: Path, folders: Iterable[Path]) -> None:
    """Warn of images that lie where none are expected."""
    found = [image for folder in folders for image in list_images(folder)]
    if found:
        log.warning(
            "%s: %d images lie beside the folders of classes, or inside them in folders of their own, "
            "such as %s; they are left out",
            *(path, len(found), found[0].relative_to(path)),
        )


def _split(folder: Path, name: str) -> Split:
    return _labelled(subfolders(folder), name, folder)


def _labelled(classes: Sequence[Path], name: str, folder: Path | None = None) -> Split:
    images = [list_images(each) for each in classes]
    files = [file for group in images for file in group]
    if not files:
        raise GraftError(
            "data-empty",
            f"{folder}: expected images in the folders of its classes, found none",
            f"Graft reads {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    others = sum(len(_called(each, OTHER_IMAGES)) for each in classes)
    if others:
        log.warning(
            "%d images of formats that are not read are left out; Graft reads %s",
            *(others, ", ".join(sorted(IMAGE_SUFFIXES))),
        )
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(group) for group in images])
    return Split(name, labels, tuple(each.name for each in classes), _reader(files))


def _unlabelled(folder: Path, name: str) -> Split:
    files = list_images(folder)
    return Split.without_labels(name, len(files), _reader(files))


def _reader(files: Sequence[Path]) -> Reader:
    def read(indices: Integers, card: InputCard | None) -> dict[str, Array]:
        named = [(str(files[index]), files[index]) for index in indices]
        return {"": stack_images((read_image(file, card), name) for name, file in named)}

    return read


def _digest(path: Path, splits: Iterable[Path], drawn: str = "") -> str:
    digest = hashlib.sha256(drawn.encode())
    for split in sorted(splits):
        own = list_images(split)
        for folder in [*([split] if own else []), *subfolders(split)]:
            name = folder.relative_to(path).as_posix() if not drawn else folder.name
            digest.update(json.dumps(name).encode())
            for file in list_images(folder):
                digest.update(json.dumps([file.name, file.stat().st_size]).encode())
    return digest.hexdigest()
