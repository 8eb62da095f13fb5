"""Networks side by side: one graph, one input, and columns that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Declined
from graft.passes.compare import Comparison
from graft.passes.compare.fitting import READ
from graft.passes.compare.reject import READ as REJECT_READ
from graft.passes.compare.reject import rejection_features, stored_distances
from graft.passes.join.merge import Merge, MergeReport
from graft.passes.join.network import Network


@dataclass(frozen=True)
class SideBySide:
    """Join networks in one graph, with comparable columns in the order of ``classes``.

    The result has a further output where the comparison is fitted to data, and one where samples are
    rejected: the passes that fit them take these outputs away.

    Attributes:
        classes: the columns of the result.
        comparison: makes the columns.
        rejects: the result gets a column ``(other)`` for out-of-distribution samples.
    """

    classes: tuple[str, ...]
    comparison: Comparison
    rejects: bool = False

    def __call__(self, networks: Sequence[Network], context: Context) -> MergeReport:
        """Join ``networks``, which take one input and have one opset.

        Args:
            networks: left as they are.
            context: with data, rejection is fitted to features; else it reads distances to classes.

        Raises:
            GraftError: rejection has no data, and a module carries no statistics.
        """
        comparison = self.comparison
        merged = Merge(
            [network.model for network in networks], comparison.reads == "features" or self.rejects
        )
        parts = _Parts()
        for network, branch in zip(networks, merged.branches, strict=True):
            found = comparison.columns(branch, network.classes)
            if comparison.reads == "features":
                parts.features.append(branch.joint_features)
            parts.scores.append(found.scores)
            parts.votes += [found.votes] if found.votes is not None else []
            parts.declined += [found.declined] if found.declined else []
            parts.dtypes.append(np.dtype(branch.dtype))
        output = self._in_order(parts, merged, [name for each in networks for name in each.classes])
        reads = parts.features if comparison.reads == "features" else [output]
        further = {READ: reads} if comparison.reads else {}
        if self.rejects:
            further[REJECT_READ] = _rejection_reads(merged, networks, context)
        kinds = {network.card.output.kind for network in networks}
        kind = "probabilities" if kinds == {"probabilities"} else "logits"
        report = merged.finish(output, self.classes, kind, parts.dtype, further)
        return MergeReport(
            changed=len(networks),
            declined=(*parts.declined, *report.declined),
            model=report.model,
            shared=report.shared,
        )

    def _in_order(self, parts: _Parts, merged: Merge, names: Sequence[str]) -> gs.Tensor:
        """Return the scores of all classes, of one type, in the order of :attr:`classes`."""
        build = merged.build
        parts.cast(merged)
        output: gs.Tensor = build.node("Concat", "columns", parts.scores, axis=-1)
        votes = build.node("Concat", "votes", parts.votes, axis=-1) if parts.votes else None
        output = self.comparison.combine(build, output, votes, parts.dtype)
        if list(names) != list(self.classes):
            output = build.pick(output, [names.index(name) for name in self.classes], "order")
        output.dtype = parts.dtype
        return output


@dataclass
class _Parts:
    """The columns of all networks, in the order of the networks."""

    scores: list[gs.Tensor] = field(default_factory=list)
    votes: list[gs.Tensor] = field(default_factory=list)
    features: list[gs.Tensor] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)
    dtypes: list[np.dtype[Any]] = field(default_factory=list)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the result."""
        return np.result_type(*self.dtypes)

    def cast(self, merged: Merge) -> None:
        """Bring all columns to one type."""
        for number, own in enumerate(self.dtypes):
            for found, name in ((self.scores, "typed"), (self.votes, "typed_votes")):
                if found:
                    found[number] = merged.build.cast(found[number], self.dtype, f"{name}_{number}", own)


def _rejection_reads(merged: Merge, networks: Sequence[Network], context: Context) -> list[gs.Tensor]:
    """Return what :class:`graft.passes.compare.reject.Reject` reads."""
    if context.data is None:
        return stored_distances(merged.branches, [each.classes for each in networks], merged.build)
    first = networks[0].card.inputs[0]
    image = first if first.kind == "image" and first.size else None
    return rejection_features(merged.branches, image, merged.inputs[0], merged.build)
