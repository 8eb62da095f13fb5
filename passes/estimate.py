"""How much work operations are, before they start: passes over samples, and linear algebra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graft.passes.budget_search import SAMPLES as SEARCH_SAMPLES
from graft.passes.budget_search import STEPS
from graft.passes.compensate.fold import NONE, REFIT
from graft.passes.compensate.layer import rows_of
from graft.passes.compensate.least_squares import OPEN, ROUNDS
from graft.passes.compensate.systems import PENALTIES, by_rows
from graft.passes.decompose import Decompose
from graft.passes.identify import method_of
from graft.passes.parent import Parent
from graft.passes.select.observe import PRODUCT_NUMBERS
from graft.passes.select.profiling import rows_for
from graft.rewriter.data.folds import FOLDS
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.sizes import sizes_of
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import macs_by_node
from graft.rewriter.measure.speed import Workload
from graft.rewriter.operators import affine_map_of, operator_of
from graft.rewriter.operators.base import is_constant

DOUBLE = 2.0
"""Time of an operation in double precision over one in single precision."""
ANALYSES = 12.0
"""Analyses, copies and loads of a graph for each module."""
SESSIONS = 4.0
"""Pieces of a graph that are loaded for each layer that is refitted, as large as some nodes."""
TOUCHED = 4000.0
"""Operations of products in the time that it takes to move one number about as often as a fit does."""
PAIR = 5.0
"""Passes through each of the two layers where one is fitted to the other."""
KEPT = 0.6
"""Share of the parent's cost that a module keeps where that is searched."""
STATISTICS = 1.3
"""Time of a pass with sums by class over one without."""


@dataclass(frozen=True)
class Subject:
    """A parent, and the samples that its modules are made with.

    Attributes:
        parent: the parent.
        groups: its analysis, at the sizes of the samples.
        count: number of samples.
        by_class: number of samples of each class.
        macs: multiply-accumulates for one sample.
    """

    parent: Parent
    groups: ChannelGroups
    count: int
    by_class: dict[str, int]
    macs: float

    @classmethod
    def of(cls, parent: Parent, samples: Samples | None) -> Subject:
        """Return what estimates take of ``parent`` and ``samples``; both are left as they are."""
        groups, count, by_class = parent.groups, 0, dict[str, int]()
        if samples is not None:
            count, by_class = len(samples), samples.counts()
            groups = _sized(parent, samples)
        return cls(parent, groups, count, by_class, float(macs_by_node(groups).sum()))

    def passes(self, samples: float) -> Workload:
        """Return the work of running the parent on so many samples."""
        return Workload(macs=self.macs * samples, reads=samples, nodes=len(self.groups.nodes))

    def profile(self, classes: tuple[str, ...] | None, samples: float) -> Workload:
        """Return the work of profiling ``classes``; ``None``: all of them."""
        rows = None if classes is None else rows_for(self.parent, classes)
        count = len(self.parent.card.labels if rows is None else rows) + (rows is not None)
        products = 0.0
        for place in self.groups.reads():
            size = len(place.channels)
            if count * size**2 <= PRODUCT_NUMBERS:
                shape = self.groups.shapes.get(place.tensor) or ()  # unknown: one place
                others = [each or 1 for each in shape[1:]]
                products += size * float(np.prod(others, dtype=float))
        passes = self.passes(samples)
        return replace(passes, macs=passes.macs * STATISTICS + samples * products)

    def plan(self, decompose: Decompose) -> Workload:
        """Return the work of choosing the channels of one module."""
        return method_of(decompose.method or "").workload(self.groups)

    def module(self, decompose: Decompose) -> Workload:
        """Return the work of one module, but for its plan."""
        keep = 1.0 if decompose.keep is None else decompose.keep
        nodes = ANALYSES * len(self.groups.nodes)
        verified = self.passes(16) if decompose.verify else Workload()
        found = verified + Workload(nodes=nodes)
        if decompose.compensate != NONE:
            sizes = np.asarray([len(place.channels) for place in self.groups.reads()], float)
            found += Workload(flops=2 * DOUBLE * float((sizes**3).sum()) * keep)
        return found + self.refit(decompose, keep) if decompose.compensate == REFIT else found

    def refit(self, decompose: Decompose, keep: float) -> Workload:
        """Return the work of a refit of a module that keeps so much of the cost."""
        own = sum(self.by_class.get(name, 0) for name in decompose.classes)
        count = own if decompose.together and not decompose.other else self.count
        used = float(min(decompose.refit_samples, count) * (1 + decompose.mirror))
        macs, flops, sessions = (1 + keep) * self.macs * used, 0.0, 0
        each = macs_by_node(self.groups)
        for node, own_macs in zip(self.groups.nodes, each, strict=True):
            operator = affine_map_of(node)
            if operator is None or is_constant(node.inputs[0]):
                continue
            readers = node.outputs[0].outputs
            after = readers[0] if len(readers) == 1 else None
            flat = after is not None and operator_of(after).limits(after) != OPEN
            shape = operator.coefficients(node).shape
            made = self.groups.shape(node.outputs[0]) or ()
            places = np.prod([size or 1 for size in made[1:]]) / (shape[0] * shape[1])
            solved = least_squares(shape, used * max(1.0, float(places)), keep, flat)
            paired = after is not None and after.op != "Add"
            flops += solved * (1.0 + paired)
            macs += PAIR * paired * keep * own_macs * used * 2
            sessions += 1 + paired
        return Workload(macs=macs, reads=used, flops=flops, nodes=SESSIONS * sessions)

    def search(self, decompose: Decompose) -> Workload:
        """Return the work of searching the budget of one module on folds, but for the profiles of folds."""
        tried = FOLDS * float(np.log2(len(STEPS) + 1))
        fewer = replace(
            self,
            count=round(self.count * (1 - 1 / FOLDS)),
            by_class={name: round(count * (1 - 1 / FOLDS)) for name, count in self.by_class.items()},
        )
        candidate = replace(decompose, keep=KEPT, refit_samples=min(SEARCH_SAMPLES, decompose.refit_samples))
        return fewer.module(candidate) * tried + fewer.passes(KEPT * self.count / FOLDS) * tried

    def modules(self, decompose: Decompose, count: int, search: bool) -> Workload:
        """Return the work of so many modules like ``decompose``, but for their plans.

        Args:
            decompose: the options of every module.
            count: number of modules.
            search: their budgets are searched.
        """
        if not search:
            return self.module(decompose) * count
        final = self.module(replace(decompose, keep=KEPT))
        return (final + self.search(decompose)) * count + self.profile(None, self.count)


def _sized(parent: Parent, samples: Samples) -> ChannelGroups:
    """Return the analysis of ``parent`` at the sizes of samples."""
    try:
        sizes = sizes_of(parent.source, samples)
    except GraftError:  # said where the samples are used
        sizes = {}
    return parent.groups.at(sizes) if sizes else parent.groups


def least_squares(shape: Sequence[int], most: float, keep: float, flat: bool) -> float:
    """Return the operations of a fit, in single precision.

    Args:
        shape: of the coefficients: groups, outputs of a group, columns.
        most: rows that there are.
        keep: share of the cost that the module keeps, of which channels keep the root.
        flat: an activation follows that is flat somewhere: targets and weights take turns.
    """
    groups, outputs, columns = shape
    outputs, columns = (max(1, round(size * keep**0.5)) for size in (outputs, columns))
    rows = max(1.0, min(rows_of(groups, outputs, columns), most))
    turns = ROUNDS + 1 if flat else 1
    size = rows if by_rows(round(rows), columns) else columns
    products = 2 * rows * columns * (size + (2 * turns + 2) * outputs)
    solved = DOUBLE * (len(PENALTIES) + turns) * (2 / 3 * size**3 + 2 * size**2 * outputs)
    touched = TOUCHED * rows * (columns + (turns + 1) * outputs)
    return float(groups * (products + solved + touched))
