"""Fit a layer to what the layer behind it has to make: two-layer reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from graft.passes.compensate.layer import CutAndParent, Fitted, Layer, Rows, flat
from graft.passes.compensate.least_squares import System
from graft.rewriter.arrays import Single, Table
from graft.rewriter.numerics import solve
from graft.rewriter.operators.base import is_constant
from graft.rewriter.run.linear_map import LinearMap
from graft.rewriter.run.staged import ROOM

PENALTY = 1e-3
"""Relative to the mean variance of what is read."""


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
        self.first, self.second = first, second
        model, device = sides.model, sides.device
        self._maps = (LinearMap(first.node, model, device), LinearMap(second.node, model, device))
        self._taken: list[tuple[Mapping[str, Single], Mapping[str, Single]]] = []
        self._bytes = 0

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
        """Return the tensors of the cut model that the pair takes."""
        return [self.first.node.inputs[0].name, *self.second.reads()[1:]]

    def add(self, cut: Mapping[str, Single], uncut: Mapping[str, Single]) -> None:
        """Take a batch in, tensors of the cut model and of the parent."""
        self._bytes += sum(array.nbytes for array in (*cut.values(), *uncut.values()))
        self._taken.append((cut, uncut))
        if self._bytes > ROOM // 2:
            self._taken.clear()

    def move(self, rows: Rows, fitted: Fitted) -> Fitted | None:
        """Return the first layer where the second is best; ``None`` where there is no room for all samples.

        Args:
            rows: what the first layer reads.
            fitted: the first layer so far.
        """
        if not self._taken:
            return None
        batches = self._batches(rows)
        constant = self.first.beside.values if self.first.beside is not None else np.float32(0)
        for batch in batches:
            made = self._maps[0].forward(batch.read, fitted.coefficients, fitted.offset)
            batch.made = (made + constant).astype(np.float32)
        behind = self._reader(batches, rows)
        for batch in batches:
            self._miss(batch, behind)
        turn, shift = self._direction(batches, rows, fitted.system, behind)
        length = self._length(batches, turn, shift, behind)
        if not length:
            return fitted
        return replace(
            fitted,
            coefficients=fitted.coefficients + length * turn,
            offset=fitted.offset + length * shift,
        )

    def _batches(self, rows: Rows) -> list[_Batch]:
        batches, start = [], 0
        for cut, uncut in self._taken:
            target, beside = self.second.wanted(cut, uncut)
            read = cut[self.first.node.inputs[0].name].astype(np.float32, copy=False)
            share = rows.weights[start : start + len(read)]
            batches.append(_Batch(cut, uncut, read, target.astype(np.float32, copy=False), beside, share))
            start += len(read)
        return batches

    def _reader(self, batches: list[_Batch], rows: Rows) -> Fitted:
        """Fit the second layer to the first as it is now."""
        behind, name = Rows(self.second, rows.draw, rows.weights), self.second.node.inputs[0].name
        for batch in batches:
            behind.add({**batch.cut, name: np.clip(batch.made, *self.first.limits)}, batch.uncut)
        return behind.solve()

    def _miss(self, batch: _Batch, behind: Fitted) -> None:
        """Note what the second layer lacks; nothing where its target and it are beyond the same limit."""
        batch.open = _inside(batch.made, self.first.limits)
        active = np.clip(batch.made, *self.first.limits)
        made = self._maps[1].forward(active, behind.coefficients, behind.offset)
        if batch.beside is not None:
            made += batch.beside
        (least, most), target = self.second.limits, batch.target
        batch.counts = np.ones_like(made)
        for limit, beyond in ((least, np.less_equal), (most, np.greater_equal)):
            if np.isfinite(limit):
                batch.counts -= beyond(target, limit) & beyond(made, limit)
        never = np.isneginf(target)  # a class that is masked
        batch.counts[never] = 0
        batch.error = np.clip(target, least, most)
        batch.error = np.subtract(batch.error, made, out=np.zeros_like(made), where=~never)
        batch.error *= batch.counts

    def _direction(
        self, batches: list[_Batch], rows: Rows, system: System, behind: Fitted
    ) -> tuple[Table, Table]:
        """Return where coefficients and offset of the first layer should go."""
        axis, back = self.first.operator.made_axis, []
        for batch, places in zip(batches, rows.places, strict=True):
            carried = self._maps[1].back(batch.error, behind.coefficients, batch.made.shape[1:]) * batch.open
            back.append(flat(carried, axis, places))
        cross, mean = system.cross(rows.apart(np.concatenate(back)))
        penalty = np.full(len(system.gram), PENALTY)
        solved = solve(system.penalised(penalty), cross)
        return solved.swapaxes(1, 2), (mean - system.mean @ solved).reshape(-1).astype(np.float64)

    def _length(self, batches: list[_Batch], turn: Table, shift: Table, behind: Fitted) -> float:
        """Return how far: the error is a parabola along the way, but for what passes a limit."""
        gain = spread = 0.0
        for batch in batches:
            moved = self._maps[0].forward(batch.read, turn, shift) * batch.open
            met = self._maps[1].forward(moved, behind.coefficients) * batch.counts
            gain += batch.dot(met, batch.error)
            spread += batch.dot(met, met)
        return gain / spread if np.isfinite(gain) and spread > 0 else 0.0


@dataclass
class _Batch:
    """Some samples.

    Attributes:
        cut: tensors of the cut model.
        uncut: tensors of the parent.
        read: by the first layer.
        target: of the second.
        beside: what is added to the second.
        share: weights of the samples.
        made: by the first layer.
        open: 1 where the activation behind passes changes on, else 0.
        error: of the second.
        counts: 1 where a change of the second matters, else 0.
    """

    cut: Mapping[str, Single]
    uncut: Mapping[str, Single]
    read: Single
    target: Single
    beside: Single | None
    share: Table
    made: Single = field(default_factory=lambda: np.zeros(0, np.float32))
    open: Single = field(default_factory=lambda: np.zeros(0, np.float32))
    error: Single = field(default_factory=lambda: np.zeros(0, np.float32))
    counts: Single = field(default_factory=lambda: np.zeros(0, np.float32))

    def dot(self, one: Single, other: Single) -> float:
        """Return the weighted product of two tensors of all samples."""
        return float(self.share @ (one * other).reshape(len(one), -1).sum(axis=1))


def _inside(values: Single, limits: tuple[float, float]) -> Single:
    """Return 1 where ``values`` lie between the limits, else 0."""
    inside = np.ones_like(values)
    for limit, beyond in zip(limits, (np.less_equal, np.greater_equal), strict=True):
        if np.isfinite(limit):
            inside -= beyond(values, limit)
    return inside
