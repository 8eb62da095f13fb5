"""After the cut: refit every layer to what the parent computes, in order, with data and in closed form."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graft.passes.base import Context, Declined, Report
from graft.passes.compensate.layer import BLOCK, CutAndParent, Layer, Rows, StepWeights
from graft.passes.compensate.layer_pair import LayerPair
from graft.passes.compensate.recurrent import RecurrentLayer
from graft.passes.compensate.working_memory import Work, largest_tensor
from graft.passes.cut.verify import Pruned
from graft.rewriter.arrays import Table
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.data.sizes import sizes_of
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.set_aside import page_out
from graft.rewriter.memory import gigabytes, trim
from graft.rewriter.run.budget import left, require, resident_bytes
from graft.rewriter.run.session import Device
from graft.rewriter.run.staged import Batches, StagedRun
from graft.rewriter.run.values import Room

log = logging.getLogger("graft")
SAMPLES = 2048
"""More samples bring nothing that could be measured."""


@dataclass(frozen=True, kw_only=True)
class RefitReport(Report):
    """Nodes that were refitted; ``changed`` counts them.

    Attributes:
        samples: number of samples that were used.
    """

    samples: int


@dataclass(frozen=True)
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
    the other (see :mod:`graft.passes.compensate.least_squares`).

    Attributes:
        classes: those of the module.
        alone: the module will see nothing but ``classes``.
        most: so many samples are used.
    """

    classes: tuple[str, ...]
    alone: bool
    most: int = SAMPLES

    def __call__(self, subject: Pruned, context: Context) -> RefitReport:
        """Change the weights of the cut model, in place.

        Args:
            subject: the cut model, and the parent with the same head, uncut.
            context: labelled samples (those of other classes are used where the module can meet them), the
                device that runs both models, and the seed that draws samples and places.

        Returns:
            The number of nodes that were refitted, and those that were not, with the reason.

        Raises:
            GraftError: there are no samples, or fewer than a batch of fixed size has; values are not finite.
        """
        if context.samples is None:
            raise GraftError(
                "refit-data", "to refit takes labelled samples", "give them, or compensate by fold"
            )
        samples, weights = _chosen(context.samples, self.classes, self.alone, context.seed, self.most)
        sides = _cut_and_parent(subject, samples, weights, context.device.waiting())
        taken, changed, left = 0, 0, list[Declined]()
        for name in [node.name for node in sides.model.graph.nodes]:
            node, draw = sides.cut.nodes[name], np.random.default_rng([context.seed, taken])
            layer = RecurrentLayer.find(node, sides, draw) or Layer.find(node, sides)
            if isinstance(layer, Declined):
                left.append(layer)
            elif isinstance(layer, RecurrentLayer):
                reason = _refit_gates(layer)
                taken, changed = taken + 1, changed + (reason is None)
                left += [reason] if reason else []
            elif layer is not None:
                trim()
                page_out()
                _refit_layer(layer, sides, draw)
                taken, changed = taken + 1, changed + 1
        return RefitReport(changed=changed, declined=tuple(left), samples=len(sides.weights))


def _cut_and_parent(subject: Pruned, samples: Samples, weights: Table, device: Device) -> CutAndParent:
    """Return both models, ready to run on the samples.

    Args:
        subject: the cut model, and the parent with the same head.
        samples: both run on them.
        weights: of the samples.
        device: where they run.

    Raises:
        GraftError: there are fewer samples than a batch of fixed size has, or there is too little memory.
    """
    model, whole = subject.model, subject.whole
    gc.collect()  # models that are gone hold each other
    trim()
    page_out()
    groups = whole.groups.at(sizes_of(whole.model, samples)).sized()
    each = largest_tensor(groups)
    work = Work.of(model, groups, len(samples), BLOCK)
    places = work.places_within(left(device.memory))
    needed = work.bytes(places)
    require(needed, device.memory, "the refit")
    if places:
        log.warning(
            "memory has no room for all equations: %d of %d layers are refitted at fewer places of the "
            "samples, the fewest at %d of %d; --memory %s would take all",
            *(len(places), len(work.layers), *_fewest(places, work)),
            gigabytes(work.bytes() + resident_bytes()).replace(" ", ""),
        )
    room = Room(device.room() - needed)
    batches = Batches.read(samples, device, model, BLOCK, each, room)
    weights = weights[: batches.count] / weights[: batches.count].sum()
    runs = (StagedRun(model, batches, device), StagedRun(whole.model, batches, device))
    kept = subject.plan.mask(whole.groups)
    steps = _steps(model, samples.take(np.arange(batches.count)))
    return CutAndParent(model, whole.groups, kept, *runs, weights, device, batches.block, room, places, steps)


def _steps(model: Model, samples: Samples) -> StepWeights | None:
    """Return what the steps of an encoder-decoder count: every word alike, and nothing behind the end.

    Args:
        model: with a card.
        samples: of the fit.
    """
    written = samples.card.written
    if written is None:
        return None
    reached = {written.name}
    nodes = set()
    for node in model.graph.nodes:  # in an order in which they can run
        if any(tensor.name in reached for tensor in node.inputs):
            nodes.add(node.name)
            reached |= {tensor.name for tensor in node.outputs}
    return StepWeights((samples.labels != IGNORED).astype(np.float64), frozenset(nodes))


def _fewest(places: Mapping[str, int], work: Work) -> tuple[int, int]:
    """Return the fewest places that a layer is fitted at, and how many it is usually."""
    return min((count, work.layers[name].places) for name, count in places.items())


def _refit_gates(layer: RecurrentLayer) -> Declined | None:
    """Refit a recurrent layer; return why not, where it stays as it was."""
    sides = layer.sides
    both = (sides.cut.at(layer.node, layer.reads), sides.parent.at(layer.whole, layer.targets))
    for cut, uncut in zip(*both, strict=True):
        layer.add(cut, uncut)
    return layer.fit()


def _refit_layer(layer: Layer, sides: CutAndParent, draw: np.random.Generator) -> None:
    """Refit an affine layer, for the one that reads it where there is only one.

    Args:
        layer: the layer.
        sides: both models.
        draw: draws the places of samples that it is fitted at.

    Raises:
        GraftError: the values are not finite.
    """
    rows, pair = Rows(layer, draw, sides), LayerPair.find(layer, sides)
    reads = dict.fromkeys([*layer.reads(), *(pair.reads if pair else [])])
    targets = dict.fromkeys([layer.target, *([pair.second.target] if pair else [])])
    name, whole = layer.node.inputs[0].name, sides.parent.nodes[layer.node.name]
    both = (sides.cut.at(layer.node, [*reads]), sides.parent.at(whole, [*targets]))
    for cut, uncut in zip(*both, strict=True):
        rows.add(cut[name], *layer.wanted(cut, uncut))
        if pair:
            pair.add(cut, uncut)
    fitted = rows.solve()
    layer.write(sides.model.graph, pair.move(rows, fitted) if pair else fitted)


def _chosen(
    data: Samples, classes: Sequence[str], alone: bool, seed: int, most: int
) -> tuple[Samples, Table]:
    """Draw samples and weigh them: every class of the module counts alike, others as much as all of them.

    With one label a time step a sample counts with the weights of all its steps.

    Args:
        data: labelled samples.
        classes: those of the module.
        alone: leave out all others.
        seed: of the draw.
        most: so many at most.
    """
    numbers = [data.card.class_index(name) for name in classes]
    by_step = data.labels.reshape(len(data.labels), -1)
    own = np.isin(by_step, numbers).any(axis=1)
    draw = np.random.default_rng([seed, 1])
    limit = most if alone or own.all() else most // 2
    positions = draw.permutation(np.flatnonzero(own))[:limit]
    if not alone:
        others = draw.permutation(np.flatnonzero(~own))[: most - len(positions)]
        positions = np.concatenate([positions, others])
    positions = draw.permutation(positions)
    by_step = by_step[positions]
    wanted = np.isin(by_step, numbers)
    _, kind, counts = np.unique(np.where(wanted, by_step, -1), return_inverse=True, return_counts=True)
    weights = (1.0 / counts[kind]).reshape(by_step.shape)
    weights[~wanted] *= max(1, len(numbers))
    weights[by_step == IGNORED] = 0
    if data.card.decoder is not None:  # words are many: every one that is written counts alike
        weights = (by_step != IGNORED).astype(np.float64)
    return data.take(positions), weights.sum(axis=1)
