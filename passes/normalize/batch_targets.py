"""Targets of Reshape and Expand that let the batch through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from graft.rewriter.graph.shapes import Shape


@dataclass(frozen=True)
class NodeShapes:
    """The shapes of a node's input and output while the batch is fixed.

    Attributes:
        source: of the input.
        result: of the output.
        batch: number of samples.
    """

    source: Shape
    result: Shape
    batch: int = 1


def freed_target(op: str, target: Sequence[int], ends: NodeShapes, axis: int) -> list[int] | None:
    """Return a target that lets any batch through; ``None`` where this one does, or none is known.

    Args:
        op: ``Reshape`` or ``Expand``.
        target: as it is.
        ends: shapes for the fixed batch.
        axis: of the input along which samples lie, perhaps beside other positions.
    """
    if op == "Expand":
        across = axis + len(target) - len(ends.source)
        if across < 0 or target[across] == 1:
            return None
        return [*target[:across], 1, *target[across + 1 :]]
    place = _landing(ends, axis)
    if place is None or target[place] == -1 or (target[place] == 0 and place == axis):
        return None
    found = list(target)
    for position, asked in enumerate(target):
        if asked == -1 and position != place:  # one size alone may be left to be found
            known = ends.result[position]
            if known is None and not _kept(ends, position, axis):
                return None
            found[position] = known or 0
    found[place] = -1
    return found


def _kept(ends: NodeShapes, position: int, batch: int) -> bool:
    """True where an axis of the output is that of the input at the same place, of unknown size."""
    behind = [shape[position + 1 :] for shape in (ends.source, ends.result)]
    if position == batch or None in (*behind[0], *behind[1]):
        return False
    whole = [prod(size or 0 for size in shape) for shape in behind]
    return position < len(ends.source) and _aligned(ends, position) and whole[0] == whole[1]


def _landing(ends: NodeShapes, axis: int) -> int | None:
    """Return the axis of the output that the samples of an input axis end up on, the narrowest that fits.

    It covers the input's axis, or is the first of those that this is split into: samples come first.
    """
    source, result = ends.source, ends.result
    if _aligned(ends, axis) and result[axis] == source[axis]:
        return axis
    if None in source[: axis + 1]:
        return None
    start = prod(size or 0 for size in source[:axis])
    end = start * (source[axis] or 0)
    fitting = []
    for place, size in enumerate(result):
        if None in result[: place + 1]:
            break
        before = prod(each or 0 for each in result[:place])
        covers = before and end and start % before == 0 and before * (size or 0) % end == 0
        begins = before == start and (size or 0) % ends.batch == 0
        if covers or begins:
            fitting.append((size or 0, place))
    return min(fitting)[1] if fitting else None


def _aligned(ends: NodeShapes, axis: int) -> bool:
    """True where all axes before ``axis`` are the same in both shapes."""
    return axis < len(ends.result) and ends.source[:axis] == ends.result[:axis]
