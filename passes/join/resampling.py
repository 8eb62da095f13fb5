"""Resampling of images along one axis, as matrices: what filters of image files do, in any runtime.

``Resize`` means other things elsewhere: OpenVINO and MNN ignore its ``antialias``, tract lacks it, and no
operator set has all filters. A product with a constant matrix is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graft.rewriter.arrays import Integers, Table

CUBIC = -0.5
"""The coefficient of Pillow's bicubic filter."""


def _bilinear(apart: Table) -> Table:
    return np.asarray(np.maximum(1 - np.abs(apart), 0))


def _bicubic(apart: Table) -> Table:
    x = np.abs(apart)
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x**2 + 1
    far = ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(apart: Table) -> Table:
    return np.where(np.abs(apart) < 3, np.sinc(apart) * np.sinc(apart / 3), 0)


FILTERS: Mapping[str, Callable[[Table], Table]] = {
    "bilinear": _bilinear,
    "bicubic": _bicubic,
    "lanczos": _lanczos,
}
"""Filters of Pillow, by the distance in pixels; where images become smaller they are stretched."""


def resampling_matrix(size: int, wanted: int, interpolation: str) -> Table:
    """Return weights (wanted, size) whose rows sum to 1: the share of each old pixel in each new one.

    Args:
        size: pixels before.
        wanted: pixels after.
        interpolation: one of :data:`FILTERS`.
    """
    stretch = max(size / wanted, 1.0)
    apart = (np.arange(size) + 0.5 - _centers(size, wanted)[:, None]) / stretch
    weights = FILTERS[interpolation](apart)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def nearest_pixels(size: int, wanted: int) -> Integers:
    """Return for each new pixel the old one that its centre lies in (wanted,).

    Args:
        size: pixels before.
        wanted: pixels after.
    """
    return np.minimum(np.floor(_centers(size, wanted)).astype(np.int64), size - 1)


def _centers(size: int, wanted: int) -> Table:
    return (np.arange(wanted) + 0.5) * size / wanted
