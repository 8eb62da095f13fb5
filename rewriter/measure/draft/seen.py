"""A look at raw samples: shape, type and range of what is to become an input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError

LOOKS = 64
"""Samples that are looked at; spread over the split."""
BRIGHT = 64
"""Images have a pixel that is as bright."""
FILES = 8
"""Files of images that are looked at, one by one: their sizes may differ."""


@dataclass(frozen=True)
class Seen:
    """Raw samples of one input.

    Attributes:
        shape: of one sample; of the first where they differ.
        dtype: of the array.
        low: the lowest number.
        high: the highest number.
        whole: all numbers are whole.
        varied: samples differ in their shape.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: float = 0.0
    high: float = 255.0
    whole: bool = True
    varied: bool = False

    @property
    def shares(self) -> bool:
        """Numbers from 0 to 1 with fractions: pixels that were divided already."""
        return self.dtype.kind == "f" and 0 <= self.low and self.high <= 1

    @property
    def levels(self) -> bool:
        """Numbers that can be the levels of pixels; those of resized images have fractions."""
        resized = len(self.shape) > 1 and self.high >= BRIGHT
        whole = self.dtype == np.uint8 or (self.dtype.kind in "iuf" and (self.whole or resized))
        return whole and self.low >= 0 and self.high > 1

    @property
    def channels(self) -> int | None:
        """Colours of a sample that is an image: 1, 3, or ``None`` where it is none."""
        if len(self.shape) == 2:
            return 1
        if len(self.shape) == 3:
            return next((self.shape[place] for place in (2, 0) if self.shape[place] in (1, 3)), None)
        return None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of a sample that is an image."""
        if len(self.shape) == 2:
            return self.shape[0], self.shape[1]
        if len(self.shape) != 3 or self.channels is None:
            return None
        last = self.shape[2] in (1, 3)
        return (self.shape[0], self.shape[1]) if last else (self.shape[1], self.shape[2])


def square(numbers: int) -> tuple[int, int] | None:
    """Return the side and the channels of square images of so many numbers, ``None`` where there are none."""
    for channels in (1, 3):
        side = math.isqrt(numbers // channels)
        if side >= 4 and side * side * channels == numbers:
            return side, channels
    return None


def look(part: Split | None) -> dict[str, Seen]:
    """Return what the samples of a split look like, by the names of the inputs ("": the only one).

    Raises:
        GraftError: as reading does.
    """
    if part is None:
        return {}
    indices = np.unique(np.linspace(0, len(part) - 1, min(LOOKS, len(part))).astype(np.int64))
    try:
        raw = part.raw(indices)
    except GraftError as error:
        if error.code != "data-shape":
            raise
        found = [part.raw([int(index)]) for index in indices[:: max(1, len(indices) // FILES)]]
        return {
            name: Seen(array.shape[1:], array.dtype, varied=len({each[name].shape for each in found}) > 1)
            for name, array in found[0].items()
        }
    return {name: _seen(array) for name, array in raw.items()}


def _seen(array: Array) -> Seen:
    if array.dtype.kind not in "buif" or not array.size:
        return Seen(array.shape[1:], array.dtype)
    whole = array.dtype.kind != "f" or bool((array == np.rint(array)).all())
    return Seen(array.shape[1:], array.dtype, float(np.nanmin(array)), float(np.nanmax(array)), whole)
