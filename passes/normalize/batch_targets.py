"""Targets of Reshape and Expand that let the batch through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from graft.rewriter.graph.shapes import Shape
from graft.rewriter.groups.sample_layout import SampleLayout, around


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


def freed_target(op: str, target: Sequence[int], ends: NodeShapes, layout: SampleLayout) -> list[int] | None:
    """Return a target that lets any batch through; ``None`` where this one does, or none is known.

    Args:
        op: ``Reshape`` or ``Expand``.
        target: as it is.
        ends: shapes for the fixed batch.
        layout: where samples lie in the input.
    """
    axis = layout.axis
    if op == "Expand":
        across = axis + len(target) - len(ends.source)
        if across < 0 or target[across] == 1:
            return None
        return [*target[:across], 1, *target[across + 1 :]]
    place = _landing(ends, layout)
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


def _landing(ends: NodeShapes, layout: SampleLayout) -> int | None:
    """Return the axis of the output that the samples end up on.

    As many values lie before and behind a sample as did. Where several axes could hold the samples: the one
    that holds nothing else; if the output has fewer axes, the first; else the axis that it was.
    """
    source, result, axis = ends.source, ends.result, layout.axis
    outside, inside = around(source, axis)
    if outside is None or inside is None:
        same = _aligned(ends, axis) and result[axis] == source[axis] and not layout.merged
        return axis if same else None
    fitting = []
    for place, size in enumerate(result):
        left, right = around(result, place)
        if size is None or not left or not right:
            continue
        first, rest = divmod(outside * layout.before, left)
        last, other = divmod(inside * layout.after, right)
        if not rest and not other and first * last * ends.batch == size:
            moved = place if len(result) < len(source) else abs(place - axis)
            fitting.append((first * last > 1, moved, place))
    return min(fitting)[2] if fitting else None


def _aligned(ends: NodeShapes, axis: int) -> bool:
    """True where all axes before ``axis`` are the same in both shapes."""
    return axis < len(ends.result) and ends.source[:axis] == ends.result[:axis]
