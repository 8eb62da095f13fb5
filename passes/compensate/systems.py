"""Normal equations of least squares, ready to be solved for several targets: of columns, or of rows.

Rows ``Z`` of what is read, around their mean and times the roots of their weights, and targets ``t`` alike:
``(Z'Z + penalty) step = Z't``, of as many equations as columns, has the same solution as
``step = Z'a, (ZZ' + penalty) a = t``, of as many as rows (Saunders, Gammerman and Vovk 1998). The smaller
ones of a wide layer take a fraction of the memory and of the time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from graft.rewriter.arrays import Array, Single, Table
from graft.rewriter.numerics import HUGE, LARGE, Factored, with_penalty

PENALTIES = (1e-5, 1e-3, 1e-2, 1e-1, 1.0)
"""Relative to the mean variance of what is read."""
AT_ONCE = 1 << 25
"""Rows of more numbers are multiplied in pieces."""
MANY = 1 << 23
"""The mean of more numbers is left to BLAS."""
CACHED = 1 << 19
"""Numbers of targets that are made at once, where there are many."""
CHECKED = 512
"""Columns of a matrix in single precision that are taken to double precision at once."""


def by_rows(rows: int, columns: int) -> bool:
    """Return if the equations of a layer are those of its rows: of many columns, and fewer rows."""
    return columns > HUGE and rows < columns


def system_of(read: Single, share: Single) -> System:
    """Return the equations of some rows.

    Args:
        read: float32 (groups, rows, columns); overwritten where :func:`by_rows` says so.
        share: float32 (rows,): weights.
    """
    return RowSystem(read, share) if by_rows(*read.shape[1:]) else ColumnSystem(read, share)


class Equations(Protocol):
    """Equations with a penalty."""

    def solve(self, right: Array) -> Array:
        """Return the solution (groups, columns, outputs) for a right side that :class:`System` made."""
        ...


class System(ABC):
    """The equations of some rows.

    Args:
        read: float32 (groups, rows, columns).
        share: float32 (rows,): weights.

    Attributes:
        mean: of what is read, (groups, 1, columns).
    """

    def __init__(self, read: Single, share: Single) -> None:
        self._share: Single = (share / max(float(share.sum()), 1e-30))[None, :, None]
        self.groups, self._rows, self._columns = read.shape
        few = read.size <= AT_ONCE
        self._step = self._rows if few else max(1, AT_ONCE // (2 * self.groups * self._columns))
        self.mean: Single = self._mean_of(read)
        half = self._rows // 2
        self._parts = (slice(0, half), slice(half, self._rows))

    def _mean_of(self, values: Single) -> Single:
        """Return the weighted mean of rows, (groups, 1, ...)."""
        if len(values) == 1 and values.size > MANY:
            return np.asarray(self._share.swapaxes(1, 2) @ values)
        if values.shape[1] <= self._step:
            return np.asarray((self._share * values).sum(axis=1, keepdims=True))
        total: Table = np.zeros((len(values), 1, values.shape[2]))
        for piece in _pieces(slice(0, values.shape[1]), self._step):
            total += (self._share[:, piece] * values[:, piece]).sum(axis=1, keepdims=True)
        return total.astype(np.float32)

    def penalty(self, target: Single) -> Table:
        """Return for each group the penalty that errs least on the second half, fitted on the first.

        ``target`` is overwritten. Asked for once: the equations of the halves are dropped.
        """
        if target.shape[1] // 2 < 2:
            return np.full(len(target), PENALTIES[-1])
        target -= self._mean_of(target)
        errors: list[Table] = []  # of large penalties first: in large systems no more are tried than need be
        error, size = self._trial(target)
        for penalty in reversed(PENALTIES):
            errors.insert(0, error(penalty))
            if size > LARGE and len(errors) > 1 and (errors[0] > errors[1]).all():
                break
        chosen: Table = np.asarray(PENALTIES[-len(errors) :])[np.argmin(errors, axis=0)]
        return chosen

    @abstractmethod
    def _trial(self, target: Single) -> tuple[Callable[[float], Table], int]:
        """Return what gives the error of a penalty on the second half, and the number of equations.

        Args:
            target: around its mean.
        """

    @abstractmethod
    def factored(self, penalty: Table) -> Equations:
        """Return the equations of all rows with a penalty, ready to be solved.

        Args:
            penalty: for each group, relative to the mean variance of what it reads.
        """

    @abstractmethod
    def cross(self, target: Single) -> tuple[Array, Single]:
        """Return the right side for a target (groups, rows, outputs), and the mean of that.

        ``target`` is overwritten: large arrays are not made twice.
        """

    @abstractmethod
    def cross_of_made(self, make: Callable[[slice], Single], outputs: int) -> tuple[Array, Single]:
        """Return the same for targets that are made some rows at a time: many at once leave the caches.

        Args:
            make: returns the targets of some rows, (groups, rows, outputs).
            outputs: of each group.
        """

    def cross_of_first(self, target: Single) -> tuple[Array, Single]:
        """Return the same for targets of the first rows only: an estimate of what all rows give."""
        rows = target.shape[1]
        if rows == self._rows:
            return self.cross(target)
        total = float(self._share[:, :rows].sum())
        mean: Single = (self._share[:, :rows] * target).sum(axis=1, keepdims=True) / np.float32(total)
        target -= mean
        return self._right_of_first(target, total), mean

    @abstractmethod
    def _right_of_first(self, target: Single, total: float) -> Array:
        """Return the right side for targets of the first rows around their mean, of that total weight."""

    def offset(self, step: Single, constant: Single) -> Single:
        """Return the constant (groups, outputs) that belongs to what was read as it is now."""
        return constant


class ColumnSystem(System):
    """As many equations as columns.

    The matrices of more than :data:`~graft.rewriter.numerics.HUGE` columns are held in single precision, in
    which their products are made, and in double precision one at a time.
    """

    def __init__(self, read: Single, share: Single) -> None:
        super().__init__(read, share)
        self._kept = self._whole(read) if self._step >= self._rows else None
        self._read = read if self._kept is None else None
        self._halves = [self._gram_of(part) for part in self._parts]
        self._gram: Array | None = None
        if self._columns <= HUGE:
            self._gram = sum(self._halves, np.zeros(()))

    @property
    def gram(self) -> Array:
        """Of what is read around its mean, (groups, columns, columns)."""
        if self._gram is None:
            self._gram = self._halves.pop(0)
            self._gram += self._halves.pop()
        return self._gram

    def _whole(self, read: Single) -> tuple[Single, Single]:
        """Return all rows around their mean, and the same times their weights."""
        centred = read - self.mean
        return centred, centred * self._share

    def _gram_of(self, part: slice) -> Array:
        """Return ``read' read`` of some rows: of many columns one half, which BLAS mirrors."""
        found: Array | None = None
        for piece in _pieces(part, self._step):
            if self._kept is not None and self._kept[0].shape[-1] <= LARGE:
                weighted, centred = self._kept[1][:, piece], self._kept[0][:, piece]
            else:
                weighted = centred = self._weighted(piece, np.sqrt(self._share[:, piece]))
            made: Array = weighted.swapaxes(1, 2) @ centred
            if self._columns <= HUGE:
                made = made.astype(np.float64)
            found = made if found is None else np.add(found, made, out=found)
        return np.zeros(()) if found is None else found

    def _products(self, part: slice, values: Single) -> Table:
        """Return ``read' values`` of some rows.

        Args:
            part: the rows.
            values: (groups, rows of the part, outputs).
        """
        found: Table | None = None
        for piece in _pieces(part, self._step):
            if self._kept is not None:
                weighted = self._kept[1][:, piece]
            else:
                weighted = self._weighted(piece, self._share[:, piece])
            own = slice(piece.start - part.start, piece.stop - part.start)
            made: Table = (weighted.swapaxes(1, 2) @ values[:, own]).astype(np.float64)
            found = made if found is None else found + made
        return np.zeros(()) if found is None else found

    def _weighted(self, part: slice, weights: Single) -> Single:
        """Return some rows around their mean, times ``weights``."""
        if self._kept is not None:
            return np.asarray(self._kept[0][:, part] * weights)
        assert self._read is not None
        centred = self._read[:, part] - self.mean
        centred *= weights
        return centred

    def cross(self, target: Single) -> tuple[Array, Single]:
        """Return ``read' target`` (groups, columns, outputs), centred, and the mean of ``target``."""
        mean = self._mean_of(target)
        target -= mean
        return self._products(slice(0, target.shape[1]), target), mean

    def cross_of_made(self, make: Callable[[slice], Single], outputs: int) -> tuple[Array, Single]:
        """Return the same for targets that are made some rows at a time."""
        if self.groups * self._rows * outputs <= MANY:
            return self.cross(make(slice(0, self._rows)))
        mean: Table = np.zeros((self.groups, 1, outputs))
        cross: Table = np.zeros((self.groups, self._columns, outputs))
        for part in _pieces(slice(0, self._rows), max(1, CACHED // (self.groups * outputs))):
            target = make(part)
            mean += self._share[:, part].swapaxes(1, 2) @ target
            cross += self._products(part, target)
        return cross, mean.astype(np.float32)

    def _right_of_first(self, target: Single, total: float) -> Array:
        return self._products(slice(0, target.shape[1]), target) / total

    def factored(self, penalty: Table) -> Factored:
        """Return ``gram + penalty * mean variance``, factored."""
        gram = self.gram
        return Factored(with_penalty(gram, penalty * _variance(gram, self._columns)), own=True)

    def _trial(self, target: Single) -> tuple[Callable[[float], Table], int]:
        fitted, held = (self._products(part, target[:, part]) for part in self._parts)
        first, second = self._halves
        if self._gram is not None:
            self._halves.clear()

        def error(penalty: float) -> Table:
            matrix = with_penalty(first, penalty * _variance(first, self._columns))
            step = Factored(matrix, own=True).solve(fitted)
            del matrix
            found: Table = _squares(second, step) - 2 * (held * step).sum(axis=(1, 2))
            return found

        return error, self._columns


class RowSystem(System):
    """As many equations as rows; ``read`` is overwritten by what it is around its mean."""

    def __init__(self, read: Single, share: Single) -> None:
        super().__init__(read, share)
        read -= self.mean
        self._centred, self._roots = read, np.sqrt(self._share)
        self._gram: Single = read @ read.swapaxes(1, 2)
        self._gram *= self._roots
        self._gram *= self._roots.swapaxes(1, 2)

    def cross(self, target: Single) -> tuple[Array, Single]:
        """Return the target around its mean, times the roots of the weights, and the mean."""
        mean = self._mean_of(target)
        target -= mean
        target *= self._roots
        return target, mean

    def cross_of_made(self, make: Callable[[slice], Single], outputs: int) -> tuple[Array, Single]:
        """Return the same for targets that are made: all at once, as there are few."""
        return self.cross(make(slice(0, self._rows)))

    def _right_of_first(self, target: Single, total: float) -> Array:
        rows = target.shape[1]
        found: Single = np.zeros((len(target), self._rows, target.shape[2]), np.float32)
        found[:, :rows] = target * (self._roots[:, :rows] / np.float32(total))
        return found

    def offset(self, step: Single, constant: Single) -> Single:
        """Return the constant for what was read around its mean."""
        return np.asarray(constant + (self.mean @ step.swapaxes(1, 2))[:, 0])

    def factored(self, penalty: Table) -> Equations:
        """Return the equations of all rows with a penalty."""
        matrix = with_penalty(self._gram, penalty * _variance(self._gram, self._columns))
        return _RowEquations(Factored(matrix, own=True), self._centred, self._roots)

    def _trial(self, target: Single) -> tuple[Callable[[float], Table], int]:
        target = target * self._roots
        one, other = self._parts
        first = self._gram[:, one, one]

        def error(penalty: float) -> Table:
            matrix = with_penalty(first, penalty * _variance(first, self._columns))
            steps = Factored(matrix, own=True).solve(target[:, one])
            predicted = self._gram[:, other, one] @ steps.astype(np.float32)
            found: Table = (predicted * (predicted - 2 * target[:, other])).sum(axis=(1, 2), dtype=np.float64)
            return found

        return error, first.shape[-1]


@dataclass(frozen=True)
class _RowEquations:
    """The equations of rows with a penalty, and how columns follow from rows."""

    factored: Factored
    centred: Single
    roots: Single

    def solve(self, right: Array) -> Single:
        """Return the solution, (groups, columns, outputs)."""
        found = self.factored.solve(right).astype(np.float32)
        found *= self.roots
        return np.asarray(self.centred.swapaxes(1, 2) @ found)


def _squares(gram: Array, step: Table) -> Table:
    """Return ``step' gram step``, summed over the outputs, (groups,)."""
    if gram.dtype == np.float64:
        return np.asarray(((gram @ step) * step).sum(axis=(1, 2)))
    total = np.zeros(len(gram))
    for part in _pieces(slice(0, gram.shape[-1]), CHECKED):
        total += ((gram[:, part].astype(np.float64) @ step) * step[:, part]).sum(axis=(1, 2))
    return total


def _pieces(part: slice, rows: int) -> list[slice]:
    """Return ``part`` in pieces of so many rows; of an empty one a piece, too."""
    starts = range(part.start, max(part.stop, part.start + 1), rows)
    return [slice(start, min(part.stop, start + rows)) for start in starts]


def _variance(gram: Array, columns: int) -> Table:
    """Return the mean variance of what each group reads, (groups,)."""
    mean: Table = np.maximum(np.trace(gram, axis1=1, axis2=2, dtype=np.float64) / columns, 1e-12)
    return mean
