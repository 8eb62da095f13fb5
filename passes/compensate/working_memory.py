"""How much memory a refit takes at once, however many samples there are: estimated before it starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_graphsurgeon as gs

from graft.passes.compensate.layer import rows_of
from graft.passes.compensate.systems import AT_ONCE, by_rows
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.shape_values import Shape
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.numerics import HUGE
from graft.rewriter.operators import affine_map_of
from graft.rewriter.run.staged import PIECE
from graft.rewriter.run.values import UNLIMITED

FEWEST = 1024
"""A layer is fitted at no fewer places of all samples for a lack of memory."""
FITTING = 2 / 3
"""Share of the memory for the fit of a layer; the rest is for the equations of the one before it."""
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


@dataclass(frozen=True)
class LayerWork:
    """What it takes to refit a layer.

    Attributes:
        groups: of the layer.
        width: outputs of a group.
        columns: that a group reads.
        places: of all samples together at which it is fitted usually.
        samples: how many there are.
        most: places that there are.
    """

    groups: int
    width: int
    columns: int
    places: int
    samples: int
    most: int

    def taken(self, places: int) -> tuple[int, int]:
        """Return the bytes of a fit at so many places of all samples, and of its equations alone."""
        rows = min(self.most, self.samples * max(1, places // self.samples))
        outputs = SINGLE * OUTPUTS * rows * self.groups * self.width
        outputs += DOUBLE * COEFFICIENTS * self.groups * self.width * self.columns
        square, held = _equations(self.groups, rows, self.columns)
        return square + outputs, held


@dataclass(frozen=True)
class Work:
    """What it takes to refit the layers of a model.

    Attributes:
        layers: those that are affine, by the names of their nodes.
        tensors: bytes of tensors of the samples that run at once.
    """

    layers: Mapping[str, LayerWork]
    tensors: int

    @classmethod
    def of(cls, model: Model, groups: ChannelGroups, samples: int, at_once: int) -> Work:
        """Return the work of a refit.

        Args:
            model: the cut model.
            groups: the analysis of its parent.
            samples: how many there are.
            at_once: how many run at once.
        """
        made = {node.name: groups.shape(node.outputs[0]) for node in groups.nodes if node.outputs}
        pairs = [(node.name, _layer(node, made.get(node.name), samples)) for node in model.graph.nodes]
        tensors = TENSORS * min(PIECE, at_once * largest_tensor(groups))
        return cls({name: layer for name, layer in pairs if layer}, tensors)

    def bytes(self, places: Mapping[str, int] = MappingProxyType({})) -> int:
        """Return the bytes of the layer that takes most, with the equations of the one before it.

        Args:
            places: of layers that are fitted at fewer places than usual.
        """
        taken = [each.taken(places.get(name, each.places)) for name, each in self.layers.items()]
        work, held = (max(sizes) for sizes in zip(*taken, strict=True)) if taken else (0, 0)
        return work + held + self.tensors

    def places_within(self, allowed: int) -> dict[str, int]:
        """Return at how many places layers are fitted for which the usual ones would take too much.

        Half as many, again and again, no fewer than :data:`FEWEST`. Layers that would take too much even
        so are left out.

        Args:
            allowed: bytes.
        """
        found, left = dict[str, int](), allowed - self.tensors
        for name, layer in self.layers.items():
            places = layer.places
            while places >= FEWEST:
                own, held = layer.taken(places)
                if own <= left * FITTING and held <= left * (1 - FITTING):
                    break
                places //= 2
            if FEWEST <= places < layer.places:
                found[name] = places
        return found


def _layer(node: gs.Node, made: Shape | None, samples: int) -> LayerWork | None:
    """Return the numbers of a layer.

    Args:
        node: of the cut model.
        made: the shape of what it makes in the parent.
        samples: how many there are.
    """
    operator = affine_map_of(node)
    if operator is None:
        return None
    groups, width, columns = operator.coefficients(node).shape
    sizes = [
        size for at, size in enumerate(made or ()) if at not in (0, operator.made_axis % len(made or ()))
    ]
    most = UNLIMITED if None in sizes else samples * math.prod(size for size in sizes if size is not None)
    return LayerWork(groups, width, columns, rows_of(groups, width, columns), samples, most)


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
