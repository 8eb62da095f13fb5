"""Linear systems of least squares, solved in one way everywhere; no inverse is ever formed.

By elimination (gesv of LAPACK) in numpy, whose BLAS computes all products here, too. Cholesky would take
half the operations, but scipy, which has it, brings a BLAS of its own, whose threads compete with those of
numpy's: within a refit every small factorisation took 25 times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graft.rewriter.arrays import Array, Table


def solve(matrix: Array, right: Array) -> Table:
    """Return ``x`` with ``matrix @ x = right``, in double precision; not finite where the matrix is not.

    Args:
        matrix: symmetric positive definite (size, size), or a stack (groups, size, size).
        right: (size,) or (size, columns); for a stack (groups, size, columns).
    """
    matrix, right = np.asarray(matrix, np.float64), np.asarray(right, np.float64)
    if not right.size:
        return np.zeros(right.shape)
    found: Table = np.linalg.solve(matrix, right)
    return found


def ridge(gram: Array, right: Array, penalty: Any) -> Table:
    """Return the solution ``x`` of ``(gram + penalty * identity) x = right``, in double precision.

    These are the normal equations of least squares with ``penalty`` on the squared coefficients (Hoerl and
    Kennard 1970).

    Args:
        gram: symmetric (size, size), or a stack (groups, size, size).
        right: (size,) or (size, columns); for a stack (groups, size, columns).
        penalty: above 0; for a stack one number, or (groups,).
    """
    return solve(gram + np.asarray(penalty, np.float64)[..., None, None] * np.eye(gram.shape[-1]), right)
