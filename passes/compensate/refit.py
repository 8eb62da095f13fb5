"""After the cut: refit every layer to what the parent computes, in order, with data and in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.passes.base import Context, Report
from graft.passes.compensate.layer import Layer, Rows
from graft.passes.compensate.layer_pair import LayerPair
from graft.passes.compensate.recurrent import RecurrentLayer
from graft.passes.cut.verify import Pruned
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.run.staged import Batches, StagedRun

BATCH = 64
SAMPLES = 2048
"""More samples bring nothing that could be measured."""


@dataclass(frozen=True, kw_only=True)
class RefitReport(Report):
    """What was refitted; ``changed`` counts the nodes.

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
            The number of nodes that were refitted.

        Raises:
            GraftError: there are no samples, or fewer than a batch of fixed size has.
        """
        if context.samples is None:
            raise GraftError(
                "refit-data", "to refit takes labelled samples", "give them, or compensate by fold"
            )
        device, seed = context.device.waiting(), context.seed
        data, weights = _chosen(context.samples, self.classes, self.alone, seed, self.most)
        model, groups = subject.model, subject.whole.groups
        kept = subject.plan.mask(groups)
        batches = Batches.read(data, device, model, BATCH)
        weights = weights[: batches.count] / weights[: batches.count].sum()
        walk, parent = StagedRun(model, batches, device), StagedRun(subject.whole.model, batches, device)

        def find(node: gs.Node) -> Layer | None:
            return Layer.find(node, model.graph, parent.nodes, walk.known(node), groups, kept)

        changed = 0
        for name in [node.name for node in model.graph.nodes]:
            node, draw = walk.nodes[name], np.random.default_rng([seed, changed])
            gates = RecurrentLayer.find(node, parent.nodes, groups, kept, model, device, weights, draw)
            if gates:
                both = (walk.at(node, gates.reads), parent.at(gates.whole, gates.targets))
                for cut, uncut in zip(*both, strict=True):
                    gates.add(cut, uncut)
                gates.fit()
                changed += 1
            layer = find(node)
            if layer is None:
                continue
            rows = Rows(layer, np.random.default_rng([seed, changed]), weights)
            pair = LayerPair.find(layer, find, model, device)
            reads = dict.fromkeys([*layer.reads(), *(pair.reads if pair else [])])
            targets = dict.fromkeys([layer.target, *([pair.then.target] if pair else [])])
            for cut, uncut in zip(
                walk.at(layer.node, [*reads]), parent.at(parent.nodes[name], [*targets]), strict=True
            ):
                rows.add(cut, uncut)
                if pair:
                    pair.add(cut, uncut)
            fitted = rows.solve()
            layer.give(model.graph, pair.move(rows, fitted) if pair else fitted)
            changed += 1
        return RefitReport(changed=changed, samples=batches.count)


def _chosen(
    data: Samples, classes: Sequence[str], alone: bool, seed: int, most: int
) -> tuple[Samples, NDArray[np.float64]]:
    """Samples and their weights: every class of the module counts alike, others as much as all of them.

    With one label a time step a sample counts with the weights of all its steps.
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
    return data.take(positions), weights.sum(axis=1)
