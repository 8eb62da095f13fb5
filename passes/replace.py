"""Give one class of a classifier to another module, or add one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graft.passes.compare.joint_head import READ, JointReport, RidgeHead, run
from graft.passes.compare.one_vs_rest import OneVsRest
from graft.passes.compare.score import CALIBRATED, JOINT, ODDS, TYPICALITY, WITH_DATA, Branch
from graft.passes.join.compatibility import check_kinds, parents_macs, signature
from graft.passes.join.merge import Merge, bring_together, input_of
from graft.passes.join.push_gather import PushGather
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.data.dataset import Split
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.provenance import (
    ORIGIN_KEY,
    Origin,
    numbering,
    origin_of,
    parents_of,
    stamp,
    terms,
    versions,
)
from graft.rewriter.run.session import Device

SCORES = (*WITH_DATA, TYPICALITY, ODDS)
FEWEST = 2
"""Samples of the newcomer's class, and of all others, that scores are fitted to."""


@dataclass(frozen=True)
class Newcomer:
    """A module, or any classifier, that decides a class from now on.

    Attributes:
        model: with its card.
        column: what the class is called there.
        name: what it is called in the result.
    """

    model: Model
    column: str
    name: str


@dataclass(frozen=True)
class ReplaceReport:
    """What was made.

    Attributes:
        model: the result, with its card.
        scores: how the newcomer is compared.
        adapted: what is done to the raw input, for the classifier and for the newcomer; nothing where
            both take the same.
        declined: what could not be kept, and why.
        fitted: how good the newcomer's score is, where it was fitted to data.
    """

    model: Model
    scores: str
    adapted: tuple[tuple[str, ...], ...] = ()
    declined: tuple[str, ...] = ()
    fitted: JointReport | None = None


@dataclass(frozen=True)
class Replace:
    """Let a newcomer decide a class of a classifier.

    The newcomer says how likely its class is against everything else: log-odds o. Its column becomes
    ``o + logsumexp`` of all other columns, so that the share of the class in the result is just what the
    newcomer says, and the others share the rest as before: their columns stay as they are.

    * ``odds``: o is what the newcomer says of its class against all else that it knows. The default
      without data where its parent knows all classes of the classifier;
    * ``typicality``: less how untypical the sample is for the class
      (:class:`graft.rewriter.record.mahalanobis.Typicality`). The default without data otherwise;
    * ``calibrated``: both weighed, and moved, so that they are likeliest on samples;
    * ``joint``: from what both networks know of the sample
      (:class:`graft.passes.compare.joint_head.JointHead`: one ridge
      regression, the class against all others), weighed alike.

    With data the default is ``calibrated``, or ``joint`` where that is better on folds by more than a
    standard error; and what it is without data where neither is as good.

    Attributes:
        scores: of :data:`SCORES`; ``None``: the default.
        input: see :class:`graft.passes.compose.Compose`; ``None``: the classifier's own, raw where the
            newcomer takes another.
        dtype: of raw images.
        device: where scores are fitted; ``None``: the best there is.
        samples_per_class: they are fitted to at most so many.
        seed: draws them, and the folds.
    """

    scores: str | None = None
    input: str | None = None
    dtype: type[np.generic] = np.uint8
    device: Device | None = None
    samples_per_class: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scores not in (*SCORES, None):
            raise GraftError("scores-unknown", f"no scores {self.scores}", f"choose from {', '.join(SCORES)}")

    def __call__(
        self, model: Model, newcomer: Newcomer, name: str | None = None, data: Split | None = None
    ) -> ReplaceReport:
        """Replace class ``name`` of ``model``, or add a class to it.

        Args:
            model: a classifier with a card; left as it is.
            newcomer: likewise.
            name: the class; ``None``: the newcomer's is added.
            data: samples to fit the newcomer's score to, with classes as the result calls them.

        Raises:
            GraftError: a class is unknown or there twice, inputs or outputs do not fit, or a score takes
                data and there is none.
        """
        card = model.require_card()
        labels = _labels(card, newcomer, name)
        kept = [card.class_index(each) for each in card.labels if each != name]
        if self.scores in WITH_DATA and (data is None or card.output.steps):
            raise GraftError(
                "scores-data",
                f"the scores {self.scores} are fitted to samples with one label each",
                "name data with a training split, or choose other scores",
            )
        both, adapted, declined = self._together(model, newcomer)
        patch = _Patch(both, newcomer, labels, kept)
        scores, head, fitted = self._without_data(card, newcomer, kept), None, None
        if data is not None and not card.output.steps and self.scores not in (ODDS, TYPICALITY):
            fitted, weighed = self._fit(patch, data, scores)
            if fitted.used:
                scores, head = weighed
        result, reason = patch.write(scores, head)
        declined += [reason] if reason else []
        _stamp(result, model, newcomer, name, scores)
        return ReplaceReport(result, scores, adapted, tuple(declined), fitted)

    def _without_data(self, card: Card, newcomer: Newcomer, kept: Sequence[int]) -> str:
        if self.scores in (ODDS, TYPICALITY):
            return self.scores
        known = set(newcomer.model.require_card().labels)
        if ORIGIN_KEY in newcomer.model.metadata:
            known |= {label for record in origin_of(newcomer.model).parents for label in record.labels}
        return ODDS if {card.labels[each] for each in kept} - {OTHER} <= known else TYPICALITY

    def _together(
        self, model: Model, newcomer: Newcomer
    ) -> tuple[list[Model], tuple[tuple[str, ...], ...], list[str]]:
        """Copies of both that take one input, what was done for that, and what could not be kept."""
        both = [model.copy(), newcomer.model.copy()]
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
        names = [tensor.name for tensor in model.graph.outputs if tensor.name != first.output.name]
        if names:
            declined.append(f"dropped: the output {', '.join(names)}")
        reports = bring_together(both, raw, self.dtype)
        declined += [reason for report in reports for reason in report.declined]
        return both, tuple(report.steps for report in reports), declined

    def _fit(self, patch: _Patch, data: Split, without: str) -> tuple[JointReport, tuple[str, RidgeHead]]:
        """The scores that are best on folds, and what makes them."""
        probe, columns = patch.probe()
        card = probe.require_card()
        samples = Samples.match(data, card, per_class=self.samples_per_class, seed=self.seed)
        _check_counts(samples, patch.newcomer.name)
        values, scores = run(probe, samples, self.device or Device())
        if card.output.kind == "probabilities":
            scores = np.log(np.maximum(scores, 1e-30))
        place = card.labels.index(patch.newcomer.name)
        weigh = OneVsRest(samples.labels, place, np.delete(scores, place, axis=1), self.seed)
        evidence, known = values[:, :columns], values[:, columns:]
        before = weigh.correct(evidence[:, : 1 if without == ODDS else columns].sum(axis=1))
        found = {}
        if self.scores != JOINT:
            found[CALIBRATED] = weigh.calibrated(evidence)
        if self.scores != CALIBRATED:
            room = parents_macs([patch.newcomer.model]) - cost_of(patch.newcomer.model).macs
            found[JOINT] = weigh.joint(known, max(0, room))
        kind = self.scores or CALIBRATED
        if self.scores is None:
            gain, error = metrics.paired_difference(found[JOINT].correct, found[CALIBRATED].correct)
            kind = JOINT if gain > error else CALIBRATED
        best = found[kind]
        top1, base = float(best.correct.mean()), float(before.mean())
        report = JointReport(len(samples), top1, base, best.penalty, best.hidden, top1 >= base)
        return report, (kind, best.head())


@dataclass(frozen=True)
class _Patch:
    """A classifier and a newcomer that take the same input, and what the result puts out.

    Attributes:
        both: the two, brought together.
        newcomer: as it was asked for.
        labels: of the result.
        kept: columns of the classifier that stay.
    """

    both: Sequence[Model]
    newcomer: Newcomer
    labels: Sequence[str]
    kept: Sequence[int]

    def probe(self) -> tuple[Model, int]:
        """With a further output for what scores are fitted to; how many columns of it are evidence."""
        merged = Merge(self.both, known=True)
        evidence, _ = self._evidence(merged.branches[1], distances=True)
        read = [*evidence, *(branch.reads() for branch in merged.branches)]
        odds = self._sum(merged.branches[1].build, evidence)
        return self._finish(merged, odds, read), len(evidence)

    def write(self, scores: str, head: RidgeHead | None) -> tuple[Model, str]:
        """The result; and why typicality was left out, if it was.

        ``head`` makes the log-odds of the evidence, or of all that both know where scores are joint;
        ``None``: they are the sum of the evidence.
        """
        merged = Merge(self.both, scores == JOINT)
        branch = merged.branches[1]
        if scores == JOINT and head is not None:
            known = [each.reads() for each in merged.branches]
            read, reason = merged.build.node("Concat", "newcomer/known", known, axis=-1), ""
            return self._finish(merged, head.write(merged.build, read)), reason
        evidence, reason = self._evidence(branch, distances=scores != ODDS)
        if head is None:
            return self._finish(merged, self._sum(branch.build, evidence)), reason
        single = int(onnx.TensorProto.FLOAT)
        read = branch.build.node("Concat", "evidence", evidence, axis=-1)
        read = branch.build.node("Cast", "evidence_float", [read], to=single)
        return self._finish(merged, head.write(merged.build, read)), reason

    def _evidence(self, branch: Branch, distances: bool) -> tuple[list[gs.Tensor], str]:
        """The newcomer's log-odds, and how typical the sample is for its class."""
        column = self.newcomer.column
        odds = branch.log_odds(branch.card.class_index(column))
        reason = branch.atypical_reason([column]) if distances else ""
        if reason or not distances:
            return [odds], reason
        return [odds, branch.build.node("Neg", "typical/near", [branch.distances([column])])], ""

    @staticmethod
    def _sum(build: Builder, evidence: Sequence[gs.Tensor]) -> gs.Tensor:
        return evidence[0] if len(evidence) == 1 else build.node("Add", "typical/odds", evidence)

    def _finish(self, merged: Merge, odds: gs.Tensor, read: Sequence[gs.Tensor] = ()) -> Model:
        """Columns that stay, and that of the newcomer."""
        build, base = merged.build, merged.branches[0]
        to = int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(base.dtype)))
        odds = build.node("Cast", "newcomer/odds", [odds], to=to)
        stay = build.pick(base.scores, self.kept, "stay")
        rest = build.logsumexp(stay, "others")
        own = build.node("Add", "newcomer/score", [odds, rest])
        columns = build.node("Concat", "columns", [stay, own], axis=-1)
        place = list(self.labels).index(self.newcomer.name)
        order = [*range(len(self.kept))]
        order.insert(place, len(self.kept))
        if order != sorted(order):
            columns = build.pick(columns, order, "order")
        reads = {READ: read} if read else None
        result = merged.finish(columns, self.labels, base.card.output.kind, np.dtype(base.dtype), reads)
        PushGather()(result)
        result.refresh_shapes()
        return result


def _labels(card: Card, newcomer: Newcomer, name: str | None) -> list[str]:
    """The classes of the result: the newcomer's in the place of ``name``, or behind all classes."""
    labels = list(card.labels)
    place = None if name is None else card.class_index(name)
    if newcomer.name == OTHER:
        raise GraftError("class-name", f"no class can be called {OTHER}", "name a class of the module")
    if name == OTHER:
        raise GraftError("class-name", f"{OTHER} is no class of its own", "name another class")
    if newcomer.name in labels and newcomer.name != name:
        raise GraftError(
            "class-twice",
            f"the model has a class '{newcomer.name}' already",
            "replace that one, or call the new one otherwise: --rename A=B",
        )
    if place is None:
        labels.insert(labels.index(OTHER) if OTHER in labels else len(labels), newcomer.name)
    else:
        labels[place] = newcomer.name
    if len(labels) < 2:
        raise GraftError("one-class", f"'{newcomer.name}' would be the only class", "name a larger model")
    return labels


def _check_counts(samples: Samples, name: str) -> None:
    """Raise unless there are samples of the newcomer's class, and of others."""
    own = int((samples.labels == samples.card.labels.index(name)).sum())
    for count, which in ((own, f"class '{name}'"), (len(samples) - own, "all other classes")):
        if count < FEWEST:
            raise GraftError(
                "joint-samples",
                f"scores are fitted to {FEWEST} samples or more of '{name}' and of all other classes, and "
                f"there are {count} of {which}",
                "give more data, or choose scores that take none",
            )


def _stamp(result: Model, model: Model, newcomer: Newcomer, name: str | None, scores: str) -> None:
    """Card and origin."""
    records = (*parents_of(model), *parents_of(newcomer.model))
    parents = tuple({record.graph_sha256: record for record in records}.values())
    card = result.require_card()
    result.card = card.replace(name=None if len(parents) > 1 else card.name, **terms(parents))
    before = origin_of(model) if ORIGIN_KEY in model.metadata else None
    renamed = dict(before.renamed) if before else {}
    renamed.pop(name or "", None)
    column = newcomer.column
    if ORIGIN_KEY in newcomer.model.metadata:
        column = origin_of(newcomer.model).renamed.get(column, column)
    if newcomer.name != column:
        renamed[newcomer.name] = column
    patches = list(before.options.get("patches", [])) if before else []
    patches.append({"replaced": name, "by": newcomer.name, "scores": scores})
    record = Origin(
        parents=parents,
        classes=tuple(each for each in card.labels if each != OTHER),
        options={**(before.options if before else {}), "patches": patches},
        renamed=renamed,
        numbers=numbering(model) or model.require_card().labels,
        versions=versions(),
    )
    stamp(result, "composite", record)
