"""Find the smallest module that loses little enough, by cross-validation on training samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.evaluation import score
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device

FOLDS = 5
SAMPLES = 512
"""Candidates are refitted with fewer samples than modules are: sooner, and none the better for it."""
STEPS = np.round(np.arange(0.05, 1.0, 0.05), 2)
"""Budgets that are tried, by bisection."""


@dataclass(frozen=True)
class BudgetSearchReport:
    """The budget that was found.

    Attributes:
        keep: share of the parent's cost.
        drop: points lost against the parent on held-back samples, positive is worse.
        standard_error: of the drop, in points, from sample to sample.
    """

    keep: float
    drop: float
    standard_error: float


class BudgetSearch:
    """Search budgets: statistics from four folds, the drop measured on the fifth, pooled over all five.

    For a module of one class the drop is one of balanced accuracy, for a set of accuracy among the set.
    A network is nearly perfect on samples that it was trained on: the search cannot resolve a drop
    smaller than the standard error it reports.

    Args:
        points: largest drop allowed.
        device: where to run.
    """

    def __init__(self, points: float, device: Device) -> None:
        if np.isnan(points):
            raise GraftError("max-drop-range", "--max-drop is nan, no number", "use points such as 0.5")
        self.points = points
        self.device = device
        self._folds: list[tuple[Profile, Samples, Samples]] = []
        self._of: tuple[str, int] | None = None

    def __call__(
        self, parent: Parent, samples: Samples, decompose: Decompose, classes: Sequence[str]
    ) -> BudgetSearchReport:
        """The smallest budget for a module for ``classes``; keeping everything is always allowed."""
        self._profile(parent, samples)
        best = BudgetSearchReport(1.0, 0.0, 0.0)
        low, high = -1, len(STEPS)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                found = self._measure(
                    parent, replace(decompose, keep=float(STEPS[middle]), samples=SAMPLES), classes
                )
            except GraftError as error:
                if error.code != "budget-unreachable":
                    raise
                found = None
            if found is not None and found.drop <= self.points:
                best, high = found, middle
            else:
                low = middle
        return best

    def _profile(self, parent: Parent, samples: Samples) -> None:
        """One profile a fold; those of four folds add up to what a candidate may know."""
        key = (parent.sha256, len(samples))
        if self._of == key:
            return
        if len(samples) < FOLDS * 2:
            raise GraftError(
                "too-few-samples",
                f"a drop cannot be measured on {len(samples)} training samples",
                "give more samples, or a budget with --keep",
            )
        parts = samples.folds(FOLDS)
        profiles = [Observe(self.device)(parent.model, part, parent.sha256, "") for _, part in parts]
        self._folds = []
        for number, (rest, part) in enumerate(parts):
            others = [profile for other, profile in enumerate(profiles) if other != number]
            merged = others[0]
            for profile in others[1:]:
                merged = merged.merge(profile)
            self._folds.append((merged, rest, part))
        self._of = key

    def _measure(self, parent: Parent, decompose: Decompose, classes: Sequence[str]) -> BudgetSearchReport:
        drops = []
        for profile, rest, held in self._folds:
            module = decompose(parent, profile, classes, data=rest, device=self.device).model
            whole = parent.model.copy()
            decompose.head(classes)(whole)
            drops.append(self._weighted(module, held) - self._weighted(whole, held))
        lost = -100 * np.concatenate(drops)
        return BudgetSearchReport(
            float(decompose.keep or 1.0), float(lost.mean()), metrics.standard_error(lost)
        )

    def _weighted(self, model: Model, held: Samples) -> np.ndarray:
        """Hits of every sample, weighed so that their mean is balanced accuracy."""
        card = model.require_card()
        own = Samples.match(held.split, card, names=held.card.labels)
        own = own.take(np.isin(own.indices, held.indices))
        scored = score(model, own, self.device)
        counts = np.bincount(scored.labels.ravel(), minlength=len(card.labels)).astype(float)
        present = counts > 0
        weight = np.where(present, counts.sum() / np.maximum(counts, 1) / present.sum(), 0.0)
        return np.asarray(scored.correct * weight[scored.labels])
