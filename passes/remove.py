"""Drop classes of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graft.passes.base import Context, Report
from graft.passes.cut.head import Head
from graft.passes.join.deduplicate import Deduplicate
from graft.passes.join.push_gather import PushGather
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import patched_origin, stamp


@dataclass(frozen=True, kw_only=True)
class RemoveReport(Report):
    """A classifier with fewer classes.

    Attributes:
        model: with its card.
    """

    model: Model


@dataclass(frozen=True)
class Remove:
    """Leave the columns of some classes out, and all that only they need: networks of a composite, too.

    The other classes keep their logits, or share the rest as probabilities.

    Attributes:
        classes: names; a name that is there twice counts once.
    """

    classes: Sequence[str]

    def __call__(self, model: Model, context: Context) -> RemoveReport:
        """Return a copy of ``model`` without the classes.

        Args:
            model: a classifier with a card; left as it is.
            context: nothing of it is used.

        Raises:
            GraftError: a class is unknown, or fewer than two would be left.
        """
        card, classes = model.require_card(), tuple(dict.fromkeys(self.classes))
        for name in classes:
            card.class_index(name)
        left = [name for name in card.labels if name not in classes]
        if len(left) < 2:
            raise GraftError(
                "one-class",
                f"without {', '.join(classes)} the model would have {len(left)} classes left",
                "a classifier has two or more",
            )
        result = model.copy()
        reports: list[Report] = [Head(tuple(left), together=True)(result, context)]
        reports += [PushGather()(result, context), Deduplicate()(result, context)]
        result.refresh_shapes()
        named = [name for name in left if name != OTHER]
        record = patched_origin(model, named, {"removed": list(classes)})
        stamp(result, "composite", record)
        declined = tuple(each for report in reports for each in report.declined)
        return RemoveReport(changed=len(classes), declined=declined, model=result)
