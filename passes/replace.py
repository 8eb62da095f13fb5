"""Give one class of a classifier to another module, or add one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graft.passes.base import Context, Declined, Report
from graft.passes.compare import COMPARISONS, Comparison, Situation, comparison_called, default_comparison
from graft.passes.compare.fitting import FitReport, read_outputs
from graft.passes.compare.one_vs_rest import OneVsRest, Weighed
from graft.passes.compare.ridge_head import RidgeHead
from graft.passes.join.compatibility import check_kinds, parents_macs, signature
from graft.passes.join.merge import Meet, MeetReport, input_of
from graft.passes.join.patch import Newcomer, Patch, PatchGraph
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import cost_of

FEWEST = 2
"""Samples of the newcomer's class, and of all others, that scores are fitted to."""


@dataclass(frozen=True, kw_only=True)
class ReplaceReport(Report):
    """A patched classifier.

    Attributes:
        model: the result, with its card.
        scores: name of the comparison of the newcomer.
        adapted: for the classifier and for the newcomer, steps from the raw input to its own; empty where
            both take the same.
        fitted: the fit of the newcomer's score to data, where there was one.
    """

    model: Model
    scores: str
    adapted: tuple[tuple[str, ...], ...] = ()
    fitted: FitReport | None = None


@dataclass(frozen=True)
class Replace:
    """Let a newcomer decide a class of a classifier.

    The newcomer says how likely its class is against everything else: log-odds o. Its column becomes
    ``o + logsumexp`` of all other columns, so that the share of the class in the result is just the share
    in the newcomer, and the others divide the rest as before: their columns stay as they are.

    Comparisons that can patch (:attr:`graft.passes.compare.Comparison.patches`) say what o is made of:

    * ``odds``: the log-odds of the newcomer alone. The default without data where its parent knows all
      classes of the classifier;
    * ``typicality``: less the distance of the sample to the class. The default without data otherwise;
    * ``calibrated``: both with weights and an offset that are fitted to samples;
    * ``joint``: one ridge regression of the features of both networks, the class against all others.

    With data the default is ``calibrated``, or ``joint`` where that is better on folds by more than a
    standard error; and the one without data where neither is as good.

    Attributes:
        scores: name of a comparison, or an object; ``None``: the default.
        input: see :class:`graft.passes.compose.Compose`; ``None``: the classifier's own, raw where the
            newcomer takes another.
        dtype: of raw images.
        samples_per_class: scores are fitted to at most so many.
    """

    scores: str | Comparison | None = None
    input: str | None = None
    dtype: type[np.generic] = np.uint8
    samples_per_class: int | None = None

    def __post_init__(self) -> None:
        if self.scores is not None:
            comparison_called(self.scores, patches=True)

    def __call__(self, patch: Patch, context: Context) -> ReplaceReport:
        """Replace a class of a classifier, or add one.

        Args:
            patch: the classifier, the newcomer and the class; the models are left as they are.
            context: ``data`` holds samples to fit the newcomer's score to, with classes as the result calls
                them; device and seed.

        Raises:
            GraftError: a class is unknown or there twice, inputs or outputs do not fit, or a comparison
                needs data and there is none.
        """
        patch.labels()
        asked = None if self.scores is None else comparison_called(self.scores, patches=True)
        steps, data = patch.model.require_card().output.steps, context.data
        if asked and asked.needs_data and (data is None or steps):
            raise GraftError(
                "scores-data",
                f"the scores {asked.name} are fitted to samples with one label each",
                "name data with a training split, or choose other scores",
            )
        both, met = self._meet(patch, context)
        graph = PatchGraph(patch, both)
        comparison = asked if asked and not asked.needs_data else _default(patch)
        head, fitted = None, None
        if data is not None and not steps and (asked is None or asked.needs_data):
            fitted, best, weighed = self._fit(graph, comparison, asked, context)
            if fitted.used:
                comparison, head = best, weighed
        result = graph.write(comparison, head)
        patch.stamp(result.model, comparison.name)
        return ReplaceReport(
            changed=1,
            declined=(*met.declined, *result.declined),
            model=result.model,
            scores=comparison.name,
            adapted=met.adapted,
            fitted=fitted,
        )

    def _meet(self, patch: Patch, context: Context) -> tuple[list[Model], MeetReport]:
        """Return copies of both that take one input, and the report of that."""
        both = [patch.model.copy(), patch.newcomer.model.copy()]
        first, second = (each.require_card() for each in both)
        for card in (first, second):
            if card.output.kind not in ("logits", "probabilities"):
                raise GraftError(
                    "output-kind",
                    f"classes of an output of kind {card.output.kind} cannot be replaced or decided",
                    "supported are logits and probabilities",
                )
        check_kinds(first, second, same_parent=False)
        one, two = (signature(each, batch=False) for each in both)
        raw = input_of(both, self.input, one != two, batch=False)
        declined = []
        names = [each.name for each in patch.model.graph.outputs if each.name != first.output.name]
        if names:
            declined.append(Declined("dropped", f"the output {', '.join(names)}"))
        report = Meet(raw, self.dtype)(both, context)
        return both, replace(report, declined=(*declined, *report.declined))

    def _fit(
        self, graph: PatchGraph, without: Comparison, asked: Comparison | None, context: Context
    ) -> tuple[FitReport, Comparison, RidgeHead]:
        """Return the report of the comparison that is best on folds, itself, and its head."""
        candidates = [asked] if asked else _candidates()
        probe, names = graph.probe(without, candidates)
        samples = self._samples(graph.patch.newcomer, probe, context)
        evidence, *values, scores = read_outputs(
            probe, samples, context.device, [*names, samples.card.output.name]
        )
        if samples.card.output.kind == "probabilities":
            scores = np.log(np.maximum(scores, 1e-30))
        place = samples.card.labels.index(graph.patch.newcomer.name)
        task = OneVsRest(samples.labels, place, np.delete(scores, place, axis=1), context.seed)
        before = task.correct(evidence.sum(axis=1))
        newcomer = graph.patch.newcomer.model
        room = max(0, parents_macs([newcomer]) - cost_of(newcomer).macs)
        found = [each.fit_log_odds(task, rows, room) for each, rows in zip(candidates, values, strict=True)]
        best = _best(found)
        weighed, comparison = found[best], candidates[best]
        top1, base = float(weighed.correct.mean()), float(before.mean())
        report = FitReport(
            changed=int(top1 >= base),
            samples=len(samples),
            top1=top1,
            before=base,
            penalty=weighed.penalty,
            hidden=weighed.hidden,
            used=top1 >= base,
        )
        return report, comparison, weighed.head()

    def _samples(self, newcomer: Newcomer, probe: Model, context: Context) -> Samples:
        """Return the samples that scores are fitted to.

        Raises:
            GraftError: there are too few of the newcomer's class, or of all others.
        """
        if context.data is None:
            raise RuntimeError("there is no data")
        card = probe.require_card()
        samples = Samples.match(context.data, card, per_class=self.samples_per_class, seed=context.seed)
        name = newcomer.name
        own = int((samples.labels == card.labels.index(name)).sum())
        for count, which in ((own, f"class '{name}'"), (len(samples) - own, "all other classes")):
            if count < FEWEST:
                raise GraftError(
                    "joint-samples",
                    f"scores are fitted to {FEWEST} samples or more of '{name}' and of all other classes, "
                    f"and there are {count} of {which}",
                    "give more data, or choose scores that take none",
                )
        return samples


def _default(patch: Patch) -> Comparison:
    """Return the comparison without data: as for one parent where the newcomer knows all classes."""
    return default_comparison(Situation(1 if patch.newcomer_knows_all() else 2, data=False, steps=False))


def _candidates() -> list[Comparison]:
    """Return the comparisons that are tried where none is named, the simplest first."""
    return [each for each in reversed(COMPARISONS) if each.needs_data and each.patches]


def _best(found: Sequence[Weighed]) -> int:
    """Return the number of the best fit; a later one has to be better by more than a standard error."""
    best = 0
    for number in range(1, len(found)):
        gain, error = metrics.paired_difference(found[number].correct, found[best].correct)
        best = number if gain > error else best
    return best
