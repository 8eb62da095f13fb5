"""Arrays in ``.npy`` form: what the header declares is checked before memory is taken for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, Any

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.data.labels import object_array
from graft.rewriter.data.reading import BOMB_BYTES, reading, refuse_bomb
from graft.rewriter.regular_files import require_regular

SAVE = "save it with numpy.save"
Header = tuple[tuple[int, ...], np.dtype[Any]]


def read_header(file: IO[bytes], size: int) -> Header:
    """Return shape and dtype of an array without reading it.

    Args:
        file: in ``.npy`` form, from its beginning.
        size: its bytes.

    Raises:
        ValueError: no array of numbers or text is there, or one that is longer than ``size``.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    except Exception as error:  # the header is read as Python text, whose parser has many errors
        raise ValueError(f"no array: {error or type(error).__name__}") from error
    if any(length < 0 for length in shape):
        raise ValueError(f"an array of shape {shape}")
    needed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and needed > size - file.tell():
        raise ValueError(f"the first {size} bytes of an array of {needed}")
    if needed == 0 and shape and shape[0] > BOMB_BYTES:
        raise ValueError(f"{shape[0]} samples that hold nothing")
    return shape, dtype


def read_npy(path: Path) -> Array:
    """Read an ``.npy`` file of numbers or text.

    Raises:
        GraftError: ``data-unreadable``, ``data-format`` (Python objects) or ``memory``.
    """
    with reading(path, SAVE):
        size = require_regular(path)
        with path.open("rb") as file:
            shape, dtype = read_header(file, size)
    if dtype.hasobject:
        raise object_array(str(path))
    refuse_bomb(path, math.prod(shape) * dtype.itemsize, SAVE)
    with reading(path, SAVE):
        array: Array = np.load(path, allow_pickle=False)
        return array
