"""From scores and costs to a plan: which channels are pruned when so much may be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from graft.passes.base import Context, Report
from graft.rewriter.arrays import Channels, Mask, Scores
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.measure.latency import STEP
from graft.rewriter.record.profile import SQUARES, Profile

UNITS = ("macs", "parameters", "latency")
SHARE = 4
"""A block is at most one in so many of its channels: larger ones would be too coarse a choice."""
LEAST = 4
"""Smaller blocks are no faster than channels one by one."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The channels that compete for a budget.

    Attributes:
        groups: the analysis of the model to be cut.
        scores: importance, one a channel number.
        cost: cost of the model under any mask.
        whole: cost of the parent, in the budget's unit.
        dead: channels that are never other than zero.
    """

    groups: ChannelGroups
    scores: Scores
    cost: CostModel
    whole: float
    dead: Mask


@dataclass(frozen=True, kw_only=True)
class BudgetReport(Report):
    """The channels that were chosen; ``changed`` counts those that are pruned.

    Attributes:
        kept: one flag a channel number.
    """

    kept: Mask


@dataclass(frozen=True)
class Budget:
    """A share of the parent's cost that may stay.

    Attributes:
        keep: share of the parent's cost, 0..1.
        unit: ``macs`` (head included), ``parameters`` (head excluded on both sides) or ``latency``.
        round_to: channels are pruned in multiples of this number; ``None``: as many as their operators are
            fast with but at most a quarter of a layer, or one by one where the budget cannot be reached so.
            By latency: as many as kernels work on at once, since fewer save nothing.
    """

    keep: float
    unit: str = "macs"
    round_to: int | None = None

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
        if self.round_to is not None and self.round_to < 1:
            raise GraftError("budget-round", f"cannot round to {self.round_to}", "use 1 or more")

    def __call__(self, subject: Candidates, context: Context) -> BudgetReport:
        """Choose the channels that stay.

        Dead ones are pruned first, then those with the least score for their cost. Channels of all groups
        compete. Of every axis that must not be emptied the channel with the best score stays. What the last
        channels freed beyond the budget goes to those that were pruned shortly before them.

        Args:
            subject: channels, scores and costs.
            context: not used.

        Returns:
            The mask of the channels that stay.

        Raises:
            GraftError: even the smallest cut costs more.
        """
        kept = self._chosen(subject)
        removed = int((subject.groups.atoms & ~kept).sum())
        return BudgetReport(changed=removed, kept=kept)

    def _chosen(self, subject: Candidates) -> Mask:
        groups, cost, dead = subject.groups, subject.cost, subject.dead
        scores = groups.to_atoms(subject.scores)
        measure = partial(cost.total, self.unit)
        limit = self.keep * subject.whole
        price = np.maximum(cost.by_channel(self.unit), 1e-9)
        sizes = _steps(groups) if self.unit == "latency" and self.round_to is None else self.round_to
        blocks = _blocks(groups, scores, price, dead, sizes)
        if sizes is None and measure(_without(groups, blocks)) > limit:
            blocks = _blocks(groups, scores, price, dead, 1)
        if measure(_without(groups, blocks)) > limit:
            raise self._unreachable(groups, measure(_without(groups, blocks)) / subject.whole)
        few, many = -1, len(blocks)
        while many - few > 1:  # the cost shrinks with every block, so the shortest prefix can be bisected
            middle = (few + many) // 2
            if measure(_without(groups, blocks[:middle])) <= limit:
                many = middle
            else:
                few = middle
        kept = _without(groups, blocks[:many])
        for block in blocks[:many][::-1]:
            if not dead[block].all():
                kept[block] = True
                kept[block] = measure(kept) <= limit
        return kept

    def _unreachable(self, groups: ChannelGroups, smallest: float) -> GraftError:
        pins = sorted({group.reason for group in groups if not group.cuttable.all()})
        why = f"; pinned by {'; '.join(pins[:3])}" if pins else ""
        return GraftError(
            "budget-unreachable",
            f"--keep {self.keep:g} cannot be reached: the smallest cut keeps {smallest:.3f} of the "
            f"{'MACs' if self.unit == 'macs' else self.unit}{why}",
            f"use --keep {np.ceil(smallest * 1000) / 1000:g} or more",
        )


def dead_channels(groups: ChannelGroups, profile: Profile) -> Mask:
    """Return the mask of channels that were zero at every place, for every sample of every class.

    A place is an activation or a tensor that is read. A channel that was seen nowhere is not dead.
    """
    seen, alive = np.zeros(groups.count), np.zeros(groups.count)
    for place in (*groups.activations(), *groups.reads()):
        key = groups.key(place.tensor, place.axis)
        if profile.has(SQUARES, key, len(place.channels)):
            seen[place.channels] = 1
            alive[place.channels[profile.mean(SQUARES, key) > 0]] = 1
    silent = (groups.to_atoms(seen) > 0) & (groups.to_atoms(alive) == 0)
    return np.asarray(silent & groups.cuttable())


def dead_by_group(groups: ChannelGroups, profile: Profile) -> dict[str, int]:
    """Return the number of dead channels of each group that has any."""
    dead = dead_channels(groups, profile)
    counts = {group.name: int(dead[group.channels].sum()) for group in groups}
    return {name: count for name, count in counts.items() if count}


def _size(count: int, preferred: int) -> int:
    """Return how many of ``count`` channels of one kind are pruned at once where nothing is said.

    >>> [_size(count, 8) for count in (8, 16, 32, 1280)]
    [1, 4, 8, 8]
    """
    size = preferred
    while size > 1 and size * SHARE > count:
        size //= 2
    return size if size >= LEAST else 1


def _steps(groups: ChannelGroups) -> NDArray[np.int64]:
    """Return the number of atoms of the channels that kernels work on at once; one may be many channels."""
    width = groups.to_atoms(np.ones(groups.count))
    size: NDArray[np.int64] = np.maximum(1, STEP // np.maximum(width, 1)).astype(np.int64)
    return size


def _blocks(
    groups: ChannelGroups,
    scores: Scores,
    price: Scores,
    dead: Mask,
    round_to: NDArray[np.int64] | int | None,
) -> list[Channels]:
    """Return channels that are pruned together, in the order of pruning: of equal places, of like worth.

    Blocks of channels that lie on the same axes leave a multiple of the size on each of these axes. The
    size is ``round_to``, for all or one a channel number; ``None``: what operators prefer.
    """
    preferred = groups.preferred() if round_to is None else np.full(groups.count, round_to)
    rank = groups.close(np.where(dead, -np.inf, scores / price))
    stays = np.zeros(groups.count, bool)
    places = np.zeros((groups.count, len(groups.lists())), bool)
    for number, channels in enumerate(groups.lists()):
        places[groups.behind(channels), number] = True
    for channels in groups.needed():
        best = np.argmax(rank[channels])
        stays[groups.behind(channels[best : best + 1])] = True
    may = np.flatnonzero(groups.cuttable() & groups.atoms)
    blocks: list[Channels] = []
    for kin in _alike(places[may], preferred[may]):
        channels = may[kin]
        channels = channels[np.argsort(rank[channels], kind="stable")]
        size = int(preferred[channels[0]])
        size = _size(len(channels), size) if round_to is None else size
        first = len(channels) % size or size
        blocks += np.split(channels, range(first, len(channels), size))
    blocks = [block for block in blocks if not stays[block].any()]
    alive = np.where(dead, 0.0, scores)
    worth = [-np.inf if dead[block].all() else alive[block].sum() / price[block].sum() for block in blocks]
    order = sorted(range(len(blocks)), key=lambda number: (worth[number], int(blocks[number].min())))
    return [blocks[number] for number in order]


def _alike(places: Mask, sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Positions of rows that are equal."""
    if not len(places):
        return []
    rows = np.column_stack([places, sizes])
    _, kinds = np.unique(rows, axis=0, return_inverse=True)
    return [np.flatnonzero(kinds.ravel() == kind) for kind in range(int(kinds.max()) + 1)]


def _without(groups: ChannelGroups, blocks: Sequence[Channels]) -> Mask:
    mask = groups.everything()
    if blocks:
        mask[np.concatenate(blocks)] = False
    return mask
