"""Fit a layer to what the layer behind it has to make: two-layer reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from graft.passes.compensate.layer import CutAndParent, Fitted, Layer, Rows, flat
from graft.passes.compensate.systems import System
from graft.rewriter.arrays import Mask, Single, Table
from graft.rewriter.operators.base import is_constant
from graft.rewriter.run.linear_map import LinearMap
from graft.rewriter.run.values import Values

PENALTY = 1e-3
"""Relative to the mean variance of what is read."""
ENOUGH = 1 << 27
"""Bytes of what both layers read and should make: of more samples the step is taken on the first ones, which
are drawn at random, as all are."""


class LayerPair:
    """Two layers of which only the second reads what the first makes, behind an activation or none.

    The error that the second leaves is carried back through its weights to where the activation is open;
    least squares on what the first reads says how much of this it can follow (Gauss-Newton with the Hessian
    as a Kronecker product: Martens and Grosse 2015); the first goes that way as far as leaves the least
    error, were no value to pass a limit. One such step does nearly all there is to do on samples that were
    held back; the second layer is refitted in its turn.

    Args:
        first: has been refitted.
        second: reads it.
        sides: the models that both are part of.
    """

    def __init__(self, first: Layer, second: Layer, sides: CutAndParent) -> None:
        self.first, self.second, self._sides = first, second, sides
        model, device = sides.model, sides.device
        self._maps = (LinearMap(first.node, model, device), LinearMap(second.node, model, device))
        self._target = Values(sides.room)
        self._beside = Values(sides.room)
        self._bytes = 0
        self._samples = 0

    @classmethod
    def find(cls, first: Layer, sides: CutAndParent) -> LayerPair | None:
        """Return the pair of ``first`` and its only reader; ``None`` where there is no such layer."""
        bias = first.beside is None or is_constant(first.beside)
        if not bias or first.reader is None:
            return None
        second = Layer.find(first.reader, sides)
        return cls(first, second, sides) if isinstance(second, Layer) else None

    @property
    def reads(self) -> list[str]:
        """Return the tensors of the cut model that the pair takes beside what the first layer does."""
        return self.second.reads()[1:]

    def add(self, cut: Mapping[str, Single], uncut: Mapping[str, Single]) -> None:
        """Take a batch in, tensors of the cut model and of the parent, while there are not enough."""
        self._bytes += sum(array.nbytes for array in (*cut.values(), *uncut.values()))
        if self._bytes > ENOUGH and self._samples:
            return
        target, beside = self.second.wanted(cut, uncut)
        self._samples += len(target)
        self._target.append(target.astype(np.float32, copy=False))
        if beside is not None and not is_constant(self.second.beside):
            self._beside.append(beside)

    def move(self, rows: Rows, fitted: Fitted) -> Fitted:
        """Return the first layer where the second is best.

        Args:
            rows: what the first layer reads.
            fitted: the first layer so far.
        """
        made = self._made(fitted)
        behind = self._reader(made, rows)
        misses = _Misses(*(Values(self._sides.room) for _ in range(2)))
        turn, shift = self._direction(made, misses, rows, fitted.system, behind)
        length = self._length(made, misses, turn, shift, behind)
        if not length:
            return fitted
        return replace(
            fitted,
            coefficients=fitted.coefficients + length * turn,
            offset=fitted.offset + length * shift,
        )

    def _read(self, number: int) -> Single:
        """Return what the first layer reads of a batch."""
        read = self._sides.cut.values(self.first.node.inputs[0].name)[number]
        return read.astype(np.float32, copy=False)

    def _made(self, fitted: Fitted) -> Values:
        """Return what the first layer makes."""
        made = Values(self._sides.room)
        constant = self.first.beside.values if self.first.beside is not None else np.float32(0)
        for number in range(len(self._target)):
            found = self._maps[0].forward(self._read(number), fitted.coefficients, fitted.offset)
            made.append((found + constant).astype(np.float32))
        return made

    def _reader(self, made: Values, rows: Rows) -> Fitted:
        """Fit the second layer to the first as it is now, to see what it will lack."""
        first = replace(self._sides, weights=self._sides.weights[: self._samples])
        behind = Rows(self.second, rows.draw, first, rough=True)
        for number in range(len(made)):
            active, target = np.clip(made[number], *self.first.limits), self._target[number]
            behind.add(active, target, self._summand(number, target))
        return behind.solve()

    def _summand(self, number: int, target: Single) -> Single | None:
        """Return what is added to the second layer, of the shape of its target."""
        if self.second.beside is None or not is_constant(self.second.beside):
            return self._beside[number] if len(self._beside) else None
        return np.broadcast_to(self.second.beside.values, target.shape)

    def _miss(self, number: int, made: Single, behind: Fitted) -> tuple[Single, Mask]:
        """Return what the second layer lacks, and where a change of it matters.

        It lacks nothing where its target and it are beyond the same limit, nor where a class is masked.
        """
        active = np.clip(made, *self.first.limits)
        found = self._maps[1].forward(active, behind.coefficients, behind.offset)
        target = self._target[number]
        beside = self._summand(number, target)
        if beside is not None:
            found += beside
        least, most = self.second.limits
        counts = np.ones(found.shape, bool)
        for limit, beyond in ((least, np.less_equal), (most, np.greater_equal)):
            if np.isfinite(limit):
                counts &= ~(beyond(target, limit) & beyond(found, limit))
        never = np.isneginf(target)
        counts &= ~never
        error = np.subtract(np.clip(target, least, most), found, out=np.zeros_like(found), where=~never)
        error *= counts
        return error, counts

    def _direction(
        self, made: Values, misses: _Misses, rows: Rows, system: System, behind: Fitted
    ) -> tuple[Table, Table]:
        """Return where coefficients and offset of the first layer should go; note what the second misses."""
        axis, back = self.first.operator.made_axis, []
        for number, places in enumerate(rows.places[: len(made)]):
            each = made[number]
            error, counts = self._miss(number, each, behind)
            carried = self._maps[1].back(error, behind.coefficients, each.shape[1:])
            carried *= _inside(each, self.first.limits)
            back.append(flat(carried, axis, places))
            misses.errors.append(error)
            misses.counts.append(counts)
        cross, mean = system.cross_of_first(rows.apart(np.concatenate(back)))
        solved = system.factored(np.full(system.groups, PENALTY)).solve(cross)
        return solved.swapaxes(1, 2), (mean - system.mean @ solved).reshape(-1).astype(np.float64)

    def _length(self, made: Values, misses: _Misses, turn: Table, shift: Table, behind: Fitted) -> float:
        """Return how far: the error is a parabola along the way, but for what passes a limit."""
        gain, spread, start = 0.0, 0.0, 0
        for number in range(len(made)):
            moved = self._maps[0].forward(self._read(number), turn, shift)
            moved *= _inside(made[number], self.first.limits)
            met = self._maps[1].forward(moved, behind.coefficients)
            met *= misses.counts[number]
            share = self._sides.weights[start : start + len(met)]
            gain += _dot(share, met, misses.errors[number])
            spread += _dot(share, met, met)
            start += len(met)
        return gain / spread if np.isfinite(gain) and spread > 0 else 0.0


@dataclass(frozen=True)
class _Misses:
    """What the second layer lacks, and where a change of it matters."""

    errors: Values
    counts: Values


def _dot(share: Table, one: Single, other: Single) -> float:
    """Return the weighted product of two tensors of all samples."""
    return float(share @ (one * other).reshape(len(one), -1).sum(axis=1))


def _inside(values: Single, limits: tuple[float, float]) -> Mask:
    """Return where ``values`` lie between the limits."""
    inside = np.ones(values.shape, bool)
    for limit, beyond in zip(limits, (np.less_equal, np.greater_equal), strict=True):
        if np.isfinite(limit):
            inside &= ~beyond(values, limit)
    return inside
