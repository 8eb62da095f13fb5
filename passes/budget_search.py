"""Find the smallest module that is hardly worse, by cross-validation on training samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from graft.passes.base import Context, Declined, Report, all_declined
from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.passes.select.uncuttable import require_cuttable
from graft.rewriter.data.folds import FOLDS, class_weights
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.evaluation import score
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device

log = logging.getLogger("graft")

SAMPLES = 512
"""Candidates are refitted with fewer samples than modules are: sooner, and none the better for it."""
FEWEST = 2
"""Samples of a class that folds take: one is held out, another one stays."""
STEPS = np.round(np.arange(0.05, 1.0, 0.05), 2)
"""Budgets that are tried, by bisection."""


@dataclass(frozen=True, kw_only=True)
class BudgetSearchReport(Report):
    """The budget that was found; ``changed`` counts the budgets that were tried.

    ``declined`` holds what the modules of all of them left as it was.

    Attributes:
        keep: share of the parent's cost.
        difference: accuracy against the parent's on held-out folds, in percentage points, negative is worse.
        standard_error: of the difference, in points, from sample to sample.
    """

    keep: float
    difference: float
    standard_error: float


@dataclass(frozen=True)
class _Fold:
    """A part of the samples that is held out, and a profile of the others.

    Attributes:
        profile: of the others.
        samples: the others.
        held_out: the part.
        declined: what profiling the folds left as it was.
    """

    profile: Profile
    samples: Samples
    held_out: Samples
    declined: tuple[Declined, ...]


@dataclass(frozen=True)
class BudgetSearch:
    """Search budgets: statistics from four folds, accuracy measured on the fifth, pooled over all five.

    For a module of one class accuracy is balanced accuracy, for a set it is accuracy among the set.
    A network is nearly perfect on samples that it was trained on: the search cannot resolve a difference
    smaller than the standard error it reports.

    Attributes:
        max_drop: largest drop of accuracy allowed, in percentage points.
        decompose: the module, but for its budget.
    """

    max_drop: float
    decompose: Decompose

    def __post_init__(self) -> None:
        if np.isnan(self.max_drop):
            raise GraftError("max-drop-range", "--max-drop is nan, no number", "use points such as 0.5")

    def __call__(self, parent: Parent, context: Context) -> BudgetSearchReport:
        """Find the smallest budget; keeping everything that no layer's own share prunes is always allowed.

        Args:
            parent: the parent.
            context: training samples, of which folds are held out; device and seed.

        Returns:
            The budget, and what the module differed by on held-out folds.

        Raises:
            GraftError: there are too few samples, nothing can be cut, or a module cannot be cut for
                another reason than its budget.
        """
        whole = self.decompose.headed(parent, context)
        require_cuttable(whole.analysed.groups)
        samples = check_samples(context.samples)
        rare = [name for name in self.decompose.classes if samples.count_of(name) < FEWEST]
        if len(rare) == len(self.decompose.classes):
            return _kept_whole(rare)
        folds = _folds(parent, context, samples)
        before = [_weighted(whole.model, fold.held_out, context.device) for fold in folds]
        declined = dict.fromkeys((*whole.declined, *folds[0].declined))
        best = BudgetSearchReport(keep=1.0, difference=0.0, standard_error=0.0)
        if self.decompose.layers.keep_layers:  # they prune whatever the budget
            least, left = self._measured(parent, context, 1.0, folds, before)
            declined |= dict.fromkeys(left)
            best = least or best
            if best.difference < -self.max_drop:
                log.warning(
                    "the shares of --keep-layer alone cost %.2f percentage points, more than --max-drop %g",
                    *(-best.difference, self.max_drop),
                )
        low, high, tried = -1, len(STEPS), 0
        while high - low > 1:
            middle = (low + high) // 2
            tried += 1
            found, left = self._measured(parent, context, float(STEPS[middle]), folds, before)
            declined |= dict.fromkeys(left)
            if found is not None and found.difference >= -self.max_drop:
                best, high = found, middle
            else:
                low = middle
        return replace(best, changed=tried, declined=tuple(declined))

    def _measured(
        self,
        parent: Parent,
        context: Context,
        keep: float,
        folds: list[_Fold],
        before: list[NDArray[np.float64]],
    ) -> tuple[BudgetSearchReport | None, list[Declined]]:
        """Return the accuracy of modules of this budget, and what they declined.

        The accuracy is None where the budget cannot be reached.
        """
        decompose = replace(self.decompose, keep=keep, refit_samples=SAMPLES)
        differences, declined = [], list[Declined]()
        for fold, hits in zip(folds, before, strict=True):
            own = replace(context, samples=fold.samples, profile=fold.profile)
            try:
                module = decompose(parent, own)
            except GraftError as error:
                if error.code != "budget-unreachable":
                    raise
                return None, declined
            declined += module.declined
            differences.append(_weighted(module.model, fold.held_out, context.device) - hits)
        points = 100 * np.concatenate(differences)
        found = BudgetSearchReport(
            keep=keep, difference=float(points.mean()), standard_error=metrics.standard_error(points)
        )
        return found, declined


def check_samples(samples: Samples | None) -> Samples:
    """Return the training samples, if a drop can be measured on folds of them.

    Raises:
        GraftError: ``too-few-samples``.
    """
    if samples is None or len(samples) < FOLDS * 2:
        raise GraftError(
            "too-few-samples",
            f"a drop cannot be measured on {len(samples or ())} training samples",
            "give more samples, or a budget with --keep",
        )
    return samples


def _kept_whole(names: Sequence[str]) -> BudgetSearchReport:
    """Return the budget of a module whose classes have one training sample: no fold can lack it."""
    reason = f"a drop cannot be measured with one training sample of {', '.join(names)}"
    log.warning("%s: its module is not pruned; give more samples, or a budget with --keep", reason)
    declined = Declined("--max-drop", reason)
    return BudgetSearchReport(keep=1.0, difference=0.0, standard_error=0.0, declined=(declined,))


def _folds(parent: Parent, context: Context, samples: Samples) -> list[_Fold]:
    """Return the folds of the samples, each with a profile of the others; made once for many modules."""
    key = ("folds", context.device.wanted, context.device.strict)
    return parent.once(samples, key, lambda: _profiled(parent, samples, context))


def _profiled(parent: Parent, samples: Samples, context: Context) -> list[_Fold]:
    """Profile each fold once: the profiles of four of them add up to what a candidate may know."""
    parts = samples.folds(FOLDS)
    observe = Observe()
    reports = [observe(parent, replace(context, samples=part)) for _, part in parts]
    profiles, declined = [report.profile for report in reports], all_declined(reports)
    return [
        _Fold(reduce(Profile.merge, profiles[:number] + profiles[number + 1 :]), others, part, declined)
        for number, (others, part) in enumerate(parts)
    ]


def _weighted(model: Model, held_out: Samples, device: Device) -> NDArray[np.float64]:
    """Return the hits of every sample, weighted so that their mean is balanced accuracy.

    Of a decoder every word counts alike.
    """
    card = model.require_card()
    own = Samples.match(held_out.split, card, names=held_out.card.labels)
    own = own.take(np.isin(own.indices, held_out.indices))
    scored = score(model, own, device)
    if card.decoder is not None:
        return np.asarray(scored.correct, np.float64)
    labels = scored.labels.ravel()
    weights = len(labels) * class_weights(labels)
    return np.asarray(scored.correct * weights.reshape(scored.labels.shape))
