"""Least squares with a penalty that is chosen on held-back rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Table = NDArray[np.float64]
OPEN = (-np.inf, np.inf)
"""Limits that are none."""
PENALTIES = (1e-5, 1e-3, 1e-2, 1e-1, 1.0)
"""Relative to the mean variance of what is read."""
ROUNDS = 4
"""Between targets and weights, where activations are flat; more make it no better."""


def correction(
    read: Array,
    made: Array,
    beside: Array,
    share: Array,
    old: Array,
    limits: tuple[float, float] = OPEN,
) -> tuple[Array, Array]:
    """What to add to the weights ``old``, and the constant, so that ``made`` is met.

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

    Returns:
        ``step`` (groups, outputs, columns) and ``constant`` (groups, outputs).
    """
    base = read @ old.swapaxes(1, 2) + beside
    half = read.shape[1] // 2
    penalty = _penalty(read, made - base, share, half)
    system = System(read, share)
    inverse, target = np.linalg.inv(system.penalised(penalty)), made
    for turn in range(ROUNDS + 1):
        cross, mean = system.cross(target - base)
        step = (inverse @ cross).swapaxes(1, 2).astype(np.float32)
        constant = (mean - system.mean @ step.swapaxes(1, 2))[:, 0]
        if turn == ROUNDS or limits == OPEN:
            break
        predicted = base + read @ step.swapaxes(1, 2) + constant[:, None]
        target = np.where(made <= limits[0], np.minimum(predicted, limits[0]), made)
        target = np.where(made >= limits[1], np.maximum(predicted, limits[1]), target)
    return step, constant


class System:
    """The normal equations of some rows, ready to be solved for several targets."""

    def __init__(self, read: Array, share: Array) -> None:
        self.share = (share / max(float(share.sum()), 1e-30))[None, :, None]
        self.mean = (self.share * read).sum(axis=1, keepdims=True)
        centred = read - self.mean
        self.weighed = centred * self.share
        self.gram = (self.weighed.swapaxes(1, 2) @ centred).astype(np.float64)

    def cross(self, target: Array) -> tuple[Table, Array]:
        """``read' target`` (groups, columns, outputs), centred, and the mean of ``target``."""
        mean = (self.share * target).sum(axis=1, keepdims=True)
        return (self.weighed.swapaxes(1, 2) @ (target - mean)).astype(np.float64), mean

    def penalised(self, penalty: Table) -> Table:
        """``gram + penalty * mean variance``."""
        columns = self.gram.shape[-1]
        scale = np.maximum(np.trace(self.gram, axis1=1, axis2=2) / columns, 1e-12)
        result: Table = self.gram + (penalty * scale)[:, None, None] * np.eye(columns)
        return result


def _penalty(read: Array, target: Array, share: Array, half: int) -> Table:
    """For each group the penalty that errs least on the rows from ``half`` on."""
    if half < 2:
        return np.full(len(read), PENALTIES[-1])
    one = System(read[:, :half], share[:half])
    cross, mean = one.cross(target[:, :half])
    held = read[:, half:] - one.mean
    weighed = held * (share[half:] / max(float(share[half:].sum()), 1e-30))[None, :, None]
    gram = (weighed.swapaxes(1, 2) @ held).astype(np.float64)
    across = (weighed.swapaxes(1, 2) @ (target[:, half:] - mean)).astype(np.float64)
    errors = []
    for penalty in PENALTIES:
        step = np.linalg.solve(one.penalised(np.full(len(read), penalty)), cross)
        errors.append(((gram @ step) * step).sum(axis=(1, 2)) - 2 * (across * step).sum(axis=(1, 2)))
    chosen: Table = np.asarray(PENALTIES)[np.argmin(errors, axis=0)]
    return chosen
