"""The axis of every input along which samples lie: as the card says, or as names of dimensions make plain."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from graft.rewriter.card.card import Card
from graft.rewriter.card.part import Shape
from graft.rewriter.graph.forms import NO_NAMES

UNKNOWN = "unk__"
"""Names that tf2onnx makes up begin with it."""

Shapes = Mapping[str, Shape]


def named(size: int | str | None) -> str | None:
    """Return the name of a free dimension; ``None`` for a number, and for a name that says nothing."""
    if not isinstance(size, str) or size.strip().lower() in NO_NAMES or size.startswith(UNKNOWN):
        return None
    return size


def sample_axes(inputs: Shapes, outputs: Shapes, card: Card | None) -> dict[str, int | None]:
    """Return the sample axis of every input; ``None`` for a constant that is the same for all samples.

    The card says which. Where it does not, samples come first, unless names make another axis plain: axis 0
    is fixed or has a name of its own, and exactly one other axis is called what axis 0 of the output is.

    Args:
        inputs: name to shape, with names or ``None`` for free dimensions.
        outputs: the same of the outputs.
        card: of the model; ``None``: names alone decide.
    """
    cards = {each.name: each for each in card.inputs} if card else {}
    result = card.output.name if card else next(iter(outputs), "")
    batch = next((named(size) for size in outputs.get(result, ())[:1]), None)
    found: dict[str, int | None] = {}
    for name, shape in inputs.items():
        said = cards.get(name)
        axis = said.batch_axis if said else None
        if axis is None:
            axis = _by_name(shape, batch, constant=said is not None and said.constant is not None)
        found[name] = axis
    return found


def _by_name(shape: Shape, batch: str | None, constant: bool) -> int | None:
    """Return the axis that is called ``batch`` where there is one such axis, else that of most inputs."""
    same = [axis for axis, size in enumerate(shape) if batch is not None and named(size) == batch]
    if constant:
        return same[0] if len(same) == 1 else None
    own_name = bool(shape) and (isinstance(shape[0], int) or named(shape[0]) is not None)
    return same[0] if len(same) == 1 and own_name else 0


def fixed_batch(shapes: Shapes, axes: Mapping[str, int | None]) -> int | None:
    """Return the number of samples that a model takes at once, where its file fixes it.

    Args:
        shapes: of the inputs.
        axes: their sample axes.
    """
    for name, shape in shapes.items():
        axis = axes.get(name)
        if axis is not None and axis < len(shape):
            size: int | str | None = shape[axis]
            return size if isinstance(size, int) and size > 0 else None
    return None


def fixes_batch(graph: gs.Graph, anywhere: bool = False) -> gs.Node | None:
    """Return the first node that writes a batch of 1 into a shape, whatever batch it gets.

    Args:
        graph: of a model.
        anywhere: on any axis, such as the second where time comes first; else on the first.
    """
    for node in graph.nodes:
        target = node.inputs[1] if node.op in ("Reshape", "Expand") and len(node.inputs) > 1 else None
        if isinstance(target, gs.Constant) and target.values.size > 1:
            sizes = target.values if anywhere else target.values[:1]
            if (sizes == 1).any():
                return node
    return None
