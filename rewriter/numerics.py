"""Linear systems of least squares, solved in one way everywhere; no inverse is ever formed.

In numpy, whose BLAS computes all products here, too: small ones by elimination (gesv of LAPACK), large
ones by Cholesky, which takes half the operations, with a substitution in blocks. scipy, which has the
latter, brings a BLAS of its own, whose threads compete with those of numpy's: within a refit every small
factorisation took 25 times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graft.rewriter.arrays import Array, Table

LARGE = 256
"""Rows of a system beyond which it is factored."""
HUGE = 2048
"""Rows of a system beyond which it is factored in its own place: LAPACK takes two copies for that."""
BLOCK = 256


class Factored:
    """A symmetric positive definite matrix, or a stack of them, to be solved for several right sides.

    Args:
        matrix: (size, size), or (groups, size, size).
        own: a large one in double precision may be overwritten.
    """

    def __init__(self, matrix: Array, own: bool = False) -> None:
        self._matrix = np.asarray(matrix, np.float64)
        self._lower: Table | None = None
        size = self._matrix.shape[-1]
        if size > LARGE:
            try:
                if size > HUGE:
                    whole = self._matrix if own or self._matrix is not matrix else self._matrix.copy()
                    self._lower = _factor(whole)
                else:
                    self._lower = np.asarray(np.linalg.cholesky(self._matrix), np.float64)
                self._matrix = self._lower  # large matrices are not held twice
            except np.linalg.LinAlgError:  # not finite, or not quite positive: elimination takes it
                self._lower = None

    def solve(self, right: Array) -> Table:
        """Return ``x`` with ``matrix @ x = right``, in double precision.

        Args:
            right: (size,) or (size, columns); for a stack (groups, size, columns).
        """
        right = np.asarray(right, np.float64)
        if not right.size:
            return np.zeros(right.shape)
        if self._lower is None:
            try:
                return np.asarray(np.linalg.solve(self._matrix, right))
            except np.linalg.LinAlgError:  # singular: no numbers that anybody could use
                return np.full(right.shape, np.nan)
        found = right[:, None].copy() if right.ndim == 1 else right.copy()
        _substitute(self._lower, found)
        return found.reshape(right.shape)


def _factor(matrix: Table) -> Table:
    """Return the lower factor of Cholesky in the place of a matrix, in blocks of columns, from the left.

    Blocks above the diagonal stay as they are. A matrix that is not positive definite is left whole.

    Raises:
        LinAlgError: it is not positive definite.
    """
    size, diagonal = matrix.shape[-1], list[Table]()
    parts = [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]
    for part in parts:
        here, before, behind = matrix[..., part, part], slice(0, part.start), slice(part.stop, size)
        left = matrix[..., part, before].swapaxes(-1, -2)
        diagonal.append(here.copy())
        try:
            here[:] = np.linalg.cholesky(here - matrix[..., part, before] @ left)
        except np.linalg.LinAlgError:
            for place, block in zip(parts, diagonal, strict=False):
                matrix[..., place, place] = block
                above = matrix[..., place, place.stop :]
                matrix[..., place.stop :, place] = above.swapaxes(-1, -2)
            raise
        rows = matrix[..., behind, part]
        rows -= matrix[..., behind, before] @ left
        rows[:] = np.linalg.solve(here, rows.swapaxes(-1, -2)).swapaxes(-1, -2)
    return matrix


def _substitute(lower: Table, found: Table) -> None:
    """Solve ``lower @ lower' @ x = found`` in place."""
    size = lower.shape[-1]
    parts = [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]
    for part in parts:
        before = slice(0, part.start)
        found[..., part, :] -= lower[..., part, before] @ found[..., before, :]
        found[..., part, :] = np.linalg.solve(lower[..., part, part], found[..., part, :])
    for part in reversed(parts):
        behind = slice(part.stop, size)
        found[..., part, :] -= lower[..., behind, part].swapaxes(-1, -2) @ found[..., behind, :]
        upper = lower[..., part, part].swapaxes(-1, -2)
        found[..., part, :] = np.linalg.solve(upper, found[..., part, :])


def solve(matrix: Array, right: Array) -> Table:
    """Return ``x`` with ``matrix @ x = right``, in double precision.

    It is not finite where the matrix is not, or where it is singular.

    Args:
        matrix: symmetric positive definite (size, size), or a stack (groups, size, size).
        right: (size,) or (size, columns); for a stack (groups, size, columns).
    """
    if not np.size(right):
        return np.zeros(np.shape(right))
    return Factored(matrix).solve(right)


def ridge(gram: Array, right: Array, penalty: Any) -> Table:
    """Return the solution ``x`` of ``(gram + penalty * identity) x = right``, in double precision.

    These are the normal equations of least squares with ``penalty`` on the squared coefficients (Hoerl and
    Kennard 1970).

    Args:
        gram: symmetric (size, size), or a stack (groups, size, size).
        right: (size,) or (size, columns); for a stack (groups, size, columns).
        penalty: above 0; for a stack one number, or (groups,).
    """
    if not np.size(right):
        return np.zeros(np.shape(right))
    return Factored(with_penalty(gram, penalty), own=True).solve(right)


def with_penalty(gram: Array, penalty: Any) -> Table:
    """Return ``gram + penalty * identity``, float64, in no more memory than that takes.

    Args:
        gram: symmetric (size, size), or a stack (groups, size, size).
        penalty: one number; for a stack it may be (groups,).
    """
    penalty = np.asarray(penalty, np.float64)[..., None]
    found: Table = np.add(gram, 0.0 * penalty[..., None], dtype=np.float64)  # infinity leaves no number
    diagonal = np.arange(found.shape[-1])
    found[..., diagonal, diagonal] += penalty
    return found
