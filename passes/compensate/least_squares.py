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
    target, (low, high) = made, (np.float32(limit) for limit in limits)
    if np.isfinite(low):
        target = np.where(made <= low, np.minimum(predicted, low), target)
    if np.isfinite(high):
        target = np.where(made >= high, np.maximum(predicted, high), target)
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
        self._share: Single = (share / max(float(share.sum()), 1e-30))[None, :, None]
        self.mean: Single = (self._share * read).sum(axis=1, keepdims=True)
        self._centred = read - self.mean
        self._weighted = self._centred * self._share
        half = read.shape[1] // 2
        self._parts = (slice(0, half), slice(half, None))
        self._halves = [self._products(part, self._centred) for part in self._parts]
        self.gram: Table = sum(self._halves, np.zeros(()))

    def _products(self, part: slice, values: Single) -> Table:
        """Return ``read' values`` of some rows."""
        found: Table = (self._weighted[:, part].swapaxes(1, 2) @ values[:, part]).astype(np.float64)
        return found

    def cross(self, target: Single) -> tuple[Table, Single]:
        """Return ``read' target`` (groups, columns, outputs), centred, and the mean of ``target``.

        ``target`` is overwritten: large arrays are not made twice.
        """
        mean: Single = (self._share * target).sum(axis=1, keepdims=True)
        target -= mean
        return self._products(slice(None), target), mean

    def penalised(self, penalty: Table) -> Table:
        """Return ``gram + penalty * mean variance``, for each group the penalty relative to its variance."""
        shifts: Table = (penalty * _variance(self.gram))[:, None, None] * np.eye(self.gram.shape[-1])
        return self.gram + shifts

    def penalty(self, target: Single) -> Table:
        """Return for each group the penalty that errs least on the second half, fitted on the first.

        ``target`` is overwritten.
        """
        half = target.shape[1] // 2
        if half < 2:
            return np.full(len(target), PENALTIES[-1])
        target -= (self._share * target).sum(axis=1, keepdims=True)
        fitted, held = (self._products(part, target) for part in self._parts)
        errors = []
        for penalty in PENALTIES:
            step = ridge(self._halves[0], fitted, penalty * _variance(self._halves[0]))
            errors.append(
                ((self._halves[1] @ step) * step).sum(axis=(1, 2)) - 2 * (held * step).sum(axis=(1, 2))
            )
        chosen: Table = np.asarray(PENALTIES)[np.argmin(errors, axis=0)]
        return chosen


def _variance(gram: Table) -> Table:
    """Return the mean variance of what each group reads, (groups,)."""
    mean: Table = np.maximum(np.trace(gram, axis1=1, axis2=2) / gram.shape[-1], 1e-12)
    return mean
