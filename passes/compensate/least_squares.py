"""Least squares with a penalty that is chosen on held-back rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from graft.passes.compensate.systems import Equations, System, system_of
from graft.rewriter.arrays import Array, Single

OPEN = (-np.inf, np.inf)
"""Limits that are none."""
USUAL = 1e-1
"""The penalty of a rough fit."""
JUDGED = 64
"""Outputs of a group by which its penalty is chosen, evenly spaced where there are more."""
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
    for each group by itself. The penalty is the one of :data:`.systems.PENALTIES` with the least error on the
    second half of the rows, fitted on the first; then all rows are fitted. Where ``made`` lies outside of
    ``limits`` a value beyond the same limit is no error: in turns, such targets are set to what is
    predicted, and the weights are solved for again.

    Args:
        read: float32 (groups, rows, columns); may be overwritten.
        made: float32 (groups, rows, outputs).
        beside: float32 (groups, rows or 1, outputs): what is added to the outputs.
        share: float32 (rows,): weights that add up to 1.
        old: float32 (groups, outputs, columns).
        limits: least and largest value that the activation behind lets pass.
        rough: one turn between targets and weights, and :data:`USUAL` as the penalty.
    """
    base = read @ old.swapaxes(1, 2)
    base += beside
    system = system_of(read, share)
    some = slice(None, None, -(-made.shape[2] // JUDGED))
    penalty = np.full(len(read), USUAL) if rough else system.penalty(made[..., some] - base[..., some])
    equations = system.factored(penalty)
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
            targets = partial(aimed, step, system.offset(step, constant))
            step, constant = _solved(system, equations, *system.cross_of_made(targets, made.shape[2]))
    return Solution(step, constant, system)


def _solved(system: System, equations: Equations, cross: Array, mean: Single) -> tuple[Single, Single]:
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
