"""Blocks of channels that are pruned together: of equal places, of like worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.arrays import Channels, Mask, Scores
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.latency import STEP

SHARE = 4
"""A block is at most one in so many of its channels: larger ones would be too coarse a choice."""
LEAST = 4
"""Smaller blocks are no faster than channels one by one."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """Channels with what decides about them.

    Attributes:
        groups: the analysis of the model to be cut.
        scores: importance, one a channel number; a product's at its factors.
        price: cost of each channel, above 0.
        dead: channels that are never other than zero.
    """

    groups: ChannelGroups
    scores: Scores
    price: Scores
    dead: Mask


@dataclass(frozen=True, eq=False)
class Fixed:
    """Channels that do not compete for a budget, since their layers have a share of their own.

    Attributes:
        stays: one flag a channel number: it is kept whatever the budget.
        goes: it is pruned whatever the budget.
    """

    stays: Mask
    goes: Mask

    @classmethod
    def nothing(cls, groups: ChannelGroups) -> Fixed:
        """Return no channel of either kind."""
        return cls(np.zeros(groups.count, bool), np.zeros(groups.count, bool))


def _size(count: int, preferred: int) -> int:
    """Return how many of ``count`` channels of one kind are pruned at once where nothing is said.

    >>> [_size(count, 8) for count in (8, 16, 32, 1280)]
    [1, 4, 8, 8]
    """
    size = preferred
    while size > 1 and size * SHARE > count:
        size //= 2
    return size if size >= LEAST else 1


def steps(groups: ChannelGroups) -> NDArray[np.int64]:
    """Return the number of atoms of the channels that kernels work on at once; one may be many channels."""
    width = groups.to_atoms(np.ones(groups.count))
    size: NDArray[np.int64] = np.maximum(1, STEP // np.maximum(width, 1)).astype(np.int64)
    return size


def blocks_of(ranked: Ranked, round_to: NDArray[np.int64] | int | None, fixed: Fixed) -> list[Channels]:
    """Return channels that are pruned together, in the order of pruning: of equal places, of like worth.

    Blocks of channels that lie on the same axes leave a multiple of the size on each of these axes.

    Args:
        ranked: the channels.
        round_to: size of a block, for all or one a channel number; ``None``: what operators prefer.
        fixed: channels that are in no block.
    """
    groups, scores, price, dead = ranked.groups, ranked.scores, ranked.price, ranked.dead
    preferred = groups.preferred() if round_to is None else np.full(groups.count, round_to)
    last = np.where(fixed.goes, -np.inf, np.finfo(np.float64).min)
    rank = groups.close(np.where(dead | fixed.goes, last, scores / price))
    stays, held = np.zeros(groups.count, bool), groups.close(fixed.stays)
    places = np.zeros((groups.count, len(groups.lists())), bool)
    for number, channels in enumerate(groups.lists()):
        places[groups.behind(channels), number] = True
    for channels in groups.needed():
        if held[channels].any():
            continue
        best = np.argmax(rank[channels])
        stays[groups.behind(channels[best : best + 1])] = True
    may = np.flatnonzero(groups.cuttable() & groups.atoms & ~fixed.stays & ~fixed.goes)
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
