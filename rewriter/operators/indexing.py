"""Operators that move values about: joining, splitting, picking, permuting and regrouping axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.arrays import Axes, Channels
from graft.rewriter.channels.flow import Flow
from graft.rewriter.graph.shapes import Shape as ShapeOf
from graft.rewriter.operators.base import (
    ChannelLookup,
    Cut,
    Operator,
    Parameter,
    constant_ints,
    given,
    insert_after,
    is_constant,
    positive,
    set_constant,
)

_FRONT = -(2**62)
"""How ONNX writes the end of a backward slice that goes to the very front."""


class Concat(Operator):
    """``Concat``: the lists of its inputs one after the other; on the other axes they are tied."""

    types = ("Concat",)
    skips_empty_inputs = True

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Join the lists; parts without channels, and constants, become places that always stay."""
        parts = [(tensor, flow.of(tensor)) for tensor in node.inputs]
        rank = max(len(axes) for _, axes in parts)
        if any(len(axes) != rank for _, axes in parts):
            flow.pin_inputs(node, "an input of unknown rank")
            return
        joined = positive(int(node.attrs["axis"]), rank)
        axes: Axes = [
            self._join(node, flow, parts) if axis == joined else self._tie(node, flow, parts, axis)
            for axis in range(rank)
        ]
        flow.give(node.outputs[0], axes)

    def _join(self, node: gs.Node, flow: Flow, parts: list[tuple[gs.Tensor, Axes]]) -> Channels | None:
        lists = []
        axis = int(node.attrs["axis"])
        if all(axes[axis] is None for _, axes in parts):
            return None
        for tensor, axes in parts:
            channels, size = axes[axis], flow.size(tensor, axis)
            if channels is None and size is None:
                flow.pin_inputs(node, "a part of unknown size")
                return None
            lists.append(channels if channels is not None else flow.fixed(node, size or 0, "no channels"))
        return np.concatenate(lists)

    def _tie(
        self, node: gs.Node, flow: Flow, parts: list[tuple[gs.Tensor, Axes]], axis: int
    ) -> Channels | None:
        lists = [axes[axis] for tensor, axes in parts if not is_constant(tensor)]
        found = [channels for channels in lists if channels is not None]
        for channels in found[1:]:
            flow.tie(found[0], channels)
        if found and len(found) < len(lists):
            flow.pin(found[0], node, "meets a part whose axis holds no channels")
        return found[0] if found else None

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return the constants, along the axes that are not joined."""
        axes = channels.of(node.outputs[0])
        if not axes:
            return []
        joined = positive(int(node.attrs["axis"]), len(axes))
        cut = {axis: found for axis, found in enumerate(axes) if found is not None and axis != joined}
        return [Parameter(index, cut) for index, t in enumerate(node.inputs) if cut and is_constant(t)]


class Split(Operator):
    """``Split``: every output takes its stretch of the list."""

    types = ("Split",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass channels as the class says."""
        axes = flow.of(node.inputs[0])
        axis = positive(int(node.attrs.get("axis", 0)), len(axes))
        sizes = [flow.size(output, axis) for output in node.outputs]
        if axes and axes[axis] is not None and (None in sizes or _computed(node, 1, "split")):
            flow.pin_inputs(node, "sizes computed at run time")
            return
        start = 0
        for output, size in zip(node.outputs, sizes, strict=True):
            part = list(axes)
            if axes and (channels := axes[axis]) is not None:
                part[axis] = channels[start : start + (size or 0)]
                start += size or 0
            flow.give(output, part)

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write the sizes that are left, also where they were implied."""
        axis = positive(int(node.attrs.get("axis", 0)), len(cut.shape(node.inputs[0]) or ()))
        kept = [cut.keeps(output, axis) for output in node.outputs]
        if all(mask is None or mask.all() for mask in kept):
            return
        sizes = [int(mask.sum()) for mask in kept if mask is not None]
        if "split" in node.attrs or cut.graph.opset < 13:  # an attribute before, an input since
            node.attrs["split"] = sizes
        else:
            node.attrs.pop("num_outputs", None)
            set_constant(node, 1, np.array(sizes, np.int64))


class Slice(Operator):
    """``Slice`` with constant bounds."""

    types = ("Slice",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass the stretch of the list of a sliced axis."""
        axes = flow.of(node.inputs[0])
        bounds = _bounds(node, len(axes))
        if bounds is None:
            moved = constant_ints(node, 3)
            for axis in range(len(axes)) if moved is None else moved:
                flow.pin(axes[axis], node, "bounds computed at run time")
                axes[axis] = None  # of unknown length
            bounds = {}
        flow.give(
            node.outputs[0],
            [c if c is None or a not in bounds else c[bounds[a]] for a, c in enumerate(axes)],
        )

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write bounds that count what is left; uneven steps become a ``Gather``."""
        rank = len(cut.shape(node.inputs[0]) or ())
        bounds = _bounds(node, rank) or {}
        changed = {}
        for axis, bound in bounds.items():
            kept = cut.keeps(node.inputs[0], axis)
            if kept is not None and not kept.all():
                changed[axis] = left_of(np.arange(len(kept))[bound], kept)
        if not changed:
            return
        rows = []
        for axis, bound in bounds.items():
            even = _even(changed[axis]) if axis in changed else (bound.start, bound.stop, bound.step)
            if even is None:
                indices = gs.Constant(f"{node.name}/indices_{axis}", changed[axis])
                pick = gs.Node("Gather", f"{node.name}/pick_{axis}", {"axis": axis}, [indices])
                insert_after(node, pick, cut.graph)
                rows.append((0, -_FRONT, axis, 1))
            else:
                start, stop, step = even
                rows.append((start, _FRONT if stop is None else stop, axis, step))
        for index, values in enumerate(zip(*rows, strict=True), start=1):
            set_constant(node, index, np.array(values, np.int64))


class Pad(Operator):
    """``Pad``: padding on a channel axis makes new channels, which hold a constant."""

    types = ("Pad",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Put new channels before and after; pin for modes that copy values, and for negative pads."""
        axes = flow.of(node.inputs[0])
        pads = self._pads(node, len(axes))
        if pads is None:
            flow.pin_inputs(node, "pads computed at run time")
            return
        result: Axes = list(axes)
        for axis, channels in enumerate(axes):
            before, after = pads[axis], pads[axis + len(axes)]
            if channels is None or before == after == 0:
                continue
            if min(before, after) < 0 or node.attrs.get("mode", "constant") != "constant":
                flow.pin(channels, node, "copies or crops channels")
                result[axis] = None
            else:
                new = flow.make(node, before + after)
                result[axis] = np.concatenate([new[:before], channels, new[before:]])
        flow.give(node.outputs[0], result)

    @staticmethod
    def _pads(node: gs.Node, rank: int) -> list[int] | None:
        """Return the pads of all axes, befores then afters."""
        pads = constant_ints(node, 1)
        axes = constant_ints(node, 3) if given(node, 3) is not None else list(range(rank))
        if pads is None or axes is None or len(pads) != 2 * len(axes):
            return None
        full = [0] * 2 * rank
        for position, axis in enumerate(axes):
            full[positive(axis, rank)] = pads[position]
            full[positive(axis, rank) + rank] = pads[position + len(axes)]
        return full

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write as many places before and after as are left of the new channels."""
        rank = len(cut.shape(node.inputs[0]) or ())
        pads = self._pads(node, rank)
        if pads is None:
            return
        changed = False
        for axis in range(rank):
            kept = cut.keeps(node.outputs[0], axis)
            before, after = pads[axis], pads[axis + rank]
            if kept is None or kept.all() or before == after == 0:
                continue
            pads[axis] = int(kept[:before].sum())
            pads[axis + rank] = int(kept[len(kept) - after :].sum())
            changed = True
        if changed:
            set_constant(node, 1, np.array(pads, np.int64))
            node.inputs = list(node.inputs)[:3]  # the pads are now those of all axes


class Gather(Operator):
    """``Gather`` with constant indices: picks channels, in any order and number.

    Rows of a constant table that are picked at run time are an embedding: its last axis makes channels.
    """

    types = ("Gather",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pick from the list; pin a channel that an index without axis picks out."""
        axes = flow.of(node.inputs[0])
        axis = positive(int(node.attrs.get("axis", 0)), len(axes)) if axes else 0
        indices = node.inputs[1]
        channels = axes[axis] if axes else None
        index_rank = len(flow.shape(indices) or ())
        for numbered in flow.of(indices):
            flow.pin(numbered, node, "its values are indices")
        if self._embeds(node) and flow.shape(indices) is not None:
            axes[-1] = flow.make(node, node.inputs[0].shape[-1])
        if channels is None:
            picked: Axes = [None] * index_rank
        elif not is_constant(indices) or index_rank > 1:
            flow.pin_inputs(node, "indices computed at run time, or of several axes")
            picked = [None] * index_rank
        else:
            found = channels[np.asarray(indices.values, np.int64)]
            picked = [found] if index_rank else []
            if not index_rank:
                flow.pin(np.atleast_1d(found), node, "picks one channel out")
        flow.give(node.outputs[0], [*axes[:axis], *picked, *axes[axis + 1 :]])

    @staticmethod
    def _embeds(node: gs.Node) -> bool:
        table, last = node.inputs[0], len(node.inputs[0].shape or ()) - 1
        picked = positive(int(node.attrs.get("axis", 0)), last + 1)
        computed = is_constant(table) and not is_constant(node.inputs[1])
        return computed and picked < last and np.dtype(table.dtype).kind in "fV"

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return the table of an embedding, along its last axis."""
        made = channels.of(node.outputs[0])[-1:] if self._embeds(node) else []
        return [Parameter(0, {len(node.inputs[0].shape) - 1: c}) for c in made if c is not None]

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write the indices of picks that stay, counted among what is left."""
        axis = positive(int(node.attrs.get("axis", 0)), len(cut.shape(node.inputs[0]) or ()))
        kept = cut.keeps(node.inputs[0], axis)
        if kept is None or kept.all():
            return
        indices = np.asarray(node.inputs[1].values)
        places = np.where(indices < 0, indices + len(kept), indices)
        left = left_of(np.atleast_1d(places), kept).astype(indices.dtype)
        set_constant(node, 1, left.reshape(()) if indices.ndim == 0 else left)


class Tile(Operator):
    """``Tile``: the list, as often as its axis is repeated."""

    types = ("Tile",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass channels as the class says."""
        axes, repeats = flow.of(node.inputs[0]), constant_ints(node, 1)
        if repeats is None:
            flow.pin_inputs(node, "repeats computed at run time")
            return
        tiled = zip(axes, repeats, strict=False)
        flow.give(node.outputs[0], [None if c is None else np.tile(c, times) for c, times in tiled])


class Transpose(Operator):
    """``Transpose``: the lists move with their axes."""

    types = ("Transpose",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass channels as the class says."""
        axes = flow.of(node.inputs[0])
        order = node.attrs.get("perm", list(reversed(range(len(axes)))))
        if axes:
            flow.give(node.outputs[0], [axes[axis] for axis in order])

    def counts(self, node: gs.Node, axis: int, rank: int) -> bool:
        """Return ``False``: axes move as they are."""
        return False

    def broadcast_shape(self, node: gs.Node, shapes: Sequence[ShapeOf]) -> ShapeOf:
        """Return the sizes, moved with their axes."""
        sizes = shapes[0]
        return tuple(sizes[axis] for axis in node.attrs.get("perm", range(len(sizes))[::-1]))


class Unsqueeze(Operator):
    """``Unsqueeze``: new axes hold no channels."""

    types = ("Unsqueeze",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass channels as the class says."""
        new = constant_ints(node, 1, "axes")
        if new is None:
            flow.pin_inputs(node, "axes computed at run time")
            return
        axes = flow.of(node.inputs[0])
        if flow.shape(node.inputs[0]) is None:
            return  # of unknown rank: the analysis pins what it carries
        rank = len(axes) + len(new)
        places = {positive(axis, rank) for axis in new}
        rest = iter(axes)
        flow.give(node.outputs[0], [None if axis in places else next(rest) for axis in range(rank)])


class Squeeze(Operator):
    """``Squeeze``: axes of size 1 go; a channel axis that goes had one channel, which stays."""

    types = ("Squeeze",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Pass channels as the class says."""
        axes = flow.of(node.inputs[0])
        if not axes:
            return  # of unknown rank: the analysis pins what it carries
        gone = constant_ints(node, 1, "axes")
        if gone is None:
            shape = flow.shape(node.inputs[0]) or ()
            if given(node, 1) is not None or None in shape:
                flow.pin_inputs(node, "axes not known before the run")
                return
            gone = [axis for axis, size in enumerate(shape) if size == 1]
        places = {positive(axis, len(axes)) for axis in gone}
        for axis in places:
            flow.pin(axes[axis], node, "the only channel of its axis")
        flow.give(node.outputs[0], [c for axis, c in enumerate(axes) if axis not in places])

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write axes that were implied: an axis that the cut leaves one channel on has to stay."""
        if constant_ints(node, 1, "axes") is not None:
            return
        gone = [axis for axis, size in enumerate(cut.shape(node.inputs[0]) or ()) if size == 1]
        if cut.graph.opset < 13:
            node.attrs["axes"] = gone
        else:
            set_constant(node, 1, np.array(gone, np.int64))


class Constants(Operator):
    """Constants that stand in the graph as nodes: they carry no channels."""

    types = ("Constant",)

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Give no channels."""

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return nothing: ``normalize`` turns these nodes into constants of their users."""
        return []


# ------------------------------------------------------------------------------- helpers


def _computed(node: gs.Node, index: int, attribute: str | None = None) -> bool:
    """Return whether an input that must be constant for a cut is there and is not."""
    present = given(node, index) is not None
    return present and constant_ints(node, index, attribute) is None


def _bounds(node: gs.Node, rank: int) -> dict[int, slice] | None:
    """Return axis to python slice of a ``Slice``, or ``None`` where a bound is computed."""
    starts, ends = constant_ints(node, 1), constant_ints(node, 2)
    axes = constant_ints(node, 3) if given(node, 3) is not None else list(range(len(starts or [])))
    steps = constant_ints(node, 4) if given(node, 4) is not None else [1] * len(starts or [])
    if starts is None or ends is None or axes is None or steps is None:
        return None
    return {
        positive(axis, rank): slice(start, _end(end, step), step)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
    }


def _end(end: int, step: int) -> int | None:
    """Return a python end: ONNX writes "to the very front" of a backward slice as a large negative one."""
    return None if step < 0 and end <= -(2**30) else end


def left_of(places: Channels, kept: NDArray[np.bool_]) -> Channels:
    """Return where those of ``places`` that are kept lie once the others are pruned."""
    result: Channels = (np.cumsum(kept) - 1)[places[kept[places]]].astype(np.int64)
    return result


def _even(places: Channels) -> tuple[int, int | None, int] | None:
    """Return start, stop and step of a slice that gives ``places``, or ``None`` if there is none."""
    if len(places) == 1:
        return int(places[0]), int(places[0]) + 1, 1
    steps = np.diff(places)
    step = int(steps[0])
    if (steps != step).any():
        return None
    stop = int(places[-1]) + (1 if step > 0 else -1)
    return int(places[0]), None if stop < 0 else stop, step
