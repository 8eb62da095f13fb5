"""After the cut: refit every layer to what the parent computes, in order, with data and in closed form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.passes.ridge import OPEN, correction
from graft.rewriter.calibration import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.groups import ChannelGroups
from graft.rewriter.model import Model
from graft.rewriter.operators import operator_of
from graft.rewriter.operators.base import is_constant
from graft.rewriter.plan import Plan
from graft.rewriter.session import Device
from graft.rewriter.walk import Batches, Walk

BATCH = 64
SAMPLES = 2048
"""More samples bring nothing that could be measured."""
ROWS = 1 << 14
"""A layer is fitted at so many places of all samples, drawn once for every batch."""
NUMBERS = 1 << 26
"""Fewer, where the rows would hold more numbers than this."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class RefitReport:
    """What was refitted.

    Attributes:
        changed: number of nodes.
        samples: number of samples that were used.
    """

    changed: int
    samples: int


@dataclass(frozen=True)
class _Site:
    """A node to refit, and where its target is.

    Attributes:
        node: in the cut model.
        target: the tensor of the parent to be met: what the node puts out there, or the sum that this
            goes into.
        beside: the other summand in the cut model; ``None``: the target is what the node puts out.
        limits: what lies outside of these is as good as the limit: the activation behind is flat there.
    """

    node: gs.Node
    target: str
    beside: gs.Tensor | None = None
    limits: tuple[float, float] = OPEN


class Refit:
    """Fit each layer of a cut model, by least squares, to the parent's values of what it makes.

    In the order of the graph; a layer's inputs are what the cut model really computes, with all layers
    before it refitted, so that errors are met where they arise and do not add up. Targets:

    * where the output goes into a sum, the parent's sum less the other summand of the cut model: the
      branch of a residual block makes up for what the stream has lost;
    * where an activation follows that is flat (``Relu``, ``Clip``), only what passes it counts: where
      the parent is off, any value that is off is right (the non-linear reconstruction of Zhang et al.
      2015, solved by alternating between targets and weights);
    * of the last layer: the parent's scores.

    Weights shrink towards those before the refit; how much is chosen on half of the samples, fitted on
    the other (see :mod:`graft.passes.ridge`).

    Args:
        data: labelled samples; those of other classes are used where the module can meet them.
        classes: those of the module.
        device: where both models run.
        alone: the module will see nothing but ``classes``.
        seed: draws samples, where there are many, and places.
        most: so many samples are used.
    """

    def __init__(
        self,
        data: Samples,
        classes: Sequence[str],
        device: Device,
        alone: bool,
        seed: int = 0,
        most: int = SAMPLES,
    ) -> None:
        self.device = device.waiting()
        self.seed = seed
        self.data, self.weights = _chosen(data, classes, alone, seed, most)

    def __call__(self, model: Model, whole: Model, plan: Plan) -> RefitReport:
        """Change the weights of ``model``.

        Args:
            model: the cut model.
            whole: the parent with the same head, uncut.
            plan: what of ``whole`` is left in ``model``.
        """
        groups = ChannelGroups(whole)
        kept = plan.mask(groups)
        batches = Batches.read(self.data, self.device, model, BATCH)
        weights = self.weights[: batches.count] / self.weights[: batches.count].sum()
        walk, parent = Walk(model, batches, self.device), Walk(whole, batches, self.device)
        changed = 0
        for name in [node.name for node in model.graph.nodes if operator_of(node).affine(node)]:
            node = walk.nodes[name]
            site = _site(node, model.graph, parent.nodes, walk.known(node))
            if site is None:
                continue
            stays = _along(groups, parent.nodes[name], kept)
            rows = _Rows(site, stays, np.random.default_rng([self.seed, changed]), batches.count)
            for cut, uncut in zip(
                walk.at(node, _reads(site)), parent.at(parent.nodes[name], [site.target]), strict=True
            ):
                rows.add(cut, uncut)
            _apply(site, rows, weights, model.graph)
            changed += 1
        return RefitReport(changed, batches.count)


class _Rows:
    """What a site reads and what it should make, at places of all samples."""

    def __init__(self, site: _Site, stays: NDArray[np.bool_], draw: np.random.Generator, samples: int):
        self.site, self.stays, self.draw = site, stays, draw
        groups, _, columns = operator_of(site.node).coefficients(site.node).shape
        self._each = max(1, min(ROWS, NUMBERS // (groups * columns)) // samples)
        self.read: list[Array] = []
        self.made: list[Array] = []
        self.beside: list[Array] = []
        self.times: list[int] = []

    def add(self, cut: Mapping[str, Array], uncut: Mapping[str, Array]) -> None:
        """Take a batch in: tensors of the cut model and of the parent."""
        node, operator = self.site.node, operator_of(self.site.node)
        axis, target = operator.made_axis, uncut[self.site.target]
        samples = len(target)
        target = np.compress(self.stays, target, axis=axis) if not self.stays.all() else target
        count = int(np.prod(target.shape)) // target.shape[axis] // samples
        places = np.sort(self.draw.permutation(count)[: self._each])
        self.read.append(operator.rows(node, cut[node.inputs[0].name], places))
        self.made.append(_flat(target, axis, places))
        if self.site.beside is not None:
            beside = self.site.beside
            values = beside.values if is_constant(beside) else cut[beside.name]
            self.beside.append(_flat(np.broadcast_to(values, target.shape), axis, places))
        self.times += [len(places)] * samples


def _flat(values: Array, axis: int, places: NDArray[np.int64]) -> Array:
    """Rows (samples * places, outputs)."""
    moved = np.moveaxis(values, axis, -1)
    return moved.reshape(len(moved), -1, moved.shape[-1])[:, places].reshape(-1, moved.shape[-1])


def _apply(site: _Site, rows: _Rows, weights: NDArray[np.float64], graph: gs.Graph) -> None:
    """Solve, and change weights and bias."""
    node, operator = site.node, operator_of(site.node)
    old = operator.coefficients(node)
    groups, width, _ = old.shape
    read = np.concatenate(rows.read, axis=1).astype(np.float32)
    made = np.concatenate(rows.made).astype(np.float32)
    beside = (
        np.concatenate(rows.beside).astype(np.float32)
        if rows.beside
        else np.zeros((1, made.shape[1]), np.float32)
    )
    each = np.repeat(weights[: len(rows.times)], rows.times) if len(weights) == len(rows.times) else None
    share = np.full(len(made), 1 / len(made)) if each is None else each / each.sum()

    def apart(values: Array) -> Array:
        return np.ascontiguousarray(values.reshape(len(values), groups, width).swapaxes(0, 1))

    step, constant = correction(
        read, apart(made), apart(beside), share.astype(np.float32), old.astype(np.float32), site.limits
    )
    if not (np.isfinite(step).all() and np.isfinite(constant).all()):
        raise GraftError(
            "refit-failed",
            f"{node.op} {node.name} cannot be refitted: its values are not finite",
            "check card and data, or use --compensate fold",
        )
    operator.set_coefficients(node, old + step)
    operator.add_bias(node, constant.reshape(-1) - operator.offset(node), graph)


def _chosen(
    data: Samples, classes: Sequence[str], alone: bool, seed: int, most: int
) -> tuple[Samples, NDArray[np.float64]]:
    """Samples and their weights: every class of the module counts alike, others as much as all of them."""
    numbers = [data.card.class_index(name) for name in classes]
    labels = data.labels.reshape(len(data.labels), -1)[:, -1]
    own = np.isin(labels, numbers)
    draw = np.random.default_rng([seed, 1])
    limit = most if alone or own.all() else most // 2
    positions = draw.permutation(np.flatnonzero(own))[:limit]
    if not alone:
        others = draw.permutation(np.flatnonzero(~own))[: most - len(positions)]
        positions = np.concatenate([positions, others])
    positions = draw.permutation(positions)
    labels, own = labels[positions], own[positions]
    _, kind, counts = np.unique(np.where(own, labels, -1), return_inverse=True, return_counts=True)
    weights = 1.0 / counts[kind]
    weights[~own] *= max(1, len(numbers))
    return data.take(positions), weights


def _reads(site: _Site) -> list[str]:
    names = [site.node.inputs[0].name]
    if site.beside is not None and not is_constant(site.beside):
        names.append(site.beside.name)
    return names


def _site(
    node: gs.Node, graph: gs.Graph, parents: Mapping[str, gs.Node], known: frozenset[str]
) -> _Site | None:
    """Where ``node`` finds its target; ``None`` where the parent has no such node."""
    if node.name not in parents:
        return None
    outputs = {tensor.name for tensor in graph.outputs}
    target, beside = parents[node.name].outputs[0].name, None
    after = _only_reader(node, outputs)
    if after is not None and after.op == "Add":
        other = after.inputs[1 if after.inputs[0] is node.outputs[0] else 0]
        if is_constant(other) or (after.name in parents and other.name in known):
            beside = other
            if after.name in parents:  # or else it was put in for a bias
                target = parents[after.name].outputs[0].name
            after = _only_reader(after, outputs)
    limits = OPEN if after is None else operator_of(after).limits(after)
    return _Site(node, target, beside, limits)


def _only_reader(node: gs.Node, outputs: Collection[str]) -> gs.Node | None:
    """The one node that reads what ``node`` makes, if nothing else does."""
    made = node.outputs[0]
    return made.outputs[0] if len(made.outputs) == 1 and made.name not in outputs else None


def _along(groups: ChannelGroups, node: gs.Node, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which outputs of a node of the parent the cut model has."""
    operator = operator_of(node)
    channels = groups.of(node.outputs[0])[operator.made_axis]
    groups_, width, _ = operator.coefficients(node).shape
    return np.ones(groups_ * width, bool) if channels is None else groups.close(kept)[channels]
