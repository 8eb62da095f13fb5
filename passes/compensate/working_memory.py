"""How much memory a refit takes at once, however many samples there are: estimated before it starts."""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

from graft.passes.compensate.layer import rows_of
from graft.passes.compensate.systems import AT_ONCE, by_rows
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.shape_values import Shape
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.numerics import HUGE
from graft.rewriter.operators import affine_map_of
from graft.rewriter.run.staged import PIECE

SINGLE, DOUBLE = 4, 8
"""Bytes of a number."""
TENSORS = 8
"""Tensors of the samples that run at once: of both models, what they read, make and should make."""
SQUARES = 5
"""Matrices of the equations: of both halves, of all, with a penalty, and what LAPACK copies."""
LARGE_SQUARES = 2
"""The same of many columns: of both halves in single precision, and one in double precision."""
COEFFICIENTS = 4
"""Weights of a layer in double precision: as they were, in turns, and as they are written."""
OUTPUTS = 7
"""Arrays of the rows of what a layer makes: the target, its base, the prediction, and differences."""


def largest_tensor(groups: ChannelGroups) -> int:
    """Return the bytes of the largest tensor of one sample, of those whose shape is known."""
    sizes = [1]
    for node in groups.nodes:
        for tensor in node.outputs:
            axis, shape = groups.sample_axis(tensor), groups.shape(tensor) or ()
            others = [size for at, size in enumerate(shape) if at != axis and size is not None]
            if axis is not None and len(others) == len(shape) - 1:
                sizes.append(SINGLE * math.prod(others))
    return max(sizes)


def working_bytes(model: Model, groups: ChannelGroups, samples: int, at_once: int) -> int:
    """Return the bytes that the refit of the layer takes that takes most, with the one behind it.

    Args:
        model: the cut model.
        groups: the analysis of its parent.
        samples: how many there are.
        at_once: how many run at once.
    """
    made = {node.name: groups.shape(node.outputs[0]) for node in groups.nodes if node.outputs}
    work = held = 0
    for node in model.graph.nodes:
        own, system = _layer_bytes(node, made.get(node.name), samples)
        work, held = max(work, own), max(held, system)
    return work + held + TENSORS * min(PIECE, at_once * largest_tensor(groups))


def _layer_bytes(node: gs.Node, made: Shape | None, samples: int) -> tuple[int, int]:
    """Return the bytes that it takes to fit a layer, and those of its equations alone.

    Args:
        node: of the cut model.
        made: the shape of what it makes in the parent.
        samples: how many there are.
    """
    operator = affine_map_of(node)
    if operator is None:
        return 0, 0
    groups, width, columns = operator.coefficients(node).shape
    rows = samples * max(1, rows_of(groups, width, columns) // samples)
    sizes = [
        size for at, size in enumerate(made or ()) if at not in (0, operator.made_axis % len(made or ()))
    ]
    if None not in sizes:
        rows = min(rows, samples * math.prod(size for size in sizes if size is not None))
    outputs = SINGLE * OUTPUTS * rows * groups * width
    outputs += DOUBLE * COEFFICIENTS * groups * width * columns
    square, held = _equations(groups, rows, columns)
    return square + outputs, held


def _equations(groups: int, rows: int, columns: int) -> tuple[int, int]:
    """Return the bytes that it takes to solve equations, and those that they take then.

    Args:
        groups: of the layer.
        rows: that are read.
        columns: of each group.
    """
    numbers = groups * rows * columns
    if by_rows(rows, columns):
        square = groups * rows**2
        return SINGLE * (numbers + square) + DOUBLE * square, SINGLE * (numbers + square)
    copies = SINGLE * (3 * numbers if numbers <= AT_ONCE else numbers + AT_ONCE)
    kept, square = SINGLE * min(copies // SINGLE, 2 * numbers), DOUBLE * groups * columns**2
    if columns > HUGE:
        return copies + LARGE_SQUARES * square, kept + square // 2
    return copies + SQUARES * square, kept + square
