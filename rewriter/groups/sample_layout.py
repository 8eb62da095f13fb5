"""How samples lie in tensors: each at one place of an axis, or merged with others in a known order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_graphsurgeon as gs

from graft.rewriter.graph.shapes import Shape

FORMS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that leave the order of values as it is."""


@dataclass(frozen=True)
class SampleLayout:
    """The axis of the samples: it counts ``before`` positions, in each the samples, in each ``after`` others.

    Attributes:
        axis: of the tensor.
        before: number of positions outside of the samples, such as steps where time comes first.
        after: number of positions inside, such as heads or steps of one sample.
    """

    axis: int
    before: int = 1
    after: int = 1

    @property
    def merged(self) -> bool:
        """True where other positions lie on the axis, too."""
        return self.before * self.after > 1


def sample_layouts(
    nodes: Iterable[gs.Node], two: Mapping[str, Shape], three: Mapping[str, Shape], batch: int = 1
) -> dict[str, SampleLayout]:
    """Return how samples lie in the tensors where it is known.

    Args:
        nodes: in topological order.
        two: tensor name to shape for a batch of two, or two batches.
        three: the same for three.
        batch: number of samples in each of these.
    """
    found: dict[str, SampleLayout] = {}
    for node in nodes:
        for tensor in (*node.inputs, *node.outputs):
            if tensor.name in found or not tensor.name:
                continue
            layout = _alone(two.get(tensor.name), three.get(tensor.name), batch)
            if layout is not None and layout.merged:
                layout = _made(node, tensor, layout, found, two) if tensor in node.outputs else None
            if layout is not None:
                found[tensor.name] = layout
    return found


def _alone(two: Shape | None, three: Shape | None, batch: int) -> SampleLayout | None:
    """Return the axis that grows with the batch; the order of what is merged with it is not known yet."""
    pairs = list(zip(two or (), three or (), strict=False))
    grown = [axis for axis, (size, other) in enumerate(pairs) if size != other]
    if len(grown) != 1:
        return None
    size, other = pairs[grown[0]]
    if size is None or other is None or size % (2 * batch) or other * 2 != size * 3:
        return None
    return SampleLayout(grown[0], after=size // (2 * batch))


def _made(
    node: gs.Node,
    tensor: gs.Tensor,
    layout: SampleLayout,
    found: Mapping[str, SampleLayout],
    shapes: Mapping[str, Shape],
) -> SampleLayout | None:
    """Return the layout of an output of ``node`` that follows from those of its inputs.

    Args:
        node: makes the tensor.
        tensor: its output.
        layout: the axis, and the number of positions on it.
        found: layouts of its inputs.
        shapes: for a batch of two.
    """
    shape = shapes[tensor.name]
    if node.op in FORMS or node.op == "Transpose":
        source = found.get(node.inputs[0].name)
        if source is None:
            return None
        if node.op == "Transpose":
            order = node.attrs.get("perm", list(range(len(shape)))[::-1])
            return SampleLayout(order.index(source.axis), source.before, source.after)
        return _reshaped(source, shapes[node.inputs[0].name], shape, layout)
    same = {
        found[each.name]
        for each in node.inputs
        if each.name in found
        and found[each.name].axis == layout.axis
        and len(shapes[each.name]) == len(shape)
        and shapes[each.name][layout.axis] == shape[layout.axis]
    }
    return same.pop() if len(same) == 1 else None


def _reshaped(source: SampleLayout, before: Shape, after: Shape, layout: SampleLayout) -> SampleLayout | None:
    """Return the layout behind a change of form: as many values lie before and behind a sample as did."""
    outside, inside = around(before, source.axis)
    left, right = around(after, layout.axis)
    if None in (outside, inside, left, right) or not left or not right:
        return None
    first, rest = divmod((outside or 0) * source.before, left)
    last, other = divmod((inside or 0) * source.after, right)
    whole = layout.before * layout.after
    return (
        SampleLayout(layout.axis, first, last) if not rest and not other and first * last == whole else None
    )


def around(shape: Shape, axis: int) -> tuple[int | None, int | None]:
    """Return the number of positions on the axes before and behind ``axis``."""
    return _product(shape[:axis]), _product(shape[axis + 1 :])


def _product(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return prod(known) if len(known) == len(sizes) else None
