"""Least squares with a penalty that is chosen on held-back rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from graft.rewriter.arrays import Single, Table
from graft.rewriter.numerics import LARGE, Factored, ridge, with_penalty

OPEN = (-np.inf, np.inf)
"""Limits that are none."""
PENALTIES = (1e-5, 1e-3, 1e-2, 1e-1, 1.0)
"""Relative to the mean variance of what is read."""
USUAL = 1e-1
"""The penalty of a rough fit."""
JUDGED = 64
"""Outputs of a group by which its penalty is chosen, evenly spaced where there are more."""
AT_ONCE = 1 << 25
"""Rows of more numbers are multiplied in pieces."""
MANY = 1 << 23
"""The mean of more numbers is left to BLAS."""
CACHED = 1 << 19
"""Numbers of targets that are made at once, where there are many."""
ROUNDS = 4
"""Between targets and weights, where activations are flat; more make it no better."""


def correction(
    read: Single,
    made: Single,
    beside: Single,
    share: Single,
    old: Single,
    limits: tuple[float, float] = OPEN,
    rough: bool = False,
) -> Solution:
    """Return what to add to the weights ``old``, and the constant, so that ``made`` is met.

    Minimises ``sum_r share_r |made_r - beside_r - (old + step) read_r - constant|^2 + penalty |step|^2``,
    for each group by itself. The penalty is the one of :data:`PENALTIES` with the least error on the
    second half of the rows, fitted on the first; then all rows are fitted. Where ``made`` lies outside of
    ``limits`` a value beyond the same limit is no error: in turns, such targets are set to what is
    predicted, and the weights are solved for again.

    Args:
        read: float32 (groups, rows, columns).
        made: float32 (groups, rows, outputs).
        beside: float32 (groups, rows or 1, outputs): what is added to the outputs.
        share: float32 (rows,): weights that add up to 1.
        old: float32 (groups, outputs, columns).
        limits: least and largest value that the activation behind lets pass.
        rough: one turn between targets and weights, and :data:`USUAL` as the penalty.
    """
    base = read @ old.swapaxes(1, 2)
    base += beside
    system = System(read, share)
    some = slice(None, None, -(-made.shape[2] // JUDGED))
    penalty = np.full(len(read), USUAL) if rough else system.penalty(made[..., some] - base[..., some])
    equations = Factored(system.penalised(penalty))
    step, constant = _solved(system, equations, *system.cross(made - base))
    if limits != OPEN:
        least, most = _missing(made, base, limits)
        del base

        def aimed(step: Single, constant: Single, part: slice) -> Single:
            left: Single = read[:, part] @ step.swapaxes(1, 2)
            left += constant[:, None]
            np.minimum(left, most[:, part], out=left)
            return np.maximum(left, least[:, part], out=left)

        for _ in range(1 if rough else ROUNDS):
            targets = partial(aimed, step, constant)
            step, constant = _solved(system, equations, *system.cross_of_made(targets, made.shape[2]))
    return Solution(step, constant, system)


def _solved(system: System, equations: Factored, cross: Table, mean: Single) -> tuple[Single, Single]:
    """Return step and constant for a right side, see :meth:`System.cross`."""
    step: Single = equations.solve(cross).swapaxes(1, 2).astype(np.float32)
    return step, (mean - system.mean @ step.swapaxes(1, 2))[:, 0]


def _missing(made: Single, base: Single, limits: tuple[float, float]) -> tuple[Single, Single]:
    """Return the least and the most that ``base`` lacks: between the limits of the activation the same.

    Args:
        made: float32 (groups, rows, outputs).
        base: of the same shape.
        limits: least and largest value that passes; beyond each, any value beyond it is right.
    """
    low, high = (np.float32(limit) for limit in limits)
    least, most = made - base, np.clip(made, low, high)
    most -= base
    np.putmask(least, made <= low, -np.inf)
    if np.isfinite(high):
        np.putmask(least, made >= high, high - base)
        np.putmask(most, made >= high, np.inf)
    return least, most


@dataclass(frozen=True)
class Solution:
    """Corrections that :func:`correction` found.

    Attributes:
        step: what to add to the weights, (groups, outputs, columns).
        constant: the offsets, (groups, outputs).
        system: the equations, to be solved for other targets.
    """

    step: Single
    constant: Single
    system: System


class System:
    """The normal equations of some rows, ready to be solved for several targets.

    Args:
        read: float32 (groups, rows, columns).
        share: float32 (rows,): weights.

    Attributes:
        mean: of what is read, (groups, 1, columns).
        gram: of what is read around its mean, (groups, columns, columns).
    """

    def __init__(self, read: Single, share: Single) -> None:
        self._share: Single = (share / max(float(share.sum()), 1e-30))[None, :, None]
        groups, rows, columns = read.shape
        self._step = rows if read.size <= AT_ONCE else max(1, AT_ONCE // (2 * groups * columns))
        self.mean: Single = self._mean_of(read)
        self._kept = self._whole(read) if self._step >= rows else None
        self._read = read if self._kept is None else None
        half = rows // 2
        self._parts = (slice(0, half), slice(half, rows))
        self._halves = [self._gram(part) for part in self._parts]
        self.gram: Table = sum(self._halves, np.zeros(()))

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

    def _whole(self, read: Single) -> tuple[Single, Single]:
        """Return all rows around their mean, and the same times their weights."""
        centred = read - self.mean
        return centred, centred * self._share

    def _gram(self, part: slice) -> Table:
        """Return ``read' read`` of some rows: of many columns one half, which BLAS mirrors."""
        found: Table | None = None
        for piece in _pieces(part, self._step):
            if self._kept is not None and self._kept[0].shape[-1] <= LARGE:
                weighted, centred = self._kept[1][:, piece], self._kept[0][:, piece]
            else:
                weighted = centred = self._weighted(piece, np.sqrt(self._share[:, piece]))
            made: Table = (weighted.swapaxes(1, 2) @ centred).astype(np.float64)
            found = made if found is None else found + made
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

    def cross(self, target: Single) -> tuple[Table, Single]:
        """Return ``read' target`` (groups, columns, outputs), centred, and the mean of ``target``.

        ``target`` is overwritten: large arrays are not made twice.
        """
        mean = self._mean_of(target)
        target -= mean
        return self._products(slice(0, target.shape[1]), target), mean

    def cross_of_made(self, make: Callable[[slice], Single], outputs: int) -> tuple[Table, Single]:
        """Return the same for targets that are made some rows at a time: many at once leave the caches.

        Args:
            make: returns the targets of some rows, (groups, rows, outputs).
            outputs: of each group.
        """
        groups, rows = len(self.gram), self._share.shape[1]
        if groups * rows * outputs <= MANY:
            return self.cross(make(slice(0, rows)))
        mean: Table = np.zeros((groups, 1, outputs))
        cross: Table = np.zeros((groups, self.gram.shape[-1], outputs))
        for part in _pieces(slice(0, rows), max(1, CACHED // (groups * outputs))):
            target = make(part)
            mean += self._share[:, part].swapaxes(1, 2) @ target
            cross += self._products(part, target)
        return cross, mean.astype(np.float32)

    def cross_of_first(self, target: Single) -> tuple[Table, Single]:
        """Return the same for targets of the first rows only: an estimate of what all rows give."""
        rows = target.shape[1]
        if rows == self._share.shape[1]:
            return self.cross(target)
        total = float(self._share[:, :rows].sum())
        mean: Single = (self._share[:, :rows] * target).sum(axis=1, keepdims=True) / np.float32(total)
        target -= mean
        return self._products(slice(0, rows), target) / total, mean

    def penalised(self, penalty: Table) -> Table:
        """Return ``gram + penalty * mean variance``, for each group the penalty relative to its variance."""
        return with_penalty(self.gram, penalty * _variance(self.gram))

    def penalty(self, target: Single) -> Table:
        """Return for each group the penalty that errs least on the second half, fitted on the first.

        ``target`` is overwritten. Asked for once: the equations of the halves are dropped.
        """
        half = target.shape[1] // 2
        if half < 2:
            return np.full(len(target), PENALTIES[-1])
        target -= self._mean_of(target)
        fitted, held = (self._products(part, target[:, part]) for part in self._parts)
        errors: list[Table] = []  # of large penalties first: in large systems no more are tried than need be
        for penalty in reversed(PENALTIES):
            step = ridge(self._halves[0], fitted, penalty * _variance(self._halves[0]))
            errors.insert(
                0, ((self._halves[1] @ step) * step).sum(axis=(1, 2)) - 2 * (held * step).sum(axis=(1, 2))
            )
            if len(fitted[0]) > LARGE and len(errors) > 1 and (errors[0] > errors[1]).all():
                break
        self._halves.clear()
        chosen: Table = np.asarray(PENALTIES[-len(errors) :])[np.argmin(errors, axis=0)]
        return chosen


def _pieces(part: slice, rows: int) -> list[slice]:
    """Return ``part`` in pieces of so many rows; of an empty one a piece, too."""
    starts = range(part.start, max(part.stop, part.start + 1), rows)
    return [slice(start, min(part.stop, start + rows)) for start in starts]


def _variance(gram: Table) -> Table:
    """Return the mean variance of what each group reads, (groups,)."""
    mean: Table = np.maximum(np.trace(gram, axis1=1, axis2=2) / gram.shape[-1], 1e-12)
    return mean
