"""A classifier that is ready to be cut: normalized, analysed, measured."""

from __future__ import annotations

from graft.passes.normalize.simplify import Normalize
from graft.rewriter.card.card import Card
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.outputs import keep_output
from graft.rewriter.measure.cost import Cost, cost_of
from graft.rewriter.record.provenance import ParentRecord, parent_record


class Parent:
    """A parent that is ready to be cut: normalized, analysed, measured.

    Args:
        model: a classifier with a card; left as it is.

    Attributes:
        source: the model as it came.
        record: its hashes, labels and licence, as modules record them.
        sha256: its graph hash, which plans and profiles carry.
        model: the normalized model.
        groups: the analysis of the normalized model.
        cost: what the normalized model costs.
    """

    def __init__(self, model: Model) -> None:
        self.source = model
        self.record: ParentRecord = parent_record(model)
        self.sha256 = self.record.graph_sha256
        self.model = model.copy()
        keep_output(self.model, model.require_card().output.name)
        self.normalized = Normalize()(self.model)
        self.groups = ChannelGroups(self.model)
        self.cost: Cost = cost_of(self.model)

    @property
    def card(self) -> Card:
        """What goes in and what comes out."""
        return self.source.require_card()
