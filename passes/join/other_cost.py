"""The cost of the column ``(other)``: what a composite would be without it."""

from __future__ import annotations

from graft.rewriter.card.card import OTHER
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.outputs import last_features
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.provenance import origin_of


def first_output_costs(model: Model) -> tuple[int, int]:
    """Return multiply-accumulates and parameters of what the first output of ``model`` needs."""
    alone = model.copy()
    alone.graph.outputs = alone.graph.outputs[:1]
    alone.tidy()
    cost = cost_of(alone)
    return cost.macs, cost.parameters


def head_costs(model: Model) -> tuple[int, int]:
    """Return what the head of a single network computes and stores for the classes that are (other).

    Their logits are summed up: a row of the head for each of them. (0, 0) where no layer reads features.
    """
    card, origin = model.require_card(), origin_of(model)
    others = len(origin.parents[0].labels) - sum(name != OTHER for name in card.labels)
    place = last_features(model, ChannelGroups(model), card.output.name)
    if place is None or others <= 0:
        return 0, 0
    return others * len(place.channels), others * (len(place.channels) + 1)
