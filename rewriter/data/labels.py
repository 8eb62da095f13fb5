"""Labels and names of classes, checked: numbers and their meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.errors import GraftError

LARGEST_CLASS_NUMBER = 2**31 - 1


def checked_labels(
    y: Array, class_names: tuple[str, ...] | None, where: str
) -> tuple[Integers, tuple[str, ...] | None]:
    """Check labels, and number those that are names.

    Args:
        y: class numbers or class names (N,), or (N, T) for one label a time step.
        class_names: names of the numbers; ``None``: they count the card's labels.
        where: what messages call the labels.

    Returns:
        Class numbers of the same shape, and their names.

    Raises:
        GraftError: ``data-labels``, ``data-empty`` or ``data-format``.
    """
    if y.dtype.hasobject:
        raise object_array(where)
    if y.ndim not in (1, 2):
        raise bad_labels(where, f"shape (N,) or (N, T), found {y.shape}")
    if y.size == 0:
        raise GraftError("data-empty", f"{where}: expected labels, found none", "add samples")
    if y.dtype.kind in "SU":
        return _named_labels(_text(y, where), class_names, where)
    if y.dtype.kind not in "buif":
        raise bad_labels(where, f"class numbers or class names, found {y.dtype}")
    if y.dtype.kind == "f" and not (np.isfinite(y) & (y == np.floor(y))).all():
        raise bad_labels(where, "class numbers that are whole")
    lowest, highest = y.min(), y.max()
    limit = LARGEST_CLASS_NUMBER if class_names is None else len(class_names) - 1
    if lowest < 0 or highest > limit:
        found = lowest if lowest < 0 else highest
        raise bad_labels(where, f"class numbers from 0 to {limit}, found {int(found)}")
    return y.astype(np.int64), class_names


def checked_names(names: Array, where: str) -> tuple[str, ...]:
    """Return a list of class names, each once.

    Raises:
        GraftError: ``data-labels`` or ``data-format``.
    """
    if names.dtype.hasobject:
        raise object_array(f"class_names of {where}")
    if names.ndim != 1 or names.dtype.kind not in "SU" or not names.size:
        raise bad_labels(f"class_names of {where}", f"a list of names, found {names.dtype} {names.shape}")
    listed = tuple(str(name) for name in _text(names, f"class_names of {where}"))
    if len(set(listed)) < len(listed):
        twice = next(name for name, count in Counter(listed).items() if count > 1)
        raise bad_labels(f"class_names of {where}", f"each name once, found '{twice}' twice")
    return listed


def check_samples(
    split: str, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], count: int
) -> None:
    """Check that every array of a split has a sample for each label.

    Args:
        split: name of the split.
        shapes: input name to (shape, dtype) of its samples.
        count: number of labels.

    Raises:
        GraftError: ``data-length`` or ``data-format``.
    """
    for key, (shape, dtype) in shapes.items():
        name = f"x_{split}.{key}" if key else f"x_{split}"
        if dtype.hasobject:
            raise object_array(name)
        found = shape[0] if shape else 0
        if found != count:
            raise GraftError(
                "data-length",
                f"expected a label for each sample, found {found} samples in {name}"
                f" and {count} labels in y_{split}",
                "repair the data",
            )


def bad_labels(where: str, expected: str) -> GraftError:
    """Return the error for labels that make no sense."""
    return GraftError("data-labels", f"{where}: expected {expected}", "correct the labels")


def object_array(where: str) -> GraftError:
    """Return the error for an array of Python objects."""
    return GraftError(
        "data-format",
        f"{where}: expected an array of numbers or text, found Python objects",
        "save it with a plain dtype, e.g. array.astype(str); objects are never unpickled",
    )


def _named_labels(
    y: Array, class_names: tuple[str, ...] | None, where: str
) -> tuple[Integers, tuple[str, ...]]:
    present, numbers = np.unique(y, return_inverse=True)
    names = [str(name) for name in present]
    if class_names is None:
        class_names = tuple(names)
    place = {name: index for index, name in enumerate(class_names)}
    unknown = [name for name in names if name not in place]
    if unknown:
        raise bad_labels(where, f"names among class_names, found '{unknown[0]}'")
    numbers = np.array([place[name] for name in names], np.int64)[numbers]
    return numbers.reshape(y.shape), class_names


def _text(names: Array, where: str) -> Array:
    if names.dtype.kind == "U":
        return names
    try:
        return np.char.decode(names, "utf-8")
    except UnicodeDecodeError:
        raise bad_labels(where, "names in UTF-8") from None
