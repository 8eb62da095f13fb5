"""Drop classes of a classifier."""

from __future__ import annotations

from collections.abc import Sequence

from graft.passes.cut.head import Head
from graft.passes.join.deduplicate import Deduplicate
from graft.passes.join.push_gather import PushGather
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import (
    ORIGIN_KEY,
    Origin,
    numbering,
    origin_of,
    parents_of,
    stamp,
    versions,
)


class Remove:
    """Leave the columns of some classes out, and what only they need: networks of a composite, too.

    The others keep their logits, or share what is left as probabilities.

    Args:
        classes: names.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(dict.fromkeys(classes))

    def __call__(self, model: Model) -> Model:
        """A copy of ``model`` without the classes.

        Raises:
            GraftError: a class is unknown, or fewer than two would be left.
        """
        card = model.require_card()
        for name in self.classes:
            card.class_index(name)
        left = [name for name in card.labels if name not in self.classes]
        if len(left) < 2:
            raise GraftError(
                "one-class",
                f"without {', '.join(self.classes)} the model would have {len(left)} classes left",
                "a classifier has two or more",
            )
        result = model.copy()
        Head(left, together=True)(result)
        PushGather()(result)
        Deduplicate()(result)
        result.refresh_shapes()
        before = origin_of(model) if ORIGIN_KEY in model.metadata else None
        options = dict(before.options) if before else {}
        options["patches"] = [*options.get("patches", []), {"removed": list(self.classes)}]
        renamed = {new: old for new, old in (before.renamed if before else {}).items() if new in left}
        record = Origin(
            parents=parents_of(model),
            classes=tuple(name for name in left if name != OTHER),
            options=options,
            renamed=renamed,
            numbers=numbering(model) or card.labels,
            versions=versions(),
        )
        stamp(result, "composite", record)
        return result
