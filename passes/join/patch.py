"""A classifier and a newcomer in one graph: the newcomer decides one class from now on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context
from graft.passes.compare import Comparison, Pair
from graft.passes.compare.fitting import READ
from graft.passes.compare.ridge_head import RidgeHead
from graft.passes.join.merge import Merge, MergeReport
from graft.passes.join.push_gather import PushGather
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError, nearest
from graft.rewriter.graph.model import Model
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


@dataclass(frozen=True)
class Newcomer:
    """A module, or any classifier, that decides a class from now on.

    Attributes:
        model: with its card.
        column: name of the class in the newcomer.
        name: name of the class in the result.
    """

    model: Model
    column: str
    name: str

    @classmethod
    def find(
        cls, models: Sequence[Model], source: str, name: str | None, replaced: str | None = None
    ) -> Newcomer:
        """Return the newcomer for a class, called as in its model.

        Args:
            models: with their cards.
            source: name of the models in messages.
            name: of the class; ``None``: the only one, or ``replaced``.
            replaced: the class that the newcomer is to decide.

        Raises:
            GraftError: ``with-class``: no model has the class, or it is not clear which one is meant.
        """
        found = [(model, each) for model in models for each in model.require_card().classes if each != OTHER]
        classes = [label for _, label in found]
        wanted = name or (classes[0] if len(classes) == 1 else replaced)
        if wanted not in classes:
            listed = f"the classes {', '.join(classes)}" if len(classes) <= 4 else f"{len(classes)} classes"
            raise GraftError(
                "with-class",
                f"{source} has {listed}"
                + (f", and none called '{wanted}'" if wanted else "")
                + (nearest(name, classes) if name else ""),
                "say which one: --with-class NAME",
            )
        return cls(found[classes.index(wanted)][0], wanted, wanted)


@dataclass(frozen=True)
class Patch:
    """A classifier, and a newcomer for one of its classes.

    Attributes:
        model: a classifier with a card.
        newcomer: decides the class.
        name: the class that is replaced; ``None``: the newcomer's is added.
    """

    model: Model
    newcomer: Newcomer
    name: str | None = None

    def labels(self) -> list[str]:
        """Return the classes of the result: an added one comes last, but before ``(other)``.

        Raises:
            GraftError: a class is unknown, is there twice, or would be the only one.
        """
        card, new = self.model.require_card(), self.newcomer.name
        labels = list(card.labels)
        place = None if self.name is None else card.class_index(self.name)
        if new == OTHER:
            raise GraftError("class-name", f"no class can be called {OTHER}", "name a class of the module")
        if self.name == OTHER:
            raise GraftError("class-name", f"{OTHER} is no class of its own", "name another class")
        if new in labels and new != self.name:
            raise GraftError(
                "class-twice",
                f"the model has a class '{new}' already",
                "replace that one, or call the new one otherwise: --rename A=B",
            )
        if place is None:
            labels.insert(labels.index(OTHER) if OTHER in labels else len(labels), new)
        else:
            labels[place] = new
        if len(labels) < 2:
            raise GraftError("one-class", f"'{new}' would be the only class", "name a larger model")
        return labels

    def kept(self) -> list[int]:
        """Return the columns of the classifier that stay."""
        card = self.model.require_card()
        return [card.class_index(each) for each in card.labels if each != self.name]

    def newcomer_knows_all(self) -> bool:
        """Return ``True`` where the newcomer, or its parent, knows all classes that stay."""
        known = set(self.newcomer.model.require_card().labels)
        if ORIGIN_KEY in self.newcomer.model.metadata:
            known |= {name for each in origin_of(self.newcomer.model).parents for name in each.labels}
        labels = self.model.require_card().labels
        return {labels[each] for each in self.kept()} - {OTHER} <= known

    def stamp(self, result: Model, scores: str) -> None:
        """Write the card and the origin of ``result``."""
        model, newcomer = self.model, self.newcomer
        records = (*parents_of(model), *parents_of(newcomer.model))
        parents = tuple({record.graph_sha256: record for record in records}.values())
        card = result.require_card()
        result.card = card.replace(name=None if len(parents) > 1 else card.name, **terms(parents))
        before = origin_of(model) if ORIGIN_KEY in model.metadata else None
        renamed = dict(before.renamed) if before else {}
        renamed.pop(self.name or "", None)
        column = newcomer.column
        if ORIGIN_KEY in newcomer.model.metadata:
            column = origin_of(newcomer.model).renamed.get(column, column)
        if newcomer.name != column:
            renamed[newcomer.name] = column
        patches = list(before.options.get("patches", [])) if before else []
        patches.append({"replaced": self.name, "by": newcomer.name, "scores": scores})
        record = Origin(
            parents=parents,
            classes=tuple(each for each in card.labels if each != OTHER),
            options={**(before.options if before else {}), "patches": patches},
            renamed=renamed,
            numbers=numbering(model) or model.require_card().labels,
            versions=versions(),
        )
        stamp(result, "composite", record)


@dataclass(frozen=True)
class PatchGraph:
    """Write the result of a patch, or a probe of it.

    Attributes:
        patch: the classifier, the newcomer and the class.
        both: copies of the classifier and of the newcomer, which take the same input.
    """

    patch: Patch
    both: Sequence[Model]

    def probe(self, without: Comparison, fitted: Sequence[Comparison]) -> tuple[Model, list[str]]:
        """Return the result without data, with further outputs that scores are fitted to; and their names.

        Args:
            without: the comparison that needs no data; the first output holds its evidence.
            fitted: comparisons that are fitted; an output for each holds what it reads.
        """
        merged, pair = self._merged(activations=True)
        evidence, _ = without.evidence(pair)
        reads = {f"{READ}/{without.name}": evidence}
        reads |= {f"{READ}/{each.name}": [each.head_input(pair)[0]] for each in fitted}
        odds = self._sum(pair, evidence)
        return self._finish(merged, odds, reads).model, list(reads)

    def write(self, comparison: Comparison, head: RidgeHead | None) -> MergeReport:
        """Return the result.

        Args:
            comparison: how the newcomer is compared.
            head: makes the log-odds of what the comparison reads; ``None``: they are the sum of its
                evidence.
        """
        fitted = head is not None
        merged, pair = self._merged(activations=fitted and comparison.reads == "features")
        if head is None:
            evidence, declined = comparison.evidence(pair)
            odds = self._sum(pair, evidence)
        else:
            read, declined = comparison.head_input(pair)
            odds = head.write(merged.build, read)
        odds.dtype = np.dtype(pair.newcomer.dtype if head is None else np.float32)
        report = self._finish(merged, odds)
        found = (declined, *report.declined) if declined else report.declined
        return MergeReport(changed=1, declined=found, model=report.model)

    def _merged(self, activations: bool) -> tuple[Merge, Pair]:
        merged = Merge(self.both, activations)
        base, newcomer = merged.branches
        return merged, Pair(base, newcomer, self.patch.newcomer.column, merged.build)

    @staticmethod
    def _sum(pair: Pair, evidence: Sequence[gs.Tensor]) -> gs.Tensor:
        if len(evidence) == 1:
            return evidence[0]
        return pair.newcomer.build.node("Add", "typical/odds", evidence)

    def _finish(
        self, merged: Merge, odds: gs.Tensor, reads: dict[str, list[gs.Tensor]] | None = None
    ) -> MergeReport:
        """Return the columns that stay beside that of the newcomer: ``odds + logsumexp`` of the others."""
        build, base = merged.build, merged.branches[0]
        odds = build.cast(odds, base.dtype, "newcomer/odds")
        kept, labels = self.patch.kept(), self.patch.labels()
        stay = build.pick(base.scores, kept, "stay")
        rest = build.logsumexp(stay, "others") if len(kept) > 1 else stay
        own = build.node("Add", "newcomer/score", [odds, rest])
        columns = build.node("Concat", "columns", [stay, own], axis=-1)
        order = [*range(len(kept))]
        order.insert(labels.index(self.patch.newcomer.name), len(kept))
        if order != sorted(order):
            columns = build.pick(columns, order, "order")
        report = merged.finish(columns, labels, base.card.output.kind, np.dtype(base.dtype), reads)
        moved = PushGather()(report.model, Context())
        report.model.refresh_shapes()
        return MergeReport(
            changed=report.changed, declined=(*report.declined, *moved.declined), model=report.model
        )
