"""Fits of scores to samples: what they read of a composite, how they decide, and their report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Report
from graft.passes.compare.ridge_head import HIDDEN
from graft.rewriter.arrays import Mask, Table
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import check_finite
from graft.rewriter.run.budget import require
from graft.rewriter.run.session import Device

READ = "graft/joint/read"
"""The output of a composite that holds what scores are fitted to, (samples, values)."""
BATCH = 64
COPIES = 6
"""Of the values of all samples, held at once while scores are fitted: scaled, weighted, those of folds."""
FEWER = (
    "take fewer samples with --samples-per-class, or leave --data out: networks are then compared without "
    "samples"
)
SQUARES = 4
"""Matrices of the equations of a fit: their own, with a penalty, and what LAPACK copies."""
NAMED = 3
"""Classes that a message names at most."""


@dataclass(frozen=True, kw_only=True)
class FitReport(Report):
    """Scores that were fitted to samples.

    Attributes:
        samples: how many they were fitted to.
        top1: accuracy on folds that were left out.
        before: accuracy of the scores without data, on the same samples.
        penalty: of the squared weights.
        hidden: random features beside the values themselves; 0: the head is linear in them.
        used: ``True`` where the fit is at least as good as the scores without data, and replaces them.
    """

    samples: int
    top1: float
    before: float
    penalty: float
    hidden: int
    used: bool

    def plain(self) -> dict[str, Any]:
        """Return the figures, as ``--json`` prints them."""
        names = ("samples", "top1", "before", "penalty", "hidden", "used")
        return {name: getattr(self, name) for name in names}


def observe(model: Model, samples: Samples, device: Device) -> tuple[Table, Mask]:
    """Return the values of the output :data:`READ`, and where the scores as they are are right.

    Args:
        model: a composite.
        samples: matched to its card.
        device: where it runs.

    Raises:
        GraftError: fewer than two samples of a class.
    """
    require_two(samples)
    values, scores = read_outputs(model, samples, device, [READ, samples.card.output.name])
    return values, scores.argmax(axis=-1) == samples.labels


def require_two(samples: Samples) -> None:
    """Raise unless there are two samples of each class: one for a fold that is left out, one to fit to.

    Raises:
        GraftError: ``joint-samples``.
    """
    counts = np.bincount(samples.labels, minlength=len(samples.card.labels))
    if counts.min() < 2:
        least = counts.min()
        few = [f"'{samples.card.labels[number]}'" for number in np.flatnonzero(counts == least)]
        names = ", ".join(few) if len(few) <= NAMED else f"{', '.join(few[:NAMED])} ... ({len(few)} classes)"
        raise GraftError(
            "joint-samples",
            f"to compare networks takes two samples of each class, and there are {least} of {names}",
            "give samples of them, too, or leave --data out: scores are then compared without samples",
        )


def read_outputs(model: Model, samples: Samples, device: Device, names: Sequence[str]) -> list[Table]:
    """Return the outputs ``names`` of ``model`` for all samples, float64 (samples, values) each.

    Args:
        model: what runs.
        samples: matched to its card.
        device: where it runs.
        names: of outputs.

    Raises:
        GraftError: an output is not finite; ``memory`` where a fit to all samples takes more than is free.
    """
    session = device.open(model)
    found: list[Table] = []
    done = 0
    for feed, labels in session.batches(samples, BATCH):
        outputs = session.run(feed, list(names))
        parts = [check_finite(session.rows(outputs[name], name, labels), name) for name in names]
        if not found:
            shapes = [(len(samples), *part.shape[1:]) for part in parts]
            needed = COPIES * 8 * sum(map(math.prod, shapes))
            width = sum(math.prod(shape[1:]) for shape in shapes)
            needed += SQUARES * 8 * min(len(samples), width + HIDDEN) ** 2
            require(needed, device.memory, f"fitting scores to {len(samples)} samples", FEWER)
            found = [np.empty(shape) for shape in shapes]
        for table, part in zip(found, parts, strict=True):
            table[done : done + len(part)] = part
        done += len(labels)
    return found


def decide(model: Model, scores: Callable[[Builder, gs.Tensor], gs.Tensor] | None) -> None:
    """Let a function of the output :data:`READ` make the scores of a composite; the output goes.

    Args:
        model: the composite, changed in place.
        scores: adds nodes that make scores (samples, classes) of the output; ``None``: the scores stay.
    """
    graph, name = model.graph, model.require_card().output.name
    output = next(tensor for tensor in graph.outputs if tensor.name == name)
    read = next(tensor for tensor in graph.outputs if tensor.name == READ)
    others = [tensor for tensor in graph.outputs if tensor.name not in (READ, name)]
    if scores is not None:
        build = Builder(graph, model.opset, "graft/joint")
        found = scores(build, read)
        if model.require_card().output.kind == "probabilities":
            found = build.node("Softmax", "shares", [found], axis=-1)
        found.name, output.name = output.name, f"{build.prefix}/before"
        found.dtype, found.shape = np.dtype(np.float32), output.shape
        output = found
    graph.outputs = [output, *others]
    model.tidy()
