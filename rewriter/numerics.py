"""Linear systems with symmetric positive definite matrices, solved in one way everywhere: by Cholesky.

No inverse is ever formed where a solution is wanted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg

from graft.rewriter.arrays import Array, Table

Factor = tuple[Array, bool]


class Cholesky:
    """One factorisation of a symmetric positive definite matrix, or of a stack, for several right-hand sides.

    A matrix that rounding made indefinite is solved by elimination instead; one that is not finite has
    solutions that are not finite.

    Args:
        matrix: (size, size) or (groups, size, size).
    """

    def __init__(self, matrix: Array) -> None:
        stack = np.asarray(matrix, np.float64)
        self._stack: Table = stack[None] if stack.ndim == 2 else stack
        self._factors = [_factor(each) for each in self._stack]

    def solve(self, right: Array) -> Table:
        """Return ``x`` with ``matrix @ x = right``, in double precision.

        Args:
            right: (size,) or (size, columns); for a stack (groups, size, columns).
        """
        parts = np.asarray(right, np.float64)
        parts = parts[None] if parts.ndim < 3 else parts
        found = [
            _solve(matrix, factor, part)
            for matrix, factor, part in zip(self._stack, self._factors, parts, strict=True)
        ]
        return np.stack(found).reshape(right.shape)


def ridge(gram: Array, right: Array, penalty: Any) -> Table:
    """Return the solution ``x`` of ``(gram + penalty * identity) x = right``, in double precision.

    These are the normal equations of least squares with ``penalty`` on the squared coefficients (Hoerl and
    Kennard 1970).

    Args:
        gram: symmetric (size, size), or a stack (groups, size, size).
        right: (size,) or (size, columns); for a stack (groups, size, columns).
        penalty: above 0; for a stack one number, or (groups,).
    """
    shifts = np.asarray(penalty, np.float64)[..., None, None] * np.eye(gram.shape[-1])
    return Cholesky(gram + shifts).solve(right)


def _factor(matrix: Table) -> Factor | None:
    if not (matrix.size and np.isfinite(matrix).all()):
        return None
    try:
        factor: Factor = linalg.cho_factor(matrix, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    return factor


def _solve(matrix: Table, factor: Factor | None, right: Table) -> Table:
    if not right.size:
        return np.zeros(right.shape)
    if factor is not None:
        return np.asarray(linalg.cho_solve(factor, right, check_finite=False))
    if not np.isfinite(matrix).all():
        return np.full(right.shape, np.nan)
    return np.asarray(np.linalg.solve(matrix, right))
