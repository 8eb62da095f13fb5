"""From scores and costs to a plan: which channels fall when so much may be kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graft.passes.identify import Scores
from graft.rewriter.cost import CostModel
from graft.rewriter.errors import GraftError
from graft.rewriter.groups import ChannelGroups, Mask
from graft.rewriter.profile import SQUARES, Profile

UNITS = ("macs", "parameters")


@dataclass(frozen=True)
class Budget:
    """So much of the parent's cost may stay.

    Attributes:
        keep: share of the parent's cost, 0..1.
        unit: ``macs`` (head included) or ``parameters`` (head excluded on both sides).
    """

    keep: float
    unit: str = "macs"

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise GraftError(
                "budget-range",
                f"--keep has to lie above 0 and at most at 1 (100%), found {self.keep:g}",
                "use a share such as 0.5",
            )
        if self.unit not in UNITS:
            raise GraftError(
                "budget-unit", f"cannot budget by {self.unit}", f"choose from {', '.join(UNITS)}"
            )

    def choose(self, groups: ChannelGroups, scores: Scores, cost: CostModel, whole: int, dead: Mask) -> Mask:
        """The channels that stay: dead ones fall first, then those with the least score for their cost.

        Channels of all groups compete. Of every axis the channel with the best score stays. What the
        last channel to fall freed beyond the budget goes to those that fell shortly before it.

        Args:
            groups: the analysis of the model to be cut.
            scores: one a channel number.
            cost: its cost.
            whole: what the parent costs, in the budget's unit.
            dead: channels that are never other than zero.

        Raises:
            GraftError: even the smallest cut costs more.
        """
        measure = cost.macs if self.unit == "macs" else cost.parameters
        limit = self.keep * whole
        order = self._order(groups, scores / np.maximum(cost.by_channel(self.unit), 1e-9), dead)
        if measure(_without(groups, order)) > limit:
            raise self._unreachable(groups, measure(_without(groups, order)) / whole)
        few, many = -1, len(order)
        while many - few > 1:  # the cost falls with every channel, so the shortest prefix can be bisected
            middle = (few + many) // 2
            if measure(_without(groups, order[:middle])) <= limit:
                many = middle
            else:
                few = middle
        kept = _without(groups, order[:many])
        for channel in order[:many][::-1]:
            if not dead[channel]:
                kept[channel] = True
                kept[channel] = measure(kept) <= limit
        return kept

    @staticmethod
    def _order(groups: ChannelGroups, worth: Scores, dead: Mask) -> np.ndarray:
        """Channels that may fall, the first to fall first."""
        rank = np.where(dead, -np.inf, worth)
        allowed = groups.cuttable()
        for channels in groups.lists():
            allowed[channels[np.argmax(rank[channels])]] = False
        order = np.flatnonzero(allowed)
        return order[np.argsort(rank[order], kind="stable")]

    def _unreachable(self, groups: ChannelGroups, smallest: float) -> GraftError:
        pins = sorted({group.reason for group in groups if not group.cuttable.all()})
        why = f"; pinned by {'; '.join(pins[:3])}" if pins else ""
        return GraftError(
            "budget-unreachable",
            f"--keep {self.keep:g} cannot be reached: the smallest cut keeps {smallest:.3f} of the "
            f"{self.unit}{why}",
            f"use --keep {np.ceil(smallest * 1000) / 1000:g} or more",
        )


def dead_channels(groups: ChannelGroups, profile: Profile) -> Mask:
    """Channels that were zero at every place, for every sample of every class.

    A place is an activation or a tensor that is read. A channel that was seen nowhere is not dead.
    """
    seen, alive = np.zeros(groups.count, bool), np.zeros(groups.count, bool)
    for place in (*groups.activations(), *groups.reads()):
        key = groups.key(place.tensor, place.axis)
        if profile.has(SQUARES, key, len(place.channels)):
            seen[place.channels] = True
            alive[place.channels[profile.mean(SQUARES, key) > 0]] = True
    return seen & ~alive & groups.cuttable()


def _without(groups: ChannelGroups, channels: np.ndarray) -> Mask:
    mask = groups.everything()
    mask[channels] = False
    return mask
