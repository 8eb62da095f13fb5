"""A model with its channel analysis: made once, handed on from pass to pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups


@dataclass(frozen=True, eq=False)
class Analysed:
    """A graph and its analysis.

    The analysis refers to tensors and axes by name, so it holds for copies as well. A pass that cuts
    the graph leaves an analysis of what the graph was; whoever needs one of the result makes a new one.

    Attributes:
        model: the model.
        groups: its channel groups.
    """

    model: Model
    groups: ChannelGroups

    @classmethod
    def of(cls, model: Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Analysed:
        """Analyse ``model``, which is not copied.

        Args:
            model: the model.
            input_shapes: full shapes of inputs whose dimensions (beside the batch) are free.
        """
        return cls(model, ChannelGroups(model, input_shapes))

    def copy(self) -> Analysed:
        """Return a copy whose graph can be edited freely, with the same analysis."""
        model = self.model.copy()
        return Analysed(model, self.groups.on(model))
