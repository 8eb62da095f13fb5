"""One layer of a cut model that is refitted: what it should make, what it reads, and the least squares."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Declined
from graft.passes.compensate.least_squares import OPEN, correction
from graft.passes.compensate.likelihood import most_likely
from graft.passes.compensate.systems import System
from graft.rewriter.arrays import Integers, Mask, Single, Table
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import AffineMap, affine_map_of, operator_of
from graft.rewriter.operators.base import is_constant
from graft.rewriter.run.session import Device
from graft.rewriter.run.staged import StagedRun
from graft.rewriter.run.values import Room

BLOCK = 64
"""Samples for which places are drawn together."""
ROWS = 1 << 14
"""A layer is fitted at so many places of all samples, drawn once for every block of them."""
NUMBERS = 1 << 26
"""Fewer, where the rows would hold more numbers than this."""
PRODUCTS = 1 << 30
"""Fewer, where the weights times the rows would be more than this,"""
PER_COLUMN = 4
"""but so many for each column."""
ROUGHLY = 1 << 12
"""Rows of a rough fit of a costly layer."""


@dataclass(frozen=True, eq=False)
class CutAndParent:
    """A cut model and its parent, run on the same samples.

    Attributes:
        model: the cut model.
        groups: the analysis of the parent.
        kept: the channels of the parent that the cut model has.
        cut: runs the cut model up to any of its nodes.
        parent: the same of the parent.
        weights: of all samples, together 1.
        device: where both run.
        block: samples for which places are drawn together.
        room: what values of the samples may take in memory.
        places: at how many places of all samples layers are fitted, where memory has no room for as many as
            usual; by the names of their nodes.
        steps: weights of the steps of an encoder-decoder; ``None``: those of a sample count alike.
    """

    model: Model
    groups: ChannelGroups
    kept: Mask
    cut: StagedRun
    parent: StagedRun
    weights: Table
    device: Device
    block: int = BLOCK
    room: Room = field(default_factory=Room)
    places: Mapping[str, int] = field(default_factory=dict)
    steps: StepWeights | None = None

    def weigh(self, node: str, samples: slice, count: int) -> Table | None:
        """Return the weights of places of some samples, (samples, places); ``None``: all count alike.

        Args:
            node: name of what is fitted.
            samples: some of all.
            count: places of each sample.
        """
        steps = self.steps
        if steps is None or node not in steps.nodes or count != steps.weights.shape[1]:
            return None
        return steps.weights[samples]


@dataclass(frozen=True, eq=False)
class StepWeights:
    """How much each step of each sample counts.

    Attributes:
        weights: float64 (samples, steps), 0 where nothing is written any more.
        nodes: names of those that run once for each step.
    """

    weights: Table
    nodes: frozenset[str]


@dataclass(frozen=True)
class Layer:
    """A node to refit, and where its target is.

    Attributes:
        node: in the cut model.
        operator: its class.
        target: the tensor of the parent to be met: what the node puts out there, or the sum that this
            goes into.
        stays: which channels of the target the cut model has.
        beside: the other summand in the cut model; ``None``: the target is what the node puts out.
        limits: what lies outside of these is as good as the limit: the activation behind is flat there.
        reader: the only node that reads the result, behind sum and activation; ``None``: there are several.
        writes: it makes the scores of an encoder-decoder, which say what the next word is.
    """

    node: gs.Node
    operator: AffineMap
    target: str
    stays: Mask
    beside: gs.Tensor | None = None
    limits: tuple[float, float] = OPEN
    reader: gs.Node | None = None
    writes: bool = False

    @classmethod
    def find(cls, node: gs.Node, sides: CutAndParent) -> Layer | Declined | None:
        """Find the target of ``node`` of the cut model.

        Returns:
            The layer; the reason where it cannot be refitted; ``None`` where it is no affine map.
        """
        operator, groups = affine_map_of(node), sides.groups
        if operator is None:
            return None
        whole = sides.parent.nodes.get(node.name)
        if whole is None:
            return declined(node, "the parent has no such node")
        if is_constant(node.inputs[0]):
            return declined(node, "reads a constant")
        made = whole.outputs[0]
        if any((groups.shape(end) or (0,))[0] != groups.samples for end in (whole.inputs[0], made)):
            return declined(node, "what it reads or makes does not hold one row a sample")
        outputs = {tensor.name for tensor in sides.model.graph.outputs}
        target, beside, after = _behind_sum(node, made, sides, outputs)
        limits = OPEN if after is None else operator_of(after).limits(after)
        if after is not None and limits != OPEN:
            after = _only_reader(after, outputs)
        stays = _stays(groups, whole, operator, sides.kept)
        output = sides.model.require_card().output
        writes = sides.steps is not None and output.kind == "logits" and target.name == output.name
        return cls(node, operator, target.name, stays, beside, limits, after, writes)

    def reads(self) -> list[str]:
        """Return the tensors of the cut model that the fit takes."""
        names = [self.node.inputs[0].name]
        if self.beside is not None and not is_constant(self.beside):
            names.append(self.beside.name)
        return names

    def wanted(self, cut: Mapping[str, Single], uncut: Mapping[str, Single]) -> tuple[Single, Single | None]:
        """Return the target of a batch, and what is beside it, of the target's shape."""
        axis, target = self.operator.made_axis, uncut[self.target]
        target = target if self.stays.all() else np.compress(self.stays, target, axis=axis)
        if self.beside is None:
            return target, None
        values = self.beside.values if is_constant(self.beside) else cut[self.beside.name]
        return target, np.broadcast_to(values, target.shape)

    def write(self, graph: gs.Graph, fitted: Fitted) -> None:
        """Give the node other weights and another bias."""
        self.operator.set_coefficients(self.node, fitted.coefficients)
        old = self.operator.offset(self.node)
        changed = fitted.offset != old  # the bias of a class that is masked is minus infinity, and stays
        delta = np.subtract(fitted.offset, old, out=np.zeros(old.shape), where=changed)
        self.operator.add_bias(self.node, delta, graph)


@dataclass(frozen=True)
class Fitted:
    """A layer as it should be.

    Attributes:
        coefficients: float64 (groups, outputs of a group, columns).
        offset: float64 (groups * outputs,), added to them and to what is beside.
        system: the equations that were solved.
    """

    coefficients: Table
    offset: Table
    system: System


def rows_of(groups: int, outputs: int, columns: int) -> int:
    """Return at how many places of all samples a layer is fitted, see :meth:`AffineMap.coefficients`."""
    worth = max(PRODUCTS // (groups * outputs * columns), PER_COLUMN * columns)
    return min(ROWS, NUMBERS // (groups * columns), worth)


def costly(groups: int, outputs: int, columns: int) -> bool:
    """Return if weights of this shape times :data:`ROWS` rows are more than :data:`PRODUCTS`."""
    return groups * outputs * columns * ROWS > PRODUCTS


class Rows:
    """Rows of what a layer reads and what it should make, at places of all samples.

    Args:
        layer: the layer.
        draw: draws the places of each block of samples.
        sides: weights and number of all samples.
        rough: of a costly layer take few rows, and fit it in one turn with a fixed penalty.

    Attributes:
        places: of each batch.
    """

    def __init__(
        self, layer: Layer, draw: np.random.Generator, sides: CutAndParent, rough: bool = False
    ) -> None:
        self.layer, self.draw, self.weights, self._block = layer, draw, sides.weights, sides.block
        self._sides = sides
        self._shape = layer.operator.coefficients(layer.node).shape
        self._rough = rough and costly(*self._shape)
        most = max(ROUGHLY, 2 * self._shape[-1]) if self._rough else ROWS
        usual = sides.places.get(layer.node.name, rows_of(*self._shape))
        self._each = max(1, min(most, usual) // len(self.weights))
        self.places: list[Integers] = []
        self._counts: list[tuple[int, int]] = []
        self._samples = 0
        self._read: Single = np.zeros((0, 0, 0), np.float32)
        self._made: Single = np.zeros((0, 0), np.float32)
        self._beside: Single | None = None

    def add(self, read: Single, target: Single, beside: Single | None) -> None:
        """Take a batch in.

        Args:
            read: what the layer reads in the cut model.
            target: what it should make, see :meth:`Layer.wanted`.
            beside: what is added to it.
        """
        node, operator, samples = self.layer.node, self.layer.operator, len(target)
        count = int(np.prod(target.shape)) // target.shape[operator.made_axis] // samples
        if self._samples % self._block == 0:
            places = np.sort(self.draw.permutation(count)[: self._each])
        else:
            places = self.places[-1]
        if not self._samples:
            self._allocate(len(places), beside is not None)
        self.places.append(places)
        self._counts.append((samples, count))
        own = slice(self._samples * len(places), (self._samples + samples) * len(places))
        self._read[:, own] = operator.rows(node, read, places)
        self._made[own] = flat(target, operator.made_axis, places)
        if beside is not None and self._beside is not None:
            self._beside[own] = flat(beside, operator.made_axis, places)
        self._samples += samples

    def _allocate(self, each: int, beside: bool) -> None:
        groups, width, columns = self._shape
        rows = each * len(self.weights)
        self._read = np.empty((groups, rows, columns), np.float32)
        self._made = np.empty((rows, groups * width), np.float32)
        self._beside = np.empty_like(self._made) if beside else None

    def share(self) -> Single:
        """Return the weight of every row; together 1."""
        parts, start = list[Table](), 0
        for places, (samples, count) in zip(self.places, self._counts, strict=True):
            own = slice(start, start + samples)
            steps = self._sides.weigh(self.layer.node.name, own, count)
            alike = np.repeat(self.weights[own], len(places))
            parts.append(alike if steps is None else steps[:, places].ravel())
            start += samples
        each = np.concatenate(parts)
        share: Single = (each / each.sum()).astype(np.float32)
        return share

    def apart(self, values: Single) -> Single:
        """Return (rows, outputs) as (groups, rows, outputs of a group)."""
        groups, width, _ = self._shape
        return np.ascontiguousarray(values.reshape(len(values), groups, width).swapaxes(0, 1))

    def solve(self) -> Fitted:
        """Fit the layer to what should be made; outputs that are always minus infinity stay as they are.

        Raises:
            GraftError: the values are not finite.
        """
        node = self.layer.node
        old = self.layer.operator.coefficients(node)
        made, beside = self.apart(self._made), np.zeros((len(old), 1, old.shape[1]), np.float32)
        if self._beside is not None:
            beside = self.apart(self._beside)
        masked: Mask = np.asarray(np.isneginf(made).all(axis=1))
        if masked.any():
            made, beside = (np.where(masked[:, None], np.float32(0), values) for values in (made, beside))
        read, share = self._read, self.share()
        words = (read[0].copy(), made[0], beside[0], share) if self.layer.writes else None
        with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are refused below
            found = correction(
                read, made, beside, share, old.astype(np.float32), self.layer.limits, self._rough
            )
        self._read, self._made, self._beside = read[:, :0], self._made[:0], None
        if not (np.isfinite(found.step).all() and np.isfinite(found.constant).all()):
            raise GraftError(
                "refit-failed",
                f"{node.op} {node.name} cannot be refitted: its values are not finite",
                "check card and data, or use --compensate fold",
            )
        offset = self.layer.operator.offset(node)
        constant = np.where(masked.reshape(-1), offset, found.constant.reshape(-1).astype(np.float64))
        coefficients = old + np.where(masked[..., None], 0, found.step)
        if words and not masked.any():
            likely, constant = most_likely(*words, coefficients[0], constant)
            coefficients = likely[None]
        return Fitted(coefficients, constant, found.system)


def flat(values: Single, axis: int, places: Integers) -> Single:
    """Return values at some places of each sample as rows (samples * places, outputs).

    Args:
        values: samples lie along the first axis.
        axis: the one of the outputs.
        places: in each sample, over all other axes.
    """
    outputs = values.shape[axis]
    if axis % values.ndim == values.ndim - 1:
        return values.reshape(len(values), -1, outputs)[:, places].reshape(-1, outputs)
    first = np.moveaxis(values, axis, 1).reshape(len(values), outputs, -1)
    return first[:, :, places].swapaxes(1, 2).reshape(-1, outputs)


def declined(node: gs.Node, reason: str) -> Declined:
    """Return the note that ``node`` was not refitted."""
    return Declined(f"{node.op} {node.name}", f"not refitted: {reason}")


def _behind_sum(
    node: gs.Node, made: gs.Tensor, sides: CutAndParent, outputs: Collection[str]
) -> tuple[gs.Tensor, gs.Tensor | None, gs.Node | None]:
    """Return the tensor of the parent to be met, the other summand of the cut model, and the only reader.

    Args:
        node: of the cut model.
        made: what it puts out in the parent.
        sides: both models.
        outputs: names of the cut model's.
    """
    after, parents, groups = _only_reader(node, outputs), sides.parent.nodes, sides.groups
    if after is None or after.op != "Add":
        return made, None, after
    other = after.inputs[1 if after.inputs[0] is node.outputs[0] else 0]
    total = parents[after.name].outputs[0] if after.name in parents else made  # put in for a bias
    if _grows(groups.shape(made), groups.shape(total), other):
        return made, None, None
    if is_constant(other) or (after.name in parents and other.name in sides.cut.known(node)):
        return total, other, _only_reader(after, outputs)
    return made, None, after


def _grows(made: Shape | None, total: Shape | None, other: gs.Tensor) -> bool:
    """Return whether a sum may be larger than what a node puts into it.

    Args:
        made: shape of what the node puts out; sizes that are not known are ``None``.
        total: shape of the sum.
        other: the other summand.
    """
    if made == total:
        return False
    if made is None or total is None or len(made) != len(total) or not is_constant(other):
        return True
    sizes = (1,) * (len(made) - other.values.ndim) + other.values.shape
    return any(size not in (1, own) for size, own in zip(sizes, made, strict=True))


def _only_reader(node: gs.Node, outputs: Collection[str]) -> gs.Node | None:
    """Return the one node that reads what ``node`` makes, if nothing else does."""
    made = node.outputs[0]
    return made.outputs[0] if len(made.outputs) == 1 and made.name not in outputs else None


def _stays(groups: ChannelGroups, node: gs.Node, operator: AffineMap, kept: Mask) -> Mask:
    """Return which outputs of a node of the parent the cut model has."""
    channels = groups.of(node.outputs[0])[operator.made_axis]
    count, width, _ = operator.coefficients(node).shape
    return np.ones(count * width, bool) if channels is None else groups.close(kept)[channels]
