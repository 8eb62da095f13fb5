"""Least squares with a penalty that is chosen on held-back rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graft.rewriter.arrays import Single, Table
from graft.rewriter.numerics import ridge, solve

OPEN = (-np.inf, np.inf)
"""Limits that are none."""
PENALTIES = (1e-5, 1e-3, 1e-2, 1e-1, 1.0)
"""Relative to the mean variance of what is read."""
ROUNDS = 4
"""Between targets and weights, where activations are flat; more make it no better."""


def correction(
    read: Single,
    made: Single,
    beside: Single,
    share: Single,
    old: Single,
    limits: tuple[float, float] = OPEN,
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
    """
    base = read @ old.swapaxes(1, 2) + beside
    system = System(read, share)
    equations = system.penalised(system.penalty(made - base))
    target = made
    for turn in range(ROUNDS + 1):
        cross, mean = system.cross(target - base)
        step = solve(equations, cross).swapaxes(1, 2).astype(np.float32)
        constant = (mean - system.mean @ step.swapaxes(1, 2))[:, 0]
        if turn == ROUNDS or limits == OPEN:
            break
        predicted = read @ step.swapaxes(1, 2)
        predicted += base
        predicted += constant[:, None]
        target = _beyond(made, predicted, limits)
    return Solution(step, constant, system)


def _beyond(made: Single, predicted: Single, limits: tuple[float, float]) -> Single:
    """Return ``made``, but where that lies outside of ``limits`` what is predicted beyond the same limit."""
    target, (low, high) = made, limits
    if np.isfinite(low):
        target = np.where(made <= low, np.minimum(predicted, np.float32(low)), target)
    if np.isfinite(high):
        target = np.where(made >= high, np.maximum(predicted, np.float32(high)), target)
    return target


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
        self._share: Single = (share / max(float(share.sum()), 1e-30))[None, None, :]
        self._root: Single = np.sqrt(self._share).reshape(1, -1, 1)
        self._rows, self.mean = self._weighted(read)
        half = read.shape[1] // 2
        self._parts = (slice(0, half), slice(half, None))
        # a matrix times itself: BLAS computes one half of what is symmetric
        self._halves = [_products(self._rows[:, part], self._rows[:, part]) for part in self._parts]
        self.gram: Table = sum(self._halves, np.zeros(()))

    def _weighted(self, values: Single) -> tuple[Single, Single]:
        """Return ``values`` (groups, rows, numbers), centred and times the roots of the weights; the mean."""
        mean: Single = self._share @ values
        found: Single = values - mean
        return np.multiply(found, self._root, out=found), mean

    def cross(self, target: Single) -> tuple[Table, Single]:
        """Return ``read' target`` (groups, columns, outputs), centred, and the mean of ``target``."""
        weighted, mean = self._weighted(target)
        return _products(self._rows, weighted), mean

    def penalised(self, penalty: Table) -> Table:
        """Return ``gram + penalty * mean variance``, for each group the penalty relative to its variance."""
        shifts: Table = (penalty * _variance(self.gram))[:, None, None] * np.eye(self.gram.shape[-1])
        return self.gram + shifts

    def penalty(self, target: Single) -> Table:
        """Return for each group the penalty that errs least on the second half, fitted on the first."""
        half = target.shape[1] // 2
        if half < 2:
            return np.full(len(target), PENALTIES[-1])
        weighted, _ = self._weighted(target)
        fitted, held = (_products(self._rows[:, part], weighted[:, part]) for part in self._parts)
        errors = []
        for penalty in PENALTIES:
            step = ridge(self._halves[0], fitted, penalty * _variance(self._halves[0]))
            errors.append(
                ((self._halves[1] @ step) * step).sum(axis=(1, 2)) - 2 * (held * step).sum(axis=(1, 2))
            )
        chosen: Table = np.asarray(PENALTIES)[np.argmin(errors, axis=0)]
        return chosen


def _products(left: Single, right: Single) -> Table:
    """Return ``left' right`` of each group."""
    found: Table = (left.swapaxes(1, 2) @ right).astype(np.float64)
    return found


def _variance(gram: Table) -> Table:
    """Return the mean variance of what each group reads, (groups,)."""
    mean: Table = np.maximum(np.trace(gram, axis1=1, axis2=2) / gram.shape[-1], 1e-12)
    return mean
