"""Add a class to a classifier, or mend one, from samples alone: in closed form, without a second network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Declined, Report
from graft.passes.discriminant.evidence import Evidence
from graft.passes.discriminant.joint import JointColumns
from graft.passes.discriminant.linear import SHRINKAGES, Column, fit_column
from graft.passes.discriminant.opened import Opened, check_output
from graft.passes.discriminant.others import HEAD, SAMPLES, draw_others
from graft.passes.discriminant.unchanged import compare_columns
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError, nearest
from graft.rewriter.graph.model import Model
from graft.rewriter.record.mahalanobis import KEY
from graft.rewriter.record.provenance import numbering, patched_origin, stamp

FEWEST = 2
"""Samples of the new class, and of each old class that has any."""


@dataclass(frozen=True, kw_only=True)
class NewClassReport(Report):
    """A classifier with a class from samples.

    Attributes:
        model: the result, with its card.
        others: what represents the old classes: ``samples``, ``statistics`` that the model carries, or its
            own ``head``.
        joint: one head for all classes was fitted, so that the other columns changed, too.
        samples: of the new class.
        other_samples: of the old classes, or features of them that were drawn.
        recall: of the new class on folds that were left out of the fit.
        precision: the same, every class weighing the same; ``None``: the class is never decided.
        top1: accuracy of all classes on these folds, every class weighing the same.
        before: accuracy of the columns that stay on samples of their own classes.
        threshold: what the weighted features have to exceed for a logit above 0; ``None`` for a joint head.
        shrinkage: of the covariance within classes; the penalty of a joint head.
        others_equal: the other columns equal those of the original bit for bit, before a softmax; ``None``
            for a joint head.
    """

    model: Model
    others: str
    joint: bool
    samples: int
    other_samples: int
    recall: float
    precision: float | None
    top1: float
    before: float
    threshold: float | None
    shrinkage: float
    others_equal: bool | None

    def plain(self) -> dict[str, Any]:
        """Return the figures, as ``--json`` prints them."""
        names = ("others", "joint", "samples", "other_samples", "threshold", "shrinkage", "others_equal")
        figures = ("recall", "precision", "top1", "before")
        found = {name: getattr(self, name) for name in names}
        return {**found, "folds": {name: getattr(self, name) for name in figures}}


@dataclass(frozen=True)
class NewClass:
    """Add a class to a classifier, or replace the column of one, from samples.

    The column is a linear discriminant over the last features of the network (see
    :func:`graft.passes.discriminant.linear.fit_column`). All other columns stay as they are, bit for bit;
    where the output holds probabilities, what stays are the logits before the softmax. Old classes are
    represented by their samples where the data has some; else by the statistics that the model carries,
    else by its own head.

    Attributes:
        name: of the class.
        replaces: the model has the class, and its column is replaced.
        joint: fit one ridge regression for all classes instead, which needs samples of all; all columns
            change.
        mirror: use mirrored images, too.
        samples_per_class: at most so many are used; ``None``: all.
    """

    name: str
    replaces: bool = False
    joint: bool = False
    mirror: bool = False
    samples_per_class: int | None = None

    def labels(self, card: Card) -> tuple[str, ...]:
        """Return the classes of the result: an added one comes last, but before ``(other)``.

        Args:
            card: of the classifier.

        Raises:
            GraftError: the class is there although it is to be added, or is not there; or the output is of
                another kind.
        """
        check_output(card)
        if self.name == OTHER:
            raise GraftError("class-name", f"no class can be called {OTHER}", "choose another name")
        if self.replaces:
            card.class_index(self.name)
            return card.labels
        if not self.name.strip():
            raise GraftError("class-name", "the class has no name", "name it: --class NAME")
        if self.name in card.labels:
            raise GraftError(
                "class-twice",
                f"the model has a class '{self.name}' already",
                f"mend it: graft replace MODEL --class {self.name}, or choose another name",
            )
        place = card.labels.index(OTHER) if OTHER in card.labels else len(card.labels)
        return (*card.labels[:place], self.name, *card.labels[place:])

    def __call__(self, model: Model, context: Context) -> NewClassReport:
        """Return a copy of ``model`` with the class.

        Args:
            model: a classifier with a card; left as it is.
            context: ``data`` holds samples of the class, with or without samples of old classes, called as
                in the model; device and seed.

        Raises:
            GraftError: the class does not fit, there are too few samples, or nothing represents the others.
        """
        card = model.require_card()
        labels = self.labels(card)
        after = card.replace(labels=labels, expect=None)
        samples, few = self._samples(model, after, context)
        opened = Opened.of(model, self.name)
        features, logits = opened.read(samples, context.device)
        draw = np.random.default_rng(context.seed)
        stay = [card.labels.index(each) for each in card.labels if each != self.name]
        names = [*(card.labels[each] for each in stay), self.name]
        columns = np.array([names.index(each) for each in labels], np.int64)[samples.labels]
        originals = len(samples) // 2 if self.mirror else len(samples)
        evidence = Evidence.of(features, logits[:, stay], columns[:originals], draw)
        others, doubt = SAMPLES, 0.0
        if not evidence.old:
            drawn = draw_others(model, opened, features, stay, context.device, draw)
            evidence, others, doubt = evidence.with_drawn(drawn, stay, draw), drawn.source, drawn.doubt
        places = [labels.index(each) for each in names]
        if self.joint:
            found: Column | JointColumns = JointColumns.fit(evidence, places, context.seed)
        else:
            found = _column(evidence, opened.widths, others, doubt, OTHER not in labels)
        result, tensor = self._write(opened, found, labels, stay)
        result.card = after
        equal, declined = None, few
        if isinstance(found, Column):
            equal, differing = compare_columns(opened, tensor, samples, (stay, places[:-1]), context.device)
            declined += differing
        declined += [Declined("dropped", f"the output {each.name}") for each in _further(model, card)]
        _stamp(model, result, self, others)
        return NewClassReport(
            changed=1,
            declined=tuple(declined),
            model=result,
            others=others,
            joint=self.joint,
            samples=evidence.new_samples,
            other_samples=len(evidence.labels) - evidence.new_samples,
            recall=found.recall,
            precision=found.precision,
            top1=found.top1,
            before=evidence.accuracy_before(),
            threshold=found.threshold if isinstance(found, Column) else None,
            shrinkage=found.shrinkage,
            others_equal=equal,
        )

    def _samples(self, model: Model, card: Card, context: Context) -> tuple[Samples, list[Declined]]:
        """Return the samples of the classes of the result, and old classes that have too few.

        Raises:
            GraftError: there are too few of the class; for a joint head, of any class.
        """
        data = context.data
        if data is None:
            raise GraftError("data-missing", f"class '{self.name}' comes from samples", "name data")
        if data.class_names is None and not self.replaces:
            raise GraftError(
                "data-names",
                f"the classes of the data are numbers, and which of them is '{self.name}' is not known",
                "add class_names to the .npz file",
            )
        numbers = numbering(model) or model.require_card().labels
        samples = Samples.match(data, card, None, self.samples_per_class, context.seed, numbers)
        counts = samples.counts()
        few = [each for each in card.labels if counts.get(each, 0) < FEWEST]
        if self.name in few:
            raise GraftError(
                "class-samples",
                f"a class takes {FEWEST} samples or more, and there are {counts.get(self.name, 0)} of "
                f"'{self.name}'{nearest(self.name, set(data.class_names or ()) - {self.name})}",
                f"give more; the data has {', '.join((data.class_names or card.labels)[:10])}",
            )
        if self.joint and few:
            raise GraftError(
                "joint-samples",
                f"a joint head is fitted to {FEWEST} samples or more of all classes, and there are "
                f"{counts.get(few[0], 0)} of '{few[0]}'",
                "give samples of all classes, or leave out --joint",
            )
        reason = f"left out, a class takes {FEWEST} samples or more"
        declined = [Declined(name, f"{counts[name]} sample {reason}") for name in few if name in counts]
        samples = samples.take(~np.isin(samples.labels, [card.labels.index(each) for each in few]))
        return (samples.with_mirrored() if self.mirror else samples), declined

    def _write(
        self,
        opened: Opened,
        found: Column | JointColumns,
        labels: tuple[str, ...],
        stay: list[int],
    ) -> tuple[Model, gs.Tensor]:
        """Return the result, and the tensor of its logits (samples, classes) in ``opened``."""
        build = opened.build
        dtype = np.dtype(opened.logits.dtype or np.float32)
        features = opened.features
        if isinstance(found, JointColumns):
            columns = found.head.write(build, features)
            columns = build.cast(columns, dtype, "cast", np.float32)
        else:
            own = build.affine("score", features, found.weights[:, None], np.array([-found.threshold]))
            own = build.cast(own, dtype, "cast", np.float32)
            columns = build.node("Concat", "columns", [opened.logits, own], axis=-1)
            last, place = len(opened.model.require_card().labels), labels.index(self.name)
            order = list(stay)
            order.insert(place, last)
            if order != sorted(order) or len(order) <= last:
                columns = build.pick(columns, order, "order")
        columns.dtype, columns.shape = opened.logits.dtype, [*opened.logits.shape[:-1], len(labels)]
        build.finish(columns, opened.output, len(labels))
        result = opened.model.copy()
        opened.model.graph.outputs = []
        result.tidy()
        result.refresh_shapes()
        return result, columns


def _column(evidence: Evidence, widths: Sequence[int], others: str, doubt: float, taught: bool) -> Column:
    """Return the column of the class, for features as they come.

    Args:
        evidence: the samples.
        widths: values of each layer that the features are of.
        others: what represents the old classes.
        doubt: how little they are known.
        taught: old classes show how a discriminant compares with a logit.
    """
    scale = evidence.scales(widths)
    shrinkages = SHRINKAGES[:1] if others == HEAD else SHRINKAGES
    column = fit_column(replace(evidence, features=evidence.features / scale), shrinkages, doubt, taught)
    return replace(column, weights=column.weights / scale)


def _further(model: Model, card: Card) -> list[gs.Tensor]:
    """Return outputs that the result does not have."""
    return [each for each in model.graph.outputs if each.name != card.output.name]


def _stamp(model: Model, result: Model, made: NewClass, others: str) -> None:
    """Write the origin of ``result``; statistics of classes do not know the new one and go."""
    card = result.require_card()
    key = "replaced" if made.replaces else "added"
    patch = {key: made.name, "by": "samples", "others": others, "joint": made.joint}
    classes = [name for name in card.labels if name != OTHER]
    record = patched_origin(model, classes, patch, own=made.name)
    if made.replaces:
        result.metadata.pop(KEY, None)
    stamp(result, "composite", record)
