"""Units of a recurrent layer that a class does not need, as published by Imtiaz et al. (ICSE 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.arrays import Integers, Scores

OUTLIER = 2.0
"""Times the median distance from the median; what lies further out does not count."""
NEARLY = 1.1
"""The code: beyond the cap a unit goes, too, whose difference is the least one over less than this."""


def central_tendency(values: NDArray[Any]) -> Scores:
    """Return the mean absolute value of each column without outliers: (rows, units) to (units,)."""
    size = np.abs(values.astype(np.float64))
    away = np.abs(size - np.median(size, axis=0))
    usual = away < OUTLIER * np.median(away, axis=0)
    usual |= ~usual.any(axis=0)  # where half of the values are equal
    mean: Scores = np.where(usual, size, 0).sum(axis=0) / usual.sum(axis=0)
    return mean


def opening(values: NDArray[Any]) -> Scores:
    """Return the share of rows where each column is half open: (rows, units) to (units,)."""
    return np.asarray((np.abs(values) >= 0.5).mean(axis=0))


def removed_units(difference: Scores, cap: float, nearly: bool) -> Integers:
    """Choose units whose tendency is less for the class than for the others, the least first.

    Args:
        difference: float64 (units,), tendency for the class less that for the others.
        cap: share of the units at which no more are taken.
        nearly: beyond the cap take those that differ as much as the first nearly (:data:`NEARLY`).

    Returns:
        int64 (n,), in the order of removal.
    """
    order = np.argsort(difference, kind="stable")
    removed: list[int] = []
    for unit in order:
        value, least = difference[unit], difference[order[0]]
        below = len(removed) < cap * len(difference)
        if value < 0 and (below or (nearly and least / value < NEARLY)):
            removed.append(int(unit))
    return np.asarray(removed, np.int64)


def walk_gates(differences: Sequence[Scores], cap: float) -> list[tuple[int, int, bool]]:
    """Return the order in which the gates of units are removed or kept, one common order for all.

    Args:
        differences: float64 (units,) of each gate; equal ones stay in the order of the gates.
        cap: share of the units of one gate at which no more of them are taken.

    Returns:
        Gate, unit, and whether it is removed.
    """
    units = len(differences[0])
    removed = [0] * len(differences)
    found = []
    together = np.concatenate(differences)
    for node in np.argsort(together, kind="stable"):
        gate, unit = divmod(int(node), units)
        goes = bool(together[node] < 0) and removed[gate] < cap * units
        removed[gate] += goes
        found.append((gate, unit, goes))
    return found
